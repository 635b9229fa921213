package bench

import (
	"context"
	"fmt"
	"maps"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/client"
)

// atOnce is how many are under way at a time, where that is varied.
var atOnce = []int{1, 64, 512}

// enqueueFlows is how many flows the jobs are of: one takes 100,000.
const enqueueFlows = 16

// rawJob is the subject of the raw publishes, of the stream rawJobs.
const (
	rawJob  = "vjbench.raw"
	rawJobs = "VJBENCH_RAW"
)

// enqueue measures jobs that the queue acknowledges, beside messages that a plain work
// queue does. Nobody runs the jobs.
func enqueue(ctx context.Context, s *site, r *Result) error {
	submit, raw, err := s.enqueuers(ctx)
	if err != nil {
		return err
	}
	for _, n := range atOnce {
		l := load{inFlight: n, time: s.Time}
		s.Progress(fmt.Sprintf("enqueue: NATS alone, %d in flight", n))
		bound, err := l.run(ctx, timed(raw))
		if err != nil {
			return err
		}
		s.Progress(fmt.Sprintf("enqueue: %d in flight", n))
		jobs, err := l.run(ctx, timed(submit))
		if err != nil {
			return err
		}
		r.add("jobs acknowledged", n, jobs.rate(), PerSecond).beside("publishes of the same size", bound.rate())
		r.add("acknowledgement, p99", n, millis(jobs.at(99)), Milliseconds).beside("publish, p99", millis(bound.at(99)))
		if err := s.purge(ctx); err != nil {
			return err
		}
	}
	return nil
}

// enqueuers returns what submits a job, and what publishes the same message to a plain
// work queue.
func (s *site) enqueuers(ctx context.Context) (submit, raw func(context.Context) error, err error) {
	models := make([]string, enqueueFlows)
	for i := range models {
		models[i] = fmt.Sprintf("vramjet-bench-%d", i)
	}
	var next atomic.Uint64
	submit = func(ctx context.Context) error {
		_, err := s.client.Submit(ctx, client.Job{Model: models[next.Add(1)%enqueueFlows], Body: chat(64)})
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, setupWithin)
	defer cancel()
	ticket, err := s.client.Submit(ctx, client.Job{Model: models[0], Body: chat(64)})
	if err != nil {
		return nil, nil, err
	}
	jobs, err := s.js.Stream(ctx, broker.StreamJobs)
	if err != nil {
		return nil, nil, fmt.Errorf("open the queue: %w", err)
	}
	stored, err := jobs.GetMsg(ctx, ticket.Seq)
	if err != nil {
		return nil, nil, fmt.Errorf("read a job: %w", err)
	}
	err = s.stream(ctx, jetstream.StreamConfig{Name: rawJobs, Subjects: []string{rawJob}, Retention: jetstream.WorkQueuePolicy})
	raw = func(ctx context.Context) error {
		_, err := s.js.PublishMsg(ctx, &nats.Msg{Subject: rawJob, Header: maps.Clone(stored.Header), Data: stored.Data})
		return err
	}
	return submit, raw, err
}
