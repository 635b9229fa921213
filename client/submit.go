package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/schemas"
)

// A Ticket is the receipt for a job that the queue holds.
type Ticket struct {
	ID  string `json:"id"`
	Seq uint64 `json:"seq"` // in the queue's stream, or in that of delayed jobs where the job has a time to begin

	// Duplicate means that a job of this ID was submitted not long ago, and that this one
	// was dropped. Where the queue took more than a second to answer, that may be this very
	// submission, whose answer was lost.
	Duplicate bool `json:"duplicate,omitempty"`
}

// How long an answer of the queue is waited for in all, and how long before a job with an ID
// is submitted again; after that twice as long, and so on.
const (
	submitWithin  = 5 * time.Second
	resubmitAfter = time.Second
)

// How often a job is submitted, and how long is between, where the cluster is still storing
// an earlier submission of it: an election, which delays that, takes seconds.
const (
	inProcessTries = 50
	inProcessWait  = 100 * time.Millisecond
)

// Submit puts the job in the queue and returns once the queue holds it: from
// then on it ends exactly once, whatever happens. It does not wait for the
// answer, which Result, Resume or the job's reply subject gives.
//
// A request that is too large for a message (the server's max_payload) is stored in the
// bucket schemas.BucketBodies, and the job tells where: its node fetches it, and it is
// deleted when the job ends.
//
// It waits at most 5 s for the answer where ctx has no deadline. A job with an ID is submitted
// again after 1 s without one, and after 3 s. After an error that is none of
// ErrNoVramjet, ErrFull and ErrTooLarge the queue may hold the job or not; with
// an ID, submitting it again is safe.
func (c *Client) Submit(ctx context.Context, job Job) (Ticket, error) {
	if job.Inbox {
		return Ticket{}, errors.New("submit: only Run can read an inbox of its own: set Reply")
	}
	return c.submit(ctx, &job)
}

func (c *Client) submit(ctx context.Context, job *Job) (t Ticket, err error) {
	msg, err := job.message(c.tenant)
	if err != nil {
		return Ticket{}, err
	}
	ctx, end := traceSubmit(ctx, job, msg)
	defer func() { end(t, err) }()
	body, err := c.lighten(ctx, msg)
	if err != nil {
		return Ticket{}, err
	}
	ack, err := c.publish(ctx, msg)
	if err != nil {
		err = submitError(msg.Subject, err)
		if errors.Is(err, ErrNoVramjet) || errors.Is(err, ErrFull) || errors.Is(err, ErrTooLarge) {
			c.discard(body) // else the queue may hold a job that needs it
		}
		return Ticket{}, err
	}
	if ack.Duplicate {
		c.discard(body) // the job of this id has one of its own
	}
	t = Ticket{ID: job.ID, Seq: ack.Sequence, Duplicate: ack.Duplicate}
	if t.ID == "" {
		t.ID = strconv.FormatUint(ack.Sequence, 10)
		if !job.At.IsZero() {
			t.ID = schemas.UnnamedLater(ack.Sequence)
		}
	}
	return t, nil
}

// publish publishes a job, and again where that is safe and nothing answers: what is sent
// while a cluster elects may be lost, or its answer. While the same one is being stored, the
// cluster refuses it, and knows soon what came of it.
func (c *Client) publish(ctx context.Context, msg *nats.Msg) (*jetstream.PubAck, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, submitWithin)
		defer cancel()
	}
	again := msg.Header.Get(schemas.HeaderMsgID) != "" // the queue knows it then
	wait := resubmitAfter
	for tries := 1; ; {
		try, cancel := ctx, context.CancelFunc(func() {})
		if again {
			try, cancel = context.WithTimeout(ctx, wait)
		}
		ack, err := c.js.PublishMsg(try, msg)
		cancel()
		var api *jetstream.APIError
		switch {
		case again && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			wait *= 2
			continue
		case tries == inProcessTries || !errors.As(err, &api) || api.ErrorCode != codeInProcess:
			return ack, err //nolint:wrapcheck // submitError does
		}
		tries++
		select {
		case <-ctx.Done():
			return nil, ctx.Err() //nolint:wrapcheck // likewise
		case <-time.After(inProcessWait):
		}
	}
}

// Run submits the job and returns its events as they come. It listens before it
// submits, so that none is missed. ctx bounds the submission only; the Stream
// must be closed, or read to its end.
//
// A job whose ID was used before is not run again: the stream tells what the
// first one did. With Inbox that cannot be told, and the error is ErrDuplicate.
func (c *Client) Run(ctx context.Context, job Job) (*Stream, error) {
	if job.Reply != "" {
		return nil, errors.New("run: the stream chooses the reply subject: leave Reply empty, or use Submit")
	}
	if err := job.check(c.tenant); err != nil {
		return nil, fmt.Errorf("submit: %w", err)
	}
	known := job.ID != "" && !job.Inbox // to others too: there may be events of it
	subject, pulse := c.nc.NewInbox(), livePulse
	switch {
	case job.Inbox:
		job.Reply = subject
	case known:
		subject, pulse = schemas.ResultSubjects(c.tenant, job.ID), latePulse
	default:
		job.ID = rand.Text()
		subject = schemas.ResultSubjects(c.tenant, job.ID)
	}
	live, err := c.listen(subject, pulse)
	if err != nil {
		return nil, err
	}
	ticket, err := c.submit(ctx, &job)
	if err != nil {
		live.close()
		return nil, err
	}
	s := &Stream{client: c, ticket: ticket, src: live, stored: !job.Inbox}
	if known || ticket.Duplicate {
		err = s.catchUp(ctx)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// catchUp turns to the stored events where the job may have had some before the
// stream began to listen: its id is known to the caller, or it is a duplicate.
func (s *Stream) catchUp(ctx context.Context) error {
	if !s.stored {
		return fmt.Errorf("run: job %s: %w", s.ticket.ID, ErrDuplicate)
	}
	if !s.ticket.Duplicate {
		if _, ended, err := s.client.storedEnd(ctx, s.ticket.ID); err != nil || !ended {
			return err
		}
	}
	return s.reread(ctx)
}
