package worker

import (
	"context"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/schemas"
)

// second returns a worker with the name of the rig's.
func (r *rig) second() *Worker {
	r.t.Helper()
	w, err := New(r.join(), Config{Node: "n1", Logger: brokertest.Log(r.t)})
	if err != nil {
		r.t.Fatal(err)
	}
	return w
}

func TestRefusesToRunBesideItsLike(t *testing.T) {
	r := newRig(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := r.second().Run(ctx)
	if err == nil || !strings.Contains(err.Error(), "another worker is running as node n1 on this NATS: choose another name with --node") {
		t.Errorf("the second one: %v", err)
	}
	r.submit("j1", "quick", chat).run().ended(1, schemas.StatusOK) // the first one goes on
	r.stop()
	r.runs(r.second())
}

// runs runs w until it has said something of itself.
func (r *rig) runs(w *Worker) {
	r.t.Helper()
	r.worker = w
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	r.await(func(s *schemas.NodeState) bool { return !s.Draining })
	cancel()
	if err := wait(r.t, ended); err != nil {
		r.t.Error(err)
	}
}

func TestRunsWhereSomebodyOnlyListens(t *testing.T) {
	r := newRig(t, nil)
	r.stop()
	r.subscribe(">", func(*nats.Msg) {})
	r.runs(r.second())
}

func TestRunWithoutAConnection(t *testing.T) {
	r := newRig(t, nil)
	w := r.second()
	w.nc.Close()
	if err := w.Run(t.Context()); err == nil {
		t.Error("no error")
	}
}
