package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

func TestResume(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	setup(t, nc)
	half, rest := make(chan struct{}), make(chan struct{})
	serve(t, srv, func(j *taken) {
		j.accepted()
		j.chunk("Hel")
		_ = j.nc.Flush()
		close(half)
		<-rest
		j.chunk("lo")
		j.ok("Hello")
	})
	c := newClient(t, nc, client.Options{})
	ticket, err := c.Submit(deadline(t), client.Chat("m", "hi"))
	if err != nil {
		t.Fatal(err)
	}
	if ticket.ID != "1" || ticket.Seq != 1 {
		t.Errorf("the ticket is %+v, want the sequence as the id", ticket)
	}
	<-half

	first, err := newClient(t, connect(t, srv), client.Options{}).Resume(deadline(t), ticket.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	var last client.Event
	for range 2 {
		if last, err = first.Next(deadline(t)); err != nil {
			t.Fatal(err)
		}
	}
	first.Close()
	if last.Text() != "Hel" || last.Stored == 0 {
		t.Errorf("the second event is %+v", last)
	}

	second, err := c.Resume(deadline(t), ticket.ID, last.Stored+1)
	if err != nil {
		t.Fatal(err)
	}
	close(rest)
	if got, err := read(t, second); got != "lo end:ok" || err != nil {
		t.Errorf("resumed in the middle: got %q, %v", got, err)
	}
	whole, err := c.Resume(deadline(t), ticket.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, whole); got != "accepted Hel lo end:ok" || err != nil {
		t.Errorf("resumed at the end: got %q, %v", got, err)
	}
}

// TestResumeAtEveryChunk: a reader whose connection is cut after each event goes on from
// the one it read last, and has the same text as one that is not.
func TestResumeAtEveryChunk(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	setup(t, nc)
	const chunks = 50
	want := ""
	for i := range chunks {
		want += fmt.Sprintf("%d, ", i)
	}
	serve(t, srv, func(j *taken) {
		j.accepted()
		for i := range chunks {
			j.chunk(fmt.Sprintf("%d, ", i))
		}
		j.ok(want)
	})
	ticket, err := newClient(t, nc, client.Options{}).Submit(deadline(t), client.Chat("m", "hi"))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	var last client.Event
	for reads := 0; last.Kind != schemas.EventEnd; reads++ {
		if reads > chunks+2 {
			t.Fatalf("no end after %d reads: %+v", reads, last)
		}
		mine, err := nats.Connect(srv.ClientURL())
		if err != nil {
			t.Fatal(err)
		}
		s, err := newClient(t, mine, client.Options{}).Resume(deadline(t), ticket.ID, last.Stored+1)
		if err != nil {
			t.Fatal(err)
		}
		if last, err = s.Next(deadline(t)); err != nil {
			t.Fatal(err)
		}
		if last.Kind == schemas.EventChunk {
			got.WriteString(last.Text())
		}
		mine.Close() // and with it all that it had
		s.Close()
	}
	if got.String() != want {
		t.Errorf("read %q", got.String())
	}
}

func TestResultLater(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	setup(t, nc)
	c := newClient(t, nc, client.Options{})
	ticket, err := c.Submit(deadline(t), client.Chat("m", "hi"))
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Result(short, ticket.ID); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before the end: got %v", err)
	}
	serve(t, srv, hello)
	for range 2 { // once it may have come live, the second time it is stored
		r, err := c.Result(deadline(t), ticket.ID)
		if err != nil || r.Text() != "Hello" || r.ID != ticket.ID {
			t.Errorf("got %+v, %v", r, err)
		}
	}
}

func TestNoResults(t *testing.T) {
	srv := start(t)
	c := newClient(t, connect(t, srv), client.Options{})
	if _, err := c.Resume(deadline(t), "1", 0); !errors.Is(err, client.ErrNoVramjet) {
		t.Errorf("Resume: got %v, want ErrNoVramjet", err)
	}
	if _, err := c.Result(deadline(t), "1"); !errors.Is(err, client.ErrNoVramjet) {
		t.Errorf("Result: got %v, want ErrNoVramjet", err)
	}
	if _, err := c.Resume(deadline(t), "a.b", 0); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("Resume of no id: got %v, want ErrNotFound", err)
	}
	if _, err := c.Result(deadline(t), "*"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("Result of no id: got %v, want ErrNotFound", err)
	}
}

func TestTenantsAreApart(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	setup(t, nc)
	serve(t, srv, hello)
	job := client.Chat("m", "hi")
	job.ID = "same"
	acme := newClient(t, nc, client.Options{Tenant: "acme"})
	if _, err := acme.Submit(deadline(t), job); err != nil {
		t.Fatal(err)
	}
	if r, err := acme.Result(deadline(t), "same"); err != nil || r.Status != schemas.StatusOK {
		t.Fatalf("got %+v, %v", r, err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := newClient(t, nc, client.Options{}).Result(short, "same"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("another tenant's result: got %v", err)
	}
}
