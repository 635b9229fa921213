package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// Control asks a node for its state (do: "state"), or to do something: "drain"
// and "undrain" it, "load" and "unload" a model of a backend, "pin" and "unpin"
// it there. It returns the node's state once that is done, which for a load takes
// as long as the load: ctx alone bounds the wait. What was asked for goes on when
// ctx ends.
//
// The error is ErrNoNode where nobody listens, and a *schemas.Error where the node
// refuses or fails. A request that NATS does not permit is never answered, nor is
// one whose node is gone by then.
func (c *Client) Control(ctx context.Context, node string, req schemas.ControlRequest) (schemas.NodeState, error) {
	var state schemas.NodeState
	if !schemas.ValidToken(node) {
		return state, fmt.Errorf("%s: the node %q is not 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'", req.Do, node)
	}
	data, err := json.Marshal(req)
	if err != nil {
		return state, fmt.Errorf("%s: %w", req.Do, err)
	}
	m, err := c.nc.RequestWithContext(ctx, schemas.NodeSubject(node, "control"), data)
	if errors.Is(err, nats.ErrNoResponders) {
		return state, fmt.Errorf("%s: %w by the name %s", req.Do, ErrNoNode, node)
	}
	if err != nil {
		return state, fmt.Errorf("%s on %s: %w", req.Do, node, err)
	}
	var failed schemas.APIError
	if err := json.Unmarshal(m.Data, &failed); err != nil {
		return state, fmt.Errorf("%s: the answer of %s: %w", req.Do, node, err)
	}
	if failed.Error != nil {
		return state, fmt.Errorf("%s: %w", req.Do, failed.Error)
	}
	if err := json.Unmarshal(m.Data, &state); err != nil {
		return state, fmt.Errorf("%s: the answer of %s: %w", req.Do, node, err)
	}
	return state, nil
}
