package worker

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

func offerHeader() nats.Header {
	h := nats.Header{}
	for k, v := range map[string]string{
		schemas.HeaderJob: "j1", schemas.HeaderTenant: "acme", schemas.HeaderFlow: "vj.v1.jobs.acme.batch.llama3.1:8b",
		schemas.HeaderAttempt: "2", schemas.HeaderBackend: "b", schemas.HeaderModel: "llama3.1:8b",
		schemas.HeaderKind: "chat", schemas.HeaderWaited: "1500",
	} {
		h.Set(k, v)
	}
	return h
}

func TestReadOffer(t *testing.T) {
	h := offerHeader()
	h.Set(schemas.HeaderReply, "_INBOX.x.y")
	h.Set(schemas.HeaderDeadline, "2030-01-02T03:04:05Z")
	h.Set(schemas.HeaderTimeout, "90s")
	h.Set(schemas.HeaderAttempts, "7")
	h.Add(schemas.HeaderEvict, "x")
	h.Add(schemas.HeaderEvict, "y")
	o, err := readOffer(h, []byte(`{"messages":[],"stream":true}`), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	j := o.job
	switch {
	case o.key() != taskKey{"acme", "j1", 2}:
		t.Errorf("key %v", o.key())
	case o.waited != 1500*time.Millisecond, o.backend != "b", o.model != "llama3.1:8b", len(o.evict) != 2:
		t.Errorf("offer %+v", o)
	case j.Flow != schemas.Flow{Tenant: "acme", Class: schemas.Batch, Model: "llama3.1:8b"}:
		t.Errorf("flow %v", j.Flow)
	case !j.Stream, j.Kind != schemas.Chat, j.Reply != "_INBOX.x.y", j.Attempts != 7, j.Timeout != 90*time.Second,
		j.Abandon != schemas.AbandonCancel, j.Deadline.Year() != 2030:
		t.Errorf("job %+v", j)
	}
}

func TestReadOfferRefuses(t *testing.T) {
	for key, bad := range map[string]string{
		schemas.HeaderJob:      "a b",
		schemas.HeaderFlow:     "vj.v1.jobs.acme.soon.m",
		schemas.HeaderAttempt:  "0",
		schemas.HeaderWaited:   "-1",
		schemas.HeaderKind:     "song",
		schemas.HeaderDeadline: "tomorrow",
		schemas.HeaderTimeout:  "-1s",
		schemas.HeaderAttempts: "0",
	} {
		h := offerHeader()
		h.Set(key, bad)
		if _, err := readOffer(h, []byte(`{}`), time.Now()); err == nil {
			t.Errorf("%s %q was taken", key, bad)
		}
	}
	if _, err := readOffer(offerHeader(), []byte(`hello`), time.Now()); err == nil {
		t.Error("a body that is no object was taken")
	}
}

func FuzzReadOffer(f *testing.F) {
	f.Add("j1", "vj.v1.jobs.acme.batch.m", "1", "chat", "10", "90s", []byte(`{"stream":true}`))
	f.Fuzz(func(t *testing.T, job, flow, attempt, kind, waited, timeout string, body []byte) {
		h := nats.Header{}
		h.Set(schemas.HeaderJob, job)
		h.Set(schemas.HeaderFlow, flow)
		h.Set(schemas.HeaderAttempt, attempt)
		h.Set(schemas.HeaderKind, kind)
		h.Set(schemas.HeaderWaited, waited)
		h.Set(schemas.HeaderTimeout, timeout)
		o, err := readOffer(h, body, time.Now())
		if err != nil {
			return
		}
		if o.attempt == 0 || o.waited < 0 || o.job.Timeout < 0 || !schemas.ValidToken(o.key().tenant) || !schemas.ValidToken(o.key().job) {
			t.Errorf("%+v", o)
		}
	})
}
