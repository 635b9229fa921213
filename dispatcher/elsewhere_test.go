package dispatcher

import (
	"testing"
	"time"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// TestRetryGoesElsewhere: an attempt that a backend failed is followed by one on
// another, if there is one.
func TestRetryGoesElsewhere(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	a := s.node("a", nil, "m") // the first choice, by its name
	s.submit("m", "j1")
	r := a.next()
	b := s.node("b", nil, "m")
	s.until("b is known", func(t *term) bool { return t.fleet.nodes["b"] != nil })
	if err := broker.Nak(t.Context(), a.nc, r.ack, 0); err != nil {
		t.Fatal(err)
	}
	a.free(r, schemas.StreamBroken, 0)
	if r := b.next(); r.job() != "j1" || r.attempt() != "2" {
		t.Errorf("b got %s, attempt %s", r.job(), r.attempt())
	} else {
		b.finish(r)
	}
	s.wantQueued(0)
}

// TestPullsOfALeaderThatEnds: what they still bring is given back, to the next leader and not
// to one another: each time counts as an attempt.
func TestPullsOfALeaderThatEnds(t *testing.T) {
	s := newSystem(t)
	stop := s.dispatch(Config{})
	n := s.node("a", nil, "m")
	s.submit("m", "j0")
	n.finish(n.next()) // there is a consumer now
	s.wantQueued(0)
	s.within(func() {
		for _, f := range s.d.term.flows {
			f.awaiting = make([]want, 5)
			s.d.term.fetch(f, time.Now())
		}
		s.d.term.close(time.Now())
	})
	s.submit("m", "j1")
	stop()
	s.dispatch(Config{})
	r := n.next()
	if r.attempt() != "2" {
		t.Errorf("j1 is at attempt %s", r.attempt())
	}
	n.finish(r)
	s.wantQueued(0)
}

// TestFailedJobWaitsForAnotherPlace: a job does not go back to where it failed as long as
// another place has it, however busy that is, and waiting for that is no attempt.
func TestFailedJobWaitsForAnotherPlace(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	a := s.node("a", nil, "m") // the first choice, by its name
	s.submit("m", "j1")
	failed := a.next()
	backend := schemas.Backend{Name: "sim", Kind: "sim", Healthy: true, Models: []schemas.Model{
		{Name: "m", Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Resident, Slots: 2, Busy: 2},
	}}
	b := s.nodeWith("b", nil, backend)
	s.until("b is known", func(t *term) bool { return t.fleet.nodes["b"] != nil })
	if err := broker.Nak(t.Context(), a.nc, failed.ack, 0); err != nil {
		t.Fatal(err)
	}
	a.free(failed, schemas.StreamBroken, 0)

	parked := func() (n int) {
		s.within(func() { n = len(s.d.term.parked) })
		return n
	}
	s.until("the job waits for b", func(t *term) bool { return len(t.parked) > 0 })
	s.within(func() { s.d.term.sweepParked(time.Now().Add(parkedAtMost + time.Second)) }) // as if it waited for long
	if parked() != 1 || len(a.jobs) > 0 {
		t.Errorf("%d jobs wait, and %d went back to a", parked(), len(a.jobs))
	}
	backend.Models = []schemas.Model{{Name: "m", Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Resident, Slots: 2}}
	state := schemas.NodeState{Node: "b", Boot: "b1", Seq: 1, Backends: []schemas.Backend{backend}}
	if err := b.nc.Publish(schemas.NodeSubject("b", "state"), encode(state)); err != nil {
		t.Fatal(err)
	}
	r := b.next()
	if r.attempt() != "2" {
		t.Errorf("j1 is at attempt %s", r.attempt())
	}
	b.finish(r)
	s.wantQueued(0)
}
