package simulate

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// A Fleet is the nodes of a simulation and the models that they have on disk.
type Fleet struct {
	Nodes  []Node
	Models []Model
}

// A Node is one worker with one backend, which spans its devices.
type Node struct {
	Name    string
	Count   int             // of such nodes; 0 means 1
	Devices []schemas.Bytes // memory that models may take, of each
	Read    schemas.Bytes   // of a model's file, per second, as it is loaded; 0 means 2 GiB
	Models  []string        // that it has on disk; none: all. For Vramjet only
}

// has reports whether a node can load a model.
func (n Node) has(model string) bool { return len(n.Models) == 0 || slices.Contains(n.Models, model) }

// A Model is one of the models, which every node can load that says nothing else.
type Model struct {
	Name    string
	Need    schemas.Bytes // device memory
	Slots   int           // requests at once; 0 means 4
	Prefill float64       // prompt tokens per second of one request; 0 means 2,500
	Decode  float64       // generated tokens per second of one request; 0 means 50
}

// startup is what a load takes beside reading the file: the process, its buffers and a
// first run.
const startup = 2 * time.Second

// DefaultFleet is four nodes with a device of 24 GiB each, and twelve models, each of
// which fills one: a third of them are in memory at once. A load takes 11 s, a request of
// 2,000 tokens that generates 30 takes 1.4 s.
func DefaultFleet() Fleet {
	return FleetOf(12)
}

// FleetOf is DefaultFleet with another number of models, and as many nodes as hold a
// third of them.
func FleetOf(models int) Fleet {
	f := Fleet{Nodes: []Node{{Name: "node", Count: max(1, (models+2)/3), Devices: []schemas.Bytes{23 * schemas.GiB}}}}
	for i := range models {
		f.Models = append(f.Models, Model{Name: fmt.Sprintf("model-%02d", i+1), Need: 18 * schemas.GiB, Slots: 2})
	}
	return f
}

// withDefaults fills in what is not said, and names each node.
func (f Fleet) withDefaults() (Fleet, error) {
	var g Fleet
	for i, n := range f.Nodes {
		all, err := n.each(i)
		if err != nil {
			return g, fmt.Errorf("nodes[%d]: %w", i, err)
		}
		g.Nodes = append(g.Nodes, all...)
	}
	names := map[string]bool{}
	for i, m := range f.Models {
		if m.Name == "" || names[m.Name] {
			return g, fmt.Errorf("models[%d]: %q is no name, or the second of it", i, m.Name)
		}
		names[m.Name] = true
		m, err := m.withDefaults()
		if err != nil {
			return g, fmt.Errorf("model %s: %w", m.Name, err)
		}
		g.Models = append(g.Models, m)
	}
	switch {
	case len(g.Nodes) == 0:
		return g, errors.New("the fleet has no nodes")
	case len(g.Models) == 0:
		return g, errors.New("the fleet has no models")
	default:
		return g, nil
	}
}

// each returns the nodes that n stands for, the one at index i of the fleet.
func (n Node) each(i int) ([]Node, error) {
	const most = 100_000
	switch {
	case len(n.Devices) == 0:
		return nil, errors.New("it has no devices")
	case n.Count < 0 || n.Count > most:
		return nil, fmt.Errorf("the count %d is not 1 to %d", n.Count, most)
	}
	name, count := cmp.Or(n.Name, fmt.Sprintf("node%d", i+1)), max(1, n.Count)
	n.Count, n.Read = 1, cmp.Or(n.Read, 2*schemas.GiB)
	all := make([]Node, count)
	for k := range all {
		all[k] = n
		if all[k].Name = name; count > 1 {
			all[k].Name = fmt.Sprintf("%s-%d", name, k+1)
		}
	}
	return all, nil
}

func (m Model) withDefaults() (Model, error) {
	switch {
	case m.Need == 0:
		return m, errors.New("it needs no memory: say how much")
	case m.Slots < 0:
		return m, errors.New("slots is negative")
	case !(m.Prefill >= 0) || !(m.Decode >= 0):
		return m, errors.New("prefill and decode are tokens per second")
	}
	m.Slots, m.Prefill, m.Decode = cmp.Or(m.Slots, 4), cmp.Or(m.Prefill, 2500), cmp.Or(m.Decode, 50)
	return m, nil
}

// loadTime is how long a load of the model takes on a node.
func (m Model) loadTime(n Node) time.Duration {
	return startup + time.Duration(float64(m.Need)/float64(n.Read)*float64(time.Second))
}

// runTime is how long the model needs for a job.
func (m Model) runTime(j Job) time.Duration {
	return time.Duration((float64(j.Prompt)/m.Prefill + float64(j.Generated)/m.Decode) * float64(time.Second))
}

// slots is how many requests a fleet runs at once when its memory is full of models of
// the mean size.
func (f Fleet) slots() float64 {
	var need, slots float64
	for _, m := range f.Models {
		need += float64(m.Need)
		slots += float64(m.Slots)
	}
	count := float64(len(f.Models))
	need, slots = need/count, slots/count
	sum := 0.0
	for _, n := range f.Nodes {
		whole := 0.0
		for _, d := range n.Devices {
			whole += float64(int(float64(d) / need))
		}
		if whole == 0 { // models span its devices
			var memory schemas.Bytes
			for _, d := range n.Devices {
				memory += d
			}
			whole = float64(int(float64(memory) / need))
		}
		sum += whole * slots
	}
	return max(sum, 1)
}
