package client_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

func TestSubmitRefuses(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	setup(t, nc)
	c := newClient(t, nc, client.Options{})
	good := client.Chat("m", "hi")
	for _, bad := range []struct {
		name   string
		change func(j *client.Job)
		want   string
	}{
		{"no model", func(j *client.Job) { j.Model = "" }, "model name is empty"},
		{"class", func(j *client.Job) { j.Class = "urgent" }, `class "urgent"`},
		{"id", func(j *client.Job) { j.ID = "a b" }, `id "a b"`},
		{"session", func(j *client.Job) { j.Session = "a b" }, `session "a b"`},
		{"no body", func(j *client.Job) { j.Body = nil }, "body is empty"},
		{"reply", func(j *client.Job) { j.Reply = "$JS.API.STREAM.DELETE.VJ_JOBS" }, schemas.HeaderReply},
		{"other tenant's results", func(j *client.Job) { j.Reply = "vj.v1.results.acme.1.end" }, schemas.HeaderReply},
		{"attempts", func(j *client.Job) { j.Attempts = schemas.MaxAttempts + 1 }, "1 to 100"},
		{"timeout", func(j *client.Job) { j.Timeout = -1 }, "negative"},
		{"inbox", func(j *client.Job) { j.Inbox = true }, "only Run"},
		{"deadline before it begins", func(j *client.Job) { j.At, j.Deadline = time.Unix(7, 0), time.Unix(7, 0) }, "no later than"},
		{"kept too short", func(j *client.Job) { j.Keep = time.Millisecond }, "from 1s to 8760h"},
		{"kept too long", func(j *client.Job) { j.Keep = schemas.MaxKeep + 1 }, "from 1s to 8760h"},
		{"custom id", func(j *client.Job) { j.CustomID = "a " }, `custom id "a "`},
	} {
		job := good
		bad.change(&job)
		if _, err := c.Submit(deadline(t), job); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: got %v, want %q", bad.name, err, bad.want)
		}
	}
	job := good
	job.Reply = nc.NewInbox()
	if _, err := c.Submit(deadline(t), job); err != nil {
		t.Errorf("an inbox as the reply subject: %v", err)
	}
	if _, err := c.Run(deadline(t), job); err == nil {
		t.Error("Run takes a reply subject")
	}
}

// A job with an ID that nothing answers is submitted again: so it is stored once the cluster
// has elected. One without an ID is not, as it would be another.
func TestSubmitAgain(t *testing.T) {
	nc := connect(t, start(t))
	c := newClient(t, nc, client.Options{})
	mute, err := nc.SubscribeSync(schemas.JobsPrefix + ">")
	if err != nil {
		t.Fatal(err)
	}
	job := client.Chat("m", "hi")
	short, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	if _, err := c.Submit(short, job); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without an answer: %v", err)
	}
	if n, _, _ := mute.Pending(); n != 1 {
		t.Errorf("a job without an ID was submitted %d times", n)
	}
	job.ID = "mine"
	submitted := make(chan error, 1)
	go func() {
		_, err := c.Submit(t.Context(), job)
		submitted <- err
	}()
	for range 2 {
		if _, err := mute.NextMsgWithContext(deadline(t)); err != nil {
			t.Fatal(err)
		}
	}
	js := setup(t, nc)
	if err := <-submitted; err != nil {
		t.Error(err)
	}
	jobs, err := js.Stream(deadline(t), "VJ_JOBS")
	if err != nil {
		t.Fatal(err)
	}
	if n := jobs.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("%d jobs are in the queue, want 1", n)
	}
}

// A job that is to begin later goes where those are, and has an id all the same.
func TestSubmitLater(t *testing.T) {
	nc := connect(t, start(t))
	js := setup(t, nc)
	c := newClient(t, nc, client.Options{Tenant: "acme"})
	job := client.Chat("llama3.1:8b", "hi")
	job.Class, job.At = schemas.Batch, time.Date(2126, 1, 2, 15, 4, 5, 678_000_000, time.FixedZone("", 3600))
	for _, want := range []client.Ticket{{ID: "later-1", Seq: 1}, {ID: "mine", Seq: 2}, {ID: "mine", Seq: 2, Duplicate: true}} {
		if want.Seq == 2 {
			job.ID = "mine"
		}
		if ticket, err := c.Submit(deadline(t), job); err != nil || ticket != want {
			t.Errorf("got %+v, %v, want %+v", ticket, err, want)
		}
	}
	later, err := js.Stream(deadline(t), "VJ_LATER")
	if err != nil {
		t.Fatal(err)
	}
	m, err := later.GetMsg(deadline(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	if at := m.Header.Get(schemas.HeaderAt); m.Subject != "vj.v1.later.acme.batch.llama3.1:8b" || at != "2126-01-02T14:04:05.678Z" {
		t.Errorf("it is on %s, at %s", m.Subject, at)
	}
}

// What a job wants repeated is on each of its events.
func TestCustomID(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	setup(t, nc)
	serve(t, srv, hello)
	c := newClient(t, nc, client.Options{})
	job := client.Chat("m", "hi")
	job.CustomID, job.Keep = "question № 7", 90*time.Minute
	s, err := c.Run(deadline(t), job)
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range s.All(deadline(t)) {
		if err != nil || e.CustomID != job.CustomID {
			t.Errorf("the event %s has %q, %v", e.Kind, e.CustomID, err)
		}
	}
	if r, err := s.Result(deadline(t)); err != nil || r.CustomID != job.CustomID {
		t.Errorf("the result: %+v, %v", r, err)
	}
	end, err := nc.Request("$JS.API.DIRECT.GET.VJ_RESULTS."+schemas.EndSubject("default", s.ID()), nil, time.Second)
	if err != nil || end.Header.Get(schemas.HeaderTTL) != "5400" {
		t.Errorf("the end is kept for %q s, %v", end.Header.Get(schemas.HeaderTTL), err)
	}
}

func TestQueueFull(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	setup(t, nc, func(cfg *jetstream.StreamConfig) { cfg.MaxMsgsPerSubject, cfg.MaxMsgs = 2, 3 })
	c := newClient(t, nc, client.Options{})
	for _, step := range []struct{ model, want string }{
		{"a", ""},
		{"a", ""},
		{"a", "vj.v1.jobs.default.normal.a"},
		{"b", ""},
		{"b", "maximum messages exceeded"},
	} {
		_, err := c.Submit(deadline(t), client.Chat(step.model, "hi"))
		switch {
		case step.want == "" && err != nil:
			t.Errorf("%s: %v", step.model, err)
		case step.want != "" && (!errors.Is(err, client.ErrFull) || !strings.Contains(err.Error(), step.want)):
			t.Errorf("%s: got %v, want ErrFull with %q", step.model, err, step.want)
		}
	}
	if _, err := c.Run(deadline(t), client.Chat("a", "hi")); !errors.Is(err, client.ErrFull) {
		t.Errorf("Run: got %v, want ErrFull", err)
	}
}

func TestNoStream(t *testing.T) {
	srv := start(t)
	c := newClient(t, connect(t, srv), client.Options{})
	if _, err := c.Submit(deadline(t), client.Chat("m", "hi")); !errors.Is(err, client.ErrNoVramjet) {
		t.Errorf("got %v, want ErrNoVramjet", err)
	}
}

// What is exactly as large as the server takes goes through; a byte more does not
// leave, so that the connection lives.
func TestMaxPayload(t *testing.T) {
	const limit = 64 << 10
	srv := start(t, func(o *server.Options) { o.MaxPayload = limit })
	nc := connect(t, srv)
	setup(t, nc)
	c := newClient(t, nc, client.Options{})
	header := len("NATS/1.0\r\n") + len("Nats-Msg-Id: fits\r\n") + len("\r\n")
	job := client.Job{Model: "m", ID: "fits", Body: bytes.Repeat([]byte("x"), limit-header)}
	if _, err := c.Submit(deadline(t), job); err != nil {
		t.Fatalf("the largest job: %v", err)
	}
	job.ID, job.Body = "over", append(job.Body, 'x')
	_, err := c.Submit(deadline(t), job)
	if !errors.Is(err, client.ErrTooLarge) || !strings.Contains(err.Error(), "65537 bytes") || !strings.Contains(err.Error(), "65536 bytes") ||
		!strings.Contains(err.Error(), "bucket VJ_BODIES") {
		t.Errorf("one byte more: got %v, want ErrTooLarge with both sizes, and what to do", err)
	}
	if !nc.IsConnected() {
		t.Error("the connection is gone")
	}
}

func TestStreamTakesNoneOfTheSize(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	setup(t, nc, func(cfg *jetstream.StreamConfig) { cfg.MaxMsgSize = 100 })
	_, err := newClient(t, nc, client.Options{}).Submit(deadline(t), client.Chat("m", strings.Repeat("x", 200)))
	if !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

func TestNew(t *testing.T) {
	if _, err := client.New(nil, client.Options{}); err == nil {
		t.Error("no connection is no error")
	}
	nc := connect(t, start(t))
	if _, err := client.New(nc, client.Options{Tenant: "a.b"}); err == nil {
		t.Error("a tenant with a dot is no error")
	}
	if got := newClient(t, nc, client.Options{}).Tenant(); got != schemas.DefaultTenant {
		t.Errorf("the tenant is %q", got)
	}
}

// TestSubmitWhileItIsStored: a submission that was given up may still be on its way into
// the stream.
func TestSubmitWhileItIsStored(t *testing.T) {
	nc := connect(t, start(t))
	var asked atomic.Int32
	if _, err := nc.Subscribe(schemas.JobsPrefix+">", func(m *nats.Msg) {
		answer := `{"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"}}`
		if asked.Add(1) > 2 {
			answer = `{"stream":"VJ_JOBS","seq":7,"duplicate":true}`
		}
		_ = m.Respond([]byte(answer))
	}); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, nc, client.Options{})
	job := client.Job{ID: "a", Model: "m", Body: []byte(`{"messages":[]}`)}
	if ticket, err := c.Submit(deadline(t), job); err != nil || ticket.Seq != 7 || !ticket.Duplicate {
		t.Errorf("%+v, %v", ticket, err)
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("the queue was asked %d times", n)
	}
}
