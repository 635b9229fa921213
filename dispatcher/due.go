package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// moveOne moves a job that is due into the queue: it is stored there, then removed
// here. Whoever is killed in between leaves it in both, and the next leader moves it
// again, which the queue takes for what it is, the same message. A job that can't be
// run gets its end instead.
func (t *term) moveOne(stream jetstream.Stream, seq uint64) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), moveTimeout)
	defer cancel()
	m, err := stream.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil // cancelled, or moved by another leader
	}
	if err != nil {
		return fmt.Errorf("read a delayed job: %w", err)
	}
	j, bad := schemas.ReadLater(m.Header.Get, m.Subject, seq, t.cfg.Replies)
	if bad == nil {
		err := broker.PublishStored(ctx, t.nc, dueMessage(m, j.ID))
		if broker.TooLarge(err) {
			bad = schemas.Errorf(schemas.InvalidRequest, "the job leaves no room for one more header: %s", err)
		} else if err != nil {
			return err
		}
	}
	if bad != nil {
		if err := t.endDelayed(ctx, j, bad); err != nil {
			return err
		}
	}
	return removeDelayed(ctx, stream, seq)
}

// dueMessage is a delayed job as it goes into the queue. The queue tells by
// Nats-Msg-Id that it has it already. That is not the job's own: ids are a tenant's,
// and to JetStream the whole stream's, so two tenants' jobs of one id that are due at
// the same time would lose one. The time of storage keeps it from being guessed.
func dueMessage(m *jetstream.RawStreamMsg, id string) *nats.Msg {
	due := movedMessage(schemas.DueSubject(m.Subject), m.Header, m.Data, id)
	due.Header.Set(schemas.HeaderMsgID, fmt.Sprintf("later.%d.%d", m.Sequence, m.Time.UnixNano()))
	return due
}

// movedMessage is a job that is moved between the queue and the delayed ones: as it
// is, without what its headers told the stream that it was published to.
func movedMessage(subject string, header nats.Header, data []byte, id string) *nats.Msg {
	m := nats.NewMsg(subject)
	for key, values := range header {
		if !strings.HasPrefix(key, "Nats-") {
			m.Header[key] = values
		}
	}
	m.Header.Set(schemas.HeaderLater, id)
	m.Data = data
	return m
}

// removeDelayed removes a job from those that are not due.
func removeDelayed(ctx context.Context, stream jetstream.Stream, seq uint64) error {
	if err := deleteEach(ctx, stream, []uint64{seq}); err != nil {
		return fmt.Errorf("remove a delayed job: %w", err)
	}
	return nil
}

// endDelayed ends a job that is not queued any more.
func (t *term) endDelayed(ctx context.Context, j *schemas.Job, why error) error {
	e := schemas.AsError(why)
	if err := publishEnd(ctx, t.nc, endMessage(j, 0, e, schemas.Run{}), j.Reply == ""); err != nil {
		return err
	}
	t.tellEnd(j, 0, e)
	return nil
}

// early reports whether a job that was put into the queue itself is not due.
func (t *term) early(j *job, now time.Time) bool {
	_, marked := t.marks[j.key()]
	return !marked && dueOf(j.msg.Header.Get).After(now)
}

// dueOf returns when a job in the queue may begin: the zero time for one that came
// there because it was due. Clocks of dispatchers differ; none sends it back.
func dueOf(h schemas.Header) time.Time {
	if h(schemas.HeaderLater) != "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, h(schemas.HeaderAt))
	if err != nil {
		return time.Time{}
	}
	return at
}

// postpone moves a job out of the queue that is not due. It is stored with the
// others, then acknowledged here: the way back is dueMessage's.
func (t *term) postpone(j *job, now time.Time) {
	t.release(j, now)
	j.postponed = true
	m := movedMessage(schemas.LaterSubject(j.flow.subject), j.msg.Header, j.msg.Data, j.ID)
	m.Header.Set(schemas.HeaderMsgID, fmt.Sprintf("jobs.%d.%d", j.seq, j.at.UnixNano()))
	t.settle(j, func(ctx context.Context) error {
		switch err := broker.PublishStored(ctx, t.nc, m); {
		case broker.Full(err):
			if err := t.endDelayed(ctx, j.Job, schemas.Errorf(schemas.Overloaded, "as many jobs are delayed as may be: submit it again when there are fewer")); err != nil {
				return err
			}
		case broker.TooLarge(err):
			if err := t.endDelayed(ctx, j.Job, schemas.Errorf(schemas.InvalidRequest, "the job leaves no room for one more header: %s", err)); err != nil {
				return err
			}
		case err != nil:
			return err
		}
		return broker.Ack(ctx, t.nc, j.ack)
	})
}

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
	claimed := make(chan func(), 1) // what gives the claim back; nil: there is none
	t.post(func() {
		kept, ok := t.later.remove(d.seq)
		if !ok {
			claimed <- nil
			return
		}
		claimed <- func() { t.later.restore(kept) }
	})
	var giveBack func()
	select {
	case giveBack = <-claimed:
	case <-t.done:
		return false, context.Canceled
	}
	if giveBack == nil {
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
		t.post(giveBack)
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
