package dashboard

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// A board is what is known. It belongs to the goroutine of Run.
type board struct {
	weights map[string]float64
	actions bool // whether something can be done

	connected bool
	server    string
	nodes     map[string]*node
	queue     queueAsked
	rest      restAsked
	jobs      jobsHeard
	shares    shares
	events    []eventView // the oldest first
	rates     rates

	settled, wasComplete bool // all nodes that are there have answered; everything was asked for once
	newest               *snapshot
}

func newBoard(weights map[string]float64, actions bool) *board {
	return &board{weights: weights, actions: actions, nodes: map[string]*node{}, newest: &snapshot{}}
}

// begin forgets what was heard before nobody looked, but for the nodes: one that does
// not answer any more is lost.
func (b *board) begin(now time.Time) {
	b.queue, b.rest, b.shares = queueAsked{}, restAsked{}, shares{}
	b.jobs, b.events, b.rates = jobsHeard{of: map[jobKey]*jobView{}}, nil, rates{since: now}
	b.settled, b.wasComplete = false, false
	for _, n := range b.nodes {
		n.shown = "" // nothing is told of what changed meanwhile
	}
}

// complete reports whether everything was asked for once.
func (b *board) complete() bool { return b.settled && b.queue.asked && b.rest.asked }

// becameComplete reports whether it is complete for the first time.
func (b *board) becameComplete() bool {
	became := b.complete() && !b.wasComplete
	b.wasComplete = b.complete()
	return became
}

// build makes a new snapshot, if there is anything new.
func (b *board) build(now time.Time) {
	s := &snapshot{version: b.newest.version + 1, complete: b.complete(), at: now.UTC()}
	b.forget(now)
	s.nodes = b.nodeParts(s.version, now)
	names := make([]string, len(s.nodes))
	for i := range s.nodes {
		names[i] = s.nodes[i].name
	}
	b.shares.sample(b.queue.flows, now)
	for _, p := range []struct {
		name string
		now  any
	}{
		{"header", b.header(now)},
		{"alerts", b.alerts()},
		{"node_names", names},
		{"flows", b.flows()},
		{"tenants", b.shares.view(b.queue.flows, b.weights)},
		{"jobs", b.jobRows()},
		{"batches", b.rest.batches},
		{"dead", b.rest.dead},
		{"events", newestFirst(b.events)},
	} {
		s.parts = append(s.parts, changed(b.part(p.name), p.name, s.version, p.now))
	}
	if b.isNew(s) {
		b.newest = s
	}
}

// part returns a part as it was shown last.
func (b *board) part(name string) part {
	if i := slices.IndexFunc(b.newest.parts, func(p part) bool { return p.name == name }); i >= 0 {
		return b.newest.parts[i]
	}
	return part{}
}

func (b *board) isNew(s *snapshot) bool {
	is := func(p part) bool { return p.version == s.version }
	return s.complete != b.newest.complete || slices.ContainsFunc(s.parts, is) || slices.ContainsFunc(s.nodes, is)
}

// headerView is what stands at the top. null is unknown.
type headerView struct {
	Connected  bool     `json:"connected"`
	Server     string   `json:"server"`
	Leader     *string  `json:"leader"` // "": none leads
	Waiting    *int     `json:"waiting"`
	Running    *int     `json:"running"`
	JobsPerS   *float64 `json:"jobs_per_s"`   // that ended
	TokensPerS *float64 `json:"tokens_per_s"` // of prompts and answers of those
	Dead       *int     `json:"dead"`
	Nodes      int      `json:"nodes"`
	Busy       int      `json:"busy"`
	Slots      int      `json:"slots"`
	Actions    bool     `json:"actions"`
}

func (b *board) header(now time.Time) headerView {
	h := headerView{Connected: b.connected, Server: b.server, Actions: b.actions, Nodes: len(b.nodes)}
	for _, n := range b.nodes {
		if n.alive(now) {
			h.Busy += n.view.Busy
			h.Slots += n.view.Slots
		}
	}
	if b.queue.asked {
		h.Leader = b.queue.leader
	}
	if b.queue.asked && b.queue.trouble == "" {
		waiting, running := 0, 0
		for _, f := range b.queue.flows {
			waiting += f.Waiting
			running += f.Running
		}
		h.Waiting, h.Running = &waiting, &running
	}
	if b.rest.asked && b.rest.dead.Trouble == "" {
		h.Dead = &b.rest.dead.All
	}
	h.JobsPerS, h.TokensPerS = b.rates.perSecond(now)
	return h
}

// An alertView is something that somebody should look at.
type alertView struct {
	Level string `json:"level"` // problem or notice
	Text  string `json:"text"`
}

// alerts lists what is wrong, and what is not as usual.
func (b *board) alerts() []alertView {
	all := []alertView{}
	problem := func(format string, args ...any) {
		all = append(all, alertView{"problem", fmt.Sprintf(format, args...)})
	}
	if !b.connected {
		problem("Not connected to NATS: what is shown is as of before.")
	}
	if b.connected && b.queue.asked && b.queue.leader != nil && *b.queue.leader == "" {
		problem("No dispatcher leads: jobs wait.")
	}
	for _, n := range b.sorted() {
		n.view.troubles(problem)
	}
	for _, p := range b.queue.pauses {
		text := fmt.Sprintf("Paused: %s of tenant %s", p.Describe(), p.tenant)
		if p.By != "" {
			text += ", by " + p.By
		}
		all = append(all, alertView{"notice", text + "."})
	}
	return some(all, 20, func(more int) alertView { return alertView{"problem", fmt.Sprintf("And %d more.", more)} })
}

// troubles says what is wrong with a node.
func (v *nodeView) troubles(problem func(format string, args ...any)) {
	switch v.State {
	case stateLost:
		problem("Node %s is lost: nothing was heard of it for %d s.", v.Name, v.SilentS)
		return
	case stateSilent:
		problem("Node %s is silent for %d s.", v.Name, v.SilentS)
		return
	}
	for _, t := range v.Backends {
		if !t.Healthy {
			problem("Backend %s on node %s is not healthy%s", t.Name, v.Name, because(t.Error))
		}
	}
	for _, d := range v.Devices {
		if d.Error != "" {
			problem("Device %s of node %s takes no models%s", cmp.Or(d.Name, d.ID), v.Name, because(d.Error))
		}
	}
}

func because(reason string) string {
	if reason == "" {
		return "."
	}
	return ": " + short(reason)
}

// short returns a text as a line of a page can hold it.
func short(s string) string {
	const most = 300
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// some returns the first of a list, and one in place of the rest.
func some[T any](all []T, most int, rest func(more int) T) []T {
	if len(all) <= most {
		return all
	}
	return append(all[:most:most], rest(len(all)-most))
}

// An eventView is something that happened.
type eventView struct {
	At     time.Time     `json:"at"`
	What   string        `json:"what"` // a schemas.JobEventKind, or what became of a node, or what was done
	Tenant string        `json:"tenant,omitempty"`
	Job    string        `json:"job,omitempty"`
	Model  string        `json:"model,omitempty"`
	Class  schemas.Class `json:"class,omitempty"`
	Node   string        `json:"node,omitempty"`
	Note   string        `json:"note,omitempty"`
}

// mostEvents is how many events are shown.
const mostEvents = 60

// note adds an event.
func (b *board) note(e eventView) {
	if e.At = e.At.UTC(); len(b.events) >= 2*mostEvents {
		b.events = append(b.events[:0], b.events[len(b.events)-mostEvents:]...)
	}
	b.events = append(b.events, e)
}

func newestFirst(events []eventView) []eventView {
	out := slices.Clone(events[max(0, len(events)-mostEvents):])
	slices.Reverse(out)
	return append([]eventView{}, out...)
}
