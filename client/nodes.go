package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// nodesBuffer is how many states may come at once.
const nodesBuffer = 4096

// Nodes asks all nodes for their state and returns the newest of each, by name,
// once no further node answered for wait. 0 means 300 ms. No nodes are no error.
func (c *Client) Nodes(ctx context.Context, wait time.Duration) ([]schemas.NodeState, error) {
	if wait <= 0 {
		wait = 300 * time.Millisecond
	}
	msgs := make(chan *nats.Msg, nodesBuffer)
	sub, err := c.nc.ChanSubscribe(schemas.NodeSubject("*", "state"), msgs)
	if err != nil {
		return nil, fmt.Errorf("nodes: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only where the connection is closed
	if err := c.nc.Publish(schemas.NodesPing, nil); err != nil {
		return nil, fmt.Errorf("nodes: %w", err)
	}
	found := map[string]schemas.NodeState{}
	quiet := time.NewTimer(wait)
	defer quiet.Stop()
	for {
		select {
		case m := <-msgs:
			if collect(found, m.Data) {
				quiet.Reset(wait)
			}
		case <-quiet.C:
			if c.nc.IsClosed() {
				return nil, errors.New("nodes: the connection is closed")
			}
			return slices.SortedFunc(maps.Values(found), func(a, b schemas.NodeState) int {
				return cmp.Compare(a.Node, b.Node)
			}), nil
		case <-ctx.Done():
			return nil, fmt.Errorf("nodes: %w", ctx.Err())
		}
	}
}

// collect adds a state to those found and reports whether its node is new. What
// is no state is left out.
func collect(found map[string]schemas.NodeState, data []byte) bool {
	var s schemas.NodeState
	if json.Unmarshal(data, &s) != nil || s.Node == "" {
		return false
	}
	old, ok := found[s.Node]
	if !ok || s.Boot == old.Boot && s.Seq > old.Seq || s.Boot != old.Boot && s.At.After(old.At) {
		found[s.Node] = s
	}
	return !ok
}
