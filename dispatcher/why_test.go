package dispatcher

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// TestWhyOfWhatWasHandedOut: a job that was delivered, and that nobody has now, waits for
// its lease, and not for a slot. Where a node has it from another leader, it runs.
func TestWhyOfWhatWasHandedOut(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Hour})
	n := s.node("a", nil, "m")
	s.submit("m", "j1")
	n.free(n.next(), schemas.UpstreamError, 20_000) // its delivery is not settled

	var why schemas.Why
	for stop := time.Now().Add(patience); why.Reason == ""; {
		if s.ask("why", "j1", &why); time.Now().After(stop) {
			t.Fatalf("%+v", why)
		}
	}
	if why.State != schemas.JobQueued || !strings.Contains(why.Reason, "who had it is gone") || !strings.Contains(why.Next, "30s at most") {
		t.Errorf("%+v", why)
	}

	state := schemas.NodeState{Node: "b", Boot: "b1", Running: []schemas.RunningJob{{Job: "j1", Tenant: "default", Attempt: 1, Model: "m", Backend: "sim"}}}
	if err := s.nc.Publish(schemas.NodeSubject("b", "state"), encode(state)); err != nil {
		t.Fatal(err)
	}
	for stop := time.Now().Add(patience); why.State != schemas.JobRunning; {
		why = schemas.Why{}
		if s.ask("why", "j1", &why); time.Now().After(stop) {
			t.Fatalf("%+v", why)
		}
	}
	if why.Node != "b" || why.Reason != "" {
		t.Errorf("%+v", why)
	}
}

// TestUnsupportedNamesOthers: who asks a model for what it can't do is told of one that can.
func TestUnsupportedNamesOthers(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Hour})
	b := schemas.Backend{Name: "sim", Kind: "sim", Healthy: true, Models: []schemas.Model{
		{Name: "chats", Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Resident, Slots: 2},
		{Name: "embeds", Kinds: []schemas.Kind{schemas.Embedding}, State: schemas.Resident, Slots: 2},
	}}
	s.nodeWith("a", nil, b)
	for id, want := range map[string]string{
		"embedding":  "no backend does embedding with the model chats; some that could: embeds",
		"completion": "no backend does completion with the model chats, nor with any other",
	} {
		m := nats.NewMsg(schemas.JobsPrefix + "default.normal.chats")
		m.Header.Set(schemas.HeaderMsgID, id)
		m.Header.Set(schemas.HeaderKind, id)
		m.Data = []byte(`{"model":"chats","input":"x","prompt":"x"}`)
		if _, err := s.js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if _, err := s.end(id); err.Code != schemas.Unsupported || err.Message != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
