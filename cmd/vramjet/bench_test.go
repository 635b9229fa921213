package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vramjet/vramjet/cmd/vramjet/bench"
)

// benchReport is a report of which all is known.
func benchReport() *bench.Report {
	beside := func(f bench.Figure, name string, v float64) bench.Figure {
		f.Beside = &bench.Beside{Name: name, Value: v, Ratio: f.Value / v}
		return f
	}
	return &bench.Report{
		Version: version, At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Server: "embedded", Seconds: 3,
		Machine:    bench.Machine{CPU: "AMD EPYC 7763", Cores: 2, OS: "linux 6.1.0 amd64", Go: "go1.26.8", NATS: "2.15.2"},
		Durability: bench.Durability{Sync: "always", Storage: "file", Replicas: 1},
		Results: []bench.Result{
			{Mode: bench.Enqueue, Figures: []bench.Figure{
				beside(bench.Figure{Name: "jobs acknowledged", InFlight: 512, Value: 31234.5, Unit: bench.PerSecond}, "publishes of the same size", 62000),
			}},
			{Mode: bench.Relay, Failed: "jobs did not end", Figures: []bench.Figure{
				beside(bench.Figure{Name: "bytes of chunks relayed", InFlight: 16, Value: 3 << 20, Unit: bench.BytesPerSecond}, "bytes of messages of the same size", 6<<20),
			}},
			{Mode: bench.TTFT, Figures: []bench.Figure{
				{Name: "first token, p50", InFlight: 1, Value: 1.234, Unit: bench.Milliseconds},
				beside(bench.Figure{Name: "added, p50", InFlight: 1, Value: 12.34, Unit: bench.Milliseconds}, "request and reply, p50", 0.0617),
			}},
			{Mode: bench.Scale, Figures: []bench.Figure{
				{Name: "processor of the dispatcher, of one core", Value: 17.77, Unit: bench.Percent},
				{Name: "memory of the dispatcher", Value: 123 << 20, Unit: bench.Bytes},
				{Name: "decision, p99", Value: 1234, Unit: bench.Microseconds},
			}},
			{Mode: bench.Fairness, Skipped: "its tenants need weights", Figures: []bench.Figure{
				beside(bench.Figure{Name: "Jain's index of the shares by weight", Value: 0.99876}, "one queue", 0.778),
			}},
		},
	}
}

// TestBenchOutput: what was measured, beside what, on what; also where that ended early
// and little is known.
func TestBenchOutput(t *testing.T) {
	var out strings.Builder
	if err := printBench(&out, benchReport()); err != nil {
		t.Fatal(err)
	}
	out.WriteString("\n")
	if err := printBench(&out, &bench.Report{Version: version, Interrupted: true, Machine: bench.Machine{Cores: 1, OS: "plan9 mips", Go: "go1.26.8"}, Seconds: 0.5}); err != nil {
		t.Fatal(err)
	}
	golden(t, "bench.out", out.String())
}

// TestBench: a run prints a table or JSON, and says on stderr what it does.
func TestBench(t *testing.T) {
	sh := newShell(t)
	small := []string{"bench", "enqueue", "--time", "100ms", "--durability", "interval"}
	stdout, stderr := sh.want(t, exitOK, small...)
	if !strings.Contains(stdout, "durability  sync interval") || strings.Count(stdout, "jobs acknowledged") != 3 || !strings.Contains(stderr, "enqueue: 64 in flight\n") {
		t.Errorf("stdout: %s\nstderr: %s", stdout, stderr)
	}
	stdout, _ = sh.want(t, exitOK, append(small, "--json")...)
	var r bench.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatal(err)
	}
	if r.Version != version || r.Seconds != 0.1 || len(r.Results) != 1 || len(r.Results[0].Figures) != 6 {
		t.Errorf("got %+v", r)
	}
}

// TestBenchOnServers: what can be measured beside a dispatcher in use is, for those
// servers alone that the command line names.
func TestBenchOnServers(t *testing.T) {
	s := newSite(t)
	stdout, _ := s.want(t, exitOK, "bench", "enqueue", "--time", "100ms", "--durability", "interval")
	if !strings.Contains(stdout, "(embedded)") {
		t.Errorf("stdout: %s", stdout)
	}
	stdout, _ = s.want(t, exitOK, "bench", "enqueue", "--time", "100ms", "--server", s.srv.ClientURL())
	if !strings.Contains(stdout, "("+s.srv.ClientURL()+")") || !strings.Contains(stdout, "sync unknown") {
		t.Errorf("stdout: %s", stdout)
	}
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"bench scale --server " + s.srv.ClientURL(), "made up", exitUsage},
		{"bench fairness --context prod", "weights", exitUsage},
		{"bench dispatch --time 100ms --server " + s.srv.ClientURL(), "no dispatcher", exitNoDispatcher},
		{"bench enqueue --server nats://127.0.0.1:1", "127.0.0.1:1", exitNoNATS},
		{"bench enqeue", "enqueue", exitUsage},
		{"bench speed", "there are enqueue", exitUsage},
		{"bench --time 1ms", "--time", exitUsage},
		{"bench --nodes 0", "--nodes", exitUsage},
		{"bench --devices 65", "--devices", exitUsage},
		{"bench --rate 0", "--rate", exitUsage},
		{"bench --durability never", "never", exitUsage},
	} {
		if _, stderr := s.want(t, c.code, strings.Fields(c.args)...); !strings.Contains(stderr, c.want) {
			t.Errorf("%s: stderr is %q, want %q in it", c.args, stderr, c.want)
		}
	}
}

// TestBenchDispatcher: the program can be the dispatcher of a measurement.
func TestBenchDispatcher(t *testing.T) {
	s := newSite(t)
	s.env[benchDispatcher], s.stdin = s.srv.ClientURL(), "\n"
	stdout, _ := s.want(t, exitOK, "bench")
	if !strings.Contains(stdout, `"cpu_ns"`) {
		t.Errorf("stdout: %s", stdout)
	}
}

var results = flag.String("results", "", "write what vramjet bench --json printed to these files, separated by commas, into docs/benchmarks.md")

// TestBenchPage: docs/benchmarks.md has the place for what make benchmarks measures, and
// tells of each mode. With -results, it is filled.
func TestBenchPage(t *testing.T) {
	text := page(t, "docs/benchmarks.md")
	for _, mode := range bench.Modes {
		if !slices.Contains(codes(text), mode) {
			t.Errorf("docs/benchmarks.md does not tell of %s", mode)
		}
	}
	const begin, end = "<!-- vramjet bench: begin. Written by `make benchmarks`. -->\n", "<!-- vramjet bench: end -->"
	before, rest, ok := strings.Cut(text, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("docs/benchmarks.md has no markers %q and %q", begin, end)
	}
	if *results == "" {
		return
	}
	measured := ""
	for file := range strings.SplitSeq(*results, ",") {
		printed, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var r bench.Report
		if err := json.Unmarshal(printed, &r); err != nil {
			t.Fatal(err)
		}
		for _, m := range r.Results {
			if m.Failed != "" || r.Interrupted || len(r.Results) != len(bench.Modes) {
				t.Fatalf("the results are not whole: %s %s", m.Mode, m.Failed)
			}
		}
		measured += benchMarkdown(&r)
	}
	text = before + begin + measured + end + after
	if err := os.WriteFile(filepath.Join(root, "docs", "benchmarks.md"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// benchMarkdown is what was measured, as docs/benchmarks.md has it.
func benchMarkdown(r *bench.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n### Sync %s\n\n| | |\n|---|---|\n", r.Durability.Sync)
	for _, line := range benchHead(r) {
		fmt.Fprintf(&b, "| %s | %s |\n", line[0], line[1])
	}
	for _, m := range r.Results {
		fmt.Fprintf(&b, "\n| `%s` | in flight | vramjet | beside | ratio | which is |\n|---|---:|---:|---:|---:|---|\n", m.Mode)
		for i := range m.Figures {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(cellsOf(&m.Figures[i]), " | "))
		}
	}
	b.WriteString("\n")
	return b.String()
}

func cellsOf(f *bench.Figure) []string {
	cells := benchCells(f)
	return cells[:]
}

// TestBenchMarkdown: a table for each mode.
func TestBenchMarkdown(t *testing.T) { golden(t, "bench.md", benchMarkdown(benchReport())) }
