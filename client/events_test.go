package client_test

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

func TestEvents(t *testing.T) {
	nc := connect(t, start(t))
	c := newClient(t, nc, client.Options{Tenant: "acme"})
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	events := c.Events(ctx)
	for subject, body := range map[string]string{
		"vj.v1.events.other.jobs.x": `{"event":"queued","job":"x"}`,
		"vj.v1.events.acme.jobs.y":  `{}`,
		"vj.v1.events.acme.jobs.z":  `no JSON`,
	} {
		if err := nc.Publish(subject, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	for _, body := range []string{
		`{"event":"queued","job":"j1","model":"m","class":"batch","at":"2026-01-02T15:04:05Z","custom_id":"№ 1","later":"more"}`,
		`{"event":"ended","job":"j1","at":"2026-01-02T15:04:06Z","status":"ok","tokens":7}`,
	} {
		if err := nc.Publish("vj.v1.events.acme.jobs.j1", []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	for e, err := range events {
		if err != nil || e.Event != schemas.JobEventQueued || e.Job != "j1" || e.Class != schemas.Batch || e.CustomID != "№ 1" {
			t.Errorf("got %+v, %v", e, err)
		}
		break
	}
	last := errors.New("nothing")
	for e, err := range events { // where the first loop stopped
		if last = err; err != nil {
			break
		}
		if e.Event != schemas.JobEventEnded || e.Status != schemas.StatusOK || e.Tokens != 7 {
			t.Errorf("got %+v", e)
		}
		cancel()
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("the last error is %v", last)
	}
}

func TestEventsOfAClosedConnection(t *testing.T) {
	nc := connect(t, start(t))
	c := newClient(t, nc, client.Options{})
	events := c.Events(deadline(t))
	nc.Close()
	for range 2 {
		n := 0
		for e, err := range events {
			if n++; !errors.Is(err, nats.ErrConnectionClosed) {
				t.Errorf("got %+v, %v", e, err)
			}
		}
		if n != 1 {
			t.Errorf("%d errors", n)
		}
		events = c.Events(deadline(t))
	}
}
