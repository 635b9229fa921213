package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// Events returns what becomes of the tenant's jobs, as it happens: which wait, begin,
// fail and end. It listens from the call on until ctx ends, whose error is then the
// last thing that it returns; the loop may be left and begun again until then.
//
// Each event comes at most once, and may be lost on the way: what must not be missed
// is in the results. A reader that falls far behind misses events.
func (c *Client) Events(ctx context.Context) iter.Seq2[schemas.JobEvent, error] {
	sub, err := c.nc.SubscribeSync(schemas.JobEventSubject(c.tenant, "*"))
	if err == nil {
		context.AfterFunc(ctx, func() { _ = sub.Unsubscribe() }) // fails only where the connection is closed
	}
	next := func() (*nats.Msg, error) {
		if err != nil {
			return nil, err
		}
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		return m, err
	}
	return func(yield func(schemas.JobEvent, error) bool) {
		for {
			m, err := next()
			if errors.Is(err, nats.ErrSlowConsumer) {
				continue
			}
			if err != nil {
				yield(schemas.JobEvent{}, fmt.Errorf("events: %w", err))
				return
			}
			var e schemas.JobEvent
			if json.Unmarshal(m.Data, &e) == nil && e.Job != "" && !yield(e, nil) {
				return
			}
		}
	}
}
