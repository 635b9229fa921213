package dashboard

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// Nodes report every second.
const (
	silentAfter = 3 * time.Second  // three reports are missing
	lostAfter   = 5 * time.Second  // by then the leader has found out that it is gone
	forgetAfter = 15 * time.Minute // how long a lost node is still shown
)

// The states of a node, the one that needs somebody most first.
const (
	stateLost     = "lost"
	stateSilent   = "silent"
	stateDown     = "down"
	stateDegraded = "degraded"
	stateNone     = "no backend"
	stateDraining = "draining"
	stateReady    = "ready"
)

// A node is what is known of a node.
type node struct {
	heard time.Time
	raw   []byte // its newest state, not read yet; nil: it was
	view  nodeView
	shown string // its state as the events told it
	part  part   // as it was shown last
}

func (n *node) alive(now time.Time) bool { return now.Sub(n.heard) < silentAfter }

// nodeView is a node as it is shown.
type nodeView struct {
	Name     string        `json:"name"`
	State    string        `json:"state"`
	SilentS  int           `json:"silent_s"` // for how long nothing was heard of it; 0: it reports
	Version  string        `json:"version"`
	Draining bool          `json:"draining"`
	Busy     int           `json:"busy"`
	Slots    int           `json:"slots"`
	Jobs     int           `json:"jobs"`
	Devices  []deviceView  `json:"devices"`
	Backends []backendView `json:"backends"`
	Loading  []string      `json:"loading"` // models on the way into memory
}

// deviceView is a device as it is shown: whose memory is whose. null is unknown.
type deviceView struct {
	ID          string         `json:"id"`
	Name        string         `json:"name"`
	Total       schemas.Amount `json:"total"`
	Error       string         `json:"error,omitempty"`
	Utilization *int           `json:"utilization"`
	Temperature *int           `json:"temperature"`
	Memory      []shareView    `json:"memory"`
}

// shareView is a share of a device's memory.
type shareView struct {
	What  string        `json:"what"` // model, loading, models, promised, others, driver, free
	Model string        `json:"model,omitempty"`
	Bytes schemas.Bytes `json:"bytes"`
}

// backendView is a backend as it is shown.
type backendView struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Healthy bool   `json:"healthy"`
	Error   string `json:"error,omitempty"`
	Models  int    `json:"models"`
}

// heard takes note of a node's state. It is read when it is shown: nodes may report
// more often.
func (b *board) heard(m *nats.Msg, now time.Time) {
	name := strings.TrimSuffix(strings.TrimPrefix(m.Subject, schemas.NodePrefix), ".state")
	n := b.nodes[name]
	if n == nil {
		n = &node{view: nodeView{Name: name}}
		b.nodes[name] = n
	}
	n.heard, n.raw = now, m.Data
}

// forget drops nodes that are gone: at once those that had said so, and others when
// they were lost long enough.
func (b *board) forget(now time.Time) {
	for name, n := range b.nodes {
		silent := now.Sub(n.heard)
		if silent > forgetAfter || silent > lostAfter && n.view.Draining && n.view.Jobs == 0 {
			delete(b.nodes, name)
		}
	}
}

// sorted lists the nodes, those that need somebody first.
func (b *board) sorted() []*node {
	return slices.SortedFunc(maps.Values(b.nodes), func(a, c *node) int {
		return cmp.Or(cmp.Compare(urgency(a.view.State), urgency(c.view.State)), cmp.Compare(a.view.Name, c.view.Name))
	})
}

// urgency is 0 for the state that needs somebody most.
func urgency(state string) int {
	troubles := []string{stateLost, stateSilent, stateDown, stateDegraded, stateNone}
	if i := slices.Index(troubles, state); i >= 0 {
		return i
	}
	return len(troubles)
}

// nodeParts returns the nodes as they are shown now.
func (b *board) nodeParts(version uint64, now time.Time) []part {
	for _, n := range b.nodes {
		var s schemas.NodeState
		if n.raw != nil && json.Unmarshal(n.raw, &s) == nil {
			n.view = viewOf(&s, n.view.Name)
		}
		n.raw = nil
		n.see(now)
		n.part = changed(n.part, n.view.Name, version, n.view)
		if b.settled && n.shown != n.view.State {
			if n.shown != "" || b.wasComplete {
				b.note(eventView{At: now, What: n.view.State, Node: n.view.Name})
			}
			n.shown = n.view.State
		}
	}
	parts := make([]part, 0, len(b.nodes))
	for _, n := range b.sorted() {
		parts = append(parts, n.part)
	}
	return parts
}

// see says for how long a node is silent.
func (n *node) see(now time.Time) {
	silent := now.Sub(n.heard)
	n.view.SilentS = 0
	switch {
	case silent >= lostAfter:
		n.view.State = stateLost
	case silent >= silentAfter:
		n.view.State = stateSilent
	default:
		return
	}
	n.view.SilentS = int(silent.Seconds())
}

// viewOf returns a node that reports as it is shown.
func viewOf(s *schemas.NodeState, name string) nodeView {
	v := nodeView{
		Name: name, Version: s.Version, Draining: s.Draining, Jobs: len(s.Running),
		Devices: make([]deviceView, len(s.Devices)), Backends: make([]backendView, len(s.Backends)), Loading: []string{},
	}
	healthy, troubled := 0, false
	for i := range s.Backends {
		b := &s.Backends[i]
		v.Backends[i] = backendView{b.Name, b.Kind, b.Healthy, short(b.Error), len(b.Models)}
		if b.Healthy {
			healthy++
		}
		for j := range b.Models {
			m := &b.Models[j]
			v.Busy += m.Busy
			if m.State != schemas.Installed {
				v.Slots += m.Slots
			}
			if m.State == schemas.Loading {
				v.Loading = append(v.Loading, m.Name)
			}
		}
	}
	for i := range s.Devices {
		v.Devices[i] = viewDevice(s, &s.Devices[i])
		troubled = troubled || s.Devices[i].Error != ""
	}
	switch {
	case s.Draining:
		v.State = stateDraining
	case len(s.Backends) == 0:
		v.State = stateNone
	case healthy == 0:
		v.State = stateDown
	case healthy < len(s.Backends) || troubled:
		v.State = stateDegraded
	default:
		v.State = stateReady
	}
	return v
}

// viewDevice splits the memory of a device by who has it.
func viewDevice(s *schemas.NodeState, d *schemas.Device) deviceView {
	v := deviceView{
		ID: d.ID, Name: d.Name, Total: d.Total, Error: short(d.Error), Utilization: d.Utilization, Temperature: d.Temperature,
		Memory: []shareView{},
	}
	add := func(what, model string, n schemas.Bytes) {
		if n > 0 {
			v.Memory = append(v.Memory, shareView{what, model, n})
		}
	}
	named := schemas.Bytes(0) // what models have of which it is known
	for i := range s.Backends {
		b := &s.Backends[i]
		for j := range b.Models {
			m := &b.Models[j]
			n := m.Devices[d.ID]
			if len(m.Devices) == 0 && len(b.Devices) == 1 && b.Devices[0] == d.ID {
				n = m.VRAM.Bytes // it can be nowhere else
			}
			what := "model"
			if m.State == schemas.Loading {
				what = "loading"
			}
			add(what, m.Name, n)
			named += n
		}
	}
	add("models", "", d.Ours.Bytes.Minus(named))
	add("promised", "", d.Promised)
	add("others", "", d.Others.Bytes)
	add("driver", "", d.Reserved.Bytes)
	if d.Free.Known {
		add("free", "", d.Free.Bytes.Minus(d.Promised))
	}
	return v
}
