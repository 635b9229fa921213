// Package placement decides which flow is served next, and on which node.
//
// It's pure: it reads no clock, starts no goroutine, logs nothing and knows no
// NATS. The same state and the same question always give the same answer, so
// every rule can be tested with a table, and a decision seen in production can
// be replayed from the states that the nodes reported.
package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

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
	Hosted  bool    // a hosted API: the last choice, by its cost
	Cost    float64 // of tokens, by which backends compare; 0: nothing
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
	Wanted bool   // a flow waits for it: not to be evicted
	Pinned bool   // never to be evicted
	Closed string // why it takes no job now; "" where it does
}

// An Ask is what one job needs of a node.
type Ask struct {
	Model string
	Kind  schemas.Kind // "" where it isn't known yet

	// WaitMS is how long the job would wait for a slot of the copies that are
	// loaded already. Only a wait longer than a load is worth another copy.
	WaitMS int64

	// Avoid lists places that turned the job away, as "node/backend".
	Avoid []string
}

// A Choice is a place for a job. The zero Choice is none.
type Choice struct {
	Node    string
	Backend string
	Model   string
	Load    bool             // the model must be loaded first
	Evict   []schemas.Victim // idle models of the node to unload before that
	Plan    ledger.Plan      // what the load takes of which device; nil: the node decides
}

// Place is how Avoid names where a Choice is.
func (c Choice) Place() string { return c.Node + "/" + c.Backend }

// The ways to serve a model, the preferred first.
const (
	resident = iota
	loading
	fits
	fitsAfterEviction
	hosted
)

// An option is one way to place a job.
type option struct {
	choice Choice
	way    int
	cost   float64
	busy   int
	left   schemas.Bytes // free memory that stays on the device
}

// compare orders options, the preferred one first: the way, fewer evictions, lower
// cost, less busy, the tightest fit (so that large gaps stay whole), and the names, so
// that the answer never depends on the order of the nodes.
func compare(a, b option) int {
	return cmp.Or(
		cmp.Compare(a.way, b.way),
		cmp.Compare(len(a.choice.Evict), len(b.choice.Evict)),
		cmp.Compare(a.cost, b.cost),
		cmp.Compare(a.busy, b.busy),
		cmp.Compare(a.left, b.left),
		cmp.Compare(a.choice.Node, b.choice.Node),
		cmp.Compare(a.choice.Backend, b.choice.Backend),
	)
}

// Choose returns the best place for a job, and false where none can take it now.
func (f *Fleet) Choose(ask Ask) (Choice, bool) {
	var best option
	found := false
	for _, p := range f.places[ask.Model] {
		o, why := consider(p, ask)
		if why == "" && (!found || compare(o, best) < 0) {
			best, found = o, true
		}
	}
	if found && best.choice.Load && !f.worthCopy(ask) {
		return Choice{}, false
	}
	return best.choice, found
}

// Why says in words, a line for each place that serves the model, why a job
// waits.
func (f *Fleet) Why(ask Ask) []string {
	var lines []string
	for _, p := range f.places[ask.Model] {
		_, why := consider(p, ask)
		lines = append(lines, fmt.Sprintf("%s/%s: %s", p.node.ID, p.backend.Name, cmp.Or(why, "could take it now")))
	}
	slices.Sort(lines)
	return lines
}

// worthCopy reports whether a load is worth its while: always for the first copy
// of a model, and for another where the wait for a slot is longer than the load.
func (f *Fleet) worthCopy(ask Ask) bool {
	load := int64(0)
	copies := false
	for _, p := range f.places[ask.Model] {
		load = max(load, p.model.LoadMS)
		served := p.model.State == schemas.Resident || p.model.State == schemas.Loading
		copies = copies || served && p.node.Closed == "" && p.backend.Closed == ""
	}
	const unknownLoadMS = 10_000 // a load nobody has timed: some GiB from a disk
	return !copies || ask.WaitMS > cmp.Or(load, unknownLoadMS)
}

// consider says how a place could take a job, or why it can't now.
func consider(p place, ask Ask) (option, string) {
	c := Choice{Node: p.node.ID, Backend: p.backend.Name, Model: ask.Model}
	o := option{choice: c, cost: p.backend.Cost, busy: p.model.Busy}
	switch {
	case p.node.Closed != "":
		return o, p.node.Closed
	case p.backend.Closed != "":
		return o, p.backend.Closed
	case p.model.Closed != "":
		return o, p.model.Closed
	case len(ask.Avoid) > 0 && slices.Contains(ask.Avoid, c.Place()):
		return o, "turned the job away"
	case ask.Kind != "" && !slices.Contains(p.model.Kinds, ask.Kind):
		return o, "serves no " + string(ask.Kind)
	case p.model.Slots == 0:
		return o, "takes no jobs: it is about to be unloaded"
	case p.model.Busy >= p.model.Slots:
		return o, fmt.Sprintf("all %d slots are busy", p.model.Slots)
	}
	switch p.model.State {
	case schemas.Resident:
		o.way = resident
	case schemas.Loading:
		o.way = loading
	case schemas.Remote:
		o.way = hosted
	case schemas.Installed:
		return considerLoad(p, o)
	}
	return o, ""
}

// considerLoad says how the model could be loaded at a place: into free memory,
// or after idle models are gone, the cheapest to bring back first.
func considerLoad(p place, o option) (option, string) {
	o.way, o.choice.Load = fits, true
	spaces := p.spaces()
	need := ledger.Need{Bytes: p.model.Need, Split: p.backend.Split}
	plan, ok := ledger.Fit(need, spaces)
	var gone []ledger.Candidate
	if !ok {
		candidates := p.evictable()
		plan, o.choice.Evict, ok = ledger.MakeRoom(need, spaces, candidates)
		if !ok {
			return o, fmt.Sprintf("needs %s, and %s can be freed", p.model.Need, room(ledger.Without(spaces, candidates)))
		}
		o.way = fitsAfterEviction
		gone = slices.DeleteFunc(candidates, func(c ledger.Candidate) bool { return !slices.Contains(o.choice.Evict, c.Victim) })
	}
	o.choice.Plan = plan
	for _, s := range ledger.Without(spaces, gone) {
		if plan[s.Device] > 0 {
			o.left += s.Free.Bytes - plan[s.Device]
		}
	}
	return o, ""
}

// spaces is what the devices of a place's backend have for a load. What a device
// does not tell, as one of a CPU, nobody plans with.
func (p place) spaces() []ledger.Space {
	var spaces []ledger.Space
	for _, d := range p.node.Devices {
		if slices.Contains(p.backend.Devices, d.ID) && d.Free.Known {
			spaces = append(spaces, ledger.Space{Device: d.ID, Kind: d.Kind, Free: d.Free, Lacking: d.Lacking})
		}
	}
	return spaces
}

// room is all that is free.
func room(spaces []ledger.Space) schemas.Bytes {
	var sum schemas.Bytes
	for _, s := range spaces {
		sum += s.Free.Bytes
	}
	return sum
}

// evictable lists the models of a place's node that may go for it: idle, not pinned
// and wanted by nobody, the cheapest to bring back first, and of the same cost its
// own backend's first. Those of other backends count only where they are known to
// hold memory of its devices.
func (p place) evictable() []ledger.Candidate {
	type idle struct {
		ledger.Candidate
		loadMS int64
		other  int
		held   schemas.Bytes
	}
	var all []idle
	for i := range p.node.Backends {
		b := &p.node.Backends[i]
		own := b.Name == p.backend.Name
		for _, m := range b.Models {
			if !b.Loads || m.State != schemas.Resident || m.Busy > 0 || m.Wanted || m.Pinned || !own && len(m.Held) == 0 {
				continue
			}
			c := ledger.Candidate{Victim: schemas.Victim{Backend: b.Name, Model: m.Name}, Held: m.Held}
			x := idle{Candidate: c, loadMS: m.LoadMS, held: m.Held.Sum()}
			if !own {
				x.other = 1
			}
			all = append(all, x)
		}
	}
	slices.SortFunc(all, func(a, b idle) int {
		return cmp.Or(cmp.Compare(a.loadMS, b.loadMS), cmp.Compare(a.other, b.other), cmp.Compare(b.held, a.held), strings.Compare(a.String(), b.String()))
	})
	candidates := make([]ledger.Candidate, len(all))
	for i, x := range all {
		candidates[i] = x.Candidate
	}
	return candidates
}
