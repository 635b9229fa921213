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
	ID    string
	Total schemas.Amount
	Free  schemas.Amount // measured, less open reservations
}

// A Backend is one model server of a node.
type Backend struct {
	Name    string
	Hosted  bool    // a hosted API: the last choice, by its cost
	Cost    float64 // of tokens, by which backends compare; 0: nothing
	Closed  string
	Devices []string // ids
	Models  []Model
}

// A Model is one model that a backend serves.
type Model struct {
	Name   string
	State  schemas.ModelState
	Kinds  []schemas.Kind
	VRAM   schemas.Amount // what it holds, where it is resident
	Need   schemas.Amount // what a load takes
	Slots  int
	Busy   int    // slots taken or promised
	LoadMS int64  // how long a load takes; 0: unknown
	Wanted bool   // a flow waits for it: not to be evicted
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
	Evict   []schemas.Victim // idle models to unload before that
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
	room := p.room()
	if !p.model.Need.Known || !room.known {
		return o, "" // the server and the node decide
	}
	need := p.model.Need.Bytes
	if room.free >= need {
		o.left = room.free - need
		return o, ""
	}
	o.way = fitsAfterEviction
	var freed schemas.Bytes
	for _, m := range evictable(p.backend) {
		o.choice.Evict = append(o.choice.Evict, schemas.Victim{Backend: p.backend.Name, Model: m.Name})
		freed += m.held().Bytes
		if has := room.free + freed.Minus(room.lacking); has >= need {
			o.left = has - need
			return o, ""
		}
	}
	return o, fmt.Sprintf("needs %s, and %s can be freed", need, room.free+freed.Minus(room.lacking))
}

// held is the memory that a model holds: where its server does not tell, at least
// what a load needs.
func (m *Model) held() schemas.Amount {
	if m.VRAM.Known {
		return m.VRAM
	}
	return m.Need
}

// evictable lists the models of a backend that may go: idle, wanted by nobody,
// and of known size, the cheapest to bring back first.
func evictable(b *Backend) []Model {
	idle := slices.DeleteFunc(slices.Clone(b.Models), func(m Model) bool {
		return m.State != schemas.Resident || m.Busy > 0 || m.Wanted || !m.held().Known
	})
	slices.SortFunc(idle, func(a, b Model) int {
		return cmp.Or(cmp.Compare(a.LoadMS, b.LoadMS), cmp.Compare(b.held().Bytes, a.held().Bytes), strings.Compare(a.Name, b.Name))
	})
	return idle
}
