package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/schemas"
)

// Resume returns the events of a job that was submitted without a reply subject:
// those that are stored, from a sequence of the stream of results on, and then
// those to come. 0 means from the first; to go on where a reader stopped, pass
// its last Event.Stored plus 1.
//
// Any client of the tenant may call it, at any time, as often as it likes, for as
// long as the results are kept. A job that nobody submitted looks like one that
// waits. ctx bounds the call only; the Stream must be closed, or read to its end.
func (c *Client) Resume(ctx context.Context, jobID string, fromStreamSeq uint64) (*Stream, error) {
	if !schemas.ValidToken(jobID) {
		return nil, fmt.Errorf("resume: %w: %q is no job id", ErrNotFound, jobID)
	}
	s := &Stream{client: c, ticket: Ticket{ID: jobID}, stored: true, onStore: true, order: order{open: fromStreamSeq > 0}}
	if fromStreamSeq > 0 {
		s.had = fromStreamSeq - 1 // it tells what is next
	}
	r, err := c.replay(ctx, jobID, s.had)
	if err != nil {
		return nil, err
	}
	s.src = r
	return s, nil
}

// Result returns how a job ended that was submitted without a reply subject, and
// waits for it until ctx ends. What it returns for a job that failed is what
// Stream.Result does.
func (c *Client) Result(ctx context.Context, jobID string) (*Result, error) {
	if !schemas.ValidToken(jobID) {
		return nil, fmt.Errorf("result: %w: %q is no job id", ErrNotFound, jobID)
	}
	l, err := c.listen(schemas.EndSubject(c.tenant, jobID), latePulse)
	if err != nil {
		return nil, err
	}
	defer l.close()
	for {
		end, ok, err := c.storedEnd(ctx, jobID)
		if err != nil {
			return nil, err
		}
		if !ok {
			if end, err = l.next(ctx); errors.Is(err, errBehind) {
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("job %s: %w", jobID, err)
		}
		return readResult(jobID, &end)
	}
}

// Ended returns how a job ended, as Result does, and waits for nothing. It reports
// false where no end of it is stored: it has not ended, was never submitted, answered to
// a reply subject, or its results have expired.
func (c *Client) Ended(ctx context.Context, jobID string) (r *Result, ended bool, err error) {
	if !schemas.ValidToken(jobID) {
		return nil, false, fmt.Errorf("result: %w: %q is no job id", ErrNotFound, jobID)
	}
	end, ok, err := c.storedEnd(ctx, jobID)
	if err != nil || !ok {
		return nil, false, err
	}
	r, err = readResult(jobID, &end)
	return r, true, err
}

// storedEnd returns the end of a job if it is stored. It waits at most apiTimeout.
func (c *Client) storedEnd(ctx context.Context, id string) (Event, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	subject := schemas.EndSubject(c.tenant, id)
	m, err := c.nc.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+resultsStream+"."+subject, nil)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return Event{}, false, fmt.Errorf("look for the end of job %s: %w: there is no stream %s", id, ErrNoVramjet, resultsStream)
	case err != nil:
		return Event{}, false, fmt.Errorf("look for the end of job %s: %w", id, err)
	}
	switch status := m.Header.Get("Status"); status {
	case "":
	case "404":
		return Event{}, false, nil
	default:
		return Event{}, false, fmt.Errorf("look for the end of job %s: the server says %s %s", id, status, m.Header.Get("Description"))
	}
	e, ok := readEvent(m.Header, m.Data)
	e.Stored, _ = count(m.Header.Get(jetstream.SequenceHeader))
	return e, ok, nil
}
