package worker

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// Bounds of settling: an election of a cluster takes 5 to 7 s.
const (
	settleTimeout = 30 * time.Second
	nakTimeout    = 5 * time.Second
	ackTimeout    = 10 * time.Second // of a job whose end is stored: a server that lost its delivery answers no ack of it
	giveUpDelay   = 5 * time.Second  // before a job is tried again that could not be settled
)

// tell carries a settlement out: the dead letter, the event, then the word to
// the queue, each only after the one before is safe. The job is given back where
// that fails.
func (a *attempt) tell(life context.Context, s settlement, body []byte) error {
	if s.word == silence {
		return nil
	}
	ctx, cancel := context.WithTimeout(life, settleTimeout)
	defer cancel()
	err := a.publish(ctx, s, body)
	if err != nil {
		s = settlement{word: nak, delay: giveUpDelay}
	}
	return errors.Join(err, a.say(life, s))
}

// publish publishes what a settlement has to be read by others.
func (a *attempt) publish(ctx context.Context, s settlement, body []byte) error {
	if s.err != nil {
		var err error
		if body, err = json.Marshal(schemas.Failure{Error: s.err, Run: a.stats(time.Now())}); err != nil {
			return err
		}
	}
	if s.dead {
		if err := a.bury(ctx, s.err); err != nil {
			return err
		}
	}
	switch {
	case !a.lease.held(time.Now()):
		return errLost
	case s.event == schemas.EventEnd:
		return a.out.end(ctx, s, body)
	case s.event == schemas.EventRetry:
		return a.out.publish(schemas.EventRetry, body, time.Now())
	default:
		return nil
	}
}

// say gives the queue the last word about the delivery. It tries again while
// the lease lasts.
func (a *attempt) say(life context.Context, s settlement) error {
	if s.word == nak {
		a.lease.wire.Lock() // an extension after it would undo the delay
		defer a.lease.wire.Unlock()
		defer a.lease.lose()
	}
	left := a.lease.left(time.Now())
	if left <= 0 {
		return errLost
	}
	limit := settleTimeout
	switch {
	case s.word == ack && a.offer.Job.Reply == "": // its end is stored: whoever gets it again sees that
		limit = ackTimeout
	case s.word == nak:
		limit = min(left, settleTimeout) // nobody extends it now
	}
	ctx, cancel := context.WithTimeout(life, limit)
	defer cancel()
	switch s.word {
	case ack:
		return broker.Ack(ctx, a.w.nc, a.lease.ack)
	case term:
		return broker.Term(ctx, a.w.nc, a.lease.ack, s.err.Error())
	default:
		return broker.Nak(ctx, a.w.nc, a.lease.ack, s.delay)
	}
}

// bury publishes the job as it was, and why it died, to the dead letters.
func (a *attempt) bury(ctx context.Context, why *schemas.Error) error {
	if !a.lease.held(time.Now()) {
		return errLost
	}
	job := &nats.Msg{Subject: a.offer.Subject, Header: a.offer.header, Data: a.offer.Job.Body}
	if a.offer.Job.Object != "" {
		job.Data = nil // as it was
	}
	return broker.PublishStored(ctx, a.w.nc, broker.DeadLetter(job, a.offer.Job.ID, why, time.Now()))
}
