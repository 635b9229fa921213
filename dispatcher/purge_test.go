package dispatcher

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// purge asks for steps until there is no next, and returns what they came to.
func (s *system) purge(req schemas.PurgeRequest) (total schemas.PurgeStep, steps int) {
	s.Helper()
	for {
		var step schemas.PurgeStep
		s.asks("purge", req, &step)
		steps++
		total.Waiting += step.Waiting
		total.Running += step.Running
		if step.Next == 0 {
			return total, steps
		}
		req.From, req.Through = step.Next, step.Through
	}
}

// TestPurge: waiting jobs end and leave the queue, those that run go on, and no other
// is touched.
func TestPurge(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Hour})
	n := s.node("a", nil, "m")
	s.submit("m", "b1-0")
	s.submit("m", "b1-1")
	first, second := n.next(), n.next() // both slots
	for i := range 300 {
		s.submit("m", fmt.Sprint("b1-", i+2))
	}
	s.submit("m", "b10")
	s.submit("other", "b1-other")

	req := schemas.PurgeRequest{Filter: schemas.Filter{Model: "m"}, Prefix: "b1-", DryRun: true}
	if got, _ := s.purge(req); got.Waiting != 300 || got.Running != 0 {
		t.Errorf("a dry run: %+v, want 300 waiting", got)
	}
	s.wantQueued(304)
	req.DryRun = false
	if got, steps := s.purge(req); got.Waiting != 300 || got.Running != 0 || steps < 2 {
		t.Errorf("%+v in %d steps, want 300 waiting in at least 2", got, steps)
	}
	s.wantQueued(4)
	for _, id := range []string{"b1-2", "b1-301"} {
		if status, err := s.end(id); status != schemas.StatusCancelled || err.Code != schemas.Cancelled {
			t.Errorf("%s ended %s: %v", id, status, err)
		}
	}
	if got, _ := s.purge(req); got.Waiting != 0 {
		t.Errorf("once more: %+v", got)
	}
	told, err := s.nc.SubscribeSync(schemas.CancelSubject("default", first.job()))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := s.purge(schemas.PurgeRequest{Prefix: "b1-", Running: true}); got.Waiting != 1 || got.Running != 2 {
		t.Errorf("with those that run: %+v, want 1 and 2", got)
	}
	if _, err := told.NextMsg(patience); err != nil {
		t.Errorf("the node was not told: %v", err)
	}
	n.finish(first)
	n.finish(second)
	if r := n.next(); r.job() != "b10" {
		t.Errorf("%s runs, want b10", r.job())
	} else {
		n.finish(r)
	}
	s.wantQueued(0)
}

// TestPurgeRefusesNonsense: what cannot be meant is an error, and ends nothing.
func TestPurgeRefusesNonsense(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	for _, req := range []any{7, schemas.PurgeRequest{Prefix: "a.b"}, schemas.PurgeRequest{Filter: schemas.Filter{Class: "urgent"}}} {
		var bad schemas.APIError
		if s.asks("purge", req, &bad); bad.Error == nil || bad.Error.Code != schemas.InvalidRequest {
			t.Errorf("purge %v: %v", req, bad.Error)
		}
	}
}

// TestPurgeBesideANode: whatever is fetched while a purge goes through the queue, each
// job is run or ended, and never both. Their ends go to an inbox, where nothing else
// would hold a second one back.
func TestPurgeBesideANode(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	const jobs = 400
	ends := make(chan *nats.Msg, 2*jobs)
	inbox := s.nc.NewInbox()
	if _, err := s.nc.ChanSubscribe(inbox+".*", ends); err != nil {
		t.Fatal(err)
	}
	s.asks("purge", schemas.PurgeRequest{}, &schemas.PurgeStep{}) // it leads for long enough
	n := s.node("a", nil, "m")
	for i := range jobs {
		id := fmt.Sprint("j", i)
		s.submit("m", id, schemas.HeaderReply, inbox+"."+id)
	}
	over, ran := map[string]int{}, 0
	purged := make(chan int)
	go func() { total, _ := s.purge(schemas.PurgeRequest{}); purged <- total.Waiting }()
	for purging := true; purging; {
		select {
		case r := <-n.jobs:
			over[r.job()]++
			ran++
			n.finish(r)
		case ended := <-purged:
			purging = false
			t.Logf("%d ran, %d were ended", ran, ended)
		}
	}
	for len(over) < jobs {
		select {
		case r := <-n.jobs:
			over[r.job()]++
			n.finish(r)
		case m := <-ends:
			over[m.Header.Get(schemas.HeaderJob)]++
		case <-time.After(patience):
			t.Fatalf("%d of %d jobs are over", len(over), jobs)
		}
	}
	s.wantQueued(0)
	if err := s.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for len(ends) > 0 {
		over[(<-ends).Header.Get(schemas.HeaderJob)]++
	}
	for id, times := range over {
		if times != 1 {
			t.Errorf("%s was run or ended %d times", id, times)
		}
	}
}

// TestPurgeOfTriedJobs: a job that waits for its next attempt ends, and one that its
// node is done with and still settles does not.
func TestPurgeOfTriedJobs(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	s.submit("m", "fails")
	s.submit("m", "settles")
	runs := map[string]run{}
	for range 2 {
		r := n.next()
		runs[r.job()] = r
	}
	if err := broker.Nak(t.Context(), n.nc, runs["fails"].ack, time.Hour); err != nil {
		t.Fatal(err)
	}
	n.free(runs["fails"], schemas.Overloaded, time.Hour.Milliseconds())
	n.free(runs["settles"], "", -1)
	if err := n.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	purged := make(chan schemas.PurgeStep)
	go func() { total, _ := s.purge(schemas.PurgeRequest{}); purged <- total }()
	settles := schemas.NodeState{Node: "b", Boot: "b1", Running: []schemas.RunningJob{{Job: "settles", Tenant: "default", Attempt: 1, Model: "m", Backend: "sim"}}}
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case total := <-purged:
			if total.Waiting != 1 || total.Running != 0 {
				t.Errorf("%+v, want 1 waiting", total)
			}
			if status, _ := s.end("fails"); status != schemas.StatusCancelled {
				t.Errorf("the job that failed ended %s", status)
			}
			s.wantQueued(1)
			n.finish(runs["settles"])
			s.wantQueued(0)
			return
		case <-tick.C:
			_ = s.nc.Publish(schemas.NodeSubject("b", "state"), encode(settles))
		}
	}
}

// TestPurgeDeletesBodies: what is purged leaves no body behind.
func TestPurgeDeletesBodies(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Hour})
	s.put("default.one")
	s.put("default.two")
	s.claim("m", "j1", "default.one")
	s.claim("other", "j2", "default.two")
	if got, _ := s.purge(schemas.PurgeRequest{Filter: schemas.Filter{Model: "m"}}); got.Waiting != 1 {
		t.Errorf("%+v, want 1 waiting", got)
	}
	s.wantQueued(1)
	s.wantBodies("default.two")
	var d schemas.JobDetails
	if s.asks("show", schemas.JobRequest{Job: "j2", Body: true}, &d); d.Headers[schemas.HeaderBody] != "default.two" || d.Body != nil {
		t.Errorf("a job whose body is an object: %+v", d)
	}
}
