package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

func change(e *schemas.JobEntry) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %d %s %s", e.Job, e.State, e.Attempt, e.Node, e.Code))
}

// tell publishes what becomes of a job, as the leading dispatcher does, once somebody
// listens.
func tell(t *testing.T, srv *server.Server, job string, events ...string) {
	t.Helper()
	nc := connect(t, srv)
	subject := schemas.JobEventSubject("default", job)
	for ctx := deadline(t); ctx.Err() == nil; {
		if n, err := srv.Subsz(&server.SubszOptions{Test: subject, Subscriptions: true}); err == nil && n.Total > 0 {
			break
		}
	}
	for _, e := range events {
		if err := nc.Publish(subject, []byte(e)); err != nil {
			t.Error(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Error(err)
	}
}

// TestWatch: a job's changes come one by one, until its end.
func TestWatch(t *testing.T) {
	srv := start(t)
	answerAPI(t, srv, func(string) string { return `{"job":"j1","state":"queued","model":"m"}` })
	c := newClient(t, connect(t, srv), client.Options{})
	var got []string
	for e, err := range c.Watch(deadline(t), "j1") {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, change(&e)); len(got) == 1 {
			tell(t, srv, "j1", `{"event":"queued","job":"j1","model":"m"}`, `{"event":"started","job":"j1","node":"n1","attempt":1}`, `nonsense`,
				`{"event":"retried","job":"j1","node":"n1","attempt":1,"code":"stream_broken"}`, `{"event":"of another version","job":"j1"}`,
				`{"event":"started","job":"j1","node":"n2","attempt":2}`, `{"event":"ended","job":"j1","node":"n2","attempt":2,"status":"ok"}`)
		}
		if e.Model != "m" {
			t.Errorf("%+v", e)
		}
	}
	if want := "j1 queued 0|j1 running 1 n1|j1 queued 1 n1 stream_broken|j1 running 2 n2|j1 ok 2 n2"; strings.Join(got, "|") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "|"), want)
	}
}

// TestWatchWithoutEvents: where all events are lost, what the dispatcher knows is told.
func TestWatchWithoutEvents(t *testing.T) {
	srv := start(t)
	c := newClient(t, connect(t, srv), client.Options{})
	for _, err := range c.Watch(deadline(t), "j1") {
		if !errors.Is(err, client.ErrNoDispatcher) {
			t.Errorf("without a dispatcher: %v", err)
		}
	}
	const gone = `{"error":{"message":"no job j1","type":"not_found_error","code":"job_not_found"}}`
	var asked atomic.Int64
	answerAPI(t, srv, func(string) string {
		return []string{`{"job":"j1","state":"running","node":"n1","attempt":1}`, `{"job":"j1","state":"running","node":"n1","attempt":1}`, gone, gone}[asked.Add(1)-1]
	})
	var got []string
	for e, err := range c.Watch(deadline(t), "j1") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, change(&e))
	}
	if want := "j1 running 1 n1|j1  1 n1"; strings.Join(got, "|") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "|"), want)
	}
	for _, id := range []string{"j1", "a.b"} {
		for _, err := range c.Watch(deadline(t), id) {
			if !errors.Is(err, client.ErrNotFound) {
				t.Errorf("a job that nobody knows: %v", err)
			}
		}
	}
}

// TestWatchAll: of all jobs of the tenant, until the watcher leaves.
func TestWatchAll(t *testing.T) {
	srv := start(t)
	c := newClient(t, connect(t, srv), client.Options{})
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	told := make(chan struct{})
	go func() {
		defer close(told)
		tell(t, srv, "j1", `{"event":"delayed","job":"j1","due":"2026-01-02T15:04:05Z"}`, `{"event":"queued","job":"j1"}`, `{"event":"ended","job":"j1","status":"cancelled","code":"cancelled"}`)
	}()
	var got []string
	for e, err := range c.WatchAll(ctx) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			break
		}
		if got = append(got, change(&e)); len(got) == 3 {
			cancel()
		}
	}
	<-told
	if want := "j1 delayed 0|j1 queued 0|j1 cancelled 0  cancelled"; strings.Join(got, "|") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "|"), want)
	}
}
