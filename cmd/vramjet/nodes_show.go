package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

type nodesShowCmd struct {
	Node string `arg:"" optional:"" help:"The node (default: all)."`
	patience
}

// Help is shown below the command's summary.
func (*nodesShowCmd) Help() string {
	return `Shows whose memory is whose on each device, what loads were promised, and of each model what it needs and who says so. "?" is what nobody knows; "-" is what there is none of.

DRIVER is what the driver keeps, OURS what models of the node's backends take, OTHERS what anybody else takes, PROMISED what loads that run are going to take. AVAILABLE is what another load may take now, less a margin for safety. OFF BY is how far the estimate is from what earlier loads took.

With --json, the states as they travel.

Examples:

    vramjet nodes show gpu-1
    vramjet nodes show --json
`
}

// Run shows the nodes.
func (n *nodesShowCmd) Run(ctx context.Context, a *app) error {
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	nodes, err := everyNode(ctx, c, n.Wait)
	if err != nil {
		return err
	}
	if n.Node != "" {
		one, err := nodeNamed(nodes, n.Node)
		if err != nil {
			return err
		}
		if a.asJSON() {
			return a.printJSON(one)
		}
		return printNode(a.out, one, time.Now())
	}
	if a.asJSON() {
		return a.printJSON(nodes)
	}
	for i := range nodes {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		if err := printNode(a.out, &nodes[i], time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// printNode prints all that a node says of itself.
func printNode(out io.Writer, n *schemas.NodeState, now time.Time) error {
	fmt.Fprintf(out, "node %s  %s  slots %s  jobs %d  version %s  heartbeat %s\n",
		n.Node, nodeState(n), slots(n.Backends), len(n.Running), orDash(n.Version), age(now.Sub(n.At)))
	source := n.DeviceSource
	if source == "" {
		source = unknown
	}
	fmt.Fprintf(out, "device source: %s\n", oneLine(source))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	printDevices(w, n)
	printReservations(w, n, now)
	for i := range n.Backends {
		printBackend(w, n, &n.Backends[i])
	}
	return w.Flush()
}

func printDevices(w io.Writer, n *schemas.NodeState) {
	if len(n.Devices) == 0 {
		return
	}
	fmt.Fprintln(w, "\n#\tDEVICE\tNAME\tKIND\tTOTAL\tDRIVER\tOURS\tOTHERS\tPROMISED\tFREE\tAVAILABLE\tUTIL\tTEMP\tPOWER\tTROUBLE")
	for i := range n.Devices {
		d := &n.Devices[i]
		kind := d.Kind
		if d.MIG {
			kind += " MIG"
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", i, d.ID, orDash(d.Name), kind,
			amount(d.Total), amount(d.Reserved), amount(d.Ours), amount(d.Others), d.Promised, amount(d.Free), amount(d.Available),
			reading(d.Utilization, "%"), reading(d.Temperature, "°C"), reading(d.Power, " W"), orDash(oneLine(d.Error)))
	}
}

func printReservations(w io.Writer, n *schemas.NodeState, now time.Time) {
	if len(n.Reservations) == 0 {
		return
	}
	fmt.Fprintln(w, "\nRESERVED FOR\tBACKEND\tMEMORY\tARRIVED\tEXPIRES IN")
	for _, r := range n.Reservations {
		left := max(r.Expires.Sub(now), 0).Round(time.Second)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Model, r.Backend, orDash(onDevices(n, r.Devices)), amount(r.Arrived), left)
	}
}

func printBackend(w io.Writer, n *schemas.NodeState, b *schemas.Backend) {
	fmt.Fprintf(w, "\nbackend %s  kind %s  %s  devices %s  split %s  %s\n",
		b.Name, b.Kind, healthOf(b), orDash(deviceNumbers(n, b.Devices)), orDash(string(b.Split)), whoLoads(b))
	if len(b.Models) == 0 {
		return
	}
	models := slices.Clone(b.Models)
	slices.SortStableFunc(models, func(a, b schemas.Model) int { return cmp.Compare(distance(a.State), distance(b.State)) })
	fmt.Fprintln(w, "MODEL\tSTATE\tNEED\tESTIMATE\tLEARNED\tOFF BY\tVRAM\tWHERE\tSLOTS\tCONTEXT\tLOAD TIME\tPINNED")
	for i := range models[:min(shownModels, len(models))] {
		m := &models[i]
		where := onDevices(n, m.Devices)
		if where == "" {
			where = inMemory(m, unknown)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d/%d\t%s\t%s\t%s\n", m.Name, m.State,
			needs(m), ours(m, amount(m.Estimate)), ours(m, amount(m.Learned)), ours(m, offBy(m.Estimate, m.Learned)),
			inMemory(m, amount(m.VRAM)), where, m.Busy, m.Slots, known(m.Context), ours(m, loadTime(m.LoadMS)), pinned(m))
	}
	if more := len(models) - shownModels; more > 0 {
		fmt.Fprintf(w, "and %d more: --json lists all\n", more)
	}
}

// distance orders states by how far a model is from running a job.
func distance(s schemas.ModelState) int {
	return slices.Index([]schemas.ModelState{schemas.Resident, schemas.Loading, schemas.Installed, schemas.Remote}, s)
}

// healthOf says how a backend is, and why.
func healthOf(b *schemas.Backend) string {
	word := "healthy"
	if !b.Healthy {
		word = "down"
	}
	if b.Error != "" {
		word += " (" + oneLine(b.Error) + ")"
	}
	return word
}

// whoLoads says who decides what a backend has in memory.
func whoLoads(b *schemas.Backend) string {
	if b.Loads {
		return "vramjet loads and unloads"
	}
	return "cannot be told to load"
}

// needs says what a load of a model takes, and who says so.
func needs(m *schemas.Model) string {
	text := ours(m, amount(m.Need))
	if m.Need.Known && m.NeedFrom != schemas.NeedUnknown {
		text += " (" + string(m.NeedFrom) + ")"
	}
	return text
}

// ours returns what is told of a model that takes memory of ours; there is none of
// it for one that a hosted API has.
func ours(m *schemas.Model, text string) string {
	if m.State == schemas.Remote {
		return "-"
	}
	return text
}

// inMemory returns what is told of a model that is in memory.
func inMemory(m *schemas.Model, text string) string {
	if m.State == schemas.Remote || m.State == schemas.Installed && !m.VRAM.Known {
		return "-"
	}
	return text
}

func pinned(m *schemas.Model) string {
	if m.Pinned {
		return "yes"
	}
	return "-"
}

// deviceNumber returns where a device stands in the list of its node; one that is
// not there keeps its id.
func deviceNumber(n *schemas.NodeState, id string) string {
	i := slices.IndexFunc(n.Devices, func(d schemas.Device) bool { return d.ID == id })
	if i < 0 {
		return id
	}
	return strconv.Itoa(i)
}

func deviceNumbers(n *schemas.NodeState, ids []string) string {
	numbers := make([]string, len(ids))
	for i, id := range ids {
		numbers[i] = deviceNumber(n, id)
	}
	return strings.Join(numbers, ", ")
}

// onDevices says how much of something is on which devices: 6.0 GiB on 0, 2.0 GiB
// on 1.
func onDevices(n *schemas.NodeState, devices map[string]schemas.Bytes) string {
	place := func(id string) int {
		return slices.IndexFunc(n.Devices, func(d schemas.Device) bool { return d.ID == id })
	}
	ids := slices.SortedFunc(maps.Keys(devices), func(a, b string) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a, b))
	})
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = devices[id].String() + " on " + deviceNumber(n, id)
	}
	return strings.Join(parts, ", ")
}
