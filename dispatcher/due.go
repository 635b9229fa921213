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

// moveDue has the jobs moved into the queue that are due.
func (t *term) moveDue(now time.Time) {
	if !t.closing.IsZero() {
		return
	}
	l := &t.later
	l.become(now)
	for flow := range l.due {
		for l.movers < mostMovers && l.due[flow] != nil {
			jobs := l.take(flow, moveBatch, now)
			if len(jobs) == 0 {
				break
			}
			l.movers++
			t.move(flow, jobs)
		}
	}
	if len(l.waiting) == 0 || l.waiting[0].due == l.armed {
		return
	}
	next := time.Unix(0, l.waiting[0].due).Sub(now)
	if next > 2*sweepEvery {
		return // a sweep comes before it is due
	}
	l.armed = l.waiting[0].due
	time.AfterFunc(next, func() { t.post(func() { t.moveDue(time.Now()) }) })
}

// Bounds of moving. A mover has one job in memory at a time.
const (
	mostMovers  = 16
	moveBatch   = 64
	moveTimeout = 10 * time.Second // of one job
	fullRest    = time.Second
	failedRest  = 5 * time.Second
)

// move moves jobs into the queue, in their order.
func (t *term) move(flow uint32, jobs []delayed) {
	t.spawn(func() {
		left, err := t.moveAll(jobs)
		t.post(func() {
			now := time.Now()
			rest := now
			switch {
			case broker.Full(err):
				rest = now.Add(fullRest)
			case err != nil:
				rest = now.Add(failedRest)
				t.cfg.Logger.Warn("jobs that are due were not queued", "err", err)
			}
			t.later.movers--
			t.later.moved(flow, jobs, left, rest)
			t.moveDue(now)
		})
	})
}

// moveAll moves jobs into the queue, and returns how many are left, and why.
func (t *term) moveAll(jobs []delayed) (left int, err error) {
	stream, err := t.laterStream(t.ctx)
	for i := range jobs {
		if err == nil {
			err = t.ctx.Err()
		}
		if err == nil {
			err = t.moveOne(stream, jobs[i].seq)
		}
		if err != nil {
			return len(jobs) - i, err
		}
	}
	return 0, nil
}

// laterStream returns the stream of delayed jobs.
func (t *term) laterStream(ctx context.Context) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	return t.js.Stream(ctx, broker.StreamLater) //nolint:wrapcheck // the caller says what this is about
}

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
	if _, err := publishEnd(ctx, t.nc, endMessage(j, 0, e, schemas.Run{}), j.Reply == ""); err != nil {
		return err
	}
	t.tellEnd(j, 0, e)
	return nil
}
