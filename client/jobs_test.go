package client_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// endJob stores an end, as of a job of a flow, and a few chunks before it.
func endJob(t *testing.T, js jetstream.JetStream, tenant, id string, class schemas.Class, model string, status schemas.Status) {
	t.Helper()
	for range 3 {
		if _, err := js.Publish(deadline(t), schemas.ChunksSubject(tenant, id), nil); err != nil {
			t.Fatal(err)
		}
	}
	m := nats.NewMsg(schemas.EndSubject(tenant, id))
	m.Header.Set(schemas.HeaderEvent, string(schemas.EventEnd))
	m.Header.Set(schemas.HeaderAttempt, "2")
	m.Header.Set(schemas.HeaderNode, "gpu-1")
	m.Header.Set(schemas.HeaderStatus, string(status))
	if status != schemas.StatusOK {
		m.Header.Set(schemas.HeaderCode, string(schemas.Overloaded))
	}
	if model != "" {
		m.Header.Set(schemas.HeaderFlow, schemas.JobsPrefix+tenant+"."+string(class)+"."+model)
	}
	if _, err := js.PublishMsg(deadline(t), m); err != nil {
		t.Fatal(err)
	}
}

func entries(jobs []schemas.JobEntry) string {
	var words []string
	for _, j := range jobs {
		words = append(words, j.Job)
	}
	return strings.Join(words, " ")
}

func TestJobsThatEnded(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	js := setup(t, nc)
	c := newClient(t, nc, client.Options{})
	ended := []schemas.JobState{"ok", "error", "cancelled", "expired"}
	if jobs, err := c.Jobs(deadline(t), client.JobFilter{States: ended}); err != nil || len(jobs) != 0 {
		t.Errorf("none: %v, %v", jobs, err)
	}
	endJob(t, js, "default", "old", schemas.Normal, "", schemas.StatusOK) // as an older vramjet wrote it
	endJob(t, js, "default", "rare", schemas.Batch, "llama3.1:8b", schemas.StatusOK)
	for i := range 700 { // several windows of the stream
		endJob(t, js, "acme", fmt.Sprint("a", i), schemas.Normal, "m", schemas.StatusOK)
	}
	between := time.Now()
	for i := range 4 {
		endJob(t, js, "default", fmt.Sprint("j", i), schemas.Normal, "m", schemas.StatusOK)
	}
	endJob(t, js, "default", "bad", schemas.Normal, "m", schemas.StatusError)
	for _, x := range []struct {
		f    client.JobFilter
		want string
	}{
		{client.JobFilter{}, "bad j3 j2 j1 j0 rare old"},
		{client.JobFilter{Limit: 3}, "bad j3 j2"},
		{client.JobFilter{Filter: schemas.Filter{Model: "llama*"}}, "rare"},
		{client.JobFilter{Filter: schemas.Filter{Class: schemas.Batch}}, "rare"},
		{client.JobFilter{Since: between}, "bad j3 j2 j1 j0"},
		{client.JobFilter{Filter: schemas.Filter{Model: "llama*"}, Since: between}, ""},
	} {
		x.f.States = ended
		got, err := c.Jobs(deadline(t), x.f)
		if err != nil || entries(got) != x.want {
			t.Errorf("%+v: got %q, %v; want %q", x.f, entries(got), err, x.want)
		}
	}
	got, err := c.Jobs(deadline(t), client.JobFilter{States: []schemas.JobState{"error"}})
	if err != nil || len(got) != 1 || got[0].Code != schemas.Overloaded || got[0].Attempt != 2 || got[0].Class != schemas.Normal || got[0].Model != "m" || got[0].State != "error" || got[0].Node != "gpu-1" || time.Since(got[0].At) > time.Minute {
		t.Errorf("the one that failed: %+v, %v", got, err)
	}
}

// TestJobsOfAllStates: those that the dispatcher lists, page by page, and those that
// ended come in one list.
func TestJobsOfAllStates(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	js := setup(t, nc)
	c := newClient(t, nc, client.Options{})
	if _, err := c.Jobs(deadline(t), client.JobFilter{}); !errors.Is(err, client.ErrNoDispatcher) {
		t.Errorf("without a dispatcher: %v", err)
	}
	endJob(t, js, "default", "ended", schemas.Normal, "m", schemas.StatusOK)
	pages := []string{
		fmt.Sprintf(`{"jobs":[{"job":"new","state":"running","at":%q}],"next":7}`, time.Now().Add(time.Hour).Format(time.RFC3339)),
		`{"jobs":[{"job":"waits","state":"queued","at":"2026-01-02T15:04:05Z"}]}`,
		`{"jobs":[{"job":"later","state":"delayed","due":"2027-01-02T15:04:05Z","at":"2026-01-02T15:04:04Z"}]}`,
	}
	answerAPI(t, srv, func(string) string { p := pages[0]; pages = pages[1:]; return p })
	got, err := c.Jobs(deadline(t), client.JobFilter{})
	if err != nil || entries(got) != "new ended waits later" || len(pages) > 0 {
		t.Errorf("got %q, %v", entries(got), err)
	}
	for _, f := range []client.JobFilter{{Limit: -1}, {Limit: 1001}, {Filter: schemas.Filter{Class: "urgent"}}} {
		if _, err := c.Jobs(deadline(t), f); err == nil {
			t.Errorf("%+v is no error", f)
		}
	}
}

func TestEnded(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	js := setup(t, nc)
	c := newClient(t, nc, client.Options{})
	if _, ended, err := c.Ended(deadline(t), "j1"); ended || err != nil {
		t.Errorf("before: %v, %v", ended, err)
	}
	m := nats.NewMsg(schemas.EndSubject("default", "j1"))
	m.Header.Set(schemas.HeaderEvent, string(schemas.EventEnd))
	m.Header.Set(schemas.HeaderStatus, "ok")
	m.Data = []byte(`{"choices":[{"message":{"content":"Hello"}}]}`)
	if _, err := js.PublishMsg(deadline(t), m); err != nil {
		t.Fatal(err)
	}
	if r, ended, err := c.Ended(deadline(t), "j1"); !ended || err != nil || r.Text() != "Hello" {
		t.Errorf("after: %+v, %v, %v", r, ended, err)
	}
	if _, _, err := c.Ended(deadline(t), "a.b"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("no id: %v", err)
	}
}
