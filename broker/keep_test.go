package broker_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// keptMsg is an event that is to be kept for so long; 0: it says nothing.
func keptMsg(subject string, keep time.Duration) *nats.Msg {
	m := nats.NewMsg(subject)
	if keep > 0 {
		m.Header.Set(schemas.HeaderTTL, schemas.TTL(keep))
	}
	return m
}

// gone waits until a stream has no message of a subject any more.
func gone(t *testing.T, nc *nats.Conn, stream, subject string) {
	t.Helper()
	ctx := within(t, patience)
	for {
		ok, err := broker.Has(ctx, nc, stream, subject)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return
		}
		waitFor(t, 10*time.Millisecond)
	}
}

// TestMaxAgeEndsALongerTTL: why the results have no MaxAge of a day. The server
// removes what is older than MaxAge, whatever its TTL says.
func TestMaxAgeEndsALongerTTL(t *testing.T) {
	nc, js := newJS(t)
	ctx := within(t, patience)
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, MaxAge: 300 * time.Millisecond, AllowMsgTTL: true, AllowDirect: true}); err != nil {
		t.Fatal(err)
	}
	if err := broker.PublishStored(ctx, nc, keptMsg("s.long", time.Hour)); err != nil {
		t.Fatal(err)
	}
	gone(t, nc, "S", "s.long")
}

// TestEventsAreKeptAsLongAsTheySay: in the results, the shorter one goes and the longer
// one stays, beside one that says nothing; also by core NATS, as chunks come.
func TestEventsAreKeptAsLongAsTheySay(t *testing.T) {
	nc, js := newJS(t)
	ctx := within(t, patience)
	if err := broker.Setup(ctx, js, broker.StreamsConfig{}); err != nil {
		t.Fatal(err)
	}
	const prefix = "vj.v1.results.default."
	if err := nc.PublishMsg(keptMsg(prefix+"j.chunks", time.Second)); err != nil {
		t.Fatal(err)
	}
	for subject, keep := range map[string]time.Duration{"short.end": time.Second, "long.end": schemas.MaxKeep, "silent.end": 0} {
		if _, err := broker.PublishEnd(ctx, nc, keptMsg(prefix+subject, keep)); err != nil {
			t.Fatal(err)
		}
	}
	gone(t, nc, broker.StreamResults, prefix+"short.end")
	gone(t, nc, broker.StreamResults, prefix+"j.chunks")
	if n := streamInfo(t, js, broker.StreamResults).State.Msgs; n != 2 {
		t.Errorf("%d events are left, want 2", n)
	}
}

// TestSetupMigratesResults: results of before there was a TTL stay, and may have one.
func TestSetupMigratesResults(t *testing.T) {
	nc, js := newJS(t)
	ctx := within(t, patience)
	old := jetstream.StreamConfig{
		Name: broker.StreamResults, Subjects: []string{"vj.v1.results.>"}, MaxAge: 24 * time.Hour, Duplicates: 2 * time.Minute, AllowDirect: true,
	}
	if _, err := js.CreateStream(ctx, old); err != nil {
		t.Fatal(err)
	}
	if _, err := broker.PublishEnd(ctx, nc, endMsg("old")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := broker.Setup(ctx, js, broker.StreamsConfig{}); err != nil {
			t.Fatal(err)
		}
	}
	short := keptMsg("vj.v1.results.default.new.end", time.Second)
	if _, err := broker.PublishEnd(ctx, nc, short); err != nil {
		t.Fatal(err)
	}
	gone(t, nc, broker.StreamResults, short.Subject)
	if n := streamInfo(t, js, broker.StreamResults).State.Msgs; n != 1 {
		t.Errorf("%d events are left, want the old one", n)
	}
}
