package client_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// bury stores a dead letter, as broker.DeadLetter makes it.
func bury(t *testing.T, js jetstream.JetStream, flow, id string, code schemas.Code, header ...string) {
	t.Helper()
	m := nats.NewMsg(schemas.DeadPrefix + flow)
	for i := 0; i+1 < len(header); i += 2 {
		m.Header.Set(header[i], header[i+1])
	}
	m.Header.Set(schemas.HeaderJob, id)
	m.Header.Set(schemas.HeaderDeadCode, string(code))
	m.Header.Set(schemas.HeaderDeadMessage, "it went wrong")
	m.Header.Set(schemas.HeaderDeadAt, "2026-01-02T15:04:05Z")
	m.Data = []byte(`{"prompt":"` + id + `"}`)
	if _, err := js.PublishMsg(deadline(t), m); err != nil {
		t.Fatal(err)
	}
}

func letters(t *testing.T, c *client.Client, f client.LetterFilter) (found []client.Letter) {
	t.Helper()
	for l, err := range c.Letters(deadline(t), f) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, l)
	}
	return found
}

func TestLetters(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	js := setup(t, nc)
	c := newClient(t, nc, client.Options{})
	if got := letters(t, c, client.LetterFilter{}); len(got) != 0 {
		t.Errorf("none: %+v", got)
	}
	for i := range 20 { // more than are on their way at a time
		bury(t, js, "default.normal.m", fmt.Sprint("n", i), schemas.OutOfMemory)
	}
	between := time.Now()
	bury(t, js, "default.batch.llama3.1:8b", "b", schemas.UpstreamError, schemas.HeaderMsgID, "b", "X-Own", "kept")
	bury(t, js, "acme.normal.m", "foreign", schemas.OutOfMemory)
	for _, x := range []struct {
		f    client.LetterFilter
		want int
	}{
		{client.LetterFilter{}, 21},
		{client.LetterFilter{Code: schemas.OutOfMemory}, 20},
		{client.LetterFilter{Job: "n7"}, 1},
		{client.LetterFilter{Since: between}, 1},
		{client.LetterFilter{Filter: schemas.Filter{Model: "llama*"}}, 1},
		{client.LetterFilter{Filter: schemas.Filter{Class: schemas.Normal}, Bodies: true}, 20},
	} {
		if got := letters(t, c, x.f); len(got) != x.want {
			t.Errorf("%+v: %d, want %d", x.f, len(got), x.want)
		}
	}
	got := letters(t, c, client.LetterFilter{Job: "b", Bodies: true})[0]
	if got.Seq != 21 || got.Flow != (schemas.Flow{Tenant: "default", Class: schemas.Batch, Model: "llama3.1:8b"}) || got.Code != schemas.UpstreamError ||
		got.Message != "it went wrong" || string(got.Body) != `{"prompt":"b"}` || got.Header.Get("X-Own") != "kept" || time.Since(got.At) > time.Minute {
		t.Errorf("got %+v", got)
	}
	if got := letters(t, c, client.LetterFilter{Job: "b"})[0]; got.Body != nil {
		t.Errorf("a body that was not asked for: %q", got.Body)
	}
}

// TestRetryLetter: the job is in the queue again, as it was, and its letter is gone. The
// same letter makes the same job, so that a retry twice is one.
func TestRetryLetter(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	js := setup(t, nc)
	c := newClient(t, nc, client.Options{})
	bury(t, js, "default.batch.llama3.1:8b", "b", schemas.UpstreamError, schemas.HeaderMsgID, "b", "X-Own", "kept", schemas.HeaderTimeout, "9s",
		schemas.HeaderDeadline, "2026-01-01T00:00:00Z", schemas.HeaderReply, "_INBOX.gone", schemas.HeaderAttempts, "2", schemas.HeaderLater, "b", schemas.HeaderAt, "2026-01-01T00:00:00Z")
	ticket, err := c.RetryLetter(deadline(t), 1)
	if err != nil || ticket.ID != "b-r1" || ticket.Seq != 1 || ticket.Duplicate {
		t.Fatalf("got %+v, %v", ticket, err)
	}
	if left := letters(t, c, client.LetterFilter{}); len(left) != 0 {
		t.Errorf("%d letters are left", len(left))
	}
	stream, err := js.Stream(deadline(t), "VJ_JOBS")
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(deadline(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	want := nats.Header{schemas.HeaderMsgID: {"b-r1"}, "X-Own": {"kept"}, schemas.HeaderTimeout: {"9s"}, schemas.HeaderAttempts: {"2"}}
	if diff := cmp.Diff(want, m.Header); diff != "" || m.Subject != "vj.v1.jobs.default.batch.llama3.1:8b" || string(m.Data) != `{"prompt":"b"}` {
		t.Errorf("%s %s (-want +got):\n%s", m.Subject, m.Data, diff)
	}
	for _, seq := range []uint64{1, 99} {
		if _, err := c.RetryLetter(deadline(t), seq); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("letter %d again: %v", seq, err)
		}
	}
}

func TestRemoveLetter(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	js := setup(t, nc)
	c := newClient(t, nc, client.Options{})
	bury(t, js, "default.normal.m", "a", schemas.Internal)
	bury(t, js, "acme.normal.m", "foreign", schemas.Internal)
	if err := c.RemoveLetter(deadline(t), 1); err != nil {
		t.Error(err)
	}
	for _, seq := range []uint64{1, 2} {
		if err := c.RemoveLetter(deadline(t), seq); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("letter %d: %v", seq, err)
		}
	}
	if left := letters(t, newClient(t, nc, client.Options{Tenant: "acme"}), client.LetterFilter{}); len(left) != 1 {
		t.Errorf("%d letters of the other tenant are left", len(left))
	}
}

func TestNoStreamOfLetters(t *testing.T) {
	c := newClient(t, connect(t, start(t)), client.Options{})
	for _, err := range c.Letters(deadline(t), client.LetterFilter{}) {
		if !errors.Is(err, client.ErrNoVramjet) || !strings.Contains(err.Error(), "VJ_DEAD") {
			t.Errorf("got %v", err)
		}
	}
	if _, err := c.RetryLetter(deadline(t), 1); !errors.Is(err, client.ErrNoVramjet) {
		t.Errorf("got %v", err)
	}
}
