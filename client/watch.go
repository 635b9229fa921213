package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// WatchAll yields the changes of all jobs of the tenant from now on, as Events tells
// them, until ctx ends, whose error is then the last thing that comes.
func (c *Client) WatchAll(ctx context.Context) iter.Seq2[schemas.JobEntry, error] {
	return func(yield func(schemas.JobEntry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for e, err := range c.Events(ctx) {
			if err != nil {
				yield(schemas.JobEntry{}, fmt.Errorf("watch: %w", err))
				return
			}
			if !yield(afterEvent(schemas.JobEntry{}, &e), nil) {
				return
			}
		}
	}
}

// Watch yields the changes of a job as they come, beginning with where it is now, until
// it has ended. Events may be lost on the way: so the dispatcher is asked now and then.
// Where a job is over that answered to a reply subject of its own, and its last event
// was lost, nobody can say how it ended: its last change has no State.
//
// An error is the last thing that comes: ErrNoDispatcher or ErrNotFound where nobody
// can say where the job is, or ctx's.
func (c *Client) Watch(ctx context.Context, jobID string) iter.Seq2[schemas.JobEntry, error] {
	return func(yield func(schemas.JobEntry, error) bool) {
		err := fmt.Errorf("%w: %q is no job id", ErrNotFound, jobID)
		if schemas.ValidToken(jobID) {
			err = c.watch(ctx, jobID, func(e schemas.JobEntry) bool { return yield(e, nil) })
		}
		if err != nil {
			yield(schemas.JobEntry{}, fmt.Errorf("watch job %s: %w", jobID, err))
		}
	}
}

// watch calls yield with each change of a job until it returns false, or the job is over.
func (c *Client) watch(ctx context.Context, id string, yield func(schemas.JobEntry) bool) error {
	events := make(chan *nats.Msg, liveBuffer)
	sub, err := c.nc.ChanSubscribe(schemas.JobEventSubject(c.tenant, id), events)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only where the connection is closed
	closed := c.nc.StatusChanged(nats.CLOSED)
	defer c.nc.RemoveStatusListener(closed)
	every := latePulse
	pulse := time.NewTimer(every)
	defer pulse.Stop()
	w := watched{client: c, last: schemas.JobEntry{JobInfo: schemas.JobInfo{Job: id}}}
	e, err := w.look(ctx)
	for err == nil {
		if w.changes(&e) && !yield(e) || w.over {
			return nil
		}
		select {
		case m := <-events:
			var event schemas.JobEvent
			if json.Unmarshal(m.Data, &event) == nil && event.Job == id {
				e = afterEvent(w.last, &event)
			}
		case <-pulse.C:
			every = min(2*every, maxLivePulse)
			pulse.Reset(every)
			e, err = w.look(ctx)
		case <-closed:
			err = nats.ErrConnectionClosed
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return err
}

// watched is a job that is watched.
type watched struct {
	client *Client
	last   schemas.JobEntry // as it was seen last; without a state: not yet
	over   bool
}

// look asks where the job is. After the first time, a dispatcher that does not answer
// is waited for.
func (w *watched) look(ctx context.Context) (schemas.JobEntry, error) {
	e := w.last
	info, err := w.client.Status(ctx, e.Job)
	switch {
	case err == nil:
		if info.Model == "" {
			info.Model = e.Model
		}
		e.JobInfo = info
	case e.State == "" || ctx.Err() != nil:
		return e, err
	case errors.Is(err, ErrNotFound):
		e.State, w.over = "", true
	}
	e.At = time.Now()
	return e, nil
}

// changes takes note of the job as it is now, and reports whether that is news.
func (w *watched) changes(e *schemas.JobEntry) bool {
	was := w.last
	w.last = *e
	switch e.State {
	case schemas.JobDelayed, schemas.JobQueued:
		return was.State != e.State
	case schemas.JobRunning:
		return was.State != e.State || was.Attempt != e.Attempt || was.Node != e.Node
	default:
		w.over = true
		return true
	}
}

// afterEvent returns a job as it is after an event.
func afterEvent(e schemas.JobEntry, event *schemas.JobEvent) schemas.JobEntry {
	state := map[schemas.JobEventKind]schemas.JobState{
		schemas.JobEventDelayed: schemas.JobDelayed, schemas.JobEventQueued: schemas.JobQueued, schemas.JobEventRetried: schemas.JobQueued,
		schemas.JobEventStarted: schemas.JobRunning, schemas.JobEventEnded: schemas.JobState(event.Status),
	}[event.Event]
	if state == "" {
		return e // of a kind that is not known here
	}
	model, class := e.Model, e.Class
	e = schemas.JobEntry{
		JobInfo: schemas.JobInfo{Job: event.Job, State: state, Node: event.Node, Backend: event.Backend, Model: event.Model, Attempt: event.Attempt, Due: event.Due},
		Class:   event.Class, Code: event.Code, At: event.At,
	}
	if e.Model == "" { // of a job that a former leader assigned
		e.Model, e.Class = model, class
	}
	return e
}
