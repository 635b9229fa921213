package dispatcher

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/schemas"
)

// silentAfter is how long a node may say nothing before it is probed: three
// missed reports.
const silentAfter = 3 * time.Second

// restAtMost bounds a rest: a node reports that often when nothing changes.
const restAtMost = time.Second

// fleet is what the dispatcher believes of the nodes: their last reports, and
// what it promised since. It belongs to the goroutine of Run.
type fleet struct {
	nodes    map[string]*node
	place    *placement.Scheduler
	prefixes *prefixes            // where prompts ran last
	lost     map[string]time.Time // by model: when the last node that had it was gone
	began    time.Time            // from which its times count
	next     uint64               // id of the next promise
}

// backWithin is how long jobs wait at least for a model whose last node was lost.
const backWithin = time.Minute

// A node is the last state of a worker and what it was promised.
type node struct {
	state    *schemas.NodeState
	heard    time.Time
	probed   time.Time              // zero: not since it was last heard
	rests    map[modelKey]time.Time // until when a model is left alone
	suspects map[modelKey]suspect
	promises map[uint64]*promise
	foreign  map[modelKey]int // slots taken that no promise explains: another leader's
}

// modelKey names a model of a backend.
type modelKey struct{ backend, model string }

// A promise is a slot of a node that a job was given, from the decision until
// the slot is free again.
type promise struct {
	id      uint64
	choice  placement.Choice
	given   time.Time
	loads   bool // counts memory until the node reports the load
	offered bool // the node's reports may count the slot

	waits bool      // for the model to come into memory
	ready time.Time // when it was seen there; zero: it was from the start, or is not yet
}

// ran is how much of the time that a slot was held its model was in memory: all of it
// where nobody saw it come.
func (p *promise) ran(held time.Duration, now time.Time) time.Duration {
	if p.ready.IsZero() {
		return held
	}
	return min(held, now.Sub(p.ready))
}

func newFleet() *fleet {
	return &fleet{
		nodes: map[string]*node{}, prefixes: newPrefixes(mostPrefixes), lost: map[string]time.Time{}, began: time.Now(),
		place: placement.NewScheduler(placement.NewFleet(), placement.DefaultPolicy(), nil),
	}
}

// ms is a time as placement has it.
func (f *fleet) ms(now time.Time) int64 { return now.Sub(f.began).Milliseconds() }

// observe replaces what is known of a node, and reports whether it is another
// boot of it: whatever the old one ran is lost. A state older than the last is
// ignored.
func (f *fleet) observe(s *schemas.NodeState, now time.Time) (rebooted bool) {
	n := f.nodes[s.Node]
	switch {
	case n == nil:
		n = &node{rests: map[modelKey]time.Time{}, suspects: map[modelKey]suspect{}, promises: map[uint64]*promise{}}
		f.nodes[s.Node] = n
	case n.state.Boot != s.Boot:
		rebooted = true
		clear(n.promises)
		clear(n.rests)
		clear(n.suspects)
	case s.Seq < n.state.Seq:
		return false
	}
	n.state, n.heard, n.probed = s, now, time.Time{}
	clear(n.rests)
	n.countForeign()
	n.seeLoads(now)
	f.refresh(s.Node, now)
	return rebooted
}

// countForeign counts the slots that the node reports as taken and no promise
// explains.
func (n *node) countForeign() {
	mine := map[modelKey]int{}
	for _, p := range n.promises {
		if p.offered {
			mine[modelKey{p.choice.Backend, p.choice.Model}]++
		}
	}
	n.foreign = map[modelKey]int{}
	for _, b := range n.state.Backends {
		for _, m := range b.Models {
			k := modelKey{b.Name, m.Name}
			if more := m.Busy - mine[k]; more > 0 {
				n.foreign[k] = more
			}
		}
	}
}

// seeLoads ends the promised loads that the node reports by itself now, and notes those
// that have ended.
func (n *node) seeLoads(now time.Time) {
	for _, p := range n.promises {
		if !p.waits {
			continue
		}
		switch n.stateOf(p.choice) {
		case schemas.Loading:
			p.loads = false
		case schemas.Resident:
			p.loads, p.waits, p.ready = false, false, now
		default:
		}
	}
}

// stateOf is where the node last said that a model is; "" where it has none such.
func (n *node) stateOf(c placement.Choice) schemas.ModelState {
	for _, b := range n.state.Backends {
		for i := range b.Models {
			if b.Name == c.Backend && b.Models[i].Name == c.Model {
				return b.Models[i].State
			}
		}
	}
	return ""
}

// promise takes a slot for a choice.
func (f *fleet) promise(c placement.Choice, now time.Time) *promise {
	f.next++
	n := f.nodes[c.Node]
	state := n.stateOf(c)
	p := &promise{id: f.next, choice: c, given: now, loads: c.Load, waits: c.Load || state == schemas.Installed || state == schemas.Loading}
	n.promises[p.id] = p
	if c.Load {
		f.refresh(c.Node, now)
	} else {
		f.place.AddBusy(c, 1)
	}
	return p
}

// release gives a slot back. It's no error if it was given back before.
func (f *fleet) release(p *promise, now time.Time) {
	if p == nil {
		return
	}
	n := f.nodes[p.choice.Node]
	if n == nil || n.promises[p.id] == nil {
		return
	}
	delete(n.promises, p.id)
	if p.loads {
		f.refresh(p.choice.Node, now)
	} else {
		f.place.AddBusy(p.choice, -1)
	}
}

// ran is for how many ms the jobs of a model have run that this leader has handed out.
func (f *fleet) ran(model string, now time.Time) (all []int64) {
	for _, n := range f.nodes {
		for _, p := range n.promises {
			if p.choice.Model == model && p.offered && !p.waits {
				all = append(all, p.ran(now.Sub(p.given), now).Milliseconds())
			}
		}
	}
	return all
}

// forgetPromises drops the promises of a term that is over. What its jobs hold, the
// nodes tell.
func (f *fleet) forgetPromises(now time.Time) {
	for id, n := range f.nodes {
		clear(n.promises)
		n.countForeign()
		f.refresh(id, now)
	}
}

// rest leaves a model of a backend alone until the node's next report, so that a
// node which turns jobs away isn't asked again in a loop.
func (f *fleet) rest(c placement.Choice, now time.Time) {
	if n := f.nodes[c.Node]; n != nil {
		n.rests[modelKey{c.Backend, c.Model}] = now.Add(restAtMost)
		f.refresh(c.Node, now)
	}
}

// wake ends the rests whose time is over.
func (f *fleet) wake(now time.Time) {
	for id, n := range f.nodes {
		before := len(n.rests)
		maps.DeleteFunc(n.rests, func(_ modelKey, until time.Time) bool { return now.After(until) })
		if woke := n.wakeSuspects(now); woke || len(n.rests) < before {
			f.refresh(id, now)
		}
	}
}

// silent lists the nodes that were not heard for a time, and marks them as probed.
// A node that was probed less than every ago is left out.
func (f *fleet) silent(now time.Time, unheard, every time.Duration) []string {
	var ids []string
	for id, n := range f.nodes {
		if now.Sub(n.heard) < unheard || now.Sub(n.probed) < every {
			continue
		}
		n.probed = now
		f.refresh(id, now)
		ids = append(ids, id)
	}
	return ids
}

// alive notes that a node said something, which may be read later.
func (f *fleet) alive(id string, now time.Time) {
	n := f.nodes[id]
	if n == nil {
		return
	}
	n.heard = now
	if !n.probed.IsZero() {
		n.probed = time.Time{}
		f.refresh(id, now)
	}
}

// forget drops a node that is gone.
func (f *fleet) forget(id string, now time.Time) {
	models := f.place.Models()
	delete(f.nodes, id)
	f.place.Remove(id)
	f.prefixes.lost(id)
	for _, m := range models {
		if !f.place.Serves(placement.Ask{Model: m}) {
			f.lost[m] = now
		}
	}
}

// expects reports whether a model that no node has may be back soon: its last node was
// lost not long ago. A node that restarts, or whose NATS server was cut off, comes back.
func (f *fleet) expects(model string, now time.Time) bool {
	at, ok := f.lost[model]
	return ok && now.Sub(at) < backWithin && !f.place.Serves(placement.Ask{Model: model})
}

// refresh makes what placement sees of a node anew: its report less promises.
func (f *fleet) refresh(id string, now time.Time) {
	if n := f.nodes[id]; n != nil {
		f.place.Set(n.view(now), f.ms(now))
	}
}

// view is a node as placement sees it.
func (n *node) view(now time.Time) *placement.Node {
	p := &placement.Node{ID: n.state.Node}
	switch {
	case n.state.Draining:
		p.Closed = "is draining"
	case !n.probed.IsZero():
		p.Closed = "has not reported for " + now.Sub(n.heard).Round(time.Second).String()
	}
	for _, dev := range n.state.Devices {
		p.Devices = append(p.Devices, placement.Device{ID: dev.ID, Kind: dev.Kind, Free: dev.Available, Lacking: dev.Lacking})
	}
	for _, b := range n.state.Backends {
		p.Backends = append(p.Backends, n.backend(b, now))
	}
	n.loadPromised(p)
	return p
}

// inMemory returns the model of a choice as it counts now, and what its backend
// costs. It reports false where the model is not in memory, or takes no jobs now.
func (f *fleet) inMemory(c placement.Choice, now time.Time) (m placement.Model, cost float64, ok bool) {
	n := f.nodes[c.Node]
	if n == nil || f.place.GivesWay(c) {
		return m, 0, false
	}
	v := n.view(now)
	for _, b := range v.Backends {
		if i := slices.IndexFunc(b.Models, func(m placement.Model) bool { return m.Name == c.Model }); i >= 0 && b.Name == c.Backend {
			m = b.Models[i]
			return m, b.Cost, v.Closed == "" && b.Closed == "" && m.Closed == "" && m.State == schemas.Resident
		}
	}
	return m, 0, false
}

// backend returns what placement needs to know of a backend. Its cost is that of
// as many tokens in as out: nobody knows beforehand how long an answer gets.
func (n *node) backend(b schemas.Backend, now time.Time) placement.Backend {
	pb := placement.Backend{Name: b.Name, Devices: b.Devices, Split: b.Split, Loads: b.Loads, Cost: b.Price.Input + b.Price.Output}
	if !b.Healthy {
		pb.Closed = "the backend takes no jobs: " + cmp.Or(b.Error, "it does not answer")
	}
	busy := map[string]int{}
	for _, pr := range n.promises {
		if pr.choice.Backend == b.Name {
			busy[pr.choice.Model]++
		}
	}
	for _, m := range b.Models {
		k := modelKey{b.Name, m.Name}
		pm := placement.Model{
			Name: m.Name, State: m.State, Kinds: m.Kinds, Held: m.Devices, Need: m.Need,
			Pinned: m.Pinned, Slots: m.Slots, LoadMS: m.LoadMS, Busy: busy[m.Name] + n.foreign[k],
		}
		if now.Before(n.rests[k]) {
			pm.Closed = "turned a job away just now"
		}
		n.suspects[k].judge(&pm, now)
		pb.Models = append(pb.Models, pm)
	}
	return pb
}

// loadPromised counts the loads that were promised and that the node does not
// report yet: the model counts as loading, what makes room for it as gone.
func (n *node) loadPromised(p *placement.Node) {
	for _, pr := range n.promises {
		if pr.loads {
			startLoad(p, pr.choice)
		}
	}
}

func startLoad(p *placement.Node, c placement.Choice) {
	for i := range p.Backends {
		b := &p.Backends[i]
		for j := range b.Models {
			m := &b.Models[j]
			switch {
			case b.Name == c.Backend && m.Name == c.Model && m.State == schemas.Installed:
				m.State = schemas.Loading
				take(p, c.Plan)
			case m.State == schemas.Resident && slices.Contains(c.Evict, schemas.Victim{Backend: b.Name, Model: m.Name}):
				m.State = schemas.Installed
				give(p, m.Held)
				m.Held = nil
			}
		}
	}
}

// take takes memory off the devices. What is not there is lacking: it comes free
// first when a model makes room.
func take(p *placement.Node, plan ledger.Plan) {
	for i := range p.Devices {
		d := &p.Devices[i]
		taken := plan[d.ID]
		d.Lacking += taken.Minus(d.Free.Bytes)
		d.Free.Bytes = d.Free.Bytes.Minus(taken)
	}
}

// give gives memory back to the devices.
func give(p *placement.Node, held ledger.Plan) {
	for i := range p.Devices {
		d := &p.Devices[i]
		given := held[d.ID]
		d.Free.Bytes += given.Minus(d.Lacking)
		d.Lacking = d.Lacking.Minus(given)
	}
}
