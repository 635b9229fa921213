package dispatcher

import (
	"context"
	"errors"
	"time"
)

// All state belongs to the goroutine of Run. What takes its time is done on others, which
// post what comes of it.

// spawn runs f on a goroutine that Run waits for.
func (d *Dispatcher) spawn(f func()) { d.work.Go(f) }

// post has Run's goroutine do f, unless Run has ended.
func (d *Dispatcher) post(f func()) {
	select {
	case d.events <- f:
	case <-d.done:
	}
}

// errTermOver is why something was not done that only a leader may do.
var errTermOver = errors.New("the dispatcher leads no more")

// post has Run's goroutine do f, unless the term is over by then: to a later one of this
// dispatcher nothing belongs that this one has in hand.
func (t *term) post(f func()) {
	t.Dispatcher.post(func() {
		if t.term == t {
			f()
		}
	})
}

// do has Run's goroutine do f, and waits until it has. It reports false where the term is
// over.
func (t *term) do(f func()) bool {
	leads, did := false, make(chan struct{})
	t.Dispatcher.post(func() {
		defer close(did)
		if leads = t.term == t; leads {
			f()
		}
	})
	select {
	case <-did:
		return leads
	case <-t.done:
		return false
	}
}

// untilRead reads what is stored on a goroutine of its own, again and again until it is
// read or the term is over. unread is what the log says of each time that it is not.
func (t *term) untilRead(unread string, read func() error) {
	const again = 500 * time.Millisecond
	t.spawn(func() {
		for {
			err := read()
			if err == nil || t.ctx.Err() != nil {
				return
			}
			t.cfg.Logger.Warn(unread, "err", err) //nolint:sloglint // the callers have constants
			select {
			case <-t.ctx.Done():
				return
			case <-time.After(again):
			}
		}
	})
}

// How long a request to JetStream is waited for, at first and in the end.
const (
	firstTry = 250 * time.Millisecond
	lastTry  = 2 * time.Second
)

// untilAnswered makes a request to JetStream, and again where it fails. One that is made
// while a cluster elects may never be answered, and the next one at once: so it waits
// firstTry for the first, and each time twice as long.
func untilAnswered(ctx context.Context, request func(context.Context) error) error {
	for wait := firstTry; ; wait *= 2 {
		try, cancel := context.WithTimeout(ctx, wait)
		err := request(try)
		if err != nil && wait < lastTry {
			<-try.Done() // an error may come at once
		}
		cancel()
		if err == nil || wait == lastTry || ctx.Err() != nil {
			return err
		}
	}
}
