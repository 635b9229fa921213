package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/vramjet/vramjet/dispatcher/simulate"
	"github.com/vramjet/vramjet/schemas"
)

// mostTenants is how many tenants are shown.
const mostTenants = 20

// printSimulatedJSON prints a run as JSON: by itself, or as a line of several.
func (a *app) printSimulatedJSON(s *simulation, r finishedRun) error {
	if s.lags < 2 {
		r.Lag = ""
	}
	if len(s.variants) == 1 {
		return a.printJSON(r)
	}
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// printSimulated prints what was simulated, and what came of it.
func printSimulated(out io.Writer, s *simulation, done []finishedRun) error {
	nodes, devices, memory := counted(s.fleet)
	var need schemas.Bytes
	for _, m := range s.fleet.Models {
		need += m.Need
	}
	fmt.Fprintf(out, "fleet     %s with %s of %s in all, %s that need %s\n", count(nodes, "node"), count(devices, "device"), memory, count(len(s.fleet.Models), "model"), need)
	fmt.Fprintf(out, "workload  %s in %s%s\n", count(len(s.jobs), "job"), span(s.jobs[len(s.jobs)-1].At.Seconds()), s.spreadNote())
	for _, from := range s.workload {
		fmt.Fprintf(out, "          %s\n", from)
	}
	if len(done) > 1 {
		fmt.Fprintln(out)
		return printRuns(out, s, done)
	}
	fmt.Fprintf(out, "policy    %s%s\n\n", done[0].Policy, lagNote(done[0].Lag))
	if err := printRun(out, done[0].Report); err != nil {
		return err
	}
	fmt.Fprintln(out)
	return printWaits(out, done[0].Report)
}

// spreadNote says how many jobs were given a model.
func (s *simulation) spreadNote() string {
	switch {
	case s.spread == 0 || len(s.fleet.Models) < 2:
		return ""
	case s.spread == len(s.jobs):
		return "; none names a model: they are spread by Zipf's law"
	default:
		return fmt.Sprintf("; the %d that name no model are spread by Zipf's law", s.spread)
	}
}

func lagNote(lag Lag) string {
	if lag == "" {
		return ""
	}
	return ", affinity lag " + string(lag)
}

// printRun prints the figures of one run.
func printRun(out io.Writer, r *simulate.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "finished\t%d of %s\tin %s\n", r.Finished, count(r.Jobs, "job"), span(r.Makespan))
	fmt.Fprintf(w, "goodput\t%s\tof the fleet's slot-seconds; %.1f generated tokens per second\n", percent(r.Goodput), r.TokensPerS)
	fmt.Fprintf(w, "loads\t%d\tand %s; %.1f per device and hour\n", r.Loads, count(r.Evictions, "eviction"), r.LoadsPerHour)
	fmt.Fprintf(w, "loading\t%.0f\tGPU-seconds lost to it\n", r.LostToLoading)
	fmt.Fprintf(w, "fairness\t%.3f\tJain's index of the tenants, by their weights\n", r.Jain)
	if r.Policy == simulate.Vramjet { // of the others, nobody measures it
		fmt.Fprintf(w, "idle\t%s\tof the work, in slots that were free while a job waited for one like them\n", percent(r.IdleShare))
		fmt.Fprintf(w, "drain\t%s\tof the work, in slots of models that gave way\n", percent(r.DrainShare))
		fmt.Fprintf(w, "decision\t%s\tp50, and %s p99, of real time\n", micros(r.DecisionP50), micros(r.DecisionP99))
	}
	return w.Flush()
}

// printWaits prints how long jobs waited: all, by class, by tenant and of the model
// that was asked for least.
func printWaits(out io.Writer, r *simulate.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(name string, v simulate.Waits) {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t  %s\n", v.Jobs, span(v.P50), span(v.P99), span(v.Max), name)
	}
	fmt.Fprintln(w, "JOBS\tWAIT p50\tp99\tmax\t  OF")
	line("all", simulate.Waits{Jobs: r.Jobs, P50: r.WaitP50, P99: r.WaitP99, Max: r.WaitMax})
	for _, class := range []schemas.Class{schemas.Interactive, schemas.Normal, schemas.Batch} {
		if v, ok := r.Classes[class]; ok {
			line("class "+string(class), v)
		}
	}
	tenants := slices.SortedFunc(maps.Keys(r.Tenants), func(a, b string) int {
		return cmp.Or(cmp.Compare(r.Tenants[b].Service, r.Tenants[a].Service), cmp.Compare(a, b))
	})
	for _, name := range tenants[:min(len(tenants), mostTenants)] {
		line("tenant "+name, r.Tenants[name])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if more := len(tenants) - mostTenants; more > 0 {
		fmt.Fprintf(out, "and %s that had less: --json has them all\n", count(more, "tenant"))
	}
	fmt.Fprintf(out, "p99 of %s, which was asked for least: %s\n", r.RarestModel, span(r.RarestP99))
	return nil
}

// printRuns prints several runs beside each other.
func printRuns(out io.Writer, s *simulation, done []finishedRun) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "GOODPUT\tLOADS\tEVICTIONS\tLOST\tIDLE\tDRAIN\tJAIN\tWAIT p50\tp99\tmax\tRAREST p99\tDECISION p99\tTIME\t  POLICY")
	for _, r := range done {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.0f\t%s\t%s\t%.3f\t%s\t%s\t%s\t%s\t%s\t%s\t  %s\n",
			percent(r.Goodput), r.Loads, r.Evictions, r.LostToLoading, measured(r, percent(r.IdleShare)), measured(r, percent(r.DrainShare)), r.Jain,
			span(r.WaitP50), span(r.WaitP99), span(r.WaitMax), span(r.RarestP99), measured(r, micros(r.DecisionP99)), span(r.Makespan), variant{r.Policy, r.Lag}.name(s.lags))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "LOST is GPU-seconds that went into loading, RAREST %s, which was asked for least.\n", done[0].RarestModel)
	return nil
}

// measured returns what only the policy vramjet tells of itself.
func measured(r finishedRun, text string) string {
	if r.Policy != simulate.Vramjet {
		return "-"
	}
	return text
}

// micros prints what a decision took.
func micros(us float64) string { return fmt.Sprintf("%.1fus", us) }

func percent(share float64) string { return fmt.Sprintf("%.1f%%", 100*share) }

// span prints seconds as people read them: 0.4s, 31s, 2m5s.
func span(seconds float64) string {
	if seconds < 10 {
		return fmt.Sprintf("%.1fs", seconds)
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}

// A progress is shown on a terminal, while something is simulated that takes long.
type progress struct {
	out   io.Writer
	name  string
	jobs  int
	next  time.Time // when to show anew
	shown bool
}

const progressEvery = 300 * time.Millisecond

// newProgress returns nil where nobody would see it.
func newProgress(out io.Writer, name string, jobs int) *progress {
	if !isTerminal(out) {
		return nil
	}
	return &progress{out: out, name: name, jobs: jobs, next: time.Now().Add(progressEvery)}
}

// ended shows how many jobs have ended.
func (p *progress) ended(n int) {
	now := time.Now()
	if now.Before(p.next) {
		return
	}
	p.next, p.shown = now.Add(progressEvery), true
	fmt.Fprintf(p.out, "\r\x1b[K%s: %d of %d jobs (%.0f%%)", p.name, n, p.jobs, 100*float64(n)/float64(p.jobs))
}

// clear takes away what was shown.
func (p *progress) clear() {
	if p != nil && p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
