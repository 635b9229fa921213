package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// A mark in KV says that a queued job was cancelled. Jobs with result subjects
// have their end as well, which is enough to drop them; the mark is for those
// that answer to a reply subject, which only the job itself knows.

func markKey(k jobKey) string { return "cancel." + k.tenant + "." + k.id }

// storeMark stores a mark that goes away by itself.
func (t *term) storeMark(ctx context.Context, k jobKey) error {
	m := nats.NewMsg("$KV." + broker.BucketState + "." + markKey(k))
	m.Header.Set("Nats-TTL", markMemory.String())
	m.Data = []byte(t.cfg.ID)
	if err := broker.PublishStored(ctx, t.nc, m); err != nil {
		return fmt.Errorf("store the mark: %w", err)
	}
	return nil
}

// loadMarks reads the marks that former leaders stored.
func (t *term) loadMarks() {
	t.spawn(func() {
		ctx, cancel := context.WithTimeout(t.ctx, 10*time.Second)
		defer cancel()
		marks, err := t.readMarks(ctx)
		t.post(func() {
			if err != nil {
				t.cfg.Logger.Warn("cancelled jobs are not known", "err", err)
			}
			now := time.Now()
			for _, k := range marks {
				t.marks[k] = now
			}
		})
	})
}

func (t *term) readMarks(ctx context.Context) ([]jobKey, error) {
	kv, err := t.js.KeyValue(ctx, broker.BucketState)
	if err != nil {
		return nil, fmt.Errorf("open the bucket: %w", err)
	}
	keys, err := kv.ListKeysFiltered(ctx, "cancel.>")
	if err != nil {
		return nil, fmt.Errorf("list the marks: %w", err)
	}
	var marks []jobKey
	for key := range keys.Keys() {
		if tenant, id, ok := strings.Cut(strings.TrimPrefix(key, "cancel."), "."); ok {
			marks = append(marks, jobKey{tenant, id})
		}
	}
	return marks, nil
}

// A queuedJob is a job in the queue that no node has.
type queuedJob struct {
	flow   schemas.Flow
	before int       // jobs of the flow that came earlier and are not over
	at     time.Time // when the queue took it
	header nats.Header
}

// info says where the job is: it waits, or is about to be put with those that are not
// due.
func (q queuedJob) info(k jobKey, now time.Time) schemas.JobInfo {
	info := schemas.JobInfo{Job: k.id, State: schemas.JobQueued, Model: q.flow.Model}
	if due := dueOf(q.header.Get); due.After(now) {
		info.State, info.Due = schemas.JobDelayed, due
	}
	return info
}

// findQueued looks for a job in the queue. The queue has no index by id: it's
// read through, at some 100,000 jobs a second, but for a job that goes by its
// sequence.
func (t *term) findQueued(ctx context.Context, k jobKey) (queuedJob, bool, error) {
	const page = 1000
	earlier := map[string]int{} // by subject
	for seq := uint64(1); ; {
		msgs, err := jetstreamext.GetBatch(ctx, t.js, broker.StreamJobs, page,
			jetstreamext.GetBatchSeq(seq), jetstreamext.GetBatchSubject(schemas.JobsPrefix+k.tenant+".>"))
		if err != nil {
			return queuedJob{}, false, fmt.Errorf("read the queue: %w", err)
		}
		n := 0
		for m, err := range msgs {
			if errors.Is(err, jetstreamext.ErrNoMessages) {
				break
			}
			if err != nil {
				return queuedJob{}, false, fmt.Errorf("read the queue: %w", err)
			}
			n++
			seq = m.Sequence + 1
			if id, _ := schemas.JobID(m.Header.Get, m.Sequence); id == k.id {
				f, err := schemas.ParseJobSubject(m.Subject)
				return queuedJob{f, earlier[m.Subject], m.Time, m.Header}, err == nil, nil
			}
			earlier[m.Subject]++
		}
		if n < page {
			return queuedJob{}, false, nil
		}
	}
}
