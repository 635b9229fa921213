package client_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// A reader that does not keep up loses messages, and reads them from the store.
func TestSlowReaderLosesNothing(t *testing.T) {
	const chunks = 10_000 // more than wait for a reader
	srv := start(t)
	nc := connect(t, srv, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	setup(t, nc)
	written := make(chan struct{})
	serve(t, srv, func(j *taken) {
		j.accepted()
		for i := range chunks {
			j.chunk(strconv.Itoa(i))
		}
		j.ok("all")
		close(written)
	})
	s, err := newClient(t, nc, client.Options{}).Run(deadline(t), client.Chat("m", "hi"))
	if err != nil {
		t.Fatal(err)
	}
	<-written
	next := 0
	for e, err := range s.All(deadline(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != schemas.EventChunk {
			continue
		}
		if e.Text() != strconv.Itoa(next) {
			t.Fatalf("chunk %d says %q", next, e.Text())
		}
		next++
	}
	if next != chunks {
		t.Errorf("%d chunks came, want %d", next, chunks)
	}
}

// A gate is a dialer that can be shut.
type gate struct{ shut atomic.Bool }

func (g *gate) Dial(network, address string) (net.Conn, error) {
	if g.shut.Load() {
		return nil, errors.New("the gate is shut")
	}
	return net.Dial(network, address)
}

// cut breaks nc's connection and keeps it from coming back until the function is
// called that it returns.
func cut(t *testing.T, srv *server.Server, nc *nats.Conn, g *gate) (mend func()) {
	t.Helper()
	gone := nc.StatusChanged(nats.RECONNECTING)
	g.shut.Store(true)
	id, err := nc.GetClientID()
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.DisconnectClientByID(id); err != nil {
		t.Fatal(err)
	}
	<-gone
	return func() { g.shut.Store(false) }
}

func TestEndDuringReconnect(t *testing.T) {
	srv := start(t)
	g := &gate{}
	nc := connect(t, srv, nats.SetCustomDialer(g))
	setup(t, nc)
	s, err := newClient(t, nc, client.Options{}).Run(deadline(t), client.Chat("m", "hi"))
	if err != nil {
		t.Fatal(err)
	}
	mend := cut(t, srv, nc, g)
	done := make(chan struct{})
	serve(t, srv, func(j *taken) { hello(j); _ = j.nc.Flush(); close(done) })
	<-done
	mend()
	if got, err := read(t, s); got != "accepted Hel lo end:ok" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestResultDuringReconnect(t *testing.T) {
	srv := start(t)
	g := &gate{}
	nc := connect(t, srv, nats.SetCustomDialer(g))
	setup(t, nc)
	c := newClient(t, nc, client.Options{})
	ticket, err := c.Submit(deadline(t), client.Chat("m", "hi"))
	if err != nil {
		t.Fatal(err)
	}
	before := srv.NumSubscriptions()
	type answer struct {
		r   *client.Result
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		r, err := c.Result(deadline(t), ticket.ID)
		answers <- answer{r, err}
	}()
	listening := func() bool { return srv.NumSubscriptions() > before }
	for !listening() {
		select {
		case a := <-answers:
			t.Fatalf("too early: %+v", a)
		case <-time.After(time.Millisecond):
		}
	}
	mend := cut(t, srv, nc, g)
	done := make(chan struct{})
	serve(t, srv, func(j *taken) { hello(j); _ = j.nc.Flush(); close(done) })
	<-done
	mend()
	if a := <-answers; a.err != nil || a.r.Text() != "Hello" {
		t.Errorf("got %+v, %v", a.r, a.err)
	}
}

// On an inbox nothing is stored: the reader is told that it will get nothing.
func TestInboxEndDuringReconnect(t *testing.T) {
	srv := start(t)
	g := &gate{}
	nc := connect(t, srv, nats.SetCustomDialer(g))
	setup(t, nc)
	answerAPI(t, srv, func(string) string { return `{"job":"x","state":"ok"}` })
	job := client.Chat("m", "hi")
	job.Inbox = true
	s, err := newClient(t, nc, client.Options{}).Run(deadline(t), job)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 { // it takes two losses to be sure
		mend := cut(t, srv, nc, g)
		mend()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err = s.Next(short)
		cancel()
	}
	if !errors.Is(err, client.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
}

// A job that is over may have its end on the way still.
func TestInboxEndAfterReconnect(t *testing.T) {
	srv := start(t)
	g := &gate{}
	nc := connect(t, srv, nats.SetCustomDialer(g))
	setup(t, nc)
	answered := make(chan struct{}, 8)
	answerAPI(t, srv, func(string) string { answered <- struct{}{}; return `{"job":"x","state":"ok"}` })
	job := client.Chat("m", "hi")
	job.Inbox = true
	s, err := newClient(t, nc, client.Options{}).Run(deadline(t), job)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-answered
		serve(t, srv, hello)
	}()
	cut(t, srv, nc, g)()
	if got, err := read(t, s); got != "accepted Hel lo end:ok" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
