package integration

import (
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// minimal is the path of a job with the same NATS calls as vramjet's and no
// decision, no check, no backend: the bound for what vramjet can do here. Its
// four parts have a connection each, in one process.
type minimal struct {
	*testing.B
	client *nats.Conn
	js     jetstream.JetStream
	events chan *nats.Msg
}

func newMinimal(b *testing.B, url string) *minimal {
	b.Helper()
	m := &minimal{B: b, client: dial(b, url), events: make(chan *nats.Msg, 1<<16)}
	var err error
	if m.js, err = jetstream.New(m.client); err != nil {
		b.Fatal(err)
	}
	if _, err := m.js.CreateStream(b.Context(), jetstream.StreamConfig{
		Name: "MIN", Subjects: []string{"min.job"}, Retention: jetstream.WorkQueuePolicy,
		RePublish: &jetstream.RePublish{Source: "min.job", Destination: "min.waiting", HeadersOnly: true},
	}); err != nil {
		b.Fatal(err)
	}
	if _, err := m.js.CreateConsumer(b.Context(), "MIN", jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1}); err != nil {
		b.Fatal(err)
	}
	if _, err := m.client.ChanSubscribe("min.events", m.events); err != nil {
		b.Fatal(err)
	}
	m.worker(dial(b, url))
	m.dispatcher(dial(b, url))
	return m
}

// dispatcher pulls a job for each hint, offers it, and passes the ack subject on.
func (m *minimal) dispatcher(nc *nats.Conn) {
	m.Helper()
	inbox := nc.NewInbox()
	subscribe(m, nc, "min.waiting", func(*nats.Msg) {
		_ = nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.MIN.c", inbox, []byte(`{"batch":1,"expires":5000000000}`))
	})
	subscribe(m, nc, inbox, func(job *nats.Msg) {
		if job.Reply == "" {
			return
		}
		go func() {
			if r, err := nc.Request("min.run", job.Data, 10*time.Second); err == nil {
				_ = r.Respond([]byte(job.Reply))
			}
		}()
	})
}

// worker accepts each offer, and on its go publishes a token and an end and acks.
func (m *minimal) worker(nc *nats.Conn) {
	m.Helper()
	goes := nc.NewInbox()
	var offers atomic.Int64
	subscribe(m, nc, "min.run", func(offer *nats.Msg) {
		_ = nc.PublishRequest(offer.Reply, goes+"."+strconv.FormatInt(offers.Add(1), 10), []byte("+OK"))
	})
	subscribe(m, nc, goes+".*", func(g *nats.Msg) {
		token, end := chunk("min.events"), chunk("min.events")
		end.Header["Vj-Event"] = []string{"end"}
		_ = nc.PublishMsg(token)
		_ = nc.PublishMsg(end)
		ack := string(g.Data)
		go func() { _, _ = nc.Request(ack, []byte("+ACK"), 10*time.Second) }()
	})
}

func subscribe(m *minimal, nc *nats.Conn, subject string, h nats.MsgHandler) {
	m.Helper()
	s, err := nc.Subscribe(subject, h)
	if err != nil {
		m.Fatal(err)
	}
	_ = s.SetPendingLimits(-1, -1)
	_ = nc.Flush()
}

// latencies runs jobs one after the other and returns the times to their token.
func (m *minimal) latencies(n int) []time.Duration {
	var out []time.Duration
	for range n {
		began := time.Now()
		if _, err := m.js.PublishAsync("min.job", []byte("{}")); err != nil {
			m.Fatal(err)
		}
		<-m.events
		out = append(out, time.Since(began))
		<-m.events
	}
	return out
}

// rate runs n jobs, 512 at a time, and returns jobs per second.
func (m *minimal) rate(n int) float64 {
	window := make(chan struct{}, 512)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range n {
			<-m.events
			<-m.events
			<-window
		}
	}()
	began := time.Now()
	for range n {
		window <- struct{}{}
		if _, err := m.js.PublishAsync("min.job", []byte("{}"), jetstream.WithStallWait(10*time.Second)); err != nil {
			m.Fatal(err)
		}
	}
	<-done
	return float64(n) / time.Since(began).Seconds()
}
