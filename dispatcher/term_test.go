package dispatcher

import (
	"context"
	"testing"
	"time"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// robLease takes the lease from the leader, and waits until it leads again.
func (s *system) robLease() {
	s.Helper()
	var before *term
	s.until("it leads", func(t *term) bool { before = t; return true })
	kv, err := s.js.KeyValue(s.Context(), broker.BucketState)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := kv.Put(s.Context(), broker.LeaderKey, []byte(`{"holder":"robber","id":"r"}`)); err != nil {
		s.Fatal(err)
	}
	s.until("it leads again", func(t *term) bool { return t != before && t.pauses.known && !t.counting })
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
	s.robLease()

	former.post(func() { former.returned(f, time.Now()) })
	if former.do(func() { t.Error("a term that is over still does something") }) {
		t.Error("a term that is over says that it did something")
	}
	s.submit("m", "after")
	if r := n.next(); r.job() != "after" {
		t.Errorf("it got the job %s", r.job())
	}
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
