package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// nodesCmd shows the nodes.
type nodesCmd struct {
	Ls nodesLsCmd `cmd:"" default:"withargs" help:"List the nodes."`
}

type nodesLsCmd struct {
	Wait time.Duration `default:"300ms" help:"How long to wait for one more node (${default})."`
}

// Help is shown below the command's summary.
func (*nodesLsCmd) Help() string {
	return `Asks all nodes for their state. The exit code is 6 where none answers.

Examples:

    vramjet nodes
    vramjet nodes ls --json
`
}

// Run lists the nodes.
func (n *nodesLsCmd) Run(ctx context.Context, a *app) error {
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	nodes, err := c.Nodes(ctx, n.Wait)
	if err != nil {
		return err
	}
	if a.asJSON() {
		if nodes == nil {
			nodes = []schemas.NodeState{}
		}
		err = a.printJSON(nodes)
	} else if len(nodes) > 0 {
		err = printNodes(a, nodes, time.Now())
	}
	if err == nil && len(nodes) == 0 {
		return &codedError{exitNoDispatcher, errors.New("no node answers: is a worker running?")}
	}
	return err
}

func printNodes(a *app, nodes []schemas.NodeState, now time.Time) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSTATE\tGPU\tVRAM used/total\tRESIDENT\tSLOTS\tHEARTBEAT")
	for i := range nodes {
		n := &nodes[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			n.Node, nodeState(n), gpus(n.Devices), vram(n.Devices), resident(n.Backends), slots(n.Backends), age(now.Sub(n.At)))
	}
	return w.Flush()
}

// nodeState returns a node's state in a word.
func nodeState(n *schemas.NodeState) string {
	healthy := 0
	for i := range n.Backends {
		if n.Backends[i].Healthy {
			healthy++
		}
	}
	switch {
	case n.Draining:
		return "draining"
	case len(n.Backends) == 0:
		return "no backend"
	case healthy == 0:
		return "down"
	case healthy < len(n.Backends):
		return "degraded"
	default:
		return "ready"
	}
}

// gpus counts devices by their names: 2x H100, 1x A10.
func gpus(devices []schemas.Device) string {
	var names []string
	count := map[string]int{}
	for i := range devices {
		name := strings.TrimPrefix(strings.TrimPrefix(devices[i].Name, "NVIDIA "), "GeForce ")
		if count[name]++; count[name] == 1 {
			names = append(names, name)
		}
	}
	for i, name := range names {
		names[i] = fmt.Sprintf("%dx %s", count[name], name)
	}
	return orDash(strings.Join(names, ", "))
}

// vram sums the devices: 4.1 / 24.0 GiB. What a device does not tell is unknown
// in the sum too.
func vram(devices []schemas.Device) string {
	if len(devices) == 0 {
		return "-"
	}
	used, total := schemas.Known(0), schemas.Known(0)
	for i := range devices {
		used.Bytes += devices[i].Used.Bytes
		used.Known = used.Known && devices[i].Used.Known
		total.Bytes += devices[i].Total.Bytes
		total.Known = total.Known && devices[i].Total.Known
	}
	return gib(used) + " / " + gib(total) + " GiB"
}

func gib(a schemas.Amount) string {
	if !a.Known {
		return "?"
	}
	return fmt.Sprintf("%.1f", float64(a.Bytes)/float64(schemas.GiB))
}

// resident lists the models in memory, and those on the way there.
func resident(backends []schemas.Backend) string {
	var names []string
	for i := range backends {
		for _, m := range backends[i].Models {
			switch m.State {
			case schemas.Resident:
				names = append(names, m.Name)
			case schemas.Loading:
				names = append(names, m.Name+" (loading)")
			case schemas.Installed, schemas.Remote:
			}
		}
	}
	slices.SortFunc(names, cmp.Compare[string])
	return orDash(strings.Join(slices.Compact(names), ", "))
}

// slots sums the slots of models that could be used now: busy/all.
func slots(backends []schemas.Backend) string {
	busy, all := 0, 0
	for i := range backends {
		for _, m := range backends[i].Models {
			busy += m.Busy
			if m.State != schemas.Installed {
				all += m.Slots
			}
		}
	}
	if all == 0 && busy == 0 {
		return "-"
	}
	return fmt.Sprintf("%d/%d", busy, all)
}

// age returns how long ago something was. A clock that is ahead of ours is not in
// the future.
func age(d time.Duration) string {
	return fmt.Sprintf("%.1fs ago", max(d, 0).Seconds())
}
