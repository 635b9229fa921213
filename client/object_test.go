package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

const smallPayload = 64 << 10

// small is a server whose messages are small.
func small(o *server.Options) { o.MaxPayload = smallPayload }

// bucket makes the bucket of bodies.
func bucket(tb testing.TB, js jetstream.JetStream, maxBytes int64) jetstream.ObjectStore {
	tb.Helper()
	b, err := js.CreateObjectStore(deadline(tb), jetstream.ObjectStoreConfig{Bucket: schemas.BucketBodies, MaxBytes: maxBytes, Storage: jetstream.MemoryStorage})
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// pictured is a chat about an image of so many bytes.
func pictured(size int) client.Job {
	return client.Job{Model: "m", Body: fmt.Appendf(nil, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,%s"}}]}],"stream":true}`,
		bytes.Repeat([]byte("A"), size))}
}

// wantObjects expects that so many objects are in the bucket that are not deleted, and
// nothing of any other.
func wantObjects(t *testing.T, nc *nats.Conn, b jetstream.ObjectStore, n int) {
	t.Helper()
	if err := nc.Flush(); err != nil { // what was discarded is on its way
		t.Fatal(err)
	}
	list, err := b.List(deadline(t))
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) || len(list) != n {
		t.Errorf("%d objects, %v; want %d", len(list), err, n)
	}
	var size uint64
	for _, o := range list {
		size += o.Size
	}
	status, err := b.Status(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if waste := status.Size() - size; waste > 4<<10 {
		t.Errorf("%d bytes belong to no object", waste)
	}
}

func TestLargeJob(t *testing.T) {
	srv := start(t, small)
	nc := connect(t, srv)
	b := bucket(t, setup(t, nc), 0)
	job := pictured(1 << 20)
	names := make(chan string, 2)
	serve(t, srv, func(j *taken) {
		body, err := b.GetBytes(deadline(t), j.Job.Object)
		if err != nil || !bytes.Equal(body, job.Body) || j.Job.Kind != schemas.Chat || j.Job.ReadBody(body) != nil || !j.Job.Stream {
			t.Errorf("the job %+v has a body of %d bytes, %v", j.Job, len(body), err)
		}
		names <- j.Job.Object
		j.chunk("a cat")
		j.ok("a cat")
	})
	c := newClient(t, nc, client.Options{})
	for range 2 {
		s, err := c.Run(deadline(t), job)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := read(t, s); err != nil || got != "a cat end:ok" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if one, two := <-names, <-names; one == two || !strings.HasPrefix(one, "default.") {
		t.Errorf("the objects are %s and %s", one, two)
	}
}

// A job that was submitted before has its body already, and keeps it.
func TestLargeJobTwice(t *testing.T) {
	srv := start(t, small)
	nc := connect(t, srv)
	js := setup(t, nc)
	b := bucket(t, js, 0)
	c := newClient(t, nc, client.Options{})
	job := pictured(200 << 10)
	job.ID = "j1"
	for i := range 3 {
		ticket, err := c.Submit(deadline(t), job)
		if err != nil || ticket.ID != "j1" || ticket.Duplicate != (i > 0) {
			t.Fatalf("got %+v, %v", ticket, err)
		}
		wantObjects(t, nc, b, 1)
	}
	stream, err := js.Stream(deadline(t), "VJ_JOBS")
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(deadline(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := b.GetBytes(deadline(t), m.Header.Get(schemas.HeaderBody)); err != nil || !bytes.Equal(body, job.Body) {
		t.Errorf("the job's body: %d bytes, %v", len(body), err)
	}
}

// What is not submitted leaves nothing behind.
func TestLargeJobThatIsNotSubmitted(t *testing.T) {
	srv := start(t, small)
	nc := connect(t, srv)
	js := setup(t, nc, func(cfg *jetstream.StreamConfig) { cfg.MaxMsgsPerSubject = 1 })
	b := bucket(t, js, 2<<20)
	c := newClient(t, nc, client.Options{})
	if _, err := c.Submit(deadline(t), pictured(1<<20)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Submit(deadline(t), pictured(200<<10)); !errors.Is(err, client.ErrFull) || !strings.Contains(err.Error(), "vj.v1.jobs.default.normal.m") {
		t.Errorf("to a full queue: %v", err)
	}
	wantObjects(t, nc, b, 1)
	if _, err := c.Submit(deadline(t), pictured(1<<20)); !errors.Is(err, client.ErrFull) || !strings.Contains(err.Error(), "VJ_BODIES has no room for the 1.0 MiB") {
		t.Errorf("to a full bucket: %v", err)
	}
	wantObjects(t, nc, b, 1)
	gone, cancel := context.WithCancel(deadline(t))
	cancel()
	if _, err := c.Submit(gone, pictured(200<<10)); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is over: %v", err)
	}
	wantObjects(t, nc, b, 1)
	unclear := client.Job{Model: "m", Body: json.RawMessage(`{"text":"` + strings.Repeat("x", smallPayload) + `"}`)}
	_, err := c.Submit(deadline(t), unclear)
	wantCode(t, err, schemas.InvalidRequest)
}

// A job that has room in a message, but none for its way to a node, goes as an object
// where there is a bucket.
func TestJobThatFillsAMessage(t *testing.T) {
	for _, with := range []bool{false, true} {
		srv := start(t, small)
		nc := connect(t, srv)
		js := setup(t, nc)
		if with {
			bucket(t, js, 0)
		}
		job := pictured(0)
		job = pictured(smallPayload - 1000 - len(job.Body))
		if _, err := newClient(t, nc, client.Options{}).Submit(deadline(t), job); err != nil {
			t.Fatal(err)
		}
		stream, err := js.Stream(deadline(t), "VJ_JOBS")
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.GetMsg(deadline(t), 1)
		if err != nil {
			t.Fatal(err)
		}
		if as := m.Header.Get(schemas.HeaderBody) != ""; as != with || as != (len(m.Data) == 0) {
			t.Errorf("with a bucket %t: as an object %t, in a message of %d bytes", with, as, len(m.Data))
		}
	}
}

// A tenant needs no right but to publish, and can read nobody's bodies.
func TestLargeJobOfATenant(t *testing.T) {
	srv := start(t, small, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "admin", Password: "x"},
			{Username: "acme", Password: "x", Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: []string{"vj.v1.jobs.acme.>", "$O.VJ_BODIES.C.*", "$O.VJ_BODIES.M.*"}},
				Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_acme.>"}},
			}},
		}
	})
	admin := connect(t, srv, nats.UserInfo("admin", "x"))
	b := bucket(t, setup(t, admin), 0)
	refused := make(chan error, 10)
	nc := connect(t, srv, nats.UserInfo("acme", "x"), nats.CustomInboxPrefix("_INBOX_acme"),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	c := newClient(t, nc, client.Options{Tenant: "acme"})
	job := pictured(200 << 10)
	job.ID = "j1"
	for range 2 { // the second gives its object up
		if _, err := c.Submit(deadline(t), job); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	wantObjects(t, admin, b, 1)
	if len(refused) > 0 {
		t.Errorf("refused: %v", <-refused)
	}
}
