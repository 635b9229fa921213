package dispatcher

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// TestPausedFlowsWait: nothing of a paused flow is served, by any leader, until it is
// resumed; what runs goes on, and others are served.
func TestPausedFlowsWait(t *testing.T) {
	s := newSystem(t)
	stop := s.dispatch(Config{ID: "one"})
	n := s.node("a", nil, "m:1", "other")
	s.submit("m:1", "runs")
	running := n.next()
	var list schemas.PauseList
	s.asks("pause", schemas.PauseRequest{Filter: schemas.Filter{Model: "m:*"}, By: "ana@desk"}, &list)
	if len(list.Pauses) != 1 || list.Pauses[0].By != "ana@desk" || time.Since(list.Pauses[0].Since) > time.Minute {
		t.Fatalf("paused: %+v", list)
	}
	s.submit("m:1", "waits")
	othersGoOn := func(id string) {
		t.Helper()
		s.submit("other", id)
		if r := n.next(); r.job() != id {
			t.Fatalf("%s runs, want %s: the flow is paused", r.job(), id)
		} else {
			n.finish(r)
		}
	}
	othersGoOn("o1")
	n.finish(running)
	othersGoOn("o2")

	var why schemas.Why
	s.ask("why", "waits", &why)
	if !strings.HasPrefix(why.Reason, "model m:* is paused by ana@desk since 20") || len(why.Fix) != 1 || why.Fix[0] != "vramjet queue resume --model 'm:*'" {
		t.Errorf("why: %+v", why)
	}
	s.dispatch(Config{ID: "two"})
	stop()
	othersGoOn("o3")
	var flows schemas.FlowList
	s.asks("list", struct{}{}, &flows)
	paused := slices.DeleteFunc(slices.Clone(flows.Flows), func(f schemas.FlowInfo) bool { return f.Model != "m:1" })
	if len(flows.Pauses) != 1 || len(paused) != 1 || !paused[0].Paused || paused[0].Waiting != 1 || paused[0].OldestMS < 1 || !strings.HasPrefix(paused[0].Reason, "model m:* is paused") {
		t.Errorf("the queue: %+v", flows)
	}
	s.asks("resume", schemas.PauseRequest{Filter: schemas.Filter{Model: "m:1"}}, &list)
	if len(list.Pauses) != 1 {
		t.Errorf("another pause was ended: %+v", list)
	}
	s.asks("resume", schemas.PauseRequest{Filter: schemas.Filter{Model: "m:*"}}, &list)
	if len(list.Pauses) != 0 {
		t.Errorf("resumed: %+v", list)
	}
	if r := n.next(); r.job() != "waits" {
		t.Errorf("%s runs after the pause", r.job())
	} else {
		n.finish(r)
	}
	s.wantQueued(0)
}

// TestPauseKeepsUnknownModels: jobs of a model that is gone for a while do not end while
// it is paused.
func TestPauseKeepsUnknownModels(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: 100 * time.Millisecond})
	var list schemas.PauseList
	s.asks("pause", schemas.PauseRequest{Filter: schemas.Filter{Class: schemas.Normal}}, &list)
	s.submit("m", "waits")
	s.publish("vj.v1.jobs.default.batch.m", "ends")
	if _, err := s.end("ends"); err.Code != schemas.ModelNotFound {
		t.Errorf("the other class ended with %v", err)
	}
	var info schemas.JobInfo
	if s.ask("status", "waits", &info); info.State != schemas.JobQueued {
		t.Errorf("the paused job is %s", info.State)
	}
	s.asks("resume", schemas.PauseRequest{}, &list)
	if _, err := s.end("waits"); err.Code != schemas.ModelNotFound {
		t.Errorf("the resumed job ended with %v", err)
	}
}

// TestPausesAtOnce: changes that come together are all stored, and the one who paused
// first is the one who is named.
func TestPausesAtOnce(t *testing.T) {
	s := newSystem(t)
	stop := s.dispatch(Config{})
	inbox, err := s.nc.SubscribeSync(s.nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	var list schemas.PauseList
	s.asks("pause", schemas.PauseRequest{Filter: schemas.Filter{Model: "m"}, By: "first"}, &list)
	for _, class := range schemas.Classes {
		req := schemas.PauseRequest{Filter: schemas.Filter{Class: class}, By: string(class)}
		if err := s.nc.PublishRequest(schemas.APISubject("default", "pause"), inbox.Subject, encode(req)); err != nil {
			t.Fatal(err)
		}
	}
	for range schemas.Classes {
		if _, err := inbox.NextMsg(patience); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	s.dispatch(Config{})
	s.asks("pause", schemas.PauseRequest{Filter: schemas.Filter{Model: "m"}, By: "second"}, &list)
	if len(list.Pauses) != 4 || list.Pauses[0].By != "first" {
		t.Errorf("paused: %+v", list)
	}
	var bad schemas.APIError
	for _, req := range []any{
		schemas.PauseRequest{Filter: schemas.Filter{Class: "urgent"}},
		schemas.PauseRequest{Filter: schemas.Filter{Model: "[x"}},
		schemas.PauseRequest{By: strings.Repeat("x", 201)},
		7,
	} {
		if s.asks("pause", req, &bad); bad.Error == nil || bad.Error.Code != schemas.InvalidRequest {
			t.Errorf("pause %v: %v", req, bad.Error)
		}
	}
}

// TestPauseAfterAnotherLeader: a leader that another one has followed, and that does not
// know it yet, undoes nothing: what is stored holds.
func TestPauseAfterAnotherLeader(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	var list schemas.PauseList
	s.asks("pause", schemas.PauseRequest{Filter: schemas.Filter{Model: "a"}}, &list)
	kv, err := s.js.KeyValue(t.Context(), broker.BucketState)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), pausesKey, `{"default":[{"model":"b","since":"2026-01-02T15:04:05Z"}]}`); err != nil {
		t.Fatal(err)
	}
	var failed schemas.APIError
	s.asks("pause", schemas.PauseRequest{Filter: schemas.Filter{Model: "c"}}, &failed)
	if failed.Error == nil || failed.Error.Code != schemas.Internal || !strings.Contains(failed.Error.Message, "try again") {
		t.Fatalf("a pause over another's: %v", failed.Error)
	}
	for failed.Error != nil { // until what is stored was read
		failed = schemas.APIError{}
		s.asks("pause", schemas.PauseRequest{Filter: schemas.Filter{Model: "c"}}, &failed)
	}
	s.asks("resume", schemas.PauseRequest{Filter: schemas.Filter{Model: "nothing"}}, &list)
	if len(list.Pauses) != 2 || list.Pauses[0].Model != "b" || list.Pauses[1].Model != "c" {
		t.Errorf("paused: %+v, want b and c", list)
	}
}
