package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// requestTimeout bounds one attempt at a request. The next is made at once.
const requestTimeout = 2 * time.Second

// errNotConnected keeps a request from waiting in the buffer of a connection
// that is down: an acknowledgement that is sent later than its lease lasts would
// settle somebody else's delivery.
var errNotConnected = errors.New("not connected to NATS for now")

// request sends msg and returns the reply that read is content with. Where there
// is no reply, or read returns a transient error, it sends msg again, with
// growing pauses, until ctx ends. Any other error ends it at once.
func request(ctx context.Context, nc *nats.Conn, msg *nats.Msg, read func(*nats.Msg) error) (*nats.Msg, error) {
	var pauses *backoff.ExponentialBackOff // made only when needed
	var last error
	for {
		reply, err := requestOnce(ctx, nc, msg, read)
		if err == nil || !Transient(err) && !errors.Is(err, context.Canceled) {
			return reply, err
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if pauses == nil {
			pauses = newBackOff()
		}
		pause := time.NewTimer(pauses.NextBackOff())
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, gaveUp(ctx, last)
		}
	}
}

// requestOnce sends msg and waits requestTimeout for a reply that read is
// content with.
func requestOnce(ctx context.Context, nc *nats.Conn, msg *nats.Msg, read func(*nats.Msg) error) (*nats.Msg, error) {
	if !nc.IsConnected() {
		if nc.IsClosed() {
			return nil, nats.ErrConnectionClosed
		}
		return nil, errNotConnected
	}
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout, nats.ErrTimeout)
	defer cancel()
	reply, err := nc.RequestMsgWithContext(ctx, msg)
	switch {
	case ctx.Err() != nil && err != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	}
	return reply, read(reply)
}

// gaveUp says that ctx ended, and what was the matter until then.
func gaveUp(ctx context.Context, last error) error {
	cause := context.Cause(ctx)
	if errors.Is(last, cause) {
		return cause
	}
	return fmt.Errorf("%w (last: %w)", cause, last)
}

// anyReply is content with every reply.
func anyReply(*nats.Msg) error { return nil }

// pubAck is what JetStream replies to a message that a stream captures.
type pubAck struct {
	Stream string              `json:"stream"`
	Error  *jetstream.APIError `json:"error"`
}

// stored is content with a reply that says that a stream has the message.
func stored(reply *nats.Msg) error {
	var ack pubAck
	if err := json.Unmarshal(reply.Data, &ack); err != nil {
		return fmt.Errorf("somebody other than a stream answered %.40q", reply.Data)
	}
	switch {
	case ack.Error != nil:
		return ack.Error
	case ack.Stream == "":
		return fmt.Errorf("somebody other than a stream answered %.40q", reply.Data)
	default:
		return nil
	}
}
