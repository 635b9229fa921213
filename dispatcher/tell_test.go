package dispatcher

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// events listens to what becomes of the jobs of a tenant.
func (s *system) events(tenant string) (next func() schemas.JobEvent) {
	s.Helper()
	sub, err := s.nc.SubscribeSync(schemas.JobEventSubject(tenant, "*"))
	if err != nil {
		s.Fatal(err)
	}
	return func() schemas.JobEvent {
		s.Helper()
		m, err := sub.NextMsg(patience)
		if err != nil {
			s.Fatal(err)
		}
		var e schemas.JobEvent
		if err := json.Unmarshal(m.Data, &e); err != nil || m.Subject != schemas.JobEventSubject(tenant, e.Job) || time.Since(e.At) > patience {
			s.Errorf("on %s: %s, %v", m.Subject, m.Data, err)
		}
		return e
	}
}

func (s *system) wantEvent(next func() schemas.JobEvent, want schemas.JobEvent) {
	s.Helper()
	if diff := cmp.Diff(want, next(), cmpopts.IgnoreFields(schemas.JobEvent{}, "At")); diff != "" {
		s.Errorf("(-want +got):\n%s", diff)
	}
}

// TestJobsAreToldOf: what becomes of a job, from its submission to its end.
func TestJobsAreToldOf(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	n.tokens, n.cost = 7, 0.5
	next := s.events("default")
	s.ask("status", "none", &schemas.APIError{}) // one leads
	due := time.Now().Add(300 * time.Millisecond).UTC()
	s.publish(laterFlow, "j1", schemas.HeaderAt, due.Format(time.RFC3339Nano), schemas.HeaderCustomID, "№ 1")
	of := schemas.JobEvent{Job: "j1", Model: "m", Class: schemas.Normal, CustomID: "№ 1"}
	event := func(kind schemas.JobEventKind, change func(e *schemas.JobEvent)) {
		t.Helper()
		e := of
		e.Event = kind
		change(&e)
		s.wantEvent(next, e)
	}
	event(schemas.JobEventDelayed, func(e *schemas.JobEvent) { e.Due = due })
	event(schemas.JobEventQueued, func(*schemas.JobEvent) {})
	of.Node, of.Backend = "a", "sim"
	event(schemas.JobEventStarted, func(e *schemas.JobEvent) { e.Attempt = 1 })
	r := n.next()
	if err := broker.Nak(t.Context(), n.nc, r.ack, 0); err != nil {
		t.Fatal(err)
	}
	n.free(r, schemas.StreamBroken, 0)
	event(schemas.JobEventRetried, func(e *schemas.JobEvent) { e.Attempt, e.Code, e.Tokens, e.Cost = 1, schemas.StreamBroken, 7, 0.5 })
	event(schemas.JobEventStarted, func(e *schemas.JobEvent) { e.Attempt = 2 })
	n.finish(n.next())
	event(schemas.JobEventEnded, func(e *schemas.JobEvent) { e.Attempt, e.Status, e.Tokens, e.Cost = 2, schemas.StatusOK, 7, 0.5 })
}

// TestEndsWithoutANodeAreToldOf, each once.
func TestEndsWithoutANodeAreToldOf(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{Tenants: map[string]Tenant{"few": {MaxQueued: 1}}, UnknownModelWait: time.Hour})
	next, few := s.events("default"), s.events("few")
	s.ask("status", "none", &schemas.APIError{}) // one leads
	ended := func(next func() schemas.JobEvent, job string, status schemas.Status, code schemas.Code) {
		t.Helper()
		e := next()
		for e.Event == schemas.JobEventQueued || e.Event == schemas.JobEventDelayed {
			e = next()
		}
		if e.Event != schemas.JobEventEnded || e.Job != job || e.Status != status || e.Code != code {
			t.Errorf("got %+v, want the end of %s: %s, %s", e, job, status, code)
		}
	}
	s.submit("m", "queued")
	s.ask("cancel", "queued", &schemas.JobInfo{})
	ended(next, "queued", schemas.StatusCancelled, schemas.Cancelled)
	s.publish(laterFlow, "delayed", schemas.HeaderAt, in(time.Hour))
	s.ask("cancel", "delayed", &schemas.JobInfo{})
	ended(next, "delayed", schemas.StatusCancelled, schemas.Cancelled)
	s.publish("vj.v1.jobs.default.normal.*", "poison")
	ended(next, "poison", schemas.StatusError, schemas.InvalidRequest)
	s.publish("vj.v1.jobs.few.normal.m", "few1")
	s.publish("vj.v1.jobs.few.normal.m", "few2")
	ended(few, "few2", schemas.StatusError, schemas.RateLimited)
	n := s.node("a", nil, "m") // now the one that was cancelled is dropped
	n.finish(n.next())
	s.wantQueued(0)
	s.submit("m", "bad", schemas.HeaderKind, "song")
	ended(next, "bad", schemas.StatusError, schemas.InvalidRequest)
	s.submit("m", "lost")
	for e := next(); e.Event != schemas.JobEventStarted; e = next() {
		if e.Event != schemas.JobEventQueued {
			t.Errorf("got %+v", e)
		}
	}
	n.next()
	n.kill()
	if e := next(); e.Event != schemas.JobEventRetried || e.Job != "lost" || e.Node != "a" || e.Code != schemas.Unreachable {
		t.Errorf("got %+v, want a retry of the job that lost its node", e)
	}
}

// TestEndsSayWhatTheJobWants: for how long they are kept, and what they repeat.
func TestEndsSayWhatTheJobWants(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Hour})
	for id, end := range map[string]func(id string){
		"bad": func(id string) {
			s.submit("m", id, schemas.HeaderKind, "song", schemas.HeaderKeep, "90m", schemas.HeaderCustomID, "№ 1")
		},
		"cancelled": func(id string) {
			s.submit("nobody", id, schemas.HeaderKeep, "90m", schemas.HeaderCustomID, "№ 1")
			s.ask("cancel", id, &schemas.JobInfo{})
		},
		"poison": func(id string) {
			s.publish("vj.v1.jobs.default.normal.*", id, schemas.HeaderKeep, "90m", schemas.HeaderCustomID, "№ 1")
		},
		"delayed": func(id string) { s.publish(laterFlow, id, schemas.HeaderKeep, "90m", schemas.HeaderCustomID, "№ 1") },
	} {
		end(id)
		if id == "bad" {
			s.node("a", nil, "m")
		}
		s.end(id)
		m, _, err := broker.LastMsg(t.Context(), s.nc, broker.StreamResults, schemas.EndSubject("default", id))
		if err != nil || m.Header.Get(schemas.HeaderTTL) != "5400" || m.Header.Get(schemas.HeaderCustomID) != "№ 1" {
			t.Errorf("%s: the end has %v, %v", id, m.Header, err)
		}
	}
}

// TestResultsOfBefore: events that say nothing of how long they are kept are removed
// after a day, those that do are not.
func TestResultsOfBefore(t *testing.T) {
	s := newSystem(t)
	put := func(subject string, header nats.Header) {
		if err := broker.PublishStored(t.Context(), s.nc, &nats.Msg{Subject: "vj.v1.results.default." + subject, Header: header}); err != nil {
			t.Fatal(err)
		}
	}
	kept := nats.Header{schemas.HeaderTTL: {"172800"}}
	d, err := New(s.nc, Config{})
	if err != nil {
		t.Fatal(err)
	}
	term := &term{Dispatcher: d}
	look := func(from uint64, now time.Time, wantFrom, wantLeft uint64) uint64 {
		t.Helper()
		next, err := term.clearResults(t.Context(), from, now.Add(-schemas.DefaultKeep))
		if err != nil || next != wantFrom {
			t.Errorf("looked up to %d, %v, want %d", next, err, wantFrom)
		}
		s.wantStored(broker.StreamResults, wantLeft)
		return next
	}
	tomorrow := time.Now().Add(25 * time.Hour)
	look(0, tomorrow, 0, 0)
	for range 1500 { // more than are looked at at once
		put("old.chunks", nil)
	}
	look(0, time.Now(), 0, 1500)
	put("kept.end", kept)
	put("own.end", nil)
	from := look(0, tomorrow, 1503, 1)
	put("own.end", nil)
	put("kept.end", kept)
	look(from, tomorrow, 1505, 2)
}
