package simulate

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// The figures of docs/scheduling.md: what the policy promises, on fixed seeds. Each has
// a floor with a margin; the page has the figures themselves, as this test prints them.

// A sheet is the table of the figures.
type sheet struct {
	t    *testing.T
	rows []string
}

// atMost notes a figure that must not be more than a bound.
func (s *sheet) atMost(what string, figure, bound float64, unit string) {
	s.row(what, figure, fmt.Sprintf("at most %s%s", figures(bound), unit), unit, figure <= bound)
}

// atLeast notes a figure that must not be less than a bound.
func (s *sheet) atLeast(what string, figure, bound float64, unit string) {
	s.row(what, figure, fmt.Sprintf("at least %s%s", figures(bound), unit), unit, figure >= bound)
}

func (s *sheet) row(what string, figure float64, must, unit string, ok bool) { //nolint:revive // flag-parameter: a fact
	row := fmt.Sprintf("| %s | %s%s | %s |", what, figures(figure), unit, must)
	s.rows = append(s.rows, row)
	if !ok {
		s.t.Errorf("%s", row)
	}
}

// figures writes a number with as many figures as tell something.
func figures(x float64) string {
	switch {
	case x == math.Trunc(x) || math.Abs(x) >= 1000:
		return fmt.Sprintf("%.0f", x)
	case math.Abs(x) >= 100:
		return fmt.Sprintf("%.1f", x)
	case math.Abs(x) >= 2:
		return fmt.Sprintf("%.2f", x)
	default:
		return fmt.Sprintf("%.4f", x)
	}
}

// play simulates with what is not said as the defaults have it.
func (s *sheet) play(cfg Config) *Report {
	s.t.Helper()
	cfg.Tune = cmp.Or(cfg.Tune, placement.DefaultPolicy())
	r, err := Run(s.t.Context(), cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	if r.Finished != r.Jobs {
		s.t.Errorf("%s finished %d of %d jobs", r.Policy, r.Finished, r.Jobs)
	}
	return r
}

// onePool is a node with one model in memory, of so many slots, that generates 100
// tokens a second for each: nothing but the slots is scarce.
func onePool(slots int) Fleet {
	return Fleet{
		Nodes:  []Node{{Name: "node", Devices: []schemas.Bytes{20 * schemas.GiB}}},
		Models: []Model{{Name: "m", Need: 18 * schemas.GiB, Slots: slots, Prefill: 1e6, Decode: 100}},
	}
}

// seconds is a shape whose jobs take so long on average on onePool.
func seconds(tenant string, class schemas.Class, mean float64) Shape {
	return Shape{Tenant: tenant, Class: class, Models: []string{"m"}, Prompt: 1, Generated: int(mean * 100)}
}

// service is what a tenant generated between two times, in slot-seconds.
func (r *Report) service(tenant string, from, to time.Duration) float64 {
	sum := time.Duration(0)
	for _, q := range r.requests {
		if q.Tenant == tenant {
			sum += max(0, min(q.end, to)-max(q.start, from))
		}
	}
	return sum.Seconds()
}

// TestFigures runs what docs/scheduling.md shows.
func TestFigures(t *testing.T) {
	s := &sheet{t: t}
	s.weights()
	s.neighbour()
	s.flood()
	traced := false
	t.Run("trace", func(t *testing.T) {
		s.t = t
		traced = s.residency()
	})
	s.t = t
	page := filepath.Join("..", "..", "docs", "scheduling.md")
	const begin, end = "<!-- FIGURES: begin. Written by `go test ./dispatcher/simulate -update`. -->\n", "<!-- FIGURES: end -->"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	old, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the figures", page)
	}
	table := "\n| what | figure | must be |\n|---|---:|---|\n" + strings.Join(s.rows, "\n") + "\n\n"
	switch {
	case *update && traced:
		if err := os.WriteFile(page, []byte(head+begin+table+end+tail), 0o644); err != nil { //nolint:gosec // a page of the docs
			t.Fatal(err)
		}
	case traced && old != table:
		t.Errorf("%s has other figures: run go test ./dispatcher/simulate -update\n%s", page, table)
	}
}

// weights: three tenants that always have jobs waiting share by their weights, whatever
// their jobs cost.
func (s *sheet) weights() {
	const slots = 24
	weights := map[string]float64{"a": 1, "b": 1, "c": 2}
	jobs := Merge(
		seconds("a", schemas.Normal, 3).Flood(9_000, 1),
		seconds("b", schemas.Normal, 12).Flood(2_250, 2),
		seconds("c", schemas.Normal, 3).Flood(18_000, 3),
	)
	r := s.play(Config{Fleet: onePool(slots), Jobs: jobs, Weights: weights})
	const end = 50 * time.Minute // until when all three have jobs waiting
	var names []string
	var w []float64
	for _, name := range []string{"a", "b", "c"} {
		names, w = append(names, name), append(w, weights[name])
	}
	shares := func(from, to time.Duration) float64 {
		var x []float64
		for _, name := range names {
			x = append(x, r.service(name, from, to))
		}
		return Jain(x, w)
	}
	s.atLeast("three tenants of weights 1, 1, 2 with jobs of 3, 12 and 3 s: weighted Jain index over 50 minutes", shares(startup, end), 0.999, "")
	worst := 1.0
	for at := time.Duration(0); at < end; at += 5 * time.Minute {
		worst = min(worst, shares(at, at+5*time.Minute))
	}
	s.atLeast("the same, in the worst 5 minutes", worst, 0.99, "")
	gap, most := 0.0, map[string]float64{}
	for _, q := range r.requests {
		most[q.Tenant] = max(most[q.Tenant], (q.end - q.start).Seconds())
	}
	for at := 10 * time.Second; at < end; at += 10 * time.Second {
		var x []float64
		for i, name := range names {
			x = append(x, r.service(name, 0, at)/w[i])
		}
		gap = max(gap, slices.Max(x)-slices.Min(x))
	}
	// The bound of SFQ(D), with the longest jobs that there were; the gap is between
	// the two whose bound is largest.
	bound := (slots + 1) * (most["b"]/weights["b"] + most["a"]/weights["a"])
	s.atMost("the same, the largest gap between two tenants' service by weight", gap, bound, " slot-s")
}

// neighbour: eight light tenants hardly notice one that has 20,000 jobs. On one slot
// they also wait for each other when they are alone; on many slots they then wait for
// nothing, so what counts is how long a job of the flood keeps them waiting.
func (s *sheet) neighbour() {
	before, after := s.lightWaits(1)
	s.row("eight tenants that use 5 % of a slot each, alone: wait, p99", before, "", " s", true)
	s.atMost("the same beside a tenant that submits 20,000 jobs at once", after, 2*before, " s")
	before, after = s.lightWaits(24)
	s.row("eight tenants that use 5 % of 24 slots each, alone: wait, p99", before, "", " s", true)
	s.atMost("the same beside a tenant that submits 20,000 jobs of 3 s at once", after, 9, " s")
}

// lightWaits is for how long light tenants wait, p99, without and with a flood.
func (s *sheet) lightWaits(slots int) (before, after float64) {
	const mean = 3.0
	var light [][]Job
	for i := range 8 {
		light = append(light, seconds(fmt.Sprint("light-", i), schemas.Normal, mean).Poisson(0.05*float64(slots)/mean, 2*time.Hour, uint64(i)))
	}
	flood := seconds("heavy", schemas.Normal, mean)
	flood.At = 10 * time.Minute
	wait := func(jobs []Job, until time.Duration) float64 {
		r := s.play(Config{Fleet: onePool(slots), Jobs: jobs})
		return waitsOf(slices.DeleteFunc(slices.Clone(r.requests), func(q *request) bool {
			return q.Tenant == "heavy" || q.At < flood.At || q.At > until
		})).P99
	}
	// Beside them the flood lasts for at least as long as its jobs take on all slots.
	until := min(2*time.Hour, flood.At+time.Duration(20_000*mean/float64(slots)*float64(time.Second)))
	return wait(Merge(light...), until), wait(Merge(append(light, flood.Flood(20_000, 99))...), until)
}

// flood: a bulk batch neither holds up interactive jobs nor starves.
func (s *sheet) flood() {
	const slots, mean = 24, 3.0
	chats := seconds("chats", schemas.Interactive, mean).Poisson(0.6*slots/mean, 4*time.Hour, 5)
	batch := seconds("bulk", schemas.Batch, mean)
	batch.At = time.Minute
	alone := s.play(Config{Fleet: onePool(slots), Jobs: chats})
	both := s.play(Config{Fleet: onePool(slots), Jobs: Merge(chats, batch.Flood(30_000, 6))})
	wait := func(r *Report) float64 { return r.Classes[schemas.Interactive].P99 }
	s.row("interactive jobs that use 60 % of the slots, alone: wait, p99", wait(alone), "", " s", true)
	s.atMost("the same beside a batch of 30,000 jobs", wait(both), wait(alone)+mean, " s")

	tide := seconds("chats", schemas.Interactive, mean).Bursts(0.6*slots/mean, 1.15*slots/mean, 15*time.Minute, 2*time.Hour, 7)
	over := s.play(Config{Fleet: onePool(slots), Jobs: Merge(tide, batch.Flood(30_000, 8))})
	gap, longest := longestGap(over, schemas.Batch)
	s.atMost("while interactive jobs ask for 115 %: longest time without a batch job beginning", gap, 60+longest, " s")
	idle := max(alone.IdleShare, both.IdleShare, over.IdleShare)
	s.atMost("all of these: slots free while a job waits that could have them", 100*idle, 1, " %")
}

// longestGap is the longest time in which no job of a class began though one waited,
// and the longest job of all, in seconds.
func longestGap(r *Report, class schemas.Class) (gap, longest float64) {
	var starts []time.Duration
	first := time.Duration(math.MaxInt64)
	for _, q := range r.requests {
		longest = max(longest, (q.end - q.start).Seconds())
		if q.Class == class {
			starts = append(starts, q.start)
			first = min(first, q.At)
		}
	}
	slices.Sort(starts)
	for last := first; len(starts) > 0; starts = starts[1:] {
		gap, last = max(gap, (starts[0]-last).Seconds()), starts[0]
	}
	return gap, longest
}

// azure is the public trace, spread over the models of a fleet.
func (s *sheet) azure(fleet Fleet, seed uint64) []Job {
	s.t.Helper()
	shared := cmp.Or(os.Getenv("VRAMJET_SHARED"), filepath.Join("..", "..", "..", "shared"))
	file, err := os.Open(filepath.Join(shared, "data", "azure_llm_code_2023.csv"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	jobs, err := ReadTrace(file)
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, m := range fleet.Models {
		names = append(names, m.Name)
	}
	Spread(jobs, names, 1.1, seed)
	return jobs
}

// residency: a third of the models are in memory at once. Where the trace is not there
// it skips, and the page is not compared.
func (s *sheet) residency() bool {
	fleet := DefaultFleet()
	if s.azure(fleet, 1) == nil {
		s.t.Skip("no azure_llm_code_2023.csv: set VRAMJET_SHARED to the directory above its data directory")
	}
	fewer, better, rarest, idle := math.Inf(1), math.Inf(1), 0.0, 0.0
	for seed := range uint64(5) {
		jobs := s.azure(fleet, seed+1)
		ours := s.play(Config{Fleet: fleet, Jobs: jobs})
		for _, rival := range []string{LRUReactive, LeastLoaded} {
			r := s.play(Config{Fleet: fleet, Jobs: jobs, Policy: rival, Seed: seed})
			fewer = min(fewer, float64(r.Loads)/float64(ours.Loads))
			better = min(better, ours.Goodput/r.Goodput)
		}
		rarest = max(rarest, ours.RarestP99)
		idle = max(idle, ours.IdleShare+ours.DrainShare)
	}
	s.atLeast("a trace of code completion over 12 models, of which 4 fit: how many times the loads of the better of `least-loaded` and `lru-reactive`, the worst of 5 seeds", fewer, 3, "")
	s.atLeast("the same: how many times their goodput", better, 1.5, "")
	s.atMost("the same: wait for the rarest model, p99, the worst of 5 seeds", rarest, 300, " s")
	s.atMost("the same: slots free while a job waits that could have them, or would if its model did not give way", 100*idle, 2, " %")
	s.compare(fleet)
	s.curve(fleet)
	return true
}

// compare notes what each policy makes of the trace.
func (s *sheet) compare(fleet Fleet) {
	s.rows = append(s.rows, "", "| policy | loads | goodput | wait, p50 | wait, p99 | rarest model, p99 |", "|---|---:|---:|---:|---:|---:|")
	for _, p := range Policies {
		r := s.play(Config{Fleet: fleet, Jobs: s.azure(fleet, 1), Policy: p, Seed: 1})
		s.rows = append(s.rows, fmt.Sprintf("| `%s` | %d | %.1f %% | %.0f s | %.0f s | %.0f s |", p, r.Loads, 100*r.Goodput, r.WaitP50, r.WaitP99, r.RarestP99))
	}
}

// curve plots the trace over the affinity lag.
func (s *sheet) curve(fleet Fleet) {
	plot := Plot{Title: "A trace over 12 models, of which 4 fit", X: Axis{Label: "affinity_lag (slot-seconds)", Log: true}}
	var loads, goodput, p50, p99, rarest Line
	p50.Name, p99.Name, rarest.Name = "p50", "p99", "p99 of the rarest model"
	s.rows = append(s.rows, "", "| affinity_lag | loads | goodput | wait, p50 | wait, p99 | rarest model, p99 |", "|---|---:|---:|---:|---:|---:|")
	for _, lag := range []float64{-1, 20, 40, 60, 80, 120, 160, 320, 640, 1280} {
		tune := placement.DefaultPolicy()
		tune.AffinityLag = lag
		r := s.play(Config{Fleet: fleet, Jobs: s.azure(fleet, 1), Tune: tune})
		at := func(y float64) Point { return Point{max(lag, 0), y} }
		loads.Points, goodput.Points = append(loads.Points, at(float64(r.Loads))), append(goodput.Points, at(r.Goodput))
		p50.Points, p99.Points, rarest.Points = append(p50.Points, at(r.WaitP50)), append(p99.Points, at(r.WaitP99)), append(rarest.Points, at(r.RarestP99))
		s.rows = append(s.rows, fmt.Sprintf("| %.0fs | %d | %.1f %% | %.0f s | %.0f s | %.0f s |", max(lag, 0), r.Loads, 100*r.Goodput, r.WaitP50, r.WaitP99, r.RarestP99))
	}
	plot.Panels = []Panel{
		{Axis{Label: "goodput"}, []Line{goodput}},
		{Axis{Label: "loads"}, []Line{loads}},
		{Axis{Label: "wait (s)", Log: true}, []Line{p50, p99, rarest}},
	}
	got := svg(s.t, plot)
	file := filepath.Join("..", "..", "docs", "affinity-lag.svg")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil { //nolint:gosec // a picture of the docs
			s.t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || string(want) != got {
		s.t.Errorf("%s is another plot: run go test ./dispatcher/simulate -update (%v)", file, err)
	}
}
