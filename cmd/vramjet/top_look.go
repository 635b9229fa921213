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

// A topFlow is a flow of a tenant.
type topFlow struct {
	tenant string
	schemas.FlowInfo
}

const (
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
		g.lookAtTenant(ctx, s, tenant)
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
func (g *gatherer) lookAtTenant(ctx context.Context, s *topState, tenant string) {
	c, err := client.New(g.nc, client.Options{Tenant: tenant})
	if err != nil {
		return // somebody stored a job of a tenant that cannot be: the dispatcher removes it
	}
	list := ask(ctx, g, c.Queue)
	if list.err != nil {
		s.flows.err = list.err
		return
	}
	for _, f := range list.got.Flows {
		s.flows.got = append(s.flows.got, topFlow{tenant, f})
	}
	running := ask(ctx, g, func(ctx context.Context) ([]schemas.JobEntry, error) {
		return c.Jobs(ctx, client.JobFilter{States: []schemas.JobState{schemas.JobRunning}, Limit: shownBegins})
	})
	for _, j := range running.got {
		s.began[tenant+" "+j.Job] = j.At
	}
}
