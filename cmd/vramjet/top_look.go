package main

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// A topState is what goes on, at a time. Drawing looks at nothing else.
type topState struct {
	now    time.Time
	server string
	leader asked[string]
	dead   asked[uint64] // letters
	nodes  asked[[]schemas.NodeState]
	flows  asked[[]topFlow]
	began  map[string]time.Time // when the queue took a job that runs, by tenant and id
}

// A topFlow is a flow, and what is known of the job whose turn it is.
type topFlow struct {
	tenant string
	schemas.FlowInfo
	oldest  time.Time // when the queue took it; zero: unknown
	job     string    // its id; "": unknown
	blocked string    // why it waits; "": unknown
}

const (
	headWindow  = 500 // how many jobs are looked through for those that wait for the longest time
	shownWhy    = 6   // of how many flows it is asked why they wait
	topTenants  = 16  // whose flows are shown
	shownBegins = 200 // of how many running jobs it is asked when they came
)

// lookForTop asks for all of it. quiet is how long to wait for one more node.
func lookForTop(ctx context.Context, g *gatherer, quiet time.Duration) *topState {
	s := &topState{server: g.nc.ConnectedUrlRedacted(), began: map[string]time.Time{}}
	s.leader = ask(ctx, g, func(ctx context.Context) (string, error) { return broker.Leader(ctx, g.js) })
	dead := g.stream(ctx, broker.StreamDead)
	if s.dead.err = dead.info.err; dead.there() {
		s.dead.got = dead.info.got.State.Msgs
	}
	nodes := g.nodes(ctx, quiet)
	s.nodes = asked[[]schemas.NodeState]{nodes.got.states, nodes.err}
	queue := g.stream(ctx, broker.StreamJobs)
	for _, tenant := range tenantsOf(&queue, g.client.Tenant()) {
		g.lookAtTenant(ctx, s, tenant, &queue)
	}
	slices.SortStableFunc(s.flows.got, func(a, b topFlow) int {
		return cmp.Or(a.Class.Rank()-b.Class.Rank(), cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.Model, b.Model))
	})
	s.now = time.Now()
	return s
}

// tenantsOf lists who has jobs in the queue, or who asks, where that cannot be seen.
func tenantsOf(queue *streamFacts, asks string) []string {
	by := map[string]bool{}
	for flow := range flowsOf(queue, schemas.JobsPrefix) {
		by[flow.Tenant] = true
	}
	if len(by) == 0 {
		return []string{asks}
	}
	tenants := slices.Sorted(maps.Keys(by))
	return tenants[:min(len(tenants), topTenants)]
}

// lookAtTenant adds what the leading dispatcher says of a tenant's jobs.
func (g *gatherer) lookAtTenant(ctx context.Context, s *topState, tenant string, queue *streamFacts) {
	c, err := client.New(g.nc, client.Options{Tenant: tenant})
	if err != nil {
		return // somebody stored a job of a tenant that cannot be: the dispatcher removes it
	}
	list := ask(ctx, g, c.Queue)
	if list.err != nil {
		s.flows.err = list.err
		return
	}
	var flows []topFlow
	for _, f := range list.got.Flows {
		flows = append(flows, topFlow{tenant: tenant, FlowInfo: f})
	}
	g.lookAtHeads(ctx, c, flows, queue)
	s.flows.got = append(s.flows.got, flows...)
	running := ask(ctx, g, func(ctx context.Context) ([]schemas.JobEntry, error) {
		return c.Jobs(ctx, client.JobFilter{States: []schemas.JobState{schemas.JobRunning}, Limit: shownBegins})
	})
	for _, j := range running.got {
		s.began[tenant+" "+j.Job] = j.At
	}
}

// lookAtHeads finds the jobs whose turn it is, and why they wait.
func (g *gatherer) lookAtHeads(ctx context.Context, c *client.Client, flows []topFlow, queue *streamFacts) {
	waits := slices.ContainsFunc(flows, func(f topFlow) bool { return f.Waiting > 0 })
	if !waits || !queue.there() {
		return
	}
	heads := ask(ctx, g, func(ctx context.Context) ([]schemas.JobEntry, error) {
		return c.QueuedBefore(ctx, queue.info.got.State.FirstSeq+headWindow, headWindow)
	})
	for _, j := range heads.got { // the newest first, so the last of a flow counts
		for i := range flows {
			if f := &flows[i]; f.Class == j.Class && f.Model == j.Model {
				f.oldest, f.job = j.At, j.Job
			}
		}
	}
	asked := 0
	for i := range flows {
		f := &flows[i]
		if f.job == "" || f.Waiting == 0 || asked == shownWhy {
			continue
		}
		asked++
		why := ask(ctx, g, func(ctx context.Context) (schemas.Why, error) { return c.Why(ctx, f.job) })
		if why.err == nil && why.got.State == schemas.JobQueued {
			f.blocked = why.got.Reason
		}
	}
}
