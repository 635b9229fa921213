package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/schemas"
)

// A source gives the messages of one job, in the order in which they come.
type source interface {
	next(ctx context.Context) (Event, error)
	close()
}

// errBehind is a source's way to say that messages may have been lost, and that
// the reader should look at what is stored.
var errBehind = errors.New("messages may have been lost")

// errDropped is an errBehind of which it is certain.
var errDropped = fmt.Errorf("a slow reader: %w", errBehind)

const (
	// liveBuffer is how many messages of a job wait for a slow reader: more than a
	// second of the fastest model. Those over it are lost, which the reader sees
	// as a gap.
	liveBuffer = 4096

	// livePulse is how long a job may be silent before the reader looks whether
	// its end was lost on the way: core NATS promises nothing across servers. It
	// looks less and less often while the silence lasts.
	livePulse    = 10 * time.Second
	maxLivePulse = 2 * time.Minute

	// latePulse is the same for a reader that began to listen when the end may
	// have been on its way to the store: too late to hear it, too early to find it.
	latePulse = 250 * time.Millisecond
)

// live reads a subject as messages come, without a store.
type live struct {
	nc     *nats.Conn
	sub    *nats.Subscription
	msgs   chan *nats.Msg
	status chan nats.Status
	pulse  *time.Ticker
	every  time.Duration // between pulses
	quiet  bool          // no message since the last pulse

	dropped int // messages that found the buffer full, as far as the reader was told
}

// listen subscribes to the events on subject. What is published on this
// connection afterwards finds it listening. A job that is silent for pulse from
// now on makes the reader look.
func (c *Client) listen(subject string, pulse time.Duration) (*live, error) {
	l := &live{nc: c.nc, msgs: make(chan *nats.Msg, liveBuffer), every: pulse, quiet: true}
	sub, err := c.nc.ChanSubscribe(subject, l.msgs)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", subject, err)
	}
	l.sub = sub
	l.status = c.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	l.pulse = time.NewTicker(l.every)
	return l, nil
}

func (l *live) next(ctx context.Context) (Event, error) {
	for {
		select { // what came before ctx ended is still read
		case m := <-l.msgs:
			if e, ok := l.read(m); ok {
				return e, nil
			}
			continue
		default:
		}
		if n, err := l.sub.Dropped(); err == nil && n != l.dropped {
			l.dropped = n
			return Event{}, errDropped // perhaps the last ones, after which nothing comes
		}
		select {
		case m := <-l.msgs:
			if e, ok := l.read(m); ok {
				return e, nil
			}
		case <-l.pulse.C:
			if l.beat() {
				return Event{}, errBehind
			}
		case s := <-l.status:
			return Event{}, l.changed(s)
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// changed says what a change of the connection means for the reader.
func (l *live) changed(now nats.Status) error {
	if now != nats.CONNECTED { // closed, and then the channel is, too
		return nats.ErrConnectionClosed
	}
	l.every, l.quiet = latePulse, true // what was published before we were back may not be stored yet
	l.pulse.Reset(l.every)
	return errBehind
}

// beat reports whether the job was silent since the last pulse.
func (l *live) beat() bool {
	silent := l.quiet
	l.quiet = true
	if silent {
		l.every = min(2*l.every, maxLivePulse)
	} else {
		l.every = livePulse
	}
	l.pulse.Reset(l.every)
	return silent
}

func (l *live) read(m *nats.Msg) (Event, bool) {
	l.quiet = false
	return readEvent(m.Header, m.Data)
}

func (l *live) close() {
	l.pulse.Stop()
	l.nc.RemoveStatusListener(l.status)
	_ = l.sub.Unsubscribe() // fails only where the connection is closed, which ends it too
}

// replay reads the stored events of a job, and those to come.
type replay struct {
	msgs jetstream.MessagesContext
}

// replay reads the stored events of a job from a sequence of the stream on; 0
// means from the first.
func (c *Client) replay(ctx context.Context, id string, from uint64) (*replay, error) {
	cfg := jetstream.OrderedConsumerConfig{
		FilterSubjects:    []string{schemas.ResultSubjects(c.tenant, id)},
		DeliverPolicy:     jetstream.DeliverAllPolicy,
		InactiveThreshold: time.Minute,
	}
	if from > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, from
	}
	consumer, err := c.js.OrderedConsumer(ctx, resultsStream, cfg)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		return nil, fmt.Errorf("read job %s: %w: there is no stream %s", id, ErrNoVramjet, resultsStream)
	case err != nil:
		return nil, fmt.Errorf("read job %s from %s: %w", id, resultsStream, err)
	}
	msgs, err := consumer.Messages()
	if err != nil {
		return nil, fmt.Errorf("read job %s from %s: %w", id, resultsStream, err)
	}
	return &replay{msgs: msgs}, nil
}

func (r *replay) next(ctx context.Context) (Event, error) {
	for {
		m, err := r.msgs.Next(jetstream.NextContext(ctx))
		if err != nil {
			return Event{}, err
		}
		e, ok := readEvent(m.Headers(), m.Data())
		if !ok {
			continue
		}
		if meta, err := m.Metadata(); err == nil {
			e.Stored, e.unread = meta.Sequence.Stream, meta.NumPending > 0
		}
		return e, nil
	}
}

func (r *replay) close() { r.msgs.Stop() }
