package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/schemas"
)

// deadStream is the stream that keeps dead letters.
const deadStream = "VJ_DEAD"

// A LetterFilter says which dead letters of the tenant are meant. The zero LetterFilter
// means all.
type LetterFilter struct {
	schemas.Filter
	Code  schemas.Code // why the job died; "": whatever it was
	Job   string       // its id; "": any
	Since time.Time    // the earliest time at which it died; zero: any

	// Bodies reads the requests as well. Without it, a Letter has no Body.
	Bodies bool
}

// A Letter is a dead letter: a job as it was, and why it died.
type Letter struct {
	Seq     uint64 // in the stream of dead letters, which names it
	Job     string
	Flow    schemas.Flow
	Code    schemas.Code
	Message string
	At      time.Time // when it died
	Subject string    // of the letter
	Header  nats.Header
	Body    []byte
}

// Letters reads dead letters of the tenant, the oldest first: those that there are at
// the time of the call. An error is the last thing that comes. The letters are read
// from their stream, a few at a time, so that there may be any number of them.
func (c *Client) Letters(ctx context.Context, f LetterFilter) iter.Seq2[Letter, error] {
	return func(yield func(Letter, error) bool) {
		if err := f.Check(); err != nil {
			yield(Letter{}, fmt.Errorf("dead letters: %w", err))
			return
		}
		cfg := jetstream.OrderedConsumerConfig{HeadersOnly: !f.Bodies}
		if !f.Since.IsZero() {
			cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &f.Since
		}
		for m, err := range c.scan(ctx, deadStream, schemas.DeadPrefix+c.tenant+".>", cfg) {
			if err != nil {
				yield(Letter{}, fmt.Errorf("dead letters: %w", err))
				return
			}
			l := readLetter(m.Subject(), m.Headers(), m.Data())
			if !f.Bodies {
				l.Body = nil
			}
			l.Seq, l.At = m.seq, m.at
			if f.matches(&l) && !yield(l, nil) {
				return
			}
		}
	}
}

func (f *LetterFilter) matches(l *Letter) bool {
	return f.Match(l.Flow.Class, l.Flow.Model) && (f.Code == "" || f.Code == l.Code) && (f.Job == "" || f.Job == l.Job)
}

// readLetter reads a dead letter. What it does not say is left empty.
func readLetter(subject string, h nats.Header, body []byte) Letter {
	l := Letter{
		Job: h.Get(schemas.HeaderJob), Code: schemas.Code(h.Get(schemas.HeaderDeadCode)), Message: h.Get(schemas.HeaderDeadMessage),
		Subject: subject, Header: nats.Header{}, Body: body,
	}
	for key, values := range h {
		if !strings.HasPrefix(key, "Nats-") || key == schemas.HeaderMsgID { // else the stream's own
			l.Header[key] = values
		}
	}
	if flow, err := schemas.ParseJobSubject(l.jobSubject()); err == nil {
		l.Flow = flow
	}
	return l
}

// jobSubject is where the job was submitted.
func (l *Letter) jobSubject() string {
	return schemas.JobsPrefix + strings.TrimPrefix(l.Subject, schemas.DeadPrefix)
}

// RetryLetter submits the job of a dead letter again, and removes the letter once the
// queue has the job. seq is the letter's.
//
// The job gets an id of its own, made of the old one and of seq: the old id has ended,
// so that a job with it would not be run. The same letter always makes the same id, so
// that a retry after an error runs nothing twice. What can't be meant any more is left
// out: a deadline that has passed, and an inbox to answer to, in whose place come the
// result subjects.
//
// The errors are those of Submit, and ErrNotFound where there is no such letter. Where
// only the letter could not be removed, the ticket is good.
func (c *Client) RetryLetter(ctx context.Context, seq uint64) (Ticket, error) {
	l, stream, err := c.letter(ctx, seq)
	if err != nil {
		return Ticket{}, fmt.Errorf("retry: %w", err)
	}
	msg := l.again(time.Now())
	if err := checkSize(msg, c.nc.MaxPayload()); err != nil {
		return Ticket{}, err
	}
	ack, err := c.js.PublishMsg(ctx, msg)
	if err != nil {
		return Ticket{}, submitError(msg.Subject, err)
	}
	t := Ticket{ID: msg.Header.Get(schemas.HeaderMsgID), Seq: ack.Sequence, Duplicate: ack.Duplicate}
	return t, removeLetter(ctx, stream, seq)
}

// RemoveLetter removes a dead letter for good. The error is ErrNotFound where there is
// none with that sequence.
func (c *Client) RemoveLetter(ctx context.Context, seq uint64) error {
	_, stream, err := c.letter(ctx, seq)
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return removeLetter(ctx, stream, seq)
}

func removeLetter(ctx context.Context, stream jetstream.Stream, seq uint64) error {
	if err := stream.DeleteMsg(ctx, seq); err != nil && !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		return fmt.Errorf("remove dead letter %d: %w", seq, err)
	}
	return nil
}

// letter reads one dead letter, with its stream. One of another tenant is not found.
func (c *Client) letter(ctx context.Context, seq uint64) (*Letter, jetstream.Stream, error) {
	stream, err := c.js.Stream(ctx, deadStream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		return nil, nil, fmt.Errorf("%w: there is no stream %s", ErrNoVramjet, deadStream)
	case err != nil:
		return nil, nil, fmt.Errorf("open %s: %w", deadStream, err)
	}
	m, err := stream.GetMsg(ctx, seq)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound), err == nil && !strings.HasPrefix(m.Subject, schemas.DeadPrefix+c.tenant+"."):
		return nil, nil, fmt.Errorf("%w: there is no dead letter %d of the tenant %s", ErrNotFound, seq, c.tenant)
	case err != nil:
		return nil, nil, fmt.Errorf("read dead letter %d: %w", seq, err)
	}
	l := readLetter(m.Subject, m.Header, m.Data)
	l.Seq, l.At = seq, m.Time.UTC()
	return &l, stream, nil
}

// again returns the job of a letter as it is submitted again.
func (l *Letter) again(now time.Time) *nats.Msg {
	msg := &nats.Msg{Subject: l.jobSubject(), Header: nats.Header{}, Data: l.Body}
	for key, values := range l.Header {
		switch key {
		case schemas.HeaderJob, schemas.HeaderDeadCode, schemas.HeaderDeadMessage, schemas.HeaderDeadAt, schemas.HeaderMsgID,
			schemas.HeaderLater, schemas.HeaderAt: // the old id, and a time that has come
		default:
			msg.Header[key] = values
		}
	}
	if at, err := time.Parse(time.RFC3339, msg.Header.Get(schemas.HeaderDeadline)); err == nil && now.After(at) {
		msg.Header.Del(schemas.HeaderDeadline)
	}
	if schemas.IsInbox(msg.Header.Get(schemas.HeaderReply)) {
		msg.Header.Del(schemas.HeaderReply)
	}
	msg.Header.Set(schemas.HeaderMsgID, retryID(l.Job, l.Seq))
	return msg
}

// retryID is the id of a job that is submitted again: j1-r17.
func retryID(job string, letter uint64) string {
	const longest = 64
	suffix := "-r" + strconv.FormatUint(letter, 10)
	if !schemas.ValidToken(job) {
		job = "letter"
	}
	return job[:min(len(job), longest-len(suffix))] + suffix
}
