package placement

import (
	"maps"
	"slices"

	"github.com/vramjet/vramjet/schemas"
)

// A Fleet is the nodes, indexed by what they serve. The zero Fleet is empty and
// ready. It belongs to one goroutine.
type Fleet struct {
	nodes  map[string]*Node
	places map[string][]place // by model
	wanted map[string]bool    // models for which a flow waits
}

// A place is one model of one backend of one node.
type place struct {
	node    *Node
	backend *Backend
	model   *Model
}

// Set adds a node, or replaces it.
func (f *Fleet) Set(n *Node) {
	f.Remove(n.ID)
	if f.nodes == nil {
		f.nodes, f.places = map[string]*Node{}, map[string][]place{}
	}
	f.nodes[n.ID] = n
	for p := range placesOf(n) {
		p.model.Wanted = p.model.Wanted || f.wanted[p.model.Name]
		f.places[p.model.Name] = append(f.places[p.model.Name], p)
	}
}

// Remove takes a node out. It's no error if it isn't there.
func (f *Fleet) Remove(id string) {
	n := f.nodes[id]
	if n == nil {
		return
	}
	delete(f.nodes, id)
	for p := range placesOf(n) {
		left := slices.DeleteFunc(f.places[p.model.Name], func(q place) bool { return q.node == n })
		if len(left) == 0 {
			delete(f.places, p.model.Name)
		} else {
			f.places[p.model.Name] = left
		}
	}
}

// AddBusy changes how many slots of a model count as taken.
func (f *Fleet) AddBusy(c Choice, by int) {
	for _, p := range f.places[c.Model] {
		if p.node.ID == c.Node && p.backend.Name == c.Backend {
			p.model.Busy = max(0, p.model.Busy+by)
		}
	}
}

// Serves reports whether any node has the model, open to jobs or not. kind
// narrows that to those that do that; "" doesn't.
func (f *Fleet) Serves(model string, kind schemas.Kind) bool {
	return slices.ContainsFunc(f.places[model], func(p place) bool {
		return kind == "" || slices.Contains(p.model.Kinds, kind)
	})
}

// SetWanted says for which models flows wait, so that they aren't evicted, also not on
// nodes that are replaced later. It keeps the map.
func (f *Fleet) SetWanted(models map[string]bool) {
	f.wanted = models
	for name, places := range f.places {
		for _, p := range places {
			p.model.Wanted = models[name]
		}
	}
}

// Slots is how many jobs of a model the fleet runs at once, where it is in
// memory.
func (f *Fleet) Slots(model string) int {
	n := 0
	for _, p := range f.places[model] {
		if p.model.State != schemas.Installed {
			n += p.model.Slots
		}
	}
	return n
}

// Models lists the names that the fleet serves, sorted.
func (f *Fleet) Models() []string { return slices.Sorted(maps.Keys(f.places)) }

func placesOf(n *Node) func(yield func(place) bool) {
	return func(yield func(place) bool) {
		for i := range n.Backends {
			for j := range n.Backends[i].Models {
				if !yield(place{n, &n.Backends[i], &n.Backends[i].Models[j]}) {
					return
				}
			}
		}
	}
}
