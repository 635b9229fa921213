package client_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// hello is what every fake node here answers, unless the test says otherwise.
func hello(j *taken) {
	j.accepted()
	j.chunk("Hel")
	j.chunk("lo")
	j.ok("Hello")
}

func TestRunStreams(t *testing.T) {
	for _, inbox := range []bool{false, true} {
		srv := start(t)
		nc := connect(t, srv)
		setup(t, nc)
		serve(t, srv, hello)
		job := client.Chat("llama3.1:8b", "hi")
		job.Inbox = inbox
		s, err := newClient(t, nc, client.Options{}).Run(deadline(t), job)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(t, s)
		if want := "accepted Hel lo end:ok"; got != want || err != nil {
			t.Errorf("inbox %v: got %q, %v, want %q", inbox, got, err, want)
		}
		r, err := s.Result(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		if r.Text() != "Hello" || r.Usage.TotalTokens != 7 || r.Run.TTFTMS != 180 || r.Status != schemas.StatusOK || r.ID != s.ID() {
			t.Errorf("inbox %v: the result is %+v, text %q", inbox, r, r.Text())
		}
		if _, err := s.Next(deadline(t)); !errors.Is(err, io.EOF) {
			t.Errorf("after the end comes %v, want io.EOF", err)
		}
	}
}

func TestRunCarriesTheJob(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	setup(t, nc)
	jobs := make(chan *schemas.Job, 1)
	serve(t, srv, func(j *taken) { jobs <- j.Job; hello(j) })
	at := time.Now().Add(time.Hour).Round(time.Millisecond)
	job := client.Job{
		Model: "a b", Class: schemas.Interactive, ID: "job-1", Body: []byte(`{"prompt":"x","stream":true}`),
		Deadline: at, Timeout: 90 * time.Second, Attempts: 2, Abandon: schemas.AbandonFinish, Session: "s-1", Inbox: true,
	}
	s, err := newClient(t, nc, client.Options{Tenant: "acme"}).Run(deadline(t), job)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got := <-jobs
	if got.ID != "job-1" || got.Flow != (schemas.Flow{Tenant: "acme", Class: schemas.Interactive, Model: "a b"}) ||
		!got.Deadline.Equal(at) || got.Timeout != 90*time.Second || got.Attempts != 2 || got.Abandon != schemas.AbandonFinish || got.Session != "s-1" ||
		got.Kind != schemas.Completion || !schemas.IsInbox(got.Reply) || !got.Stream {
		t.Errorf("the job arrived as %+v", got)
	}
}

func TestRestart(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	setup(t, nc)
	serve(t, srv, func(j *taken) {
		j.accepted()
		j.chunk("Hal")
		j.retry("the model server died")
		j.accepted()
		late := *j
		late.attempt, late.seq = 1, 3
		late.chunk("late")
		j.chunk("Hello")
		j.chunk("!")
		j.ok("Hello!")
	})
	s, err := newClient(t, nc, client.Options{}).Run(deadline(t), client.Chat("m", "hi"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(t, s)
	if want := "accepted Hal retry restarted accepted Hello ! end:ok"; got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestJobFails(t *testing.T) {
	for _, c := range []struct {
		status schemas.Status
		code   schemas.Code
	}{
		{schemas.StatusError, schemas.OutOfMemory},
		{schemas.StatusCancelled, schemas.Cancelled},
		{schemas.StatusExpired, schemas.Deadline},
	} {
		srv := start(t)
		nc := connect(t, srv)
		setup(t, nc)
		serve(t, srv, func(j *taken) { j.fail(c.status, c.code, "no luck") })
		cl := newClient(t, nc, client.Options{})
		s, err := cl.Run(deadline(t), client.Chat("m", "hi"))
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Result(deadline(t))
		wantCode(t, err, c.code)
		if r == nil || r.Status != c.status || r.Run.Node != "n1" {
			t.Errorf("the result is %+v", r)
		}
		if _, err := s.Next(deadline(t)); !errors.Is(err, io.EOF) {
			t.Errorf("after the end comes %v, want io.EOF", err)
		}
		if _, err := cl.Result(deadline(t), s.ID()); err == nil {
			t.Error("Result of a failed job is no error")
		}
	}
}

func TestGapOnInbox(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	setup(t, nc)
	serve(t, srv, func(j *taken) {
		j.accepted()
		j.chunk("Hel")
		j.seq++ // lost on the way
		j.chunk("lo")
		j.ok("Hello")
	})
	job := client.Chat("m", "hi")
	job.Inbox = true
	s, err := newClient(t, nc, client.Options{}).Run(deadline(t), job)
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(t, s)
	if want := "accepted Hel lo end:ok"; got != want || !errors.Is(err, client.ErrGap) {
		t.Errorf("got %q, %v, want %q, ErrGap", got, err, want)
	}
	r, err := s.Result(deadline(t))
	if err != nil || r.Text() != "Hello" {
		t.Errorf("the result is %+v, %v", r, err)
	}
}

func TestReaderMayGiveUpAndGoOn(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	setup(t, nc)
	s, err := newClient(t, nc, client.Options{}).Run(deadline(t), client.Chat("m", "hi"))
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want the context's error", err)
	}
	serve(t, srv, hello)
	if got, err := read(t, s); got != "accepted Hel lo end:ok" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestDuplicate(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	setup(t, nc)
	serve(t, srv, hello)
	c := newClient(t, nc, client.Options{})
	job := client.Chat("m", "hi")
	job.ID = "twice"
	for range 2 {
		s, err := c.Run(deadline(t), job)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := read(t, s); got != "accepted Hel lo end:ok" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if ticket, err := c.Submit(deadline(t), job); err != nil || !ticket.Duplicate || ticket.ID != "twice" {
		t.Errorf("the ticket is %+v, %v", ticket, err)
	}
	job.Inbox = true
	if _, err := c.Run(deadline(t), job); !errors.Is(err, client.ErrDuplicate) {
		t.Errorf("got %v, want ErrDuplicate", err)
	}
}

func TestClosedConnection(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	setup(t, connect(t, srv))
	s, err := newClient(t, nc, client.Options{}).Run(deadline(t), client.Chat("m", "hi"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	time.AfterFunc(10*time.Millisecond, nc.Close)
	if _, err := s.Next(deadline(t)); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("got %v, want %v", err, nats.ErrConnectionClosed)
	}
}
