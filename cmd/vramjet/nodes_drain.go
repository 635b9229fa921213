package main

import (
	"context"
	"fmt"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// controlTimeout is how long a node may take for what takes no time.
const controlTimeout = 5 * time.Second

type nodesDrainCmd struct {
	Node string `arg:"" help:"The node."`
	patience
}

// Help is shown below the command's summary.
func (*nodesDrainCmd) Help() string {
	return `The node takes no more jobs until it is undrained or started anew. Jobs that run there go on; vramjet nodes shows how many.

Examples:

    vramjet nodes drain gpu-1
`
}

// Run drains the node.
func (n *nodesDrainCmd) Run(ctx context.Context, a *app) error {
	return a.drain(ctx, n.Node, n.Wait, "drain")
}

type nodesUndrainCmd struct {
	Node string `arg:"" help:"The node."`
	patience
}

// Help is shown below the command's summary.
func (*nodesUndrainCmd) Help() string {
	return `Examples:

    vramjet nodes undrain gpu-1
`
}

// Run ends the node's drain.
func (n *nodesUndrainCmd) Run(ctx context.Context, a *app) error {
	return a.drain(ctx, n.Node, n.Wait, "undrain")
}

// drain asks a node to drain, or to undrain, and prints how it is then.
func (a *app) drain(ctx context.Context, name string, wait time.Duration, do string) error {
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	nodes, err := everyNode(ctx, c, wait)
	if err != nil {
		return err
	}
	if _, err := nodeNamed(nodes, name); err != nil {
		return err
	}
	asked, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	state, err := c.Control(asked, name, schemas.ControlRequest{Do: do})
	switch {
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil && asked.Err() != nil:
		return noAnswer(name)
	case err != nil:
		return err
	case a.asJSON():
		return a.printJSON(state)
	}
	_, err = fmt.Fprintf(a.out, "%s  %s  jobs %d\n", name, nodeState(&state), len(state.Running))
	return err
}

// noAnswer is the error of a node that should have answered by now.
func noAnswer(node string) error {
	return &codedError{exitTimeout, fmt.Errorf("%s does not answer: is it cut off, or does NATS not permit to publish on %s?",
		node, schemas.NodeSubject(node, "control"))}
}
