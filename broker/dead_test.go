package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

func TestDeadLetter(t *testing.T) {
	job := &nats.Msg{
		Subject: "vj.v1.jobs.acme.batch.llama3.1:8b",
		Data:    []byte("{}"),
		Header: nats.Header{
			"Nats-Msg-Id": {"j1"}, "Nats-Expected-Stream": {"VJ_JOBS"}, "Vj-Timeout": {"9s"}, "X-Mine": {"a", "b"},
			"Vj-Tenant": {"acme"}, "Vj-Model": {"m"}, "Vj-Backend": {"b"}, "Vj-Evict": {"x"}, "Vj-Waited": {"1"}, "Vj-Flow": {"f"}, "Vj-Attempt": {"4"},
		},
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))
	got := DeadLetter(job, "j1", schemas.Errorf(schemas.OutOfMemory, "no\nroom"), at)
	want := &nats.Msg{
		Subject: "vj.v1.dead.acme.batch.llama3.1:8b",
		Data:    []byte("{}"),
		Header: nats.Header{
			"Nats-Msg-Id": {"j1"}, "Vj-Timeout": {"9s"}, "X-Mine": {"a", "b"}, "Vj-Job": {"j1"},
			"Vj-Dead-Code": {"out_of_memory"}, "Vj-Dead-Message": {"no room"}, "Vj-Dead-At": {"2026-01-02T02:04:05Z"},
		},
	}
	if diff := cmp.Diff([]any{want.Subject, want.Data, want.Header}, []any{got.Subject, got.Data, got.Header}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(job.Header) != 11 {
		t.Errorf("the job was changed: %v", job.Header)
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine("a\r\n b\tc"); got != "a b c" {
		t.Errorf("%q", got)
	}
	if got := oneLine(strings.Repeat("é", 400)); len(got) > 510 || strings.ContainsRune(got, '\uFFFD') {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}
