package placement

import (
	"cmp"
	"slices"

	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/schemas"
)

// A Node is one worker as the dispatcher believes it to be: its last report less
// what it was promised since.
type Node struct {
	ID       string
	Closed   string // why it takes no job at all now; "" where it does
	Devices  []Device
	Backends []Backend
}

// A Device is memory that models load on.
type Device struct {
	ID      string
	Kind    string
	Free    schemas.Amount // what a load may take, less what was promised since
	Lacking schemas.Bytes  // what must come free first before Free is more than 0
}

// A Backend is one model server of a node.
type Backend struct {
	Name    string
	Cost    float64 // of tokens, by which hosted APIs compare; 0: nothing
	Closed  string
	Devices []string // ids
	Split   schemas.Split
	Loads   bool // can be told to load and unload
	Models  []Model
}

// A Model is one model that a backend serves.
type Model struct {
	Name   string
	State  schemas.ModelState
	Kinds  []schemas.Kind
	Held   ledger.Plan    // where it is, if it is resident; empty: nobody knows
	Need   schemas.Amount // what a load takes
	Slots  int
	Busy   int    // slots taken or promised
	LoadMS int64  // how long a load takes; 0: unknown
	Pinned bool   // never to be evicted
	Closed string // why it takes no job now; "" where it does
}

// A Fleet is the nodes, indexed by what they serve. It belongs to one goroutine.
type Fleet struct {
	nodes   map[string]*node
	pools   map[string]*pool
	roomier map[*node]bool // nodes that may have room now which they had not
	fresh   map[*pool]bool // pools that may have a slot now which they had not
}

// NewFleet returns a fleet without nodes.
func NewFleet() *Fleet {
	return &Fleet{nodes: map[string]*node{}, pools: map[string]*pool{}, roomier: map[*node]bool{}, fresh: map[*pool]bool{}}
}

// A node is a Node and its places.
type node struct {
	*Node
	places map[schemas.Victim]*place
	byPool map[*pool][]*place
	loaded []*place // whose models are in memory
}

// A pool is one model: the places that have it and the flows that wait for it.
type pool struct {
	name   string
	places []*place
	open   heap[*place] // those that take a job now, and for which nothing has to be loaded
	slots  int          // of those that have it in memory, and stay
	loadMS int64        // of the last load that was timed; 0: none

	demand
}

// A place is one model of one backend of one node. It lasts over the reports of the
// node, which change what it points to.
type place struct {
	node    *node
	backend *Backend
	model   *Model
	pool    *pool

	index   int   // among the places of the pool; -1: its node has it no more
	open    int   // its index among those that take a job now
	slots   int   // what it adds to the slots of the pool
	since   int64 // when the model was loaded; before it is: 0
	givesTo *pool // for whom it is to be unloaded as soon as its jobs have ended; nil: it stays
}

// Set adds a node, or replaces what is known of it.
func (f *Fleet) Set(n *Node, now int64) {
	x := f.nodes[n.ID]
	if x == nil {
		x = &node{places: map[schemas.Victim]*place{}, byPool: map[*pool][]*place{}}
		f.nodes[n.ID] = x
	}
	before := x.Node
	x.Node, x.loaded = n, x.loaded[:0]
	gone := len(x.places)
	for i := range n.Backends {
		b := &n.Backends[i]
		for j := range b.Models {
			k := schemas.Victim{Backend: b.Name, Model: b.Models[j].Name}
			p := x.places[k]
			if p == nil {
				p = f.addPlace(x, k.Model)
				x.places[k] = p
				gone++
			}
			gone--
			f.move(p, b, &b.Models[j], now)
		}
	}
	if gone > 0 {
		f.dropPlaces(x)
	}
	if before == nil || hasMoreRoom(before, n) {
		f.roomier[x] = true
	}
}

// addPlace adds a place for a model to its pool.
func (f *Fleet) addPlace(n *node, model string) *place {
	p := &place{node: n, pool: f.pool(model), open: -1}
	n.byPool[p.pool] = append(n.byPool[p.pool], p)
	p.index = len(p.pool.places)
	p.pool.places = append(p.pool.places, p)
	return p
}

// move has a place point to what its node says of it now.
func (f *Fleet) move(p *place, b *Backend, m *Model, now int64) {
	was, wasBusy := schemas.ModelState(""), 0
	if p.model != nil {
		was, wasBusy = p.model.State, p.model.Busy
	}
	p.backend, p.model = b, m
	if m.LoadMS > 0 {
		p.pool.loadMS = m.LoadMS
	}
	switch inMemory := m.State == schemas.Resident || m.State == schemas.Loading; {
	case !inMemory:
		p.since, p.givesTo = 0, nil
	case was != schemas.Resident && was != schemas.Loading:
		p.since = now
	}
	if m.State == schemas.Resident {
		p.node.loaded = append(p.node.loaded, p)
	}
	if was != m.State || wasBusy > 0 && m.Busy == 0 {
		f.roomier[p.node] = true
	}
	f.settle(p)
}

// settle brings the indexes of a pool in line with what a place is now.
func (f *Fleet) settle(p *place) {
	slots, takes := 0, false
	if p.why() == "" && p.model.State != schemas.Installed {
		takes = p.model.Busy < p.model.Slots
		if p.model.State != schemas.Remote {
			slots = p.model.Slots
		}
	}
	if takes || slots > p.slots {
		f.fresh[p.pool] = true
	}
	p.pool.slots += slots - p.slots
	p.slots = slots
	if takes {
		p.pool.open.fix(p)
	} else {
		p.pool.open.remove(p)
	}
}

// dropPlaces drops the places of a node that its last report does not have.
func (f *Fleet) dropPlaces(x *node) {
	there := map[schemas.Victim]bool{}
	for _, b := range x.Backends {
		for _, m := range b.Models {
			there[schemas.Victim{Backend: b.Name, Model: m.Name}] = true
		}
	}
	for k, p := range x.places {
		if !there[k] {
			f.dropPlace(p)
			delete(x.places, k)
		}
	}
}

func (f *Fleet) dropPlace(p *place) {
	if p.givesTo != nil {
		f.dropClaims(p.givesTo) // else this place would come back when they end
	}
	q := p.pool
	q.open.remove(p)
	left := slices.DeleteFunc(p.node.byPool[q], func(x *place) bool { return x == p })
	if len(left) == 0 {
		delete(p.node.byPool, q)
	} else {
		p.node.byPool[q] = left
	}
	q.slots -= p.slots
	last := len(q.places) - 1
	q.places[p.index] = q.places[last]
	q.places[p.index].index = p.index
	q.places[last], p.index = nil, -1
	q.places = q.places[:last]
	f.tidy(q)
}

// hasMoreRoom reports whether a device may take more than it could.
func hasMoreRoom(before, now *Node) bool {
	if len(before.Devices) != len(now.Devices) || before.Closed != now.Closed {
		return true
	}
	for i, d := range now.Devices {
		if was := before.Devices[i]; d.ID != was.ID || d.Free.Known != was.Free.Known || d.Free.Bytes > was.Free.Bytes || d.Lacking < was.Lacking {
			return true
		}
	}
	return false
}

// Remove takes a node out. It's no error if it isn't there.
func (f *Fleet) Remove(id string) {
	x := f.nodes[id]
	if x == nil {
		return
	}
	for _, p := range x.places {
		f.dropPlace(p)
	}
	delete(f.nodes, id)
	delete(f.roomier, x)
}

// pool returns the pool of a model, made where it is new.
func (f *Fleet) pool(model string) *pool {
	p := f.pools[model]
	if p == nil {
		p = &pool{name: model, demand: newDemand(), open: heap[*place]{
			at:   func(p *place) *int { return &p.open },
			less: func(a, b *place) bool { return comparePlaces(a, b) < 0 },
		}}
		f.pools[model] = p
	}
	return p
}

// tidy forgets a pool that nobody has and nobody waits for.
func (f *Fleet) tidy(p *pool) {
	if len(p.places) == 0 && p.flows == 0 {
		delete(f.pools, p.name)
		delete(f.fresh, p)
	}
}

// AddBusy changes how many slots of a model count as taken.
func (f *Fleet) AddBusy(c Choice, by int) {
	x := f.nodes[c.Node]
	if x == nil {
		return
	}
	p := x.places[schemas.Victim{Backend: c.Backend, Model: c.Model}]
	if p == nil {
		return
	}
	p.model.Busy = max(0, p.model.Busy+by)
	if p.model.Busy == 0 {
		f.roomier[x] = true
	}
	f.settle(p)
}

// The ways to serve a model, the preferred first.
const (
	resident = iota
	loading
	fits
	fitsAfterEviction
	hosted
	givesWay // after a model went that is in use
)

// way is how a place serves a model for which nothing has to be loaded.
func (p *place) way() int {
	switch p.model.State {
	case schemas.Resident:
		return resident
	case schemas.Loading:
		return loading
	default:
		return hosted
	}
}

// comparePlaces orders places that take a job now: in memory before loading before
// hosted, the cheaper, the less busy, and by their names, so that the answer never
// depends on the order of the nodes.
func comparePlaces(a, b *place) int {
	return cmp.Or(
		cmp.Compare(a.way(), b.way()),
		cmp.Compare(a.backend.Cost, b.backend.Cost),
		cmp.Compare(a.model.Busy, b.model.Busy),
		cmp.Compare(a.node.ID, b.node.ID),
		cmp.Compare(a.backend.Name, b.backend.Name),
	)
}

// why says why a place takes no job at all now; "" where it does, if it has a slot.
func (p *place) why() string {
	switch {
	case p.node.Closed != "":
		return p.node.Closed
	case p.backend.Closed != "":
		return p.backend.Closed
	case p.model.Closed != "":
		return p.model.Closed
	case p.model.Slots == 0:
		return "takes no jobs: it is about to be unloaded"
	case p.givesTo != nil:
		return "gives way to " + p.givesTo.name
	default:
		return ""
	}
}

// loadTime is how long it takes to load the model of a place, in ms.
func (p *place) loadTime() int64 { return cmp.Or(p.model.LoadMS, p.pool.loadMS, unknownLoadMS) }
