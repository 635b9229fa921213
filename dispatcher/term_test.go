package dispatcher

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// rob takes the lease from the leader, and lets it run out.
func (s *system) rob() {
	s.Helper()
	kv, err := s.js.KeyValue(s.Context(), broker.BucketState)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := kv.Put(s.Context(), broker.LeaderKey, []byte(`{"holder":"robber","id":"r"}`)); err != nil {
		s.Fatal(err)
	}
}

// TestLateWordOfAFormerTerm: what one term has in hand does not touch the next one of the
// same dispatcher, as where a job that was given back is acknowledged only after a cluster
// has elected.
func TestLateWordOfAFormerTerm(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	s.submit("m", "before")
	r := n.next()
	var former *term
	var f *flow
	s.within(func() { former = s.d.term; f = former.jobs[jobKey{"default", "before"}].flow })
	n.finish(r)
	s.wantQueued(0)
	s.rob()
	s.until("it leads again", func(t *term) bool { return t != former && t.pauses.known && !t.counting })

	former.post(func() { former.returned(f, time.Now()) })
	if former.do(func() { t.Error("a term that is over still does something") }) {
		t.Error("a term that is over says that it did something")
	}
	s.submit("m", "after")
	if r := n.next(); r.job() != "after" {
		t.Errorf("it got the job %s", r.job())
	}
}

// TestTermAfterTerm: jobs of more flows than are served at once, which fail now and then,
// all end under a dispatcher that loses its lease again and again.
func TestTermAfterTerm(t *testing.T) {
	s := newSystem(t)
	d := s.dispatcher(Config{Consumers: 3})
	d.lasts = 200 * time.Millisecond
	s.run(d)
	models := []string{"m0", "m1", "m2", "m3", "m4"}
	over := make(chan struct{})
	var work sync.WaitGroup
	for _, id := range []string{"a", "b"} {
		n := s.node(id, nil, models...)
		work.Go(func() {
			for {
				select {
				case r := <-n.jobs:
					n.finishOrFail(r)
				case <-over:
					return
				}
			}
		})
	}
	defer work.Wait()
	defer close(over)
	for i := range 600 {
		s.publish("vj.v1.jobs."+[]string{"x", "y"}[i%2]+".normal."+models[i%len(models)], fmt.Sprint("j", i), schemas.HeaderAttempts, "20")
	}
	var former *term
	for range 12 {
		s.until("it serves", func(t *term) bool { return t != former && len(t.running) > 0 })
		s.within(func() { former = d.term })
		s.rob()
	}
	s.wantQueued(0)
	s.within(func() {
		if d.term != nil && len(d.term.consumers.live) > 3 {
			t.Errorf("%d consumers live", len(d.term.consumers.live))
		}
	})
}

// finishOrFail ends a job, or fails one of five, to be run again.
func (n *fakeNode) finishOrFail(r run) {
	if rand.IntN(5) > 0 {
		_ = broker.Ack(n.Context(), n.nc, r.ack) // fails where the lease is over
		n.free(r, "", -1)
		return
	}
	_ = broker.Nak(n.Context(), n.nc, r.ack, 50*time.Millisecond)
	n.free(r, schemas.UpstreamError, 50)
}

// TestForgottenFlowReturns: a job may come back of a flow that nothing was left of.
func TestForgottenFlowReturns(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	s.until("it knows the node", func(t *term) bool { return len(t.fleet.nodes) == 1 })
	key := schemas.Flow{Tenant: "default", Class: schemas.Normal, Model: "m"}
	s.within(func() {
		now, t := time.Now(), s.d.term
		f := t.flowOf("vj.v1.jobs.default.normal.m", key)
		t.sweepFlows(now)
		if t.byKey[key] != nil {
			s.Error("a flow without jobs is still known")
		}
		t.returned(f, now)
		t.plan(now)
	})
	s.submit("m", "j")
	n.finish(n.next())
	s.wantQueued(0)
}

// TestPanicIsSeen: a panic is not waited out by what only Run's goroutine could end.
func TestPanicIsSeen(t *testing.T) {
	s := newSystem(t)
	d := s.dispatcher(Config{})
	s.d = d
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan any, 1)
	go func() {
		defer func() { seen <- recover() }()
		_ = d.Run(ctx)
	}()
	s.until("it leads", func(*term) bool { return true })
	d.post(func() { panic("a bug") })
	select {
	case p := <-seen:
		if p != "a bug" {
			t.Errorf("Run panicked with %v", p)
		}
	case <-time.After(patience):
		t.Error("Run hides a panic")
	}
	cancel() // of a process that goes on, unlike any other
	close(d.term.over)
	d.work.Wait()
}
