package schemas

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func offerHeader(more ...string) map[string][]string {
	h := map[string][]string{
		HeaderJob: {"j1"}, HeaderTenant: {"acme"}, HeaderFlow: {"vj.v1.jobs.acme.batch.llama3.1:8b"},
		HeaderAttempt: {"2"}, HeaderBackend: {"b"}, HeaderModel: {"llama3.1:8b"},
		HeaderKind: {"chat"}, HeaderWaited: {"1500"},
	}
	for i := 0; i < len(more); i += 2 {
		h[more[i]] = []string{more[i+1]}
	}
	return h
}

func TestReadOffer(t *testing.T) {
	h := offerHeader(HeaderReply, "_INBOX.x.y", HeaderDeadline, "2030-01-02T03:04:05Z", HeaderTimeout, "90s", HeaderAttempts, "7")
	h[HeaderEvict] = []string{"ollama x", "vllm a b"}
	body := []byte(`{"messages":[],"stream":true}`)
	got, err := ReadOffer(h, body)
	if err != nil {
		t.Fatal(err)
	}
	want := &Offer{
		Job: &Job{
			ID: "j1", Flow: Flow{"acme", Batch, "llama3.1:8b"}, Kind: Chat, Stream: true, Reply: "_INBOX.x.y",
			Deadline: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), Timeout: 90 * time.Second, Attempts: 7, Abandon: AbandonCancel, Body: body,
		},
		Subject: "vj.v1.jobs.acme.batch.llama3.1:8b", Attempt: 2, Backend: "b", Model: "llama3.1:8b",
		Evict: []Victim{{"ollama", "x"}, {"vllm", "a b"}}, Waited: 1500 * time.Millisecond,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What a job does not say has the same defaults in the queue and in an offer.
func TestReadOfferDefaults(t *testing.T) {
	for _, reply := range []string{"", "_INBOX.x"} {
		o, err := ReadOffer(offerHeader(HeaderReply, reply, HeaderKind, "embedding"), []byte(`{"input":"x","stream":true}`))
		if err != nil {
			t.Fatal(err)
		}
		j, err := ReadJob(headers{HeaderMsgID: "j1", HeaderReply: reply}.get, o.Job.Body, o.Job.Flow, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(j, o.Job); diff != "" {
			t.Errorf("(-job +offer):\n%s", diff)
		}
	}
}

func TestReadOfferRefuses(t *testing.T) {
	for key, bad := range map[string]string{
		HeaderJob:      "a b",
		HeaderFlow:     "vj.v1.jobs.acme.soon.m",
		HeaderAttempt:  "0",
		HeaderWaited:   "-1",
		HeaderKind:     "song",
		HeaderDeadline: "tomorrow",
		HeaderTimeout:  "-1s",
		HeaderAttempts: "0",
		HeaderAbandon:  "now",
		HeaderSession:  "a b",
		HeaderAt:       "noon",
		HeaderKeep:     "1",
		HeaderCustomID: " a",
		HeaderEvict:    "m",
	} {
		if _, err := ReadOffer(offerHeader(key, bad), []byte(`{}`)); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s %q: got %v", key, bad, err)
		}
	}
	for _, body := range []string{"", "hello", "[]", "null"} {
		if _, err := ReadOffer(offerHeader(), []byte(body)); err == nil {
			t.Errorf("the body %q was taken", body)
		}
	}
}

func FuzzReadOffer(f *testing.F) {
	f.Add("j1", "vj.v1.jobs.acme.batch.m", "1", "chat", "10", "90s", []byte(`{"stream":true}`))
	f.Fuzz(func(t *testing.T, job, flow, attempt, kind, waited, timeout string, body []byte) {
		o, err := ReadOffer(offerHeader(HeaderJob, job, HeaderFlow, flow, HeaderAttempt, attempt, HeaderKind, kind, HeaderWaited, waited, HeaderTimeout, timeout), body)
		if err != nil {
			return
		}
		if o.Attempt == 0 || o.Waited < 0 || o.Job.Timeout < 0 || !ValidToken(o.Job.Flow.Tenant) || !ValidToken(o.Job.ID) {
			t.Errorf("%+v of %+v", o, o.Job)
		}
	})
}
