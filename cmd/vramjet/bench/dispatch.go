package bench

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// outstanding is how many jobs are under way where the rate of whole jobs is measured.
const outstanding = 512

// dispatch measures jobs of one token, from their submission to their stored end, beside
// the minimal path. Their answers are not streamed, so that as much is stored of them.
func dispatch(ctx context.Context, s *site, r *Result) error {
	s.Progress("dispatch: the minimal path")
	bound, err := s.minimalRate(ctx)
	if err != nil {
		return err
	}
	const inProcess, overHTTP = "vramjet-bench-in-process", "vramjet-bench-over-http"
	if err := s.dispatch(ctx, nil); err != nil {
		return err
	}
	if err := s.work(ctx, instant(inProcess), inProcess); err != nil {
		return err
	}
	if _, err := s.serve(ctx, sim.Model{Name: overHTTP, Slots: outstanding / 2, Tokens: 1}); err != nil {
		return err
	}
	ended, stop, err := s.readEnds(ctx)
	if err != nil {
		return err
	}
	defer stop()
	for _, of := range []struct{ what, model string }{
		{"jobs answered in the worker", inProcess},
		{"jobs answered by a model server over HTTP", overHTTP},
	} {
		s.Progress("dispatch: " + of.what)
		rate, err := s.jobRate(ctx, of.model, ended)
		if err != nil {
			return err
		}
		r.add(of.what+", to their stored end", outstanding, rate, PerSecond).beside("the minimal path of the same NATS calls", bound)
	}
	return nil
}

// jobRate measures how many jobs of a model end in a second.
func (s *site) jobRate(ctx context.Context, model string, ended <-chan struct{}) (float64, error) {
	body := []byte(`{"messages":[{"role":"user","content":"Tell me a story that goes on for a while."}],"max_tokens":1}`)
	run := nuid.Next()
	var last atomic.Uint64
	f := flow{inFlight: outstanding, time: s.Time, ended: ended, submit: func(ctx context.Context) error {
		id := run + "-" + strconv.FormatUint(last.Add(1), 10)
		_, err := s.client.Submit(ctx, client.Job{ID: id, Model: model, Body: body})
		return err
	}}
	return f.rate(ctx)
}

// readEnds returns what has an element for each end that is stored from now on.
func (s *site) readEnds(ctx context.Context) (ended <-chan struct{}, stop func(), err error) {
	ends, err := s.js.OrderedConsumer(ctx, broker.StreamResults, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{schemas.EndSubject(Tenant, "*")}, DeliverPolicy: jetstream.DeliverNewPolicy,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the ends of jobs: %w", err)
	}
	all := make(chan struct{}, 1<<16)
	reading, err := ends.Consume(func(jetstream.Msg) { all <- struct{}{} })
	if err != nil {
		return nil, nil, fmt.Errorf("read the ends of jobs: %w", err)
	}
	return all, reading.Stop, nil
}

// minimalRate measures the minimal path of jobs whose end is stored.
func (s *site) minimalRate(ctx context.Context) (float64, error) {
	m, stop, err := s.minimal(ctx, Stored)
	if err != nil {
		return 0, err
	}
	defer stop()
	body := chat(1)
	f := flow{inFlight: outstanding, time: s.Time, ended: m.Events, submit: func(context.Context) error { return m.Submit(body) }}
	return f.rate(ctx)
}

// minimal starts the minimal path.
func (s *site) minimal(ctx context.Context, path Path) (m *Minimal, stop func(), err error) {
	s.streams = append(s.streams, MinimalStreams...)
	m, err = NewMinimal(ctx, s.nc, path, s.durability.Replicas)
	if err != nil {
		return nil, nil, err
	}
	stop = m.Close
	for _, part := range []string{"dispatcher", "worker"} {
		nc, err := s.connect(ctx)
		if err == nil {
			err = PlayMinimal(path, part, nc, "")
		}
		if err != nil {
			stop()
			return nil, nil, err
		}
		before := stop
		stop = func() { nc.Close(); before() }
	}
	return m, stop, nil
}
