package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// aloneTimeout is how long another worker of the node's name has to answer.
const aloneTimeout = 500 * time.Millisecond

// alone returns an error where another worker answers to the node's name. Two of
// them would take each other's jobs and contradict each other's states. One that
// died a moment ago, or somebody who only listens, lets the question go
// unanswered: that is no reason to stay away.
func (w *Worker) alone(ctx context.Context) error {
	ask, cancel := context.WithTimeout(ctx, aloneTimeout)
	defer cancel()
	_, err := w.nc.RequestWithContext(ask, schemas.NodeSubject(w.cfg.Node, "control"), []byte(`{"do":"state"}`))
	switch {
	case err == nil:
		return fmt.Errorf("another worker is running as node %s on this NATS: choose another name with --node", w.cfg.Node)
	case errors.Is(err, nats.ErrNoResponders), ctx.Err() != nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		w.cfg.Logger.Warn("somebody listens under the node's name and does not answer: make sure that no other worker has it")
		return nil
	default:
		return fmt.Errorf("ask for another worker of node %s: %w", w.cfg.Node, err)
	}
}
