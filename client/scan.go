package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// How many messages of a stream are on their way at a time.
const (
	headersAhead = 500
	bodiesAhead  = 8
)

// A found is a message of a stream.
type found struct {
	jetstream.Msg
	seq uint64
	at  time.Time // when it was stored
}

// scan reads the messages of a subject that a stream has now, in its order, and ends
// after the last of them. What is in memory is bounded, however many there are. The
// filter is a part of what the server is asked for, so that it can be permitted.
func (c *Client) scan(ctx context.Context, stream, filter string, cfg jetstream.OrderedConsumerConfig) iter.Seq2[found, error] {
	cfg.FilterSubjects = []string{filter}
	return func(yield func(found, error) bool) {
		err := c.scanTo(ctx, stream, cfg, func(m found) bool { return yield(m, nil) })
		if err != nil {
			yield(found{}, fmt.Errorf("read %s: %w", stream, err))
		}
	}
}

// scanTo calls yield with each message until it returns false.
func (c *Client) scanTo(ctx context.Context, stream string, cfg jetstream.OrderedConsumerConfig, yield func(found) bool) error {
	consumer, err := c.js.OrderedConsumer(ctx, stream, cfg)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		return fmt.Errorf("%w: there is no such stream", ErrNoVramjet)
	case err != nil:
		return err
	}
	left := consumer.CachedInfo().NumPending
	if left == 0 {
		return nil
	}
	ahead := bodiesAhead
	if cfg.HeadersOnly {
		ahead = headersAhead
	}
	msgs, err := consumer.Messages(jetstream.PullMaxMessages(ahead))
	if err != nil {
		return err
	}
	defer msgs.Stop()
	for left > 0 {
		m, err := msgs.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if left = meta.NumPending; !yield(found{m, meta.Sequence.Stream, meta.Timestamp.UTC()}) {
			return nil
		}
	}
	return nil
}
