package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// queued reads the jobs of a tenant from a sequence of the queue on, in its order:
// those that wait, and those that run.
func (t *term) queued(ctx context.Context, tenant string, from uint64) iter.Seq2[*jetstream.RawStreamMsg, error] {
	return broker.Stored(ctx, t.js, broker.StreamJobs, schemas.JobsPrefix+tenant+".>", from)
}

// delayed reads the jobs of a tenant that are not due, likewise. They can only be read
// one by one: some thousands a second.
func (t *term) delayed(ctx context.Context, tenant string, from uint64) iter.Seq2[*jetstream.RawStreamMsg, error] {
	return func(yield func(*jetstream.RawStreamMsg, error) bool) {
		stream, err := t.laterStream(ctx)
		if err != nil {
			yield(nil, fmt.Errorf("open the delayed jobs: %w", err))
			return
		}
		for {
			m, err := stream.GetMsg(ctx, from, jetstream.WithGetMsgSubject(schemas.LaterPrefix+tenant+".>"))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return
			}
			if err != nil {
				yield(nil, fmt.Errorf("read the delayed jobs: %w", err))
				return
			}
			if from = m.Sequence + 1; !yield(m, nil) {
				return
			}
		}
	}
}

// A queuedJob is a job in the queue that no node has.
type queuedJob struct {
	flow   schemas.Flow
	before int       // jobs of the flow that came earlier and are not over
	at     time.Time // when the queue took it
	msg    *jetstream.RawStreamMsg

	handedOut bool // it was delivered, as far as was asked
}

// info says where the job is: it waits, or is about to be put with those that are not
// due.
func (q queuedJob) info(k jobKey, now time.Time) schemas.JobInfo {
	info := schemas.JobInfo{Job: k.id, State: schemas.JobQueued, Model: q.flow.Model}
	if due := dueOf(q.msg.Header.Get); due.After(now) {
		info.State, info.Due = schemas.JobDelayed, due
	}
	return info
}

// findQueued looks for a job in the queue. The queue has no index by id: it's
// read through, at some 100,000 jobs a second, but for a job that goes by its
// sequence.
func (t *term) findQueued(ctx context.Context, k jobKey) (queuedJob, bool, error) {
	earlier := map[string]int{} // by subject
	for m, err := range t.queued(ctx, k.tenant, 1) {
		if err != nil {
			return queuedJob{}, false, err
		}
		if id, _ := schemas.JobID(m.Header.Get, m.Sequence); id == k.id {
			f, err := schemas.ParseJobSubject(m.Subject)
			return queuedJob{flow: f, before: earlier[m.Subject], at: m.Time, msg: m}, err == nil, nil
		}
		earlier[m.Subject]++
	}
	return queuedJob{}, false, nil
}

// whereIs says where a job is that has not ended, as far as the leader knows: fetched by
// it, running as a node says, or else in the queue.
func (t *term) whereIs(k jobKey) (info schemas.JobInfo, fetched *job) {
	if j := t.jobs[k]; j != nil {
		return j.info(), j
	}
	info, ok := t.fleet.running(k)
	if !ok {
		info = schemas.JobInfo{Job: k.id, State: schemas.JobQueued}
	}
	return info, nil
}
