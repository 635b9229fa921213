package worker

import (
	"errors"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// Why a job's work was stopped. They are causes of contexts.
var (
	errLost      = errors.New("the lease ran out")
	errVoid      = errors.New("the job was given to somebody else")
	errDraining  = errors.New("the node shuts down")
	errCancelled = errors.New("cancelled by request")
	errGone      = errors.New("cancelled, since nobody listens on the reply subject")
	errExpired   = errors.New("the job's deadline passed")
	errTimeout   = errors.New("the attempt took too long")
)

// A word is what the queue is told of a delivery.
type word int

// The words. The zero word is silence: the lease runs out, and nothing is lost.
const (
	silence word = iota
	ack
	nak
	term
)

// An outcome is how an attempt at a job went.
type outcome struct {
	err      error // nil: the answer is whole
	attempt  uint64
	attempts int     // the most there may be
	luck     float64 // from 0 to 1: spreads what failed together over half of its delay
	began    bool    // chunks of it were published
}

// A settlement is what follows from an outcome. The zero settlement is that
// nobody is told anything.
type settlement struct {
	event  schemas.EventKind // "", retry or end
	status schemas.Status    // of an end
	err    *schemas.Error    // nil: ok
	word   word
	delay  time.Duration // until the next delivery, where there is one; -1: there was one
	dead   bool          // goes to the dead letters first
}

// retry is when the queue delivers the job again; -1: it does not.
func (s settlement) retry() time.Duration {
	if s.word == ack || s.word == term {
		return -1
	}
	return s.delay
}

// code is why the attempt failed, "" for ok.
func (s settlement) code() schemas.Code {
	switch {
	case s.err != nil:
		return s.err.Code
	case s.word == silence:
		return schemas.Internal
	default:
		return ""
	}
}

// ours reports whether an operator should hear of the error: it is the backend's
// or our own, and not the caller's or nobody's.
func (s settlement) ours() bool {
	return s.err != nil && (s.err.Code == schemas.Internal || s.err.Code.Verdict().Blame == schemas.BlameBackend)
}

// settle says what follows from an attempt.
func settle(o outcome) settlement {
	switch {
	case o.err == nil:
		return settlement{event: schemas.EventEnd, status: schemas.StatusOK, word: ack}
	case errors.Is(o.err, errLost):
		return settlement{} // it is delivered again any time now
	case errors.Is(o.err, errVoid):
		return settlement{delay: -1}
	case errors.Is(o.err, errCancelled), errors.Is(o.err, errGone):
		return over(schemas.Errorf(schemas.Cancelled, "%s", o.err))
	case errors.Is(o.err, errExpired):
		return over(schemas.Errorf(schemas.Deadline, "%s", o.err))
	case errors.Is(o.err, errDraining):
		return again(o, schemas.Errorf(schemas.Overloaded, "%s", o.err), 0)
	case errors.Is(o.err, errTimeout):
		err := schemas.Errorf(schemas.Deadline, "%s", o.err)
		return again(o, err, delay(err, o.attempt))
	}
	err := schemas.AsError(o.err)
	if err.Code.Verdict().Action == schemas.Never {
		return over(err)
	}
	return again(o, err, delay(err, o.attempt))
}

// over ends a job that no retry can help.
func over(err *schemas.Error) settlement {
	return settlement{event: schemas.EventEnd, status: schemas.StatusOf(err.Code), err: err, word: ack}
}

// again gives the job back to the queue while it has attempts left. Who has read
// chunks is told that others follow.
func again(o outcome, err *schemas.Error, delay time.Duration) settlement {
	if o.attempt >= uint64(max(o.attempts, 0)) {
		return settlement{event: schemas.EventEnd, status: schemas.StatusError, err: err, word: term, dead: true}
	}
	s := settlement{err: err, word: nak, delay: delay + time.Duration(o.luck*float64(delay)/2)}
	if o.began {
		s.event = schemas.EventRetry
	}
	return s
}

// delay is how long the queue keeps the job to itself before the next attempt.
func delay(err *schemas.Error, attempt uint64) time.Duration {
	switch err.Code.Verdict().Action {
	case schemas.Later:
		if err.RetryAfter > 0 {
			return err.RetryAfter
		}
		return doubled(time.Second, attempt, time.Minute)
	case schemas.Free:
		return 500 * time.Millisecond
	default:
		return doubled(100*time.Millisecond, attempt, 5*time.Second)
	}
}

// doubled returns d, doubled for each attempt after the first, at most most.
func doubled(d time.Duration, attempt uint64, most time.Duration) time.Duration {
	for ; attempt > 1 && d < most; attempt-- {
		d *= 2
	}
	return min(d, most)
}
