package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/dispatcher/simulate"
)

// simulateCmd replays a workload on a virtual clock.
type simulateCmd struct {
	Fleet       string   `placeholder:"FILE" help:"Nodes and models, as YAML (default: --models models that need 18 GiB each, and nodes of 24 GiB that hold a third of them)."`
	Trace       string   `placeholder:"FILE" help:"Jobs, as CSV; - reads stdin."`
	Workload    []string `sep:"none" placeholder:"SPEC" help:"Jobs to make; several and those of --trace come together (default: a steady load and bursts for 30 minutes, which the output tells)."`
	Speed       float64  `default:"1" placeholder:"X" help:"Let jobs come X times as fast (${default})."`
	Models      *int     `placeholder:"N" help:"How many models there are: the first N of --fleet (default: all), or N of the fleet that is made (default: those that jobs name, or else 12)."`
	Zipf        float64  `default:"1.1" placeholder:"S" help:"How much more popular the first models are, where jobs name none: the model at place i is asked for in proportion to 1/i^S (${default}; 0: all alike)."`
	Seed        uint64   `default:"1" placeholder:"K" help:"What is drawn by chance; the same K draws the same (${default})."`
	Policy      string   `default:"vramjet" placeholder:"NAME" help:"Who places jobs: vramjet, or for comparison random, round-robin, least-loaded, lru-reactive or fifo; all: each of them (${default})."`
	AffinityLag []string `placeholder:"LAG" help:"Of the policy vramjet: auto, or slot-seconds such as 800s; of several, as 0s,20s, each is run (default: policy.affinity_lag)."`
	Plot        string   `placeholder:"FILE" help:"Draw goodput, loads and waits over the affinity lag, as SVG. Without several lags: from 0s to 1280s."`
}

// Help is shown below the command's summary.
func (*simulateCmd) Help() string {
	return `Lets the dispatcher's own placement decide over a workload, on a virtual clock, and prints what came of it. Waits are from a job's arrival until it begins to generate, loads included. Policy and tenants' weights are those of the configuration. It needs no NATS and no GPU.

A fleet is nodes and models, which all nodes have on disk; count, read (bytes of a file per second), slots, prefill and decode (tokens per second of one request) may be left out:

    nodes:
      - {name: big, count: 2, devices: [80GiB, 80GiB], read: 2GiB}
    models:
      - {name: "llama3.1:8b", need: 9GiB, slots: 8, prefill: 4000, decode: 80}

A trace has a line for each job under the names of its columns: when it came (timestamp), its tokens (prompt, generated) and, if they are known, model, tenant and class. Those that Azure and BurstGPT published are read as they are. A workload is one of

    poisson:rate=2/s,for=10m,tenant=a,class=interactive,prompt=500,generated=100
    bursts:base=30/m,peak=5/s,every=2m,for=1h,model=llama3.1:8b,model=qwen3:4b,zipf=1
    flood:n=30000,at=60s,class=batch

With --json, each run is an object; of several, each has a line.

Examples:

    vramjet simulate
    vramjet simulate --fleet fleet.yaml --trace trace.csv --speed 2
    vramjet simulate --models 12 --workload poisson:rate=2/s,for=1h --policy all
    vramjet simulate --fleet fleet.yaml --workload flood:n=30000,class=batch --affinity-lag auto,0s,320s --json
    vramjet simulate --trace - --plot lag.svg <trace.csv
`
}

// allPolicies stands for each of simulate.Policies.
const allPolicies = "all"

// A simulation is what is to be simulated, and how often.
type simulation struct {
	fleet    simulate.Fleet
	jobs     []simulate.Job
	workload []string // where the jobs are from, for people
	spread   int      // jobs that named no model
	tune     placement.Policy
	weights  map[string]float64
	variants []variant
	lags     int // how many there are
}

// A variant is one run of a simulation.
type variant struct {
	policy string
	lag    Lag // "" where the policy has none
}

// A finishedRun is a variant that ran. In JSON, its lag is not repeated where there
// is only one.
type finishedRun struct {
	*simulate.Report
	Lag Lag `json:"affinity_lag,omitempty"`
}

// Run simulates.
func (c *simulateCmd) Run(ctx context.Context, a *app) error {
	s, err := c.prepare(a)
	if err != nil {
		return usage(err)
	}
	if a.asJSON() && c.byDefault() {
		a.note("the workload is %s", strings.Join(s.workload, ", "))
	}
	var done []finishedRun
	for _, v := range s.variants {
		r, err := c.simulate(ctx, a, s, v)
		if err != nil {
			return err
		}
		done = append(done, r)
		if a.asJSON() {
			if err := a.printSimulatedJSON(s, r); err != nil {
				return err
			}
		}
	}
	if !a.asJSON() {
		if err := printSimulated(a.out, s, done); err != nil {
			return err
		}
	}
	if c.Plot == "" {
		return nil
	}
	if err := writePlot(c.Plot, lagPlot(s, done)); err != nil {
		return err
	}
	a.note("drew %s", c.Plot)
	return nil
}

// simulate runs one variant.
func (c *simulateCmd) simulate(ctx context.Context, a *app, s *simulation, v variant) (finishedRun, error) {
	cfg := simulate.Config{Fleet: s.fleet, Jobs: s.jobs, Policy: v.policy, Tune: s.tune, Weights: s.weights, Seed: c.Seed}
	if v.lag != "" {
		lag, err := v.lag.slotSeconds()
		if err != nil {
			return finishedRun{}, err
		}
		cfg.Tune.AffinityLag = lag
	}
	show := newProgress(a.err, v.name(s.lags), len(s.jobs))
	if show != nil {
		cfg.Progress = show.ended
	}
	r, err := simulate.Run(ctx, cfg)
	show.clear()
	switch {
	case err == nil:
		return finishedRun{r, v.lag}, nil
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return finishedRun{}, err
	default: // it's about the fleet or the jobs
		return finishedRun{}, usage(c.inFleet(err))
	}
}

// name is what a variant is called beside others.
func (v variant) name(lags int) string {
	if v.lag == "" || lags < 2 {
		return v.policy
	}
	return v.policy + " " + string(v.lag)
}

// prepare reads what the flags name. Its errors are about how the command is used.
func (c *simulateCmd) prepare(a *app) (*simulation, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	cfg, _, err := a.load(nil)
	if err != nil {
		return nil, err
	}
	s := &simulation{tune: cfg.Policy.placement(), weights: map[string]float64{}}
	for name, t := range cfg.Tenants {
		s.weights[name] = cmp.Or(t.Weight, 1)
	}
	if err := c.vary(s, cfg.Policy.AffinityLag); err != nil {
		return nil, err
	}
	if err := c.gather(s, a.in); err != nil {
		return nil, err
	}
	return s, nil
}

// check reports flags that are wrong by themselves.
func (c *simulateCmd) check() error {
	const most = 100_000 // models
	switch {
	case !(c.Speed > 0 && c.Speed <= 1e9):
		return fmt.Errorf("--speed %v: want a number above 0, such as 2", c.Speed)
	case !(c.Zipf >= 0 && c.Zipf <= 10):
		return fmt.Errorf("--zipf %v: want a number from 0 to 10", c.Zipf)
	case c.Models != nil && (*c.Models < 1 || *c.Models > most):
		return fmt.Errorf("--models %d: want 1 to %d", *c.Models, most)
	}
	names := append(slices.Clone(simulate.Policies), allPolicies)
	if !slices.Contains(names, c.Policy) {
		hint := ": there are " + strings.Join(names, ", ")
		if best, ok := nearest(c.Policy, names); ok {
			hint = fmt.Sprintf(": did you mean %q?", best)
		}
		return fmt.Errorf("--policy: there is no policy %q%s", c.Policy, hint)
	}
	if c.Policy != simulate.Vramjet && c.Policy != allPolicies && (len(c.AffinityLag) > 0 || c.Plot != "") {
		return fmt.Errorf("--affinity-lag and --plot are about the policy %s: %s keeps no model by it", simulate.Vramjet, c.Policy)
	}
	if c.Plot == "" {
		return nil
	}
	info, err := os.Stat(filepath.Dir(c.Plot)) // now, and not when all was simulated
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no folder", filepath.Dir(c.Plot))
	}
	if err != nil {
		return fmt.Errorf("--plot: %w", err)
	}
	return nil
}

// plotLags are what a plot is drawn over where no several lags are named.
var plotLags = []Lag{"0s", "20s", "40s", "80s", "160s", "320s", "640s", "1280s"}

// vary says what is to be run: the policy vramjet with each lag, the others once.
func (c *simulateCmd) vary(s *simulation, configured Lag) error {
	lags, err := c.lags(configured)
	if err != nil {
		return err
	}
	s.lags = len(lags)
	for _, p := range simulate.Policies {
		switch {
		case p != c.Policy && c.Policy != allPolicies:
		case p != simulate.Vramjet:
			s.variants = append(s.variants, variant{policy: p})
		default:
			for _, lag := range lags {
				s.variants = append(s.variants, variant{p, lag})
			}
		}
	}
	return nil
}

// lags returns the lags to run, each once: those that are named, and for a plot those
// that it's drawn over.
func (c *simulateCmd) lags(configured Lag) ([]Lag, error) {
	var lags []Lag
	amounts := 0 // and not auto
	for _, text := range c.AffinityLag {
		lag, err := Lag(strings.TrimSpace(text)).canonical()
		if err != nil {
			return nil, fmt.Errorf("--affinity-lag: %w", err)
		}
		if lags = append(lags, lag); lag != autoLag {
			amounts++
		}
	}
	switch {
	case c.Plot != "" && amounts < 2:
		lags = append(lags, plotLags...)
	case len(lags) == 0:
		lag, err := configured.canonical()
		if err != nil {
			return nil, err
		}
		lags = append(lags, lag)
	}
	if c.Plot != "" {
		slices.SortFunc(lags, Lag.compare)
	}
	var once []Lag
	for _, lag := range lags {
		if !slices.Contains(once, lag) {
			once = append(once, lag)
		}
	}
	return once, nil
}

// autoLag is the lag that the dispatcher works out.
const autoLag Lag = "auto"

// canonical returns the one way in which a lag is written here: auto or 800s.
func (l Lag) canonical() (Lag, error) {
	amount, err := l.slotSeconds()
	if err != nil || amount == 0 {
		return autoLag, err
	}
	return Lag(strconv.FormatFloat(max(amount, 0), 'f', -1, 64) + "s"), nil
}

// compare orders lags by their amounts, auto first.
func (l Lag) compare(other Lag) int { return cmp.Compare(l.amount(), other.amount()) }

// amount returns a lag that was checked in slot-seconds; below 0: auto.
func (l Lag) amount() float64 {
	switch amount, err := l.slotSeconds(); {
	case err != nil || amount == 0:
		return -1
	default:
		return max(amount, 0)
	}
}
