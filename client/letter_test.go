package client

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

func TestRetryID(t *testing.T) {
	for job, want := range map[string]string{
		"report-7": "report-7-r17", "report-7-r3": "report-7-r3-r17", "": "letter-r17", "a.b": "letter-r17",
		strings.Repeat("x", 64): strings.Repeat("x", 60) + "-r17",
	} {
		if got := retryID(job, 17); got != want {
			t.Errorf("%q: got %q, want %q", job, got, want)
		}
	}
}

// FuzzReadLetter: whatever stands in the stream of dead letters, what is submitted again
// has an id that the queue takes, and goes nowhere but into the queue.
func FuzzReadLetter(f *testing.F) {
	f.Add("vj.v1.dead.default.normal.m", "j1", "out_of_memory", "2026-01-01T00:00:00Z", "_INBOX.x", uint64(17))
	f.Add("vj.v1.jobs.default", "", "", "soon", "$JS.API", uint64(1<<63))
	f.Fuzz(func(t *testing.T, subject, job, code, deadline, reply string, seq uint64) {
		h := nats.Header{}
		for key, value := range map[string]string{
			schemas.HeaderJob: job, schemas.HeaderDeadCode: code, schemas.HeaderDeadline: deadline, schemas.HeaderReply: reply, "Nats-Expected-Stream": "x",
		} {
			h.Set(key, value)
		}
		l := readLetter(subject, h, []byte("{}"))
		l.Seq = seq
		m := l.again(time.Now())
		if !schemas.ValidToken(m.Header.Get(schemas.HeaderMsgID)) || !strings.HasPrefix(m.Subject, schemas.JobsPrefix) {
			t.Errorf("%s, id %q", m.Subject, m.Header.Get(schemas.HeaderMsgID))
		}
		for key := range m.Header {
			if strings.HasPrefix(key, "Nats-") && key != schemas.HeaderMsgID || strings.HasPrefix(key, "Vj-Dead-") || key == schemas.HeaderJob {
				t.Errorf("%s is kept", key)
			}
		}
		if schemas.IsInbox(m.Header.Get(schemas.HeaderReply)) {
			t.Error("an inbox is kept")
		}
	})
}

// FuzzAfterEvent: whatever an event says, a job that is watched is in a state that there
// is, or stays in the one that it was in.
func FuzzAfterEvent(f *testing.F) {
	f.Add([]byte(`{"event":"started","job":"j1","node":"n1","attempt":1}`))
	f.Add([]byte(`{"event":"ended","job":"j1","status":"ok"}`))
	f.Add([]byte(`{"event":"ended","job":"j1"}`))
	f.Add([]byte(`{"event":"of another version"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var event schemas.JobEvent
		if json.Unmarshal(body, &event) != nil {
			return
		}
		before := schemas.JobEntry{JobInfo: schemas.JobInfo{Job: "j1", State: schemas.JobQueued, Model: "m"}}
		if e := afterEvent(before, &event); e.State == "" || e.Model == "" {
			t.Errorf("%+v", e)
		}
	})
}
