package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// instant answers with some chunks, at once.
type instant struct{ chunks int }

func (instant) Models(context.Context) ([]providers.Model, error) {
	return []providers.Model{{Name: "m", Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Resident, Slots: 100_000}}, nil
}

func (p instant) Generate(_ context.Context, _ providers.Request, emit func([]byte) error) (providers.Answer, error) {
	chunk := []byte(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" word"}}]}`)
	for range p.chunks {
		if err := emit(chunk); err != nil {
			return providers.Answer{}, err
		}
	}
	return providers.Answer{Body: []byte(`{"object":"chat.completion"}`)}, nil
}

// BenchmarkChunk is the hot path: one chunk, from the provider to the connection.
func BenchmarkChunk(b *testing.B) {
	nc := brokertest.Connect(b, brokertest.Start(b))
	o, err := readOffer(offerHeader(), []byte(`{"stream":true}`), "")
	if err != nil {
		b.Fatal(err)
	}
	l := newLease("ack", time.Now(), time.Hour)
	a := &attempt{w: &Worker{metrics: newMetrics("n1"), nc: nc}, offer: o, lease: l, out: newOutlet(nc, "n1", l, o)}
	p := instant{chunks: b.N}
	b.ReportAllocs()
	b.ResetTimer()
	if _, err := p.Generate(b.Context(), providers.Request{}, a.emit); err != nil {
		b.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkJobs runs jobs of 5 chunks from the offer to the ack, many at a time.
func BenchmarkJobs(b *testing.B) {
	srv := brokertest.Start(b)
	nc := brokertest.Connect(b, srv)
	w, err := New(brokertest.Connect(b, srv), Config{
		Node: "n1", Logger: slog.New(slog.DiscardHandler),
		Backends: []Backend{{Name: "b", Provider: instant{chunks: 5}}},
	})
	if err != nil {
		b.Fatal(err)
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	sub, err := nc.Subscribe(schemas.NodeSubject("n1", "state"), func(m *nats.Msg) {
		var s schemas.NodeState
		if json.Unmarshal(m.Data, &s) == nil && ready != nil && s.Backends[0].Healthy {
			close(ready)
			ready = nil
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	first := ready
	if err := nc.Flush(); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	go func() { ended <- w.Run(ctx) }()
	<-first
	_ = sub.Unsubscribe()
	acks, in := make(chan struct{}, 1<<16), nc.NewInbox()
	for subject, f := range map[string]nats.MsgHandler{
		"ack.>": func(m *nats.Msg) { _ = m.Respond(nil); acks <- struct{}{} },
		in: func(m *nats.Msg) {
			_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Data: []byte("ack.1"), Header: nats.Header{schemas.HeaderLease: {"30000"}}})
		},
	} {
		if _, err := nc.Subscribe(subject, f); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	open := 0
	for i := range b.N {
		h := offerHeader()
		h.Set(schemas.HeaderJob, "j"+strconv.Itoa(i))
		h.Set(schemas.HeaderModel, "m")
		h.Set(schemas.HeaderReply, fmt.Sprintf("vj.v1.results.acme.x%d", i))
		if err := nc.PublishMsg(&nats.Msg{Subject: schemas.NodeSubject("n1", "run"), Reply: in, Header: h, Data: []byte(`{"stream":true}`)}); err != nil {
			b.Fatal(err)
		}
		if open++; open > 256 {
			<-acks
			open--
		}
	}
	for range open {
		<-acks
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}
