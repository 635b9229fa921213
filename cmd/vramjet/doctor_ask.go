package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// discover asks for the instances of a service, and returns those that answer before
// none did for quiet, by their IDs.
func discover(ctx context.Context, nc *nats.Conn, service string, quiet time.Duration) ([]micro.Info, error) {
	subject, err := micro.ControlSubject(micro.InfoVerb, service, "")
	if err != nil {
		return nil, err
	}
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only where the connection is closed
	if err := nc.PublishRequest(subject, inbox, nil); err != nil {
		return nil, err
	}
	var all []micro.Info
	for {
		next, cancel := context.WithTimeout(ctx, quiet)
		m, err := sub.NextMsgWithContext(next)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
			slices.SortFunc(all, func(a, b micro.Info) int { return cmp.Compare(a.ID, b.ID) })
			return all, nil
		case err != nil:
			return nil, err
		}
		var info micro.Info
		if json.Unmarshal(m.Data, &info) == nil && info.Name == service { // else somebody else's
			all = append(all, info)
		}
	}
}

// A leaseCount is how many jobs run by those who should know: for each tenant.
type leaseCount struct {
	unacked asked[map[string]int] // delivered and not settled, as the queue says
	running asked[map[string]int] // as the nodes say
	leading map[string]int        // as the leading dispatcher says; without those who could not be asked
}

const (
	looksAtLeases = 3           // until two agree, as jobs begin and end in between
	askedTenants  = 32          // whom the dispatcher is asked about
	leasesEvery   = time.Second // between two looks
)

// leaseCounts counts who runs how many jobs until the counts agree, a few times at most.
func (g *gatherer) leaseCounts(ctx context.Context, f *facts, quiet time.Duration) (all []leaseCount) {
	for {
		t := leaseCount{
			unacked: countedBy(f.consumers, unackedJobs),
			running: countedBy(f.nodes, func(n nodeFacts) map[string]int { return runningJobs(n.states) }),
		}
		t.leading = g.leadingJobs(ctx, t)
		all = append(all, t)
		if len(all) == looksAtLeases || t.agrees() || !pauseFor(ctx, leasesEvery) {
			return all
		}
		f.consumers, f.nodes = ask(ctx, g, g.consumers), g.nodes(ctx, quiet)
	}
}

// agrees reports whether there is nothing to look at again: the counts agree, or one of
// them cannot be had.
func (t *leaseCount) agrees() bool {
	return t.unacked.err != nil || t.running.err != nil || maps.Equal(t.unacked.got, t.running.got)
}

// countedBy counts what was asked for.
func countedBy[T any](a asked[T], by func(T) map[string]int) asked[map[string]int] {
	if a.err != nil {
		return asked[map[string]int]{err: a.err}
	}
	return asked[map[string]int]{got: by(a.got)}
}

func unackedJobs(consumers []*jetstream.ConsumerInfo) map[string]int {
	by := map[string]int{}
	for _, c := range consumers {
		if flow, err := schemas.ParseJobSubject(c.Config.FilterSubject); err == nil && c.NumAckPending > 0 {
			by[flow.Tenant] += c.NumAckPending
		}
	}
	return by
}

func runningJobs(nodes []schemas.NodeState) map[string]int {
	by := map[string]int{}
	for i := range nodes {
		for _, j := range nodes[i].Running {
			by[j.Tenant]++
		}
	}
	return by
}

// leadingJobs asks the leading dispatcher how many jobs of each tenant it holds or has
// handed over.
func (g *gatherer) leadingJobs(ctx context.Context, t leaseCount) map[string]int {
	tenants := maps.Clone(t.unacked.got)
	if tenants == nil {
		tenants = map[string]int{}
	}
	maps.Copy(tenants, t.running.got)
	by := map[string]int{}
	for _, tenant := range slices.Sorted(maps.Keys(tenants))[:min(askedTenants, len(tenants))] {
		list := ask(ctx, g, func(ctx context.Context) (schemas.FlowList, error) {
			c, err := client.New(g.nc, client.Options{Tenant: tenant})
			if err != nil {
				return schemas.FlowList{}, err
			}
			return c.Queue(ctx)
		})
		if list.err != nil {
			continue // who leads, and what may not be asked, are checks of their own
		}
		for _, flow := range list.got.Flows {
			by[tenant] += flow.Running
		}
	}
	return by
}

// pauseFor waits, and reports whether ctx has not ended meanwhile.
func pauseFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// flowsOf reads the subjects of a stream with the flow of each job.
func flowsOf(s *streamFacts, prefix string) map[schemas.Flow]uint64 {
	by := map[schemas.Flow]uint64{}
	if !s.there() {
		return by
	}
	for subject, n := range s.info.got.State.Subjects {
		if flow, err := schemas.ParseJobSubject(schemas.JobsPrefix + subject[min(len(prefix), len(subject)):]); err == nil {
			by[flow] += n
		}
	}
	return by
}

// describe names a flow: llama3.1:8b, normal, of acme.
func describe(f schemas.Flow) string { return fmt.Sprintf("%s, %s, of %s", f.Model, f.Class, f.Tenant) }

// consumerFlow returns the subject that a consumer is for, "" where it is none of the
// dispatcher's.
func consumerFlow(c *jetstream.ConsumerInfo) string {
	subject := c.Config.Metadata[broker.MetadataSubject]
	if subject == "" || c.Name != broker.ConsumerName(subject) {
		return ""
	}
	return subject
}
