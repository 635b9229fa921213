package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/dispatcher/simulate"
	"github.com/vramjet/vramjet/schemas"
)

const fleetYAML = `# two kinds of nodes
nodes:
  - {name: big, count: 2, devices: [80GiB, 80 GiB], read: 4GiB}
  - {devices: 24GiB}
models:
  - {name: "llama3.1:8b", need: 9GiB, slots: 8, prefill: 4000, decode: 80.5}
  - {name: "qwen2.5:72b", need: 44.5GiB}
  - name: "7"
    need: 17179869184
    slots: 1
`

const traceCSV = `timestamp,prompt,generated,model,tenant,class
0,100,50,llama3.1:8b,acme,interactive
1.5,200,50,,acme,
2,100,400,7,globex,batch
`

// write writes a file of the test.
func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// realTime is what decisions took, which differs from run to run.
var realTime = regexp.MustCompile(` *\d+\.\dus *`)

// TestSimulateOutput: a run is described in figures and a table of waits, several in
// a table.
func TestSimulateOutput(t *testing.T) {
	sh := newShell(t)
	write(t, "fleet.yaml", fleetYAML)
	write(t, "trace.csv", traceCSV)
	const crowd = "--models 3 --workload poisson:rate=1/s,for=2m,tenant=a --workload flood:n=60,at=30s,tenant=b,class=batch"
	var out []string
	for _, args := range []string{
		"--models 3 --seed 7",
		"--fleet fleet.yaml --trace trace.csv",
		crowd + " --policy fifo --speed 2",
		crowd + " --policy all",
		crowd + " --affinity-lag auto,0s --affinity-lag 1m20s",
		"--workload flood:n=8,model=b,model=a,zipf=1 --policy random",
	} {
		stdout, stderr := sh.want(t, exitOK, append([]string{"simulate"}, strings.Fields(args)...)...)
		out = append(out, "$ vramjet simulate "+args+"\n"+realTime.ReplaceAllString(stdout, " …us ")+stderr)
	}
	t.Chdir(packageDir)
	golden(t, "simulate.out", strings.Join(out, "\n"))
}

// decode reads the lines of JSON that a run of vramjet simulate prints.
func decode(t *testing.T, stdout string) (all []map[string]any) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(stdout))
	for {
		var one map[string]any
		err := dec.Decode(&one)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%v in %s", err, stdout)
		}
		all = append(all, one)
	}
}

// TestSimulateJSON: one run is one object, several have a line each.
func TestSimulateJSON(t *testing.T) {
	sh := newShell(t)
	small := []string{"simulate", "--models", "3", "--workload", "flood:n=30", "--json"}
	stdout, stderr := sh.want(t, exitOK, small...)
	got := decode(t, stdout)
	if len(got) != 1 || stderr != "" {
		t.Fatalf("%d objects, stderr %q", len(got), stderr)
	}
	for _, key := range []string{
		"policy", "jobs", "finished", "makespan_s", "loads", "evictions", "goodput", "lost_to_loading_s", "jain", "wait_p50_s", "wait_p99_s",
		"rarest_model_wait_p99_s", "decision_p99_us", "classes", "tenants",
	} {
		if _, ok := got[0][key]; !ok {
			t.Errorf("there is no %s in %v", key, got[0])
		}
	}
	if _, ok := got[0]["affinity_lag"]; ok || got[0]["finished"] != 30.0 || got[0]["policy"] != "vramjet" {
		t.Errorf("got %v", got[0])
	}

	stdout, _ = sh.want(t, exitOK, append(small, "--policy", "all")...)
	var policies []string
	for _, r := range decode(t, stdout) {
		policies = append(policies, fmt.Sprint(r["policy"], r["affinity_lag"]))
	}
	if !slices.Equal(policies, []string{"vramjet<nil>", "random<nil>", "round-robin<nil>", "least-loaded<nil>", "lru-reactive<nil>", "fifo<nil>"}) || strings.Count(stdout, "\n") != 6 {
		t.Errorf("got %v, in %d lines", policies, strings.Count(stdout, "\n"))
	}

	stdout, _ = sh.want(t, exitOK, append(small, "--affinity-lag", "auto,800s", "--affinity-lag", "0,13m20s")...)
	var lags []any
	for _, r := range decode(t, stdout) {
		lags = append(lags, r["affinity_lag"])
	}
	if diff := cmp.Diff([]any{"auto", "800s", "0s"}, lags); diff != "" { // each once
		t.Error(diff)
	}
	_, stderr = sh.want(t, exitOK, "simulate", "--models", "1", "--json")
	if !strings.Contains(stderr, "poisson:") {
		t.Errorf("nobody is told of the workload: %q", stderr)
	}
}

// TestSimulateIsTheSameForASeed, but for what decisions take.
func TestSimulateIsTheSameForASeed(t *testing.T) {
	sh := newShell(t)
	of := func(seed string) map[string]any {
		stdout, _ := sh.want(t, exitOK, "simulate", "--models", "4", "--workload", "poisson:rate=1,for=5m", "--json", "--policy", "random", "--seed", seed)
		return decode(t, stdout)[0]
	}
	if diff := cmp.Diff(of("3"), of("3")); diff != "" {
		t.Error(diff)
	}
	if cmp.Equal(of("3"), of("4")) {
		t.Error("the seed counts for nothing")
	}
}

// TestSimulateReadsTheConfiguration: policy and weights are those of the dispatcher.
func TestSimulateReadsTheConfiguration(t *testing.T) {
	sh := newShell(t)
	of := func(args ...string) map[string]any {
		stdout, _ := sh.want(t, exitOK, append([]string{
			"simulate", "--json", "--models", "3", "--workload", "flood:n=100,tenant=a", "--workload", "flood:n=100,tenant=b",
		}, args...)...)
		r := decode(t, stdout)[0]
		delete(r, "decision_p50_us")
		delete(r, "decision_p99_us")
		return r
	}
	plain, zero := of(), of("--affinity-lag", "0s")
	if cmp.Equal(plain, zero) {
		t.Fatal("--affinity-lag counts for nothing")
	}
	write(t, "weights.yaml", "tenants: {a: {weight: 9}}")
	if cmp.Equal(plain, of("--config", "weights.yaml")) {
		t.Error("weights count for nothing")
	}
	write(t, "vramjet.yaml", "policy: {affinity_lag: 0s}")
	if diff := cmp.Diff(zero, of()); diff != "" {
		t.Errorf("policy.affinity_lag counts for nothing: %s", diff)
	}
	if diff := cmp.Diff(plain, of("--affinity-lag", "auto")); diff != "" {
		t.Errorf("the flag does not count more than the file: %s", diff)
	}
}

func TestSimulateFleet(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "fleet.yaml", fleetYAML)
	got, err := readFleet("fleet.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := simulate.Fleet{
		Nodes: []simulate.Node{
			{Name: "big", Count: 2, Devices: []schemas.Bytes{80 * schemas.GiB, 80 * schemas.GiB}, Read: 4 * schemas.GiB},
			{Devices: []schemas.Bytes{24 * schemas.GiB}},
		},
		Models: []simulate.Model{
			{Name: "llama3.1:8b", Need: 9 * schemas.GiB, Slots: 8, Prefill: 4000, Decode: 80.5},
			{Name: "qwen2.5:72b", Need: 44*schemas.GiB + 512*schemas.MiB},
			{Name: "7", Need: 16 * schemas.GiB, Slots: 1},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if nodes, devices, memory := counted(got); nodes != 3 || devices != 5 || memory != 344*schemas.GiB {
		t.Errorf("it counts as %d nodes, %d devices, %s", nodes, devices, memory)
	}
}

// TestSimulateStdin: a trace comes from stdin too, and together with workloads. Its
// models are those of the fleet where none is given.
func TestSimulateStdin(t *testing.T) {
	sh := newShell(t)
	sh.stdin = traceCSV
	stdout, _ := sh.want(t, exitOK, "simulate", "--trace", "-", "--workload", "flood:n=5,tenant=c", "--json")
	r := decode(t, stdout)[0]
	tenants, ok := r["tenants"].(map[string]any)
	if !ok || len(tenants) != 3 || r["finished"] != 8.0 {
		t.Errorf("got %v", r)
	}
	stdout, _ = sh.want(t, exitOK, "simulate", "--trace", "-", "--models", "5")
	if !strings.Contains(stdout, "5 models") || !strings.Contains(stdout, "\n          stdin\n") || !strings.Contains(stdout, "the 1 that name no model") {
		t.Errorf("got %s", stdout)
	}
}

// TestSimulatePlot: what is drawn is SVG, of the lags that were run.
func TestSimulatePlot(t *testing.T) {
	sh := newShell(t)
	for _, c := range []struct {
		args  string
		runs  int
		words []string
	}{
		{"", 8, []string{"goodput", "loads", "wait, s", "rarest model p99", "affinity lag"}},
		{"--affinity-lag auto", 9, []string{"vramjet auto", "wait p99 of the rarest model"}},
		{"--affinity-lag 5s", 9, []string{"wait, s"}},
		{"--affinity-lag 5s,9s", 2, []string{"wait, s"}},
		{"--affinity-lag 9s,5s --policy all", 7, []string{"lru-reactive", "fifo"}},
	} {
		args := append([]string{"simulate", "--models", "3", "--workload", "flood:n=30", "--json", "--plot", "lag.svg"}, strings.Fields(c.args)...)
		stdout, stderr := sh.want(t, exitOK, args...)
		svg, err := os.ReadFile("lag.svg")
		if err != nil {
			t.Fatal(err)
		}
		if n := len(decode(t, stdout)); n != c.runs || !strings.Contains(stderr, "lag.svg") {
			t.Errorf("%s: %d runs, want %d; stderr is %q", c.args, n, c.runs, stderr)
		}
		var root struct{ XMLName xml.Name }
		if err := xml.Unmarshal(svg, &root); err != nil || root.XMLName.Local != "svg" {
			t.Errorf("%s: %v, %v", c.args, root, err)
		}
		for _, word := range c.words {
			if !bytes.Contains(svg, []byte(word)) {
				t.Errorf("%s: there is no %q in the plot", c.args, word)
			}
		}
	}
}

// TestSimulateErrors: what is wrong is said, and where.
func TestSimulateErrors(t *testing.T) {
	sh := newShell(t)
	write(t, "fleet.yaml", fleetYAML)
	write(t, "bad.csv", "when,prompt\n1,2\n")
	for name, text := range map[string]string{
		"empty": "", "list": "[a]", "key": "nodes: [{devices: [1GiB]}]\nmodels:\n  - {name: m, neeed: 1GiB}\n", "top": "node: []\n",
		"size": "nodes:\n  - {devices: [24GB]}\n", "none": "nodes: [{devices: [1GiB]}]", "large": "nodes: [{devices: [1GiB]}]\nmodels: [{name: m, need: 2GiB}]",
		"twice": "nodes: [{devices: [1GiB]}]\nmodels: [{name: m, need: 1GiB}, {name: m, need: 1GiB}]", "bare": "nodes: [{name: a}]\nmodels: [{name: m, need: 1GiB}]",
		"syntax": "nodes: [", "slots": "nodes: [{devices: [1GiB]}]\nmodels: [{name: m, need: 1GiB, slots: many}]",
	} {
		write(t, name+".yaml", text)
	}
	for _, c := range []struct{ args, want string }{
		{"--policy fifi", `did you mean "fifo"?`},
		{"--policy nothing-like-it", "round-robin"},
		{"--policy random --affinity-lag 5s", "random"},
		{"--policy random --plot x.svg", "random"},
		{"--affinity-lag 800", `"800" is neither auto`},
		{"--affinity-lag 5s,soon", "soon"},
		{"--trace nowhere.csv", "nowhere.csv"},
		{"--trace bad.csv", "bad.csv: "},
		{"--trace -", "stdin: "},
		{"--workload poison:rate=1", "poison"},
		{"--workload poisson:rate=1", "for is missing"},
		{"--speed 0", "--speed"},
		{"--speed NaN", "--speed"},
		{"--zipf=-1", "--zipf"},
		{"--models 0", "--models"},
		{"--models 9 --fleet fleet.yaml", "fleet.yaml has 3 models"},
		{"--models 1 --workload flood:n=9,model=a,model=b", "the jobs name 2 models"},
		{"--fleet nowhere.yaml", "nowhere.yaml"},
		{"--fleet fleet.yaml --workload flood:n=1,model=llama3:8b", `did you mean "llama3.1:8b"?`},
		{"--fleet fleet.yaml --models 1 --workload flood:n=1,model=7", `"7"`},
		{"--fleet empty.yaml", "empty.yaml: want nodes: and models:"},
		{"--fleet list.yaml", "list.yaml: want nodes: and models:"},
		{"--fleet syntax.yaml", "syntax.yaml: "},
		{"--fleet key.yaml", `key.yaml:3: unknown key "models[0].neeed": did you mean "models[0].need"?`},
		{"--fleet top.yaml", `top.yaml:1: unknown key "node": did you mean "nodes"?`},
		{"--fleet size.yaml", `size.yaml:2: nodes[0].devices[0]: "24GB" is wrong: want an amount of memory`},
		{"--fleet slots.yaml", `slots.yaml:2: models[0].slots: "many" is wrong`},
		{"--fleet none.yaml", "none.yaml: want one node and one model"},
		{"--fleet large.yaml", "large.yaml: the model m needs 2.0 GiB"},
		{"--fleet twice.yaml", "twice.yaml: models[1]"},
		{"--fleet bare.yaml", "bare.yaml: nodes[0]: it has no devices"},
		{"--plot nowhere/x.svg", "nowhere"},
		{"--config nowhere.yaml", "nowhere.yaml"},
	} {
		stdout, stderr := sh.want(t, exitUsage, append([]string{"simulate"}, strings.Fields(c.args)...)...)
		if !strings.Contains(stderr, c.want) || stdout != "" {
			t.Errorf("%s: stderr is %q, want %q in it; stdout is %q", c.args, stderr, c.want, stdout)
		}
	}
}

func TestSimulateInterrupted(t *testing.T) {
	sh := newShell(t)
	ctx, cancel := context.WithCancel(sh.ctx)
	cancel()
	sh.ctx = ctx
	if stdout, _ := sh.want(t, exitInterrupted, "simulate"); stdout != "" {
		t.Errorf("stdout is %q", stdout)
	}
}

// TestSimulateManyTenants: only those with the most service are shown.
func TestSimulateManyTenants(t *testing.T) {
	sh := newShell(t)
	args := []string{"simulate", "--models", "1"}
	for i := range mostTenants + 3 {
		args = append(args, "--workload", fmt.Sprintf("flood:n=1,tenant=t%d", i))
	}
	stdout, _ := sh.want(t, exitOK, args...)
	if n := strings.Count(stdout, "  tenant t"); n != mostTenants || !strings.Contains(stdout, "and 3 tenants that had less") {
		t.Errorf("%d tenants are shown in %s", n, stdout)
	}
}

// TestProgress: it's shown now and then, and taken away in the end.
func TestProgress(t *testing.T) {
	if p := newProgress(io.Discard, "vramjet", 9); p != nil {
		t.Error("it is shown where nobody looks")
	}
	var none *progress
	none.clear()
	var out bytes.Buffer
	p := &progress{out: &out, name: "vramjet 80s", jobs: 200}
	p.ended(50)
	p.ended(51) // too soon
	p.clear()
	if want := "\r\x1b[Kvramjet 80s: 50 of 200 jobs (25%)\r\x1b[K"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
