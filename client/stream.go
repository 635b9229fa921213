package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// A Stream is the events of one job: in order, of the highest attempt only, each
// once, the end last. Its methods may not be called concurrently.
//
// Where events are lost on the way (a reader that is too slow, a connection that
// breaks) and the job's events are stored, the Stream reads them again and its
// reader notices nothing.
type Stream struct {
	client  *Client
	ticket  Ticket
	src     source
	onStore bool // src reads the store
	stored  bool // the events are stored
	order   order
	had     uint64 // where the event is stored that the reader had last; 0: nowhere
	ahead   ahead  // from the store: what comes too early there
	held    *Event // goes out next
	end     *Event
	doubted bool // the job seemed to be over, and its end was not here
	lost    bool // so it was the second time
}

// ID returns the job's id.
func (s *Stream) ID() string { return s.ticket.ID }

// Ticket returns the receipt that the queue gave for the job. Only its ID is set
// where the Stream comes from Resume.
func (s *Stream) Ticket() Ticket { return s.ticket }

// Next returns the next event, and waits for it until ctx ends. An end of ctx
// breaks nothing: Next can be called again.
//
// After the end comes io.EOF, or ErrGap where the job went well but chunks of its
// answer were lost for good; Result has the whole answer even then. ErrLost means
// that no end will come. Nothing follows these three.
func (s *Stream) Next(ctx context.Context) (Event, error) {
	for {
		switch {
		case s.held != nil:
			e := *s.held
			s.held = nil
			return e, nil
		case s.end != nil:
			return Event{}, s.verdict()
		}
		e, ok := s.ahead.next(&s.order)
		if !ok {
			var err error
			if e, ok, err = s.read(ctx); err != nil {
				return Event{}, err
			}
		}
		if ok {
			return s.take(&e), nil
		}
	}
}

// read reads an event from the source. It reports false where the reader does not get it,
// or not now.
func (s *Stream) read(ctx context.Context) (Event, bool, error) {
	switch {
	case s.lost:
		return Event{}, false, fmt.Errorf("job %s: %w", s.ID(), ErrLost)
	case s.src == nil:
		return Event{}, false, errors.New("the stream is closed")
	}
	e, err := s.next(ctx)
	switch {
	case errors.Is(err, errBehind):
		return Event{}, false, s.recheck(ctx, err)
	case errors.Is(err, errNotThere):
		s.ahead.unread = false
		return Event{}, false, nil
	case err != nil:
		return Event{}, false, fmt.Errorf("job %s: %w", s.ID(), err)
	}
	s.doubted, s.ahead.unread = false, e.unread
	if s.had > 0 && e.Stored == s.had {
		s.take(&e)
		return Event{}, false, nil
	}
	step := s.order.look(&e)
	switch {
	case step == lost && s.onStore:
		s.ahead.add(&e)
		return Event{}, false, nil
	case step == lost && s.stored:
		return Event{}, false, s.reread(ctx)
	default:
		return e, step != drop, nil
	}
}

// What is stored behind the end comes at once, or has just been removed.
const behindEnd = 2 * time.Second

var errNotThere = errors.New("nothing is stored behind the end")

// next reads an event from the source, and does not wait for ever where the end is there.
func (s *Stream) next(ctx context.Context) (Event, error) {
	if !s.ahead.ended() {
		return s.src.next(ctx)
	}
	soon, cancel := context.WithTimeoutCause(ctx, behindEnd, errNotThere)
	defer cancel()
	e, err := s.src.next(soon)
	if err != nil && errors.Is(context.Cause(soon), errNotThere) {
		err = errNotThere
	}
	return e, err
}

// take moves on to e, and returns what the reader gets first.
func (s *Stream) take(e *Event) Event {
	restarted := s.order.take(e)
	if e.Kind == schemas.EventEnd {
		s.end = e
		s.Close()
	}
	if restarted {
		s.held = e
		return Event{Kind: Restarted, Attempt: e.Attempt}
	}
	return *e
}

// verdict is what follows the end.
func (s *Stream) verdict() error {
	if s.order.gap && s.end.Status == schemas.StatusOK {
		return fmt.Errorf("job %s: %w", s.ID(), ErrGap)
	}
	return io.EOF
}

// All returns the events up to the end, and stops after the first error. An error
// is what Next returns, but for io.EOF.
func (s *Stream) All(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			e, err := s.Next(ctx)
			if errors.Is(err, io.EOF) || !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Result reads on to the end and returns it. It may be called at any time, also
// after the end. Where the job failed, the error wraps a *schemas.Error and the
// Result says how it was run.
func (s *Stream) Result(ctx context.Context) (*Result, error) {
	for s.end == nil {
		if _, err := s.Next(ctx); err != nil {
			return nil, err
		}
	}
	return readResult(s.ID(), s.end)
}

// Close stops listening. A job with an inbox is then cancelled, unless it was
// told to finish; any other goes on, and Client.Cancel stops it. Closing twice,
// or after the end, does nothing.
func (s *Stream) Close() {
	if s.src != nil {
		s.src.close()
		s.src = nil
	}
}

// reread goes on with the stored events, from the first.
func (s *Stream) reread(ctx context.Context) error {
	r, err := s.client.replay(ctx, s.ID(), 0)
	if err != nil {
		return err
	}
	s.src.close()
	s.src, s.onStore = r, true
	return nil
}

// recheck looks whether the end was lost, after the source said why it may have
// been: the connection broke, the reader was slow, or the job was silent for long.
// Where there is nobody to ask, the end may still come.
func (s *Stream) recheck(ctx context.Context, why error) error {
	if s.stored {
		if errors.Is(why, errDropped) {
			return s.reread(ctx)
		}
		if _, ended, err := s.client.storedEnd(ctx, s.ID()); err == nil && ended {
			return s.reread(ctx)
		}
		return ctx.Err()
	}
	info, err := s.client.Status(ctx, s.ID())
	waits := info.State == schemas.JobDelayed || info.State == schemas.JobQueued || info.State == schemas.JobRunning
	over := errors.Is(err, ErrNotFound) || err == nil && !waits
	if !over {
		return ctx.Err()
	}
	if !s.doubted { // the end may be on its way: it gets until the next pulse
		s.doubted = true
		return nil
	}
	s.lost = true
	s.Close()
	return nil
}
