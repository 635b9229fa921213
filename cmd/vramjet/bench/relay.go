package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// relayed is how many streams are relayed at a time, and streamTokens how long each is.
const (
	relayed      = 16
	streamTokens = 4000
)

// relay measures chunks of answers that a model server makes as fast as it can, through
// a worker to their readers, beside messages of the same size from one connection to
// another.
func relay(ctx context.Context, s *site, r *Result) error {
	const model = "vramjet-bench-flood"
	if err := s.dispatch(ctx, nil); err != nil {
		return err
	}
	if _, err := s.serve(ctx, sim.Model{Name: model, Slots: relayed, Context: 2 * streamTokens}); err != nil {
		return err
	}
	chunk, err := s.oneChunk(ctx, model)
	if err != nil {
		return err
	}
	s.Progress("relay: NATS alone")
	bound, err := s.pubSub(ctx, chunk, s.Time)
	if err != nil {
		return err
	}
	s.Progress("relay: streams")
	m := newMeter(s.Time)
	body := chat(streamTokens)
	_, err = load{inFlight: relayed, time: s.Time}.run(ctx, timed(func(ctx context.Context) error {
		return s.read(ctx, client.Job{Model: model, Body: body, Inbox: true}, m.add)
	}))
	if err != nil {
		return err
	}
	chunks, bytes := m.rates()
	if chunks == 0 {
		return errNothing
	}
	r.add("chunks relayed", relayed, chunks, PerSecond).beside("messages of the same size", bound)
	r.add("bytes of chunks relayed", relayed, bytes, BytesPerSecond).beside("bytes of messages of the same size", bound*float64(len(chunk.Data)))
	return nil
}

// A meter counts what comes in a window, and what was under way at its end.
type meter struct {
	window
	n, bytes atomic.Int64
	last     atomic.Int64 // when something came, in ns since the window's warm-up
}

func newMeter(d time.Duration) *meter { return &meter{window: newWindow(d)} }

func (m *meter) add(body []byte) {
	if since := time.Since(m.from); since > 0 {
		m.n.Add(1)
		m.bytes.Add(int64(len(body)))
		m.last.Store(since.Nanoseconds())
	}
}

// rates returns how many came a second, and how many bytes.
func (m *meter) rates() (n, bytes float64) {
	seconds := time.Duration(max(1, m.last.Load())).Seconds()
	return float64(m.n.Load()) / seconds, float64(m.bytes.Load()) / seconds
}

// read runs a job, and calls chunk with each chunk of its answer.
func (s *site) read(ctx context.Context, job client.Job, chunk func(body []byte)) error {
	stream, err := s.client.Run(ctx, job)
	if err != nil {
		return err
	}
	defer stream.Close()
	for e, err := range stream.All(ctx) {
		switch {
		case err != nil:
			return err
		case e.Kind == schemas.EventChunk:
			chunk(e.Body)
		case e.Kind == schemas.EventEnd && e.Status != schemas.StatusOK:
			return fmt.Errorf("a job ended with %s: %s", e.Status, e.Body)
		}
	}
	return nil
}

// oneChunk returns a chunk of an answer of a model, as it travels.
func (s *site) oneChunk(ctx context.Context, model string) (*nats.Msg, error) {
	inbox := s.nc.NewInbox()
	sub, err := s.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, fmt.Errorf("listen to a job: %w", err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // fails only where the connection is gone
	ctx, cancel := context.WithTimeout(ctx, setupWithin)
	defer cancel()
	if _, err := s.client.Submit(ctx, client.Job{Model: model, Body: chat(3), Reply: inbox}); err != nil {
		return nil, err
	}
	var chunk *nats.Msg
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, fmt.Errorf("wait for a chunk: %w", err)
		}
		switch schemas.EventKind(m.Header.Get(schemas.HeaderEvent)) { //nolint:exhaustive // the others are passed over
		case schemas.EventChunk:
			chunk = m // the last one: the first has no text
		case schemas.EventEnd:
			if chunk == nil {
				return nil, fmt.Errorf("a job had no chunks: %s", m.Data)
			}
			return chunk, nil
		}
	}
}

// pubSub measures messages that go from one connection to another, in messages a second.
// No more are under way than the server keeps for a reader.
func (s *site) pubSub(ctx context.Context, like *nats.Msg, d time.Duration) (float64, error) {
	const bursts, most = 32, 8 << 20 // bytes under way: far from what a server drops
	burst := min(256, max(1, most/bursts/like.Size()))
	ctx, cancel := context.WithTimeoutCause(ctx, d+drainWithin, errStuck)
	defer cancel()
	pub, err := s.connect(ctx)
	if err != nil {
		return 0, err
	}
	sub, err := s.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer pub.Close()
	defer sub.Close()
	m := newMeter(d)
	room := make(chan struct{}, bursts)
	got := 0
	subject := sub.NewInbox()
	if _, err := listen(sub, subject, func(msg *nats.Msg) {
		m.add(msg.Data)
		if got++; got%burst == 0 {
			<-room
		}
	}); err != nil {
		return 0, err
	}
	msg := &nats.Msg{Subject: subject, Header: like.Header, Data: like.Data}
	for time.Now().Before(m.until) {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		for range burst {
			if err := pub.PublishMsg(msg); err != nil {
				return 0, fmt.Errorf("publish: %w", err)
			}
		}
	}
	for range bursts { // until all has come
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	n, _ := m.rates()
	return n, nil
}
