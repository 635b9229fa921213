package dispatcher

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// settleTimeout bounds how long the end of a job is tried to be stored and its
// delivery settled. What is not done then is done again after the next delivery.
const settleTimeout = broker.AckWait - 5*time.Second

// finish ends a job that no node runs any more: its end is stored, and then the
// delivery settled. A job that used up its attempts is kept as a dead letter.
func (t *term) finish(j *job, err *schemas.Error, now time.Time) {
	t.release(j, now)
	end := j.end(err, now)
	var dead *nats.Msg
	if err.Code.Verdict().Action != schemas.Never && t.isDead(j) {
		dead = broker.DeadLetter(&nats.Msg{Subject: j.flow.subject, Header: j.msg.Header, Data: j.msg.Data}, j.ID, err, now)
		t.metrics.dead.WithLabelValues(string(err.Code)).Inc()
		t.cfg.Logger.Warn("a job is dead", "job", j.ID, "model", j.Flow.Model, "attempt", j.attempt, "err", err)
	}
	stored := j.Reply == ""
	told := err.Code == schemas.Cancelled && !j.cancelled // when it was cancelled, as it waited
	t.settle(j, func(ctx context.Context) error {
		if dead != nil {
			if err := broker.PublishStored(ctx, t.nc, dead); err != nil {
				return fmt.Errorf("store the dead letter: %w", err)
			}
		}
		if _, err := publishEnd(ctx, t.nc, end, stored); err != nil {
			return err
		}
		if !told {
			t.tellEnd(j.Job, j.attempt, err)
		}
		if dead != nil {
			return broker.Ack(ctx, t.nc, j.ack) // who runs it again needs its body
		}
		return t.clear(ctx, j)
	})
}

// drop settles a job whose end exists.
func (t *term) drop(j *job) {
	t.settle(j, func(ctx context.Context) error { return t.clear(ctx, j) })
}

// clear settles a delivery for good, and then deletes the job's body.
func (t *term) clear(ctx context.Context, j *job) error {
	if err := broker.Ack(ctx, t.nc, j.ack); err != nil {
		return err
	}
	t.deleteBody(ctx, j.Job)
	return nil
}

// deleteBody deletes the body of a job that is over, where it is an object. One that
// stays is deleted by its age.
func (t *term) deleteBody(ctx context.Context, j *schemas.Job) {
	if j.Object == "" {
		return
	}
	if err := broker.DeleteBody(ctx, t.nc, j.Object); err != nil {
		t.cfg.Logger.Warn("a body stays until it is old", "job", j.ID, "err", err)
	}
}

// giveBack has the queue deliver a job again after a delay.
func (t *term) giveBack(j *job, delay time.Duration) {
	f := j.flow
	t.settle(j, func(ctx context.Context) error {
		if err := broker.Nak(ctx, t.nc, j.ack, delay); err != nil {
			return err
		}
		t.post(func() { t.returned(f, time.Now()) })
		return nil
	})
}

// settle does what is left to do for a delivery, and forgets the job then.
func (t *term) settle(j *job, do func(ctx context.Context) error) {
	t.spawn(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), settleTimeout)
		defer cancel()
		if err := do(ctx); err != nil {
			t.cfg.Logger.Warn("a job was not settled", "job", j.ID, "attempt", j.attempt, "err", err)
		}
		t.post(func() { t.forgetJob(j.key(), j, time.Now()) })
	})
}

// publishEnd publishes an end: stored, so that there's at most one ever, where it
// goes to the result subjects, and by core NATS where somebody listens. It reports
// false where another end was stored before.
func publishEnd(ctx context.Context, nc *nats.Conn, end *nats.Msg, stored bool) (first bool, err error) { //nolint:revive // flag-parameter: where it goes decides how
	if stored {
		if first, err = broker.PublishEnd(ctx, nc, end); err != nil {
			return false, fmt.Errorf("store the end: %w", err)
		}
		return first, nil
	}
	if err := nc.PublishMsg(end); err != nil {
		return false, fmt.Errorf("publish the end: %w", err)
	}
	return true, nil
}

// encode marshals one of our own messages.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("marshal %T: %v", v, err)) // they hold nothing that can't be
	}
	return data
}
