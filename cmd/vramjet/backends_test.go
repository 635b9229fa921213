package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// serveHTTP runs a server until the test ends, and returns its URL.
func serveHTTP(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// paths answers each path with a text; others are not found. A text that begins
// with a number has that status.
func paths(answers map[string]string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := answers[r.URL.Path]
		if !ok {
			http.Error(w, "404 page not found", http.StatusNotFound)
			return
		}
		if strings.HasPrefix(text, "401 ") || strings.HasPrefix(text, "403 ") || strings.HasPrefix(text, "429 ") || strings.HasPrefix(text, "501 ") {
			status := map[string]int{"401": 401, "403": 403, "429": 429, "501": 501}[text[:3]]
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			text = text[4:]
		}
		io.WriteString(w, text)
	})
}

// closedPort is the address of a port that nobody listens on.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func portOf(url string) string { return url[strings.LastIndexByte(url, ':')+1:] }

// inspect returns an inspector of backends, which is in no container and knows
// no neighbours.
func inspect(t *testing.T, model string, env map[string]string, backends ...Backend) *inspector {
	t.Helper()
	f := newBackendFinder(nil, &Config{Backends: backends}, func(k string) string { return env[k] }, slog.New(slog.DiscardHandler))
	c := newInspector(f, model, false)
	c.root, c.ports, c.patience = t.TempDir(), nil, 5*time.Second
	return c
}

// only inspects one backend.
func only(t *testing.T, model string, env map[string]string, b Backend) checkedBackend {
	t.Helper()
	return inspect(t, model, env, b).all(t.Context())[0]
}

// printed prints what was found, without times and ports.
func printed(t *testing.T, found ...checkedBackend) string {
	t.Helper()
	var out strings.Builder
	if err := printChecked(&out, found); err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`less than 1ms|\b[0-9.]+(ms|s|µs)\b`).ReplaceAllString(out.String(), "TIME")
	text = regexp.MustCompile(` at [0-9.]+ tokens/s`).ReplaceAllString(text, " at RATE tokens/s")
	text = regexp.MustCompile(`answers on [0-9]+`).ReplaceAllString(text, "answers on PORT")
	return withoutPorts(text)
}

func withoutPorts(text string) string {
	return regexp.MustCompile(`(127\.0\.0\.1|internal|172\.17\.0\.1):[0-9]+`).ReplaceAllString(text, "$1:PORT")
}

// has reports whether there is a finding with the result and the cause.
func has(b checkedBackend, r result, c cause) bool {
	return slices.ContainsFunc(b.Findings, func(f finding) bool { return f.Result == r && f.Cause == c })
}

func hinted(b checkedBackend, text string) bool {
	return slices.ContainsFunc(b.Hints, func(h hint) bool { return strings.Contains(h.Text, text) })
}

func simulated() *sim.Server {
	return sim.New(sim.Config{
		Devices: []sim.Device{{ID: "sim-0", Memory: 24 * schemas.GiB}},
		Models: []sim.Model{
			{Name: "talker", VRAM: 2 * schemas.GiB, Slots: 4, Context: 8192, LoadTime: 20 * time.Millisecond, FirstToken: 5 * time.Millisecond, TokenInterval: time.Millisecond},
			{Name: "short", VRAM: schemas.GiB, Context: 2048},
			{Name: "vectors", Kinds: []schemas.Kind{schemas.Embedding}, VRAM: schemas.GiB, Context: 512, LoadTime: 20 * time.Millisecond},
		},
	})
}

// loadModel has a simulated server hold a model.
func loadModel(t *testing.T, url, model string) {
	t.Helper()
	p, err := providers.New(providers.Config{Kind: providers.KindSim, URL: url})
	if err != nil {
		t.Fatal(err)
	}
	loader, ok := p.(providers.Loader)
	if !ok {
		t.Fatal("the simulated server cannot load")
	}
	if err := loader.Load(t.Context(), model); err != nil {
		t.Fatal(err)
	}
}

func TestCheckSim(t *testing.T) {
	srv := simulated()
	url := serveHTTP(t, srv)
	unloaded := only(t, "", nil, Backend{Name: "gpu", Kind: "sim", URL: url})
	if n := srv.Counts("talker"); n.Loads+n.Started > 0 {
		t.Errorf("a check without a model loaded one: %+v", n)
	}
	named := only(t, "vectors", nil, Backend{Name: "gpu", Kind: "sim", URL: url})
	if n := srv.Counts("vectors"); n.Loads != 1 || n.Unloads != 1 || n.Finished != 1 {
		t.Errorf("the named model was not loaded, tried and unloaded: %+v", n)
	}
	loadModel(t, url, "talker")
	loaded := only(t, "", nil, Backend{URL: url})
	if loaded.Trial == nil || loaded.Trial.Model != "talker" || loaded.Trial.Tokens != trialTokens || !loaded.Trial.Complete || loaded.Trial.TokensPerSec <= 0 {
		t.Errorf("the trial is %+v", loaded.Trial)
	}
	if n := srv.Counts("talker"); n.Unloads > 0 {
		t.Error("a model was unloaded that the check had not loaded")
	}
	golden(t, "backends-check.out", printed(t, unloaded, named, loaded))
	var out strings.Builder
	if err := (&app{streams: streams{out: &out}}).printJSON([]checkedBackend{loaded}); err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(_ms|tokens_per_s)": [0-9.]+`).ReplaceAllString(withoutPorts(out.String()), `$1": 0`)
	golden(t, "backends-check.json", regexp.MustCompile(`connected in [0-9.]+ms|first token after [0-9]+ms|at [0-9.]+ tokens`).ReplaceAllString(text, "TIME"))

	filtered := only(t, "", nil, Backend{Kind: "sim", URL: url, Models: []string{"t*", "vec"}, Slots: 3})
	if len(filtered.Models) != 1 || filtered.Models[0].Slots != 3 || filtered.Result != resultOK {
		t.Errorf("got %+v", filtered)
	}
	none := only(t, "", nil, Backend{Kind: "sim", URL: url, Models: []string{"talkre"}})
	if !has(none, resultFailed, causeNoMatch) || !hinted(none, "there are talker") || none.Trial != nil {
		t.Errorf("got %+v", none)
	}
	wrong := only(t, "talk", nil, Backend{Kind: "sim", URL: url})
	if !has(wrong, resultFailed, causeModelNotFound) || !hinted(wrong, "talker") {
		t.Errorf("got %+v", wrong)
	}
}

func TestCheckFailingModel(t *testing.T) {
	for _, c := range []struct {
		fail sim.Failure
		want cause
	}{
		{sim.Failure{After: 3, End: sim.EndClean}, causeCutOff},
		{sim.Failure{After: 3, End: sim.EndCut}, causeCutOff},
		{sim.Failure{Load: true}, causeOutOfMemory},
		{sim.Failure{Status: 429, Body: `{"error":{"message":"slow","type":"rate_limit_error"}}`}, causeRateLimited},
		{sim.Failure{Status: 429, Body: `{"error":{"message":"pay","code":"insufficient_quota"}}`}, causeQuota},
		{sim.Failure{Status: 400, Body: `{"error":{"message":"x","type":"exceed_context_size_error"}}`}, causeContextOverflow},
		{sim.Failure{Status: 404, Body: `{"error":{"message":"model gone"}}`}, causeModelNotFound},
		{sim.Failure{Status: 500, Body: `{"error":{"message":"boom"}}`}, causeServerError},
	} {
		srv := simulated()
		srv.Fail("talker", c.fail)
		got := only(t, "talker", nil, Backend{Kind: "sim", URL: serveHTTP(t, srv)})
		if !has(got, resultFailed, c.want) || got.Result != resultFailed || len(got.Hints) == 0 || got.Trial == nil || got.Trial.Complete {
			t.Errorf("%+v: got %+v", c.fail, got)
		}
	}
}

// Servers as they answer, and what is to be found out about them.
func TestCheckServers(t *testing.T) {
	openai := map[string]string{"/v1/models": `{"object":"list","data":[{"id":"m","object":"model","owned_by":"x"}]}`}
	ollama := map[string]string{"/api/version": `{"version":"0.32.15"}`, "/api/tags": `{"models":[]}`, "/api/ps": `{"models":[]}`}
	full := map[string]string{
		"/api/version": `{"version":"0.32.15"}`, "/api/tags": `{"models":[{"name":"a:latest","digest":"d","size":1000,"capabilities":["completion"]}]}`,
		"/api/ps":   `{"models":[{"name":"a:latest","size_vram":1000,"context_length":2048}]}`,
		"/api/chat": `{"model":"a","message":{"role":"assistant","content":"Hi"},"done":false}` + "\n" + `{"model":"a","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":1}` + "\n",
	}
	router := map[string]string{
		"/props":     `{"role":"router","max_instances":4,"models_autoload":true}`,
		"/v1/models": `{"data":[{"id":"m","object":"model","owned_by":"llamacpp","status":{"value":"unloaded"}}]}`,
	}
	quiet := map[string]string{
		"/props":     `{"role":"router","max_instances":0,"models_autoload":false}`,
		"/v1/models": `{"data":[{"id":"m","object":"model","owned_by":"llamacpp","status":{"value":"unloaded"}}]}`,
	}
	llama := map[string]string{
		"/props":     `{"total_slots":2,"default_generation_settings":{"n_ctx":8192},"modalities":{"vision":false}}`,
		"/v1/models": `{"data":[{"id":"m","object":"model","owned_by":"llamacpp","meta":{"n_ctx":16384}}]}`,
		"/slots":     `[{"is_processing":true},{"is_processing":false}]`,
		"/v1/chat/completions": `data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}]}` + "\n\n" +
			`data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n",
	}
	noSlots := map[string]string{"/props": llama["/props"], "/v1/models": llama["/v1/models"], "/v1/chat/completions": llama["/v1/chat/completions"], "/slots": `501 {"error":{"message":"This server does not support slots endpoint.","type":"not_supported_error","code":501}}`}
	swap := map[string]string{
		"/running":   `{"running":[{"model":"m","state":"ready","cmd":"llama-server -c 16384 -np 2","ttl":300}]}`,
		"/v1/models": `{"data":[{"id":"m","object":"model"}]}`, "/upstream/m/slots": `[{"is_processing":false}]`,
		"/v1/chat/completions": `data: {"object":"chat.completion.chunk","choices":[{"delta":{"reasoning_content":"llama-swap loading model: m\n"}}]}` + "\n\n" + llama["/v1/chat/completions"],
	}
	denied := map[string]string{"/v1/models": `401 {"error":{"message":"no key","type":"authentication_error"}}`}
	for name, c := range map[string]struct {
		answers map[string]string
		b       Backend
		path    string
		result  result
		cause   cause
		hint    string
	}{
		"hosted":               {openai, Backend{Kind: "openai"}, "/v1", resultOK, "", ""},
		"ollama as openai":     {full, Backend{Kind: "openai"}, "/v1", resultWarning, causeWrongKind, "set kind: ollama"},
		"openai as ollama":     {openai, Backend{Kind: "ollama"}, "", resultWarning, causeWrongKind, "set kind: openai"},
		"empty ollama":         {ollama, Backend{}, "", resultFailed, causeNoModels, "ollama pull"},
		"small ollama":         {full, Backend{Kind: "ollama"}, "", resultWarning, causeSmallContext, "OLLAMA_CONTEXT_LENGTH"},
		"ollama's slots":       {full, Backend{Kind: "ollama"}, "", resultOK, causeSlotsUnknown, "OLLAMA_NUM_PARALLEL"},
		"router":               {router, Backend{Kind: "llamarouter"}, "", resultWarning, causeRouterLoads, "--no-models-autoload"},
		"router that is quiet": {quiet, Backend{Kind: "llamacpp"}, "", resultSkipped, "", ""},
		"llama-server":         {llama, Backend{Kind: "llamacpp"}, "", resultWarning, causeMetricsOff, "--metrics"},
		"no slots":             {noSlots, Backend{}, "", resultWarning, causeSlotsOff, "--slots"},
		"llama-swap":           {swap, Backend{}, "", resultWarning, causeSwapTTL, "ttl to 0"},
		"llama-swap decorates": {swap, Backend{Kind: "llamaswap"}, "", resultWarning, causeSwapDecorates, "sendLoadingState"},
		"key wanted":           {denied, Backend{Kind: "vllm"}, "", resultFailed, causeKeyRefused, "keys_env"},
		"v1 twice":             {llama, Backend{Kind: "llamacpp"}, "/v1/v1", resultFailed, causeWrongPath, "set the url to http://127.0.0.1:"},
		"whole path":           {full, Backend{}, "/api/chat", resultFailed, causeWrongPath, "set the url to http://127.0.0.1:"},
		"something else":       {nil, Backend{}, "", resultFailed, causeUnknownKind, "name its kind"},
		"something else, said": {nil, Backend{Kind: "vllm"}, "/v1", resultFailed, causeWrongPath, "the path of the url is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			c.b.URL = serveHTTP(t, paths(c.answers)) + c.path
			got := only(t, "", nil, c.b)
			if !has(got, c.result, c.cause) || c.hint != "" && !hinted(got, c.hint) {
				t.Errorf("got %s", printed(t, got))
			}
			if c.hint == "" && len(got.Hints) > 0 {
				t.Errorf("hints without a need: %v", got.Hints)
			}
		})
	}
}

func TestCheckUnreached(t *testing.T) {
	neighbour := serveHTTP(t, simulated())
	page := serveHTTP(t, http.NotFoundHandler())
	refused := inspect(t, "", nil, Backend{Name: "gpu", Kind: "ollama", URL: closedPort(t)})
	refused.ports = []string{portOf(neighbour), portOf(page), portOf(closedPort(t))}
	if err := os.WriteFile(filepath.Join(refused.root, ".dockerenv"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	golden(t, "backends-check-refused.out", printed(t, refused.all(t.Context())...))

	secure := httptest.NewTLSServer(simulated())
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(secure.Close)
	moved := serveHTTP(t, http.RedirectHandler("https://127.0.0.1:1/v1?token=hunter22", http.StatusMovedPermanently))
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	hangUp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hangUp.Close() })
	go func() {
		for {
			conn, err := hangUp.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	for name, c := range map[string]struct {
		url  string
		want cause
		hint string
	}{
		"TLS needed":   {strings.Replace(secure.URL, "https", "http", 1) + "/v1", causeTLSNeeded, secure.URL + "/v1"},
		"TLS unwanted": {strings.Replace(neighbour, "http", "https", 1), causeTLSUnwanted, neighbour},
		"certificate":  {secure.URL, causeCertificate, "SSL_CERT_FILE"},
		"redirect":     {moved, causeRedirected, "https://127.0.0.1:1/v1"},
		"silent":       {"http://" + silent.Addr().String(), causeSilent, "log"},
		"hangs up":     {"http://" + hangUp.Addr().String(), causeBroken, "log"},
	} {
		one := inspect(t, "", nil, Backend{Kind: "vllm", URL: c.url})
		if c.want == causeSilent {
			one.patience = 50 * time.Millisecond
		}
		got := one.all(t.Context())[0]
		if !has(got, resultFailed, c.want) || !hinted(got, c.hint) || len(got.Models) > 0 {
			t.Errorf("%s: got %s", name, printed(t, got))
		}
		if strings.Contains(printed(t, got), "hunter22") {
			t.Errorf("%s: a token is printed", name)
		}
	}
}

// Where nothing is configured, addresses without a server are no failures.
func TestCheckLooksAround(t *testing.T) {
	c := inspect(t, "", nil)
	c.finder.want = []Backend{{URL: closedPort(t)}, {URL: serveHTTP(t, http.NotFoundHandler())}, {URL: serveHTTP(t, simulated())}, {URL: serveHTTP(t, simulated())}}
	found := c.all(t.Context())
	golden(t, "backends-check-found.out", printed(t, found...))
	if err := c.conclude(found); err != nil {
		t.Error(err)
	}
	if found[2].Name != "sim" || found[3].Name != "sim-2" {
		t.Errorf("the names are %q and %q", found[2].Name, found[3].Name)
	}
	if err := c.conclude(found[:2]); err == nil || !strings.Contains(err.Error(), "no model server was found on this machine") {
		t.Errorf("without a server: %v", err)
	}
	if err := os.WriteFile(filepath.Join(c.root, ".dockerenv"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.conclude(found[:2]); err == nil || !strings.Contains(err.Error(), "host.docker.internal") {
		t.Errorf("without a server, in a container: %v", err)
	}
	c.model = "nowhere"
	if err := c.conclude(found); err == nil {
		t.Error("a model that no backend has is no failure")
	}
}

// keyed is a server that takes one key.
func keyed(t *testing.T, key string) string {
	t.Helper()
	return serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/":
		case r.Header.Get("Authorization") != "Bearer "+key:
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"error":{"message":"unknown key `+r.Header.Get("Authorization")+`","code":"invalid_api_key"}}`)
		case r.URL.Path == "/v1/models":
			io.WriteString(w, `{"data":[{"id":"m","owned_by":"x"}]}`)
		default:
			http.NotFound(w, r)
		}
	}))
}

func TestCheckKeys(t *testing.T) {
	url := keyed(t, "sk-good-key")
	env := map[string]string{"GOOD": "sk-good-key", "BAD": "sk-bad-key"}
	for _, c := range []struct {
		keys   []string
		result result
		causes []cause
		last   step
	}{
		{[]string{"GOOD"}, resultOK, nil, stepTrial},
		{[]string{"GOOD", "BAD", "UNSET"}, resultWarning, []cause{causeKeyMissing, causeKeyRefused}, stepTrial},
		{[]string{"BAD"}, resultFailed, []cause{causeKeyRefused, causeKeyRefused}, stepKeys},
		{[]string{"UNSET"}, resultFailed, []cause{causeKeyRefused, causeKeyMissing}, stepKeys},
		{nil, resultFailed, []cause{causeKeyRefused}, stepModels},
	} {
		got := only(t, "", env, Backend{Kind: "openai", URL: url, KeysEnv: c.keys})
		var causes []cause
		for _, f := range got.Findings {
			if f.Cause != "" {
				causes = append(causes, f.Cause)
			}
		}
		if got.Result != c.result || !slices.Equal(causes, c.causes) || got.Findings[len(got.Findings)-1].Step != c.last {
			t.Errorf("%v: got %s", c.keys, printed(t, got))
		}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if all := string(text) + printed(t, got); strings.Contains(all, "sk-") {
			t.Errorf("%v: a key is printed: %s", c.keys, all)
		}
	}
}

// The key is shown to a server that is asked what it is, and to nobody else.
func TestCheckDetectsWithKey(t *testing.T) {
	server := paths(map[string]string{"/props": `{"total_slots":2}`, "/v1/models": `{"data":[{"id":"m","owned_by":"llamacpp"}]}`})
	url := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" && r.Header.Get("Authorization") != "Bearer sk-good-key" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		server.ServeHTTP(w, r)
	}))
	env := map[string]string{"GOOD": "sk-good-key"}
	if got := only(t, "", env, Backend{URL: url, KeysEnv: []string{"GOOD"}}); got.Kind != "llamacpp" {
		t.Errorf("with its key the server is %q", got.Kind)
	}
	got := only(t, "", nil, Backend{Kind: "vllm", URL: url})
	if has(got, resultWarning, causeWrongKind) || !has(got, resultFailed, causeKeyRefused) {
		t.Errorf("without a key: %s", printed(t, got))
	}
	moved := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/login/"+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), http.StatusFound)
	}))
	got = only(t, "", env, Backend{Kind: "vllm", URL: moved, KeysEnv: []string{"GOOD"}})
	if text := printed(t, got); !has(got, resultFailed, causeRedirected) || strings.Contains(text, "sk-good") || !strings.Contains(text, "/login/[key]") {
		t.Errorf("a server that repeats the key: %s", text)
	}
}

// What stands in a URL is not printed either, whatever goes wrong.
func TestCheckHidesSecrets(t *testing.T) {
	garbage := serveHTTP(t, paths(map[string]string{"/v1/models": "<html>"}))
	repeats := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			io.WriteString(w, `{"data":[{"id":"m","owned_by":"x"}]}`)
			return
		}
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `{"error":{"message":"not with `+r.URL.Query().Get("key")+` of `+r.URL.RawQuery+`"}}`)
	}))
	moved := serveHTTP(t, http.RedirectHandler("/x?key=hunter%2122", http.StatusFound))
	for _, at := range []string{closedPort(t), serveHTTP(t, http.NotFoundHandler()), moved, garbage, repeats} {
		at = strings.Replace(at, "http://", "http://admin:swordfish@", 1) + "/v1?key=hunter%2122"
		for _, kind := range []string{"", "ollama", "vllm", "openai", "azure"} {
			got := only(t, "m", nil, Backend{Kind: kind, URL: at})
			text, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			all := string(text) + printed(t, got)
			for _, secret := range []string{"swordfish", "hunter!22", "hunter%2122"} {
				if strings.Contains(all, secret) {
					t.Errorf("%s of the kind %q: %s is printed: %s", at, kind, secret, all)
				}
			}
		}
	}
}

// A hosted API is not asked to generate unless the model is named.
func TestCheckSpendsNothing(t *testing.T) {
	asked := 0
	url := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			asked++
		}
		if r.URL.Path == "/v1/models" {
			io.WriteString(w, `{"data":[{"id":"m","owned_by":"x"}]}`)
			return
		}
		http.NotFound(w, r)
	}))
	got := only(t, "", nil, Backend{Kind: "openai", URL: url})
	if asked > 0 || !strings.Contains(printed(t, got), "it may cost money") {
		t.Errorf("asked %d times: %s", asked, printed(t, got))
	}
	only(t, "unlisted", nil, Backend{Kind: "openai", URL: url})
	if asked != 1 {
		t.Errorf("the named model was asked %d times", asked)
	}
	quiet := inspect(t, "m", nil, Backend{Kind: "openai", URL: url})
	quiet.idle = true
	if found := quiet.all(t.Context()); asked != 1 || quiet.conclude(found) != nil {
		t.Errorf("--no-generate asked: %s", printed(t, found...))
	}
}

func TestBackendsCheck(t *testing.T) {
	sh := newShell(t)
	url := serveHTTP(t, simulated())
	sh.env["VRAMJET_BACKENDS"] = `[{name: gpu, kind: sim, url: "` + url + `"}]`
	stdout, stderr := sh.want(t, exitOK, "backends", "check", "--json")
	var found []checkedBackend
	if err := json.Unmarshal([]byte(stdout), &found); err != nil || len(found) != 1 || found[0].Name != "gpu" || len(found[0].Models) != 3 || stderr != "" {
		t.Errorf("%v: %s%s", err, stdout, stderr)
	}
	sh.want(t, exitOK, "backends", "check", "--url", url, "-m", "talker")
	sh.want(t, exitOK, "backends", "check", "--url", url, "--kind", "sim", "-m", "nowhere", "--no-generate")
	sh.want(t, exitFailed, "backends", "check", "--url", url, "-m", "nowhere")
	sh.env["KEY"] = "sk-secret"
	stdout, stderr = sh.want(t, exitFailed, "backends", "check", "--url", keyed(t, "sk-other"), "--kind", "openai", "--key-env", "KEY")
	if !strings.Contains(stdout, "$KEY") || strings.Contains(stdout+stderr, "sk-") || !strings.Contains(stderr, "1 of 1 backends failed") {
		t.Errorf("%s%s", stdout, stderr)
	}
	sh.env["VRAMJET_BACKENDS"] = `[{name: gpu, kind: sim}]`
	sh.want(t, exitOK, "backends", "check")
	for _, c := range []struct{ args, want string }{
		{"--kind ollama", "--url"},
		{"--key-env X", "--url"},
		{"--url localhost:11434", "http://127.0.0.1:11434"},
		{"--url http://127.0.0.1:1 --kind olama", `did you mean "ollama"?`},
	} {
		if _, stderr := sh.want(t, exitUsage, append([]string{"backends", "check"}, strings.Fields(c.args)...)...); !strings.Contains(stderr, c.want) {
			t.Errorf("%s: stderr is %q", c.args, stderr)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	sh.ctx = ctx
	sh.want(t, exitInterrupted, "backends", "check", "--url", url)
}

func TestInContainer(t *testing.T) {
	for file, want := range map[string]bool{".dockerenv": true, "run/.containerenv": true, "proc/1/cgroup": true, "etc/passwd": false} {
		root := t.TempDir()
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("0::/kubepods/pod1/abc\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := inContainer(root); got != want {
			t.Errorf("%s: got %v", file, got)
		}
	}
	if inContainer(t.TempDir()) {
		t.Error("an empty root is a container")
	}
}

// A backend of Bedrock without keys signs with what AWS's own programs read.
func TestBedrockCredentials(t *testing.T) {
	var sent []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent = append(sent, r.Header.Get("Authorization"))
		http.NotFound(w, r)
	}))
	defer srv.Close()
	for name, c := range map[string]struct {
		env  map[string]string
		keys []string
		want string // in the error
		sent string
	}{
		"nothing":     {want: "no AWS credentials"},
		"credentials": {env: map[string]string{"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}, want: "names no region"}, // of AWS: it got that far
		"a key":       {env: map[string]string{"KEY": "k"}, keys: []string{"KEY"}, want: "not found", sent: "Bearer k"},
	} {
		t.Run(name, func(t *testing.T) {
			sent = nil
			f := newBackendFinder(nil, &Config{}, func(name string) string { return c.env[name] }, slog.New(slog.DiscardHandler))
			b, err := f.backend(Backend{Name: "aws", Kind: "bedrock", URL: srv.URL, KeysEnv: c.keys})
			if err != nil {
				t.Fatal(err)
			}
			if _, err = b.Provider.Models(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want %q", err, c.want)
			}
			if got := strings.Join(sent, ","); got != c.sent {
				t.Errorf("sent %q, want %q", got, c.sent)
			}
		})
	}
}

// What a backend cannot do without is said before it is missed.
func TestBedrockWarnings(t *testing.T) {
	cfg := &Config{Backends: []Backend{{Kind: "bedrock"}, {Kind: "bedrock", KeysEnv: []string{"KEY"}}}}
	got := strings.Join(warnings(cfg, func(name string) string { return map[string]string{"KEY": "k", awsKeyID: "id"}[name] }), "\n")
	if want := "backends[0] without keys_env: $AWS_SECRET_ACCESS_KEY is not set here"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
