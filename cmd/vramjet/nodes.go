package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// nodesCmd shows the nodes, and takes them out of service.
type nodesCmd struct {
	Ls      nodesLsCmd      `cmd:"" default:"withargs" help:"List the nodes."`
	Show    nodesShowCmd    `cmd:"" help:"Show a node, or all, with all that is known of devices, backends and models."`
	Drain   nodesDrainCmd   `cmd:"" help:"Give a node no more jobs. Those that run go on."`
	Undrain nodesUndrainCmd `cmd:"" help:"Give a node jobs again."`
}

// patience is how long to wait for what nodes say.
type patience struct {
	Wait time.Duration `default:"300ms" help:"How long to wait for one more node (${default})."`
}

type nodesLsCmd struct {
	patience
}

// Help is shown below the command's summary.
func (*nodesLsCmd) Help() string {
	return `Asks all nodes for their state. The exit code is 6 where none answers. FREE is what a load may take now; "?" is what nobody knows.

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
	nodes, err := everyNode(ctx, c, n.Wait)
	if errors.Is(err, client.ErrNoNode) && a.asJSON() {
		return errors.Join(a.printJSON([]schemas.NodeState{}), err)
	}
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.printJSON(nodes)
	}
	return printNodes(a.out, nodes, time.Now())
}

// everyNode asks all nodes for their state. That none answers is an error.
func everyNode(ctx context.Context, c *client.Client, wait time.Duration) ([]schemas.NodeState, error) {
	nodes, err := c.Nodes(ctx, wait)
	if err == nil && len(nodes) == 0 {
		err = fmt.Errorf("%w: is a worker running?", client.ErrNoNode)
	}
	return nodes, err
}

// nodeNamed returns the node of that name.
func nodeNamed(nodes []schemas.NodeState, name string) (*schemas.NodeState, error) {
	var names []string
	for i := range nodes {
		if nodes[i].Node == name {
			return &nodes[i], nil
		}
		names = append(names, nodes[i].Node)
	}
	return nil, notFound("no node by the name "+name+" answers", name, names)
}

// notFound is the error that something was not found that was named. It says what
// may have been meant.
func notFound(what, name string, candidates []string) error {
	slices.Sort(candidates)
	candidates = slices.Compact(candidates)
	hint := ""
	switch best, ok := nearest(name, candidates); {
	case ok:
		hint = fmt.Sprintf(": did you mean %q?", best)
	case len(candidates) > 10:
		hint = ": there are " + strings.Join(candidates[:10], ", ") + " and others"
	case len(candidates) > 0:
		hint = ": there are " + strings.Join(candidates, ", ")
	}
	return &codedError{exitNotFound, errors.New(what + hint)}
}

func printNodes(out io.Writer, nodes []schemas.NodeState, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSTATE\tGPU\tVRAM used/total\tFREE\tUTIL\tRESIDENT\tSLOTS\tVERSION\tHEARTBEAT")
	for i := range nodes {
		n := &nodes[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			n.Node, nodeState(n), gpus(n.Devices), vram(n.Devices), available(n.Devices), busiest(n.Devices),
			resident(n.Backends), slots(n.Backends), orDash(n.Version), age(now.Sub(n.At)))
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
	case healthy < len(n.Backends), slices.ContainsFunc(n.Devices, func(d schemas.Device) bool { return d.Error != "" }):
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
		if devices[i].MIG && !strings.Contains(name, "MIG") {
			name += " MIG"
		}
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

// available sums what loads may take now, on all devices together.
func available(devices []schemas.Device) string {
	if len(devices) == 0 {
		return "-"
	}
	sum := schemas.Known(0)
	for i := range devices {
		sum.Bytes += devices[i].Available.Bytes
		sum.Known = sum.Known && devices[i].Available.Known
	}
	return amount(sum)
}

// busiest returns how busy the busiest of the devices is that tell.
func busiest(devices []schemas.Device) string {
	if len(devices) == 0 {
		return "-"
	}
	var most *int
	for i := range devices {
		if u := devices[i].Utilization; u != nil && (most == nil || *u > *most) {
			most = u
		}
	}
	return reading(most, "%")
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
