package broker_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/vramjet/vramjet/broker"
)

// TestMain ignores a goroutine of the NATS client that may stay behind where somebody
// published asynchronously, as an object store does, and was done at once.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

const (
	patience = 20 * time.Second
	flow     = "vj.v1.jobs.default.normal.llama3.2"
)

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// submit stores n jobs.
func submit(t *testing.T, js jetstream.JetStream, n int) {
	t.Helper()
	for i := range n {
		job := &nats.Msg{Subject: flow, Data: fmt.Appendf(nil, "job %d", i)}
		if err := broker.PublishStored(within(t, patience), js.Conn(), job); err != nil {
			t.Fatal(err)
		}
	}
}

// deliver takes one job out of the queue. The lease lasts for ackWait.
func deliver(t *testing.T, js jetstream.JetStream, ackWait time.Duration) jetstream.Msg {
	t.Helper()
	cfg := broker.ConsumerConfig(flow, 100, 0)
	cfg.AckWait = ackWait
	ctx := within(t, patience)
	c, err := js.CreateOrUpdateConsumer(ctx, broker.StreamJobs, cfg)
	for ; broker.Transient(err) && ctx.Err() == nil; waitFor(t, 20*time.Millisecond) {
		c, err = js.CreateOrUpdateConsumer(ctx, broker.StreamJobs, cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
	msg, err := c.Next(jetstream.FetchMaxWait(patience))
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func jobsLeft(t *testing.T, js jetstream.JetStream) uint64 {
	t.Helper()
	return streamInfo(t, js, broker.StreamJobs).State.Msgs
}

func streamInfo(t *testing.T, js jetstream.JetStream, name string) *jetstream.StreamInfo {
	t.Helper()
	s, err := js.Stream(within(t, patience), name)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo()
}

func delivery(t *testing.T, msg jetstream.Msg) uint64 {
	t.Helper()
	meta, err := msg.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	return meta.NumDelivered
}

func receive[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: nothing for %s", what, patience)
		panic("unreachable")
	}
}

func endMsg(job string) *nats.Msg {
	return &nats.Msg{Subject: "vj.v1.results.default." + job + ".end", Data: []byte(`{"object":"chat.completion"}`)}
}
