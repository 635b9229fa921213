package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/schemas"
)

// A delayedJob is one that was found among those that are not due.
type delayedJob struct {
	*schemas.Job
	seq uint64
}

// info says where the job is: it waits for its time, or for room in the queue.
func (d *delayedJob) info(now time.Time) schemas.JobInfo {
	info := schemas.JobInfo{Job: d.ID, State: schemas.JobQueued, Model: d.Flow.Model}
	if d.At.After(now) {
		info.State, info.Due = schemas.JobDelayed, d.At
	}
	return info
}

// findDelayed returns a job that is not due, or nil. It is at one of seqs, or after
// last: stored, and not read by the leader yet.
func (t *term) findDelayed(ctx context.Context, k jobKey, seqs []uint64, last uint64) (*delayedJob, error) {
	stream, err := t.laterStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the delayed jobs: %w", err)
	}
	for _, seq := range seqs {
		m, err := stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read a delayed job: %w", err)
		}
		if d := t.readDelayed(m); d.key() == k {
			return d, nil
		}
	}
	own := jetstream.WithGetMsgSubject(schemas.LaterPrefix + k.tenant + ".>")
	for range laterBatch { // the leader is hardly ever that far behind
		m, err := stream.GetMsg(ctx, last+1, own) // or the next
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read a delayed job: %w", err)
		}
		if d := t.readDelayed(m); d.key() == k {
			return d, nil
		}
		last = m.Sequence
	}
	return nil, nil //nolint:nilnil // none is no error
}

func (t *term) readDelayed(m *jetstream.RawStreamMsg) *delayedJob {
	j, _ := schemas.ReadLater(m.Header.Get, m.Subject, m.Sequence, t.cfg.Replies) // it can be answered whatever is wrong
	return &delayedJob{j, m.Sequence}
}

// cancelDelayed ends a job that is not due. It reports false where that is on its way
// into the queue, which drops it then by its mark.
func (t *term) cancelDelayed(ctx context.Context, d *delayedJob) (bool, error) {
	if err := t.storeMark(ctx, d.key()); err != nil {
		return false, err
	}
	var kept delayed
	var claimed bool
	if !t.do(func() { kept, claimed = t.later.remove(d.seq) }) {
		return false, errTermOver
	}
	if !claimed {
		return false, nil
	}
	err := t.endDelayed(ctx, d.Job, schemas.Errorf(schemas.Cancelled, "cancelled before it was due"))
	if err == nil {
		var stream jetstream.Stream
		if stream, err = t.laterStream(ctx); err == nil {
			err = removeDelayed(ctx, stream, d.seq)
		}
	}
	if err != nil {
		t.post(func() { t.later.restore(kept) })
	}
	return true, err
}

func (d *delayedJob) key() jobKey { return jobKey{d.Flow.Tenant, d.ID} }

// why says why the job waits.
func (d *delayedJob) why(now time.Time) schemas.Why {
	w := schemas.Why{JobInfo: d.info(now), Class: d.Flow.Class, Why: []string{}}
	if w.State == schemas.JobDelayed {
		w.Reason, w.Next = notDue(d.At), "it joins the queue then"
		return w
	}
	w.WaitedMS = max(0, now.Sub(d.At).Milliseconds())
	w.Reason, w.Next = "it is due, and on its way into the queue", "it joins the queue as soon as that has room for it"
	return w
}

// notDue is why a delayed job waits.
func notDue(at time.Time) string {
	return "it is not to begin before " + at.Format(time.RFC3339) + " (" + schemas.HeaderAt + ")"
}
