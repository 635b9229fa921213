package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/schemas"
	"github.com/vramjet/vramjet/worker"
)

// packageDir is where this package's testdata is, for tests in another folder.
var packageDir, _ = os.Getwd()

// full is a file in which every key is set.
const full = `
nats: {url: "nats://me:secret@10.0.0.1:4222", context: prod, creds: /c, ca: /ca.pem, cert: /cert.pem, key: /key.pem}
node: gpu-1
http: "off"
http_token: a secret of mine
backends:
  - name: ollama
    kind: ollama
    url: http://me:secret@127.0.0.1:11434/?key=secret
    devices: all
    slots: 4
    models: [llama3.2, "qwen3:*"]
    prefix: local/
    keys_env: [OPENAI_API_KEY]
    timeouts: {first_token: 5m, between_chunks: 60s, run: 10m}
    price: {input: 0.15, output: 0.60}
    load: {context: 8192, parallel: 4, kv_type: f16}
  - {name: 007, kind: vllm, url: "http://127.0.0.1:8000", devices: [0, 1], models: one}
models: {"llama3.3:70b": {need: 44GiB, pin: true}, "qwen3:*": {need: 1073741824, pin: false}, 7: {pin: true}}
routes: {smart: ["llama3.3:70b", openai/gpt-5-mini], "qwen3:8b": ["qwen3:8b", openai/gpt-5-mini]}
tenants: {default: {weight: 1}, acme: {weight: 2.5}, 7: {weight: 1}}
policy: {aging: 15s, affinity_lag: 800s, max_model_wait: {interactive: 90s}, interactive_reserve: 2, overflow_after: 20s, overflow_budget: 2.5, unknown_model_wait: 5s}
`

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func env(m map[string]string) func(string) string { return func(k string) string { return m[k] } }

func TestConfigFull(t *testing.T) {
	cfg, _, err := loadConfig(writeFile(t, "v.yaml", full), env(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		NATS: NATS{URL: "nats://me:secret@10.0.0.1:4222", Context: "prod", Creds: "/c", CA: "/ca.pem", Cert: "/cert.pem", Key: "/key.pem"},
		Node: "gpu-1", HTTP: "off", HTTPToken: "a secret of mine", MaxBody: "64MiB",
		Backends: []Backend{
			{
				Name: "ollama", Kind: "ollama", URL: "http://me:secret@127.0.0.1:11434/?key=secret", Devices: []string{"all"}, Slots: 4,
				Models: []string{"llama3.2", "qwen3:*"}, Prefix: "local/", KeysEnv: []string{"OPENAI_API_KEY"},
				Timeouts: Timeouts{FirstToken: 5 * time.Minute, BetweenChunks: time.Minute, Run: 10 * time.Minute},
				Price:    Price{Input: 0.15, Output: 0.6}, Load: Load{Context: 8192, Parallel: 4, KVType: "f16"},
			},
			{Name: "007", Kind: "vllm", URL: "http://127.0.0.1:8000", Devices: []string{"0", "1"}, Models: []string{"one"}},
		},
		Models:  map[string]Model{"llama3.3:70b": {Need: "44GiB", Pin: true}, "qwen3:*": {Need: "1073741824"}, "7": {Pin: true}},
		Routes:  map[string][]string{"smart": {"llama3.3:70b", "openai/gpt-5-mini"}, "qwen3:8b": {"qwen3:8b", "openai/gpt-5-mini"}},
		Tenants: map[string]Tenant{"default": {Weight: 1}, "acme": {Weight: 2.5}, "7": {Weight: 1}},
		Policy: Policy{
			Aging: 15 * time.Second, AffinityLag: "800s", InteractiveReserve: 2, UnknownModelWait: 5 * time.Second,
			OverflowAfter: 20 * time.Second, OverflowBudget: 2.5,
			MaxModelWait: ModelWait{Interactive: 90 * time.Second, Normal: 5 * time.Minute, Batch: 30 * time.Minute},
		},
	}
	if diff := cmp.Diff(want, cfg); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A backend that is a service has a name and nothing else to find it by.
func TestConfigService(t *testing.T) {
	cfg, _, err := loadConfig(writeFile(t, "v.yaml", "backends: [{name: my-Service_2, kind: rpc, slots: 4, timeouts: {queue: 3s}}]\n"), env(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []Backend{{Name: "my-Service_2", Kind: "rpc", Slots: 4, Timeouts: Timeouts{Queue: 3 * time.Second}}}
	if diff := cmp.Diff(want, cfg.Backends); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What the configuration says of a backend reaches the worker.
func TestBackendOfConfig(t *testing.T) {
	f := newBackendFinder(nil, &Config{}, env(nil), nil)
	got, err := f.backend(Backend{Name: "a", Kind: "ollama", URL: "http://127.0.0.1:1", Load: Load{Context: 8192, Parallel: 4, KVType: "f16"}})
	if err != nil || got.Load != (worker.LoadConfig{Context: 8192, Parallel: 4, KVType: "f16"}) {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = f.backend(Backend{Name: "a", Kind: "openai", Slots: 3, Price: Price{Input: 0.15, Output: 0.6}})
	if err != nil || got.Price != (schemas.Price{Input: 0.15, Output: 0.6}) || got.Slots != 3 || got.Devices == nil || len(got.Devices) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := f.backend(Backend{Name: "a", Kind: "openrouter", URL: "https://openrouter.ai/v1"}); err == nil {
		t.Error("a wrong URL was taken")
	}
}

// What the configuration says of models reaches the worker.
func TestModelsOfConfig(t *testing.T) {
	cfg, _, err := loadConfig(writeFile(t, "v.yaml", full), env(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]worker.ModelConfig{
		"llama3.3:70b": {Need: schemas.Known(44 * schemas.GiB), Pin: true}, "qwen3:*": {Need: schemas.Known(schemas.GiB)}, "7": {Pin: true},
	}
	if diff := cmp.Diff(want, cfg.models()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	cfg, _, err = loadConfig(writeFile(t, "v.yaml", ""), env(map[string]string{"VRAMJET_MODELS": `{"a.b:7b": {need: 0.5GiB}}`}), nil)
	if err != nil || cfg.models()["a.b:7b"].Need != schemas.Known(512*schemas.MiB) {
		t.Errorf("from the environment: %+v, %v", cfg, err)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"broken", "node: a\nbackends:\n  - name: x\n   url: y\n", "v.yaml:2: it is no YAML, there or in the next lines: did not find expected '-' indicator"},
		{"a tab", "node: a\n\thttp: off\n", "v.yaml:2: it is no YAML, there or in the next lines: found a tab character that violates indentation"},
		{"bytes", "\xff\xfe\xff", "v.yaml: it is no YAML: "},
		{"unknown key", "node: a\nnats:\n  urll: x\n", `v.yaml:3: unknown key "nats.urll": did you mean "nats.url"?`},
		{"unknown at the top", "backend: []\n", `v.yaml:1: unknown key "backend": did you mean "backends"?`},
		{"unknown and far", "policy:\n  zzzzzzzzz: 1\n", `v.yaml:2: unknown key "policy.zzzzzzzzz": there are aging, affinity_lag, max_model_wait, interactive_reserve, overflow_after, overflow_budget, unknown_model_wait`},
		{"unknown in a list", "backends:\n- name: a\n  kind: sim\n  slot: 1\n", `v.yaml:4: unknown key "backends[0].slot": did you mean "backends[0].slots"?`},
		{"a key in the file", "backends:\n- {name: a, kind: openai, key: sk-1}\n", `v.yaml:2: unknown key "backends[0].key"`},
		{"prefix", "nats: {prefix: vj.v1}\n", `v.yaml:1: unknown key "nats.prefix"`},
		{"no mapping", "nats: here\n", "v.yaml:1: nats is a single value, but has members"},
		{"no list", "backends: {a: b}\n", "v.yaml:1: backends is a mapping, but takes a list"},
		{"no value", "node: [a]\n", "v.yaml:1: node is a list, but takes a single value"},
		{"no file", "- a\n", "v.yaml:1: the configuration is a list"},
		{"number", "backends:\n- name: a\n  kind: sim\n  slots: many\n", `v.yaml:4: backends[0].slots: "many" is wrong: want a whole number`},
		{"duration", "policy: {aging: 30}\n", `v.yaml:1: policy.aging: "30" is wrong: want a duration such as 90s`},
		{"lag", "policy: {affinity_lag: much}\n", `v.yaml:1: policy.affinity_lag: "much" is neither auto nor slot-seconds such as 800s`},
		{"negative reserve", "policy: {interactive_reserve: -1}\n", `v.yaml:1: policy.interactive_reserve: it is negative`},
		{"negative duration", "policy: {aging: -30s}\n", `v.yaml:1: policy.aging: "-30s" is wrong`},
		{"twice", "node: a\nhttp: \"off\"\nnode: b\n", "v.yaml:3: node is set twice, the first time in line 1"},
		{"alias", "node: &a x\nhttp: *a\n", "v.yaml:2: http is an alias: write it out"},
		{"YAML", "node: [\n", "v.yaml:1: "},
		{"two backends", "backends:\n- {name: a, kind: sim}\n- {name: a, kind: sim}\n", `v.yaml:3: backends[1].name: two backends are named "a"`},
		{"no name", "backends:\n- {kind: sim}\n", "v.yaml:2: backends[0].name: a backend needs a name"},
		{"kind", "backends:\n- {name: a, kind: olama}\n", `v.yaml:2: backends[0].kind: "olama" is no kind of backend: did you mean "ollama"?`},
		{"URL", "backends:\n- {name: a, kind: sim, url: \"localhost:1\"}\n", "v.yaml:2: backends[0].url: want http://host:port"},
		{"a service with a URL", "backends:\n- {name: a, kind: rpc, url: \"http://x\"}\n", "v.yaml:2: backends[0].url: a backend of the kind rpc has none"},
		{"a service's name", "backends:\n- {name: a.b, kind: rpc}\n", `v.yaml:2: backends[0].name: "a.b" is not 1 to 64 characters`},
		{"a service's keys", "backends:\n- {name: a, kind: rpc, keys_env: X}\n", "v.yaml:2: backends[0].keys_env: a backend of the kind rpc has no keys"},
		{"a service's connection", "backends:\n- {name: a, kind: rpc, timeouts: {connect: 1s}}\n", "v.yaml:2: backends[0].timeouts.connect: a backend of the kind rpc has no connection"},
		{"devices", "backends:\n- {name: a, kind: sim, devices: [all, 0]}\n", "v.yaml:2: backends[0].devices: all and none stand alone"},
		{"negative", "backends:\n- {name: a, kind: sim, slots: -1}\n", "v.yaml:2: backends[0].slots: it is negative"},
		{"tenant", "tenants:\n  a.b: {weight: 1}\n", `v.yaml:2: tenants["a.b"]: the tenant "a.b" is not`},
		{"negative price", "backends:\n- {name: a, kind: sim, price: {input: -0.1}}\n", "v.yaml:2: backends[0].price.input: it is negative"},
		{"negative price of output", "backends:\n- {name: a, kind: sim, price: {output: -1}}\n", "v.yaml:2: backends[0].price.output: it is negative"},
		{"a price that is none", "backends:\n- {name: a, kind: sim, price: {input: free}}\n", `v.yaml:2: backends[0].price.input: "free" is wrong`},
		{"need", "models:\n  \"llama3.3:70b\": {need: 44GB}\n", `v.yaml:2: models["llama3.3:70b"].need: "44GB" is wrong: want an amount of memory such as 44GiB`},
		{"no need", "models:\n  a: {need: 0}\n", `v.yaml:2: models.a.need: "0" is wrong: nothing needs no memory`},
		{"a body", "max_body: large\n", `v.yaml:1: max_body: "large" is wrong: want an amount of memory`},
		{"pin", "models:\n  a:\n    pin: yes\n", `v.yaml:3: models.a.pin: "yes" is wrong: want true or false`},
		{"unknown of a model", "models:\n  a: {ned: 1GiB}\n", `v.yaml:2: unknown key "models.a.ned": did you mean "models.a.need"?`},
		{"a model's pattern", "models:\n  \"qwen[\": {pin: true}\n", `v.yaml:2: models["qwen["]: "qwen[" is no pattern`},
		{"a model without a name", "models:\n  \"\": {pin: true}\n", `v.yaml:2: models[""]: a model needs a name`},
		{"type of the cache", "backends:\n- {name: a, kind: sim, load: {kv_type: Q8}}\n", `v.yaml:2: backends[0].load.kv_type: "Q8" is no type of a cache: did you mean "q8_0"?`},
		{"type of the cache that is like none", "backends:\n- {name: a, kind: sim, load: {kv_type: quantised}}\n", `"quantised" is no type of a cache: want one of f32, f16`},
		{"negative context", "backends:\n- {name: a, kind: sim, load: {context: -1}}\n", "v.yaml:2: backends[0].load.context: it is negative"},
		{"negative parallel", "backends:\n- {name: a, kind: sim, load: {parallel: -1}}\n", "v.yaml:2: backends[0].load.parallel: it is negative"},
		{"a hosted load", "backends:\n- {name: a, kind: openai, load: {context: 1}}\n", "v.yaml:2: backends[0].load: a hosted API loads nothing of ours"},
		{"a route to nothing", "routes:\n  smart: []\n", `v.yaml:2: routes.smart: it stands for no model`},
		{"a route's name", "routes:\n  \"\": [x]\n", `v.yaml:2: routes[""]: "" cannot be the name of a model`},
		{"a route to a route", "routes: {a: [x], b: [y, a]}\n", `v.yaml:1: routes.b[1]: "a" is a route itself`},
		{"a route to a model twice", "routes: {a: [x, x]}\n", `v.yaml:1: routes.a[1]: "x" stands there twice`},
		{"a route to no name", "routes: {a: [\"\"]}\n", `v.yaml:1: routes.a[0]: the model has no name`},
		{"negative budget", "policy: {overflow_budget: -1}\n", `v.yaml:1: policy.overflow_budget: it is negative`},
		{"weight", "tenants:\n  a: {weight: -1}\n", "v.yaml:2: tenants.a.weight: it is negative"},
		{"node", "node: a b\n", `v.yaml:1: node: "a b" is not`},
		{"a short token", "http_token: hunter2\n", `v.yaml:1: http_token: it has 7 characters, and needs 16 at least: openssl rand -hex 16 makes one`},
		{"http", "http: here\n", `v.yaml:1: http: "here" is not host:port`},
		{"who", "nats: {creds: a, nkey: b}\n", "v.yaml:1: nats.nkey: only one of creds, nkey may be set"},
		{"certificate", "nats: {cert: a}\n", "v.yaml:1: nats.cert: cert and key go together"},
	} {
		path := writeFile(t, "v.yaml", c.text)
		_, _, err := loadConfig(path, env(nil), nil)
		if err == nil {
			t.Errorf("%s: no error", c.name)
			continue
		}
		if got := strings.ReplaceAll(err.Error(), path, "v.yaml"); !strings.Contains(got, c.want) {
			t.Errorf("%s: the error is\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestConfigEnvErrors(t *testing.T) {
	for name, c := range map[string]struct{ value, want string }{
		"VRAMJET_POLICY_AGING": {"soon", `$VRAMJET_POLICY_AGING: policy.aging: "soon" is wrong: want a duration`},
		"VRAMJET_BACKENDS":     {"[{name: a, kin: sim}]", `$VRAMJET_BACKENDS: unknown key "backends[0].kin": did you mean "backends[0].kind"?`},
		"VRAMJET_TENANTS":      {"{", "$VRAMJET_TENANTS: want tenants as YAML, such as {name: {…}}"},
		"VRAMJET_NODE":         {"a b", "$VRAMJET_NODE: node: "},
	} {
		_, _, err := loadConfig(writeFile(t, "v.yaml", ""), env(map[string]string{name: c.value}), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%s: the error is %v, want %q", name, c.value, err, c.want)
		}
	}
}

// All mistakes of a file are told at once.
func TestConfigTellsAllErrors(t *testing.T) {
	_, _, err := loadConfig(writeFile(t, "v.yaml", "nod: a\nhtp: b\n"), env(map[string]string{"VRAMJET_POLICY_AGING": "x"}), nil)
	if err == nil || len(strings.Split(err.Error(), "\n")) != 3 {
		t.Errorf("the error is %v, want three lines", err)
	}
}

func TestConfigPrecedence(t *testing.T) {
	file := "node: of-file\npolicy: {aging: 1s}\nnats:\nbackends: [{name: a, kind: sim, slots: 3}, {name: b, kind: sim}]\ntenants: {x-y: {weight: 3}}\n"
	path := writeFile(t, "v.yaml", file)
	environment := map[string]string{
		"VRAMJET_POLICY_AGING": "2s", "VRAMJET_NODE": "of-env", "VRAMJET_BACKENDS": "[{name: c, kind: sim}]", "VRAMJET_HTTP": ":1",
		"VRAMJET_TENANTS": `{"z_1": {weight: 2}}`,
	}
	cfg, from, err := loadConfig(path, env(environment), map[string]string{"http": ":2", "node": ""})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, v := range show(cfg, from) {
		got[v.Key] = v.Value + " < " + strings.ReplaceAll(v.Source, path, "v.yaml")
	}
	for key, want := range map[string]string{
		"node":                      "of-env < $VRAMJET_NODE",
		"http":                      ":2 < --http",
		"nats.url":                  "nats://127.0.0.1:4222 < default",
		"policy.aging":              "2s < $VRAMJET_POLICY_AGING",
		"policy.unknown_model_wait": "10s < default",
		"backends[0].name":          "c < $VRAMJET_BACKENDS",
		"backends[0].slots":         "",
		"backends[1].name":          "",
		"tenants.x-y.weight":        "3 < v.yaml:5",
		"tenants.z_1.weight":        "2 < $VRAMJET_TENANTS",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
}

func TestConfigServerPrecedence(t *testing.T) {
	path := writeFile(t, "v.yaml", "nats: {url: nats://file, context: of-file}\n")
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".config", "nats"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".config", "nats", "context.txt"), []byte("selected\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := writeFile(t, "empty.yaml", "")
	for _, c := range []struct {
		name, file string
		env, flags map[string]string
		url, ctx   string
	}{
		{"nothing", empty, nil, nil, "nats://127.0.0.1:4222", ""},
		{"selected context", empty, map[string]string{"HOME": home}, nil, "", "selected"},
		{"a URL beats the selected context", empty, map[string]string{"HOME": home, "NATS_URL": "nats://u"}, nil, "nats://u", ""},
		{"file", path, nil, nil, "nats://file", "of-file"},
		{"NATS_URL", path, map[string]string{"NATS_URL": "nats://u"}, nil, "nats://u", "of-file"},
		{"own variable", path, map[string]string{"NATS_URL": "nats://u", "VRAMJET_NATS_URL": "nats://v"}, nil, "nats://v", "of-file"},
		{"server variable", path, map[string]string{"VRAMJET_SERVER": "nats://s", "VRAMJET_NATS_URL": "nats://v"}, nil, "nats://s", "of-file"},
		{"flag", path, map[string]string{"VRAMJET_SERVER": "nats://s"}, map[string]string{"nats.url": "nats://f"}, "nats://f", "of-file"},
		{"context's flag beats a URL that is no flag", path, map[string]string{"VRAMJET_SERVER": "nats://s"}, map[string]string{"nats.context": "c"}, "", "c"},
		{"context's variable beats the file's URL", path, map[string]string{"VRAMJET_NATS_CONTEXT": "c"}, nil, "", "c"},
	} {
		cfg, from, err := loadConfig(c.file, env(c.env), c.flags)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := cfg.NATS.connect(from, env(c.env))
		if got.URL != c.url || got.Context != c.ctx {
			t.Errorf("%s: URL %q, context %q; want %q, %q", c.name, got.URL, got.Context, c.url, c.ctx)
		}
	}
}

func TestConfigFileIsFound(t *testing.T) {
	sh := newShell(t)
	delete(sh.env, "VRAMJET_NODE")
	dir := filepath.Join(sh.env["HOME"], ".config", "vramjet")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ path, node string }{
		{filepath.Join(dir, "config.yaml"), "of-home"},
		{"vramjet.yaml", "of-here"},
		{"named.yaml", "of-env"},
		{"flag.yaml", "of-flag"},
	} {
		if err := os.WriteFile(step.path, []byte("node: "+step.node+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"config", "show"}
		if step.node == "of-env" {
			sh.env["VRAMJET_CONFIG"] = step.path
		}
		if step.node == "of-flag" {
			args = append(args, "--config", step.path)
		}
		if stdout, _ := sh.want(t, exitOK, args...); !strings.Contains(stdout, step.node) {
			t.Errorf("%s: config show prints %s", step.node, stdout)
		}
	}
}

func TestConfigShow(t *testing.T) {
	sh := newShell(t)
	if err := os.WriteFile("vramjet.yaml", []byte(full), 0o600); err != nil {
		t.Fatal(err)
	}
	table, _ := sh.want(t, exitOK, "config", "show", "--creds", "/mine")
	asJSON, _ := sh.want(t, exitOK, "config", "show", "--json")
	t.Chdir(packageDir)
	golden(t, "config-show.out", table)
	golden(t, "config-show.json", asJSON)
	if strings.Contains(table+asJSON, "secret") {
		t.Error("a password is shown")
	}
}

func TestConfigCheck(t *testing.T) {
	sh := newShell(t)
	if stdout, _ := sh.want(t, exitOK, "config", "check"); stdout != "ok (no file, 0 backends)\n" {
		t.Errorf("stdout is %q", stdout)
	}
	if err := os.WriteFile("vramjet.yaml", []byte(full), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr := sh.want(t, exitOK, "config", "check")
	if stdout != "ok (vramjet.yaml, 2 backends)\n" || stderr != "warning: backends[0].keys_env: $OPENAI_API_KEY is not set here\n" {
		t.Errorf("stdout is %q, stderr %q", stdout, stderr)
	}
	if err := os.WriteFile("vramjet.yaml", []byte("nodes: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr = sh.want(t, exitUsage, "config", "check")
	if want := "vramjet: vramjet.yaml:1: unknown key \"nodes\": did you mean \"node\"?\n"; stderr != want {
		t.Errorf("stderr is %q, want %q", stderr, want)
	}
}

func TestNearest(t *testing.T) {
	words := []string{"url", "context", "creds"}
	for word, want := range map[string]string{"urll": "url", "contxt": "context", "cred": "creds", "zzzzzz": ""} {
		if got, _ := nearest(word, words); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"flaw", "lawn", 2}} {
		if got := edits(c.a, c.b); got != c.want {
			t.Errorf("edits(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(full)
	f.Add(defaults)
	f.Add("a: &a [*a]")
	f.Add("nats: null\nbackends: [null]\ntenants: {a: null}\n<<: {node: x}")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "v.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, from, err := loadConfig(path, env(map[string]string{"VRAMJET_ROUTES": text}), nil)
		if err != nil {
			return
		}
		if len(show(cfg, from)) == 0 {
			t.Error("nothing to show")
		}
	})
}
