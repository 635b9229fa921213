package dispatcher

import (
	"strings"
	"testing"
	"time"

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
