package simulate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vramjet/vramjet/dispatcher/placement"
)

// The policies: vramjet's own, and what others do for comparison.
const (
	Vramjet     = "vramjet"
	Random      = "random"       // any node; each loads what is asked of it and makes room by itself
	RoundRobin  = "round-robin"  // each node in turn
	LeastLoaded = "least-loaded" // the node with the fewest requests
	LRUReactive = "lru-reactive" // the node where the model was last, as long as it has no more than its share
	FIFO        = "fifo"         // one queue for all nodes, which know what is loaded where
)

// Policies are all of them.
var Policies = []string{Vramjet, Random, RoundRobin, LeastLoaded, LRUReactive, FIFO}

// A Config is a simulation.
type Config struct {
	Fleet    Fleet
	Jobs     []Job
	Policy   string           // one of Policies; "" means Vramjet
	Tune     placement.Policy // what an operator may set, for Vramjet
	Weights  map[string]float64
	Seed     uint64          // of what a policy draws
	Progress func(ended int) // called now and then; nil: never
}

// A policy takes jobs as they come and puts them on machines.
type policy interface {
	arrive(r *request)
	// settle is called when all of an instant has happened.
	settle()
	ended(m *machine, r *request)
	loaded(m *machine)
}

// A run is a simulation under way.
type run struct {
	Config
	clock
	models    map[string]Model
	machines  []*machine
	requests  []*request
	bill      bill
	idle      idleness
	decided   []time.Duration // what each decision took, of real time
	left      int
	arrived   int
	lastCame  time.Duration // when the last job arrived
	lastEnded time.Duration // when one ended
}

// stuckAfter is for how long nothing happens where nothing ever will: longer than any
// job runs, or any policy waits.
const stuckAfter = 7 * 24 * time.Hour

// Run replays the jobs until all have ended. It's deterministic but for what decisions
// took. Errors are about the fleet and the jobs, or ctx's.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	fleet, err := cfg.Fleet.withDefaults()
	if err != nil {
		return nil, err
	}
	cfg.Fleet = fleet
	r := &run{Config: cfg, models: map[string]Model{}, left: len(cfg.Jobs)}
	for _, m := range fleet.Models {
		r.models[m.Name] = m
	}
	for _, n := range fleet.Nodes {
		r.machines = append(r.machines, newMachine(n, &r.clock, &r.bill))
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	p, err := r.policy()
	if err != nil {
		return nil, err
	}
	return r.play(ctx, p)
}

// check reports what could never end.
func (r *run) check() error {
	if len(r.Jobs) == 0 {
		return errors.New("there are no jobs")
	}
	fit := map[string]bool{}
	for i, j := range r.Jobs {
		m, ok := r.models[j.Model]
		if !ok {
			return fmt.Errorf("job %d: the fleet has no model %q", i+1, j.Model)
		}
		if !fit[m.Name] && !slices.ContainsFunc(r.machines, func(x *machine) bool { return x.fitsEmpty(m) }) {
			return fmt.Errorf("the model %s needs %s, which no node has", m.Name, m.Need)
		}
		fit[m.Name] = true
	}
	return nil
}

func (r *run) policy() (policy, error) {
	if r.Policy != "" && r.Policy != Vramjet && slices.ContainsFunc(r.machines, func(m *machine) bool { return len(m.Models) > 0 }) {
		return nil, fmt.Errorf("the policy %s takes it that every node has every model", r.Policy)
	}
	switch r.Policy {
	case "", Vramjet:
		r.Policy = Vramjet
		return newPlanner(r), nil
	case Random, RoundRobin, LeastLoaded, LRUReactive:
		return newBalancer(r), nil
	case FIFO:
		return &single{run: r}, nil
	default:
		return nil, fmt.Errorf("there is no policy %q: %s are", r.Policy, strings.Join(Policies, ", "))
	}
}

// play lets time pass until all jobs have ended.
func (r *run) play(ctx context.Context, p policy) (*Report, error) {
	for _, m := range r.machines {
		m.changed = p.loaded
		m.ended = func(m *machine, q *request) {
			r.left--
			r.lastEnded = r.now
			p.ended(m, q)
		}
	}
	r.requests = make([]*request, len(r.Jobs))
	for i, j := range r.Jobs {
		q := &request{Job: j, index: i}
		r.requests[i] = q
		r.at(j.At, func() {
			r.arrived++
			r.lastCame = r.now
			p.arrive(q)
		})
	}
	for step := 0; r.left > 0; step++ {
		before := r.now
		if !r.step() || r.arrived == len(r.Jobs) && r.now-max(r.lastCame, r.lastEnded) > stuckAfter {
			return nil, fmt.Errorf("%s left %d jobs waiting that nothing will ever serve", r.Policy, r.left)
		}
		r.idle.passed(r.now - before)
		p.settle()
		if step%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return nil, err //nolint:wrapcheck // the caller's own
			}
			if r.Progress != nil {
				r.Progress(len(r.Jobs) - r.left)
			}
		}
	}
	return r.report(), nil
}

// idleness is the slot-seconds that were free while a job waited that could have had
// them, and those of models that gave way.
type idleness struct {
	free, leaving       int // now
	freeTime, leaveTime time.Duration
}

func (i *idleness) passed(d time.Duration) {
	i.freeTime += time.Duration(i.free) * d
	i.leaveTime += time.Duration(i.leaving) * d
}
