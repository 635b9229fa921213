package placement

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/schemas"
)

const gib = schemas.GiB

// gpu is a node with one device, with so much free by measure, and one backend.
func gpu(id string, total, free schemas.Bytes, models ...Model) *Node {
	margin := schemas.SafetyMargin(schemas.Known(total))
	return &Node{
		ID:       id,
		Devices:  []Device{{ID: "d0", Free: schemas.Known(free.Minus(margin)), Lacking: margin.Minus(free)}},
		Backends: []Backend{{Name: "b", Devices: []string{"d0"}, Loads: true, Models: models}},
	}
}

// beside adds a second backend on the same device.
func beside(n *Node, models ...Model) *Node {
	n.Backends = append(n.Backends, Backend{Name: "c", Devices: []string{"d0"}, Loads: true, Models: models})
	return n
}

// with is m, changed.
func with(m Model, change func(*Model)) Model {
	change(&m)
	return m
}

// api is a node with one hosted API.
func api(id string, cost float64, models ...Model) *Node {
	return &Node{ID: id, Backends: []Backend{{Name: "api", Cost: cost, Models: models}}}
}

func model(name string, state schemas.ModelState, need schemas.Bytes, busy int) Model {
	m := Model{Name: name, State: state, Kinds: []schemas.Kind{schemas.Chat}, Slots: 2, Busy: busy, Need: schemas.Known(need), LoadMS: 1000}
	if state == schemas.Resident {
		m.Held = ledger.Plan{"d0": need}
	}
	return m
}

// fleetOf is a scheduler of a fleet that was there from the beginning.
func fleetOf(nodes ...*Node) *Scheduler {
	f := NewFleet()
	for _, n := range nodes {
		f.Set(n, 0)
	}
	return NewScheduler(f, DefaultPolicy(), nil)
}

// waits has jobs wait for a model that take a second each.
func (s *Scheduler) waits(model string, jobs int) *Scheduler {
	f := s.Flow(schemas.Flow{Tenant: "t", Class: schemas.Normal, Model: model}, 1)
	s.Done(f, model, 1, 1)
	s.Arrive(f, jobs, 0)
	return s
}

func TestChoose(t *testing.T) {
	qwen := func(busy int) Model { return model("qwen", schemas.Resident, 8*gib, busy) }
	phi := func(state schemas.ModelState, busy int) Model { return model("phi", state, 9*gib, busy) }
	installed := phi(schemas.Installed, 0)

	for name, tt := range map[string]struct {
		fleet *Scheduler
		ask   Ask
		want  Choice // zero: none
	}{
		"no nodes": {fleetOf(), Ask{Model: "phi"}, Choice{}},
		"resident beats roomier": {
			fleetOf(gpu("a", 80*gib, 80*gib, installed), gpu("b", 24*gib, 2*gib, phi(schemas.Resident, 1))),
			Ask{Model: "phi"},
			Choice{Node: "b", Backend: "b", Model: "phi"},
		},
		"less busy beats busier": {
			fleetOf(gpu("a", 24*gib, 2*gib, phi(schemas.Resident, 1)), gpu("b", 24*gib, 2*gib, phi(schemas.Resident, 0))),
			Ask{Model: "phi"},
			Choice{Node: "b", Backend: "b", Model: "phi"},
		},
		"loading beats another load": {
			fleetOf(gpu("a", 80*gib, 80*gib, installed), gpu("b", 24*gib, 2*gib, phi(schemas.Loading, 1))),
			Ask{Model: "phi"},
			Choice{Node: "b", Backend: "b", Model: "phi"},
		},
		"the tightest fit keeps the large gap whole": {
			fleetOf(gpu("a", 80*gib, 80*gib, installed), gpu("b", 24*gib, 12*gib, installed)),
			Ask{Model: "phi"},
			Choice{Node: "b", Backend: "b", Model: "phi", Load: true},
		},
		"free memory beats an eviction": {
			fleetOf(gpu("a", 24*gib, 4*gib, installed, qwen(0)), gpu("b", 80*gib, 80*gib, installed)),
			Ask{Model: "phi"},
			Choice{Node: "b", Backend: "b", Model: "phi", Load: true},
		},
		"an idle model is evicted": {
			fleetOf(gpu("a", 24*gib, 4*gib, installed, qwen(0))),
			Ask{Model: "phi"},
			Choice{Node: "a", Backend: "b", Model: "phi", Load: true, Evict: []schemas.Victim{{Backend: "b", Model: "qwen"}}},
		},
		"a busy model is never evicted": {
			fleetOf(gpu("a", 24*gib, 4*gib, installed, qwen(1))), Ask{Model: "phi"}, Choice{},
		},
		"a model that somebody waits for is not evicted": {
			fleetOf(gpu("a", 24*gib, 4*gib, installed, qwen(0))).waits("qwen", 1),
			Ask{Model: "phi"},
			Choice{},
		},
		"a pinned model is never evicted": {
			fleetOf(gpu("a", 24*gib, 4*gib, installed, with(qwen(0), func(m *Model) { m.Pinned = true }))),
			Ask{Model: "phi"},
			Choice{},
		},
		"an idle model of another backend on the same device is evicted": {
			fleetOf(beside(gpu("a", 24*gib, 4*gib, installed), qwen(0))),
			Ask{Model: "phi"},
			Choice{Node: "a", Backend: "b", Model: "phi", Load: true, Evict: []schemas.Victim{{Backend: "c", Model: "qwen"}}},
		},
		"and is not where its server takes no orders": {
			fleetOf(func() *Node {
				n := beside(gpu("a", 24*gib, 4*gib, installed), qwen(0))
				n.Backends[1].Loads = false
				return n
			}()),
			Ask{Model: "phi"},
			Choice{},
		},
		"the one that is quick to bring back is evicted": {
			fleetOf(gpu("a", 24*gib, 0, installed, with(qwen(0), func(m *Model) { m.LoadMS, m.Held = 9000, ledger.Plan{"d0": 12 * gib} }),
				with(model("tiny", schemas.Resident, 11*gib, 0), func(m *Model) { m.LoadMS = 100 }))),
			Ask{Model: "phi"},
			Choice{Node: "a", Backend: "b", Model: "phi", Load: true, Evict: []schemas.Victim{{Backend: "b", Model: "tiny"}}},
		},
		"one of unknown size only where nothing else helps": {
			fleetOf(gpu("a", 24*gib, 4*gib, installed, with(qwen(0), func(m *Model) { m.Held = nil }))),
			Ask{Model: "phi"},
			Choice{Node: "a", Backend: "b", Model: "phi", Load: true, Evict: []schemas.Victim{{Backend: "b", Model: "qwen"}}},
		},
		"the safety margin counts": {
			fleetOf(gpu("a", 24*gib, 9*gib+gib, installed)), Ask{Model: "phi"}, Choice{},
		},
		"unknown need is left to the node": {
			fleetOf(gpu("a", 24*gib, gib, Model{Name: "phi", State: schemas.Installed, Slots: 1})),
			Ask{Model: "phi"},
			Choice{Node: "a", Backend: "b", Model: "phi", Load: true},
		},
		"a full copy is worth another where the wait is longer than the load": {
			fleetOf(gpu("a", 24*gib, 2*gib, phi(schemas.Resident, 2)), gpu("b", 24*gib, 20*gib, installed)).waits("phi", 10),
			Ask{Model: "phi"},
			Choice{Node: "b", Backend: "b", Model: "phi", Load: true},
		},
		"and is not where it is shorter": {
			fleetOf(gpu("a", 24*gib, 2*gib, phi(schemas.Resident, 2)), gpu("b", 24*gib, 20*gib, installed)).waits("phi", 1),
			Ask{Model: "phi"},
			Choice{},
		},
		"a hosted API is the last choice": {
			fleetOf(gpu("a", 24*gib, 4*gib, installed, qwen(0)), &Node{ID: "h", Backends: []Backend{{Name: "api", Models: []Model{phi(schemas.Remote, 0)}}}}),
			Ask{Model: "phi"},
			Choice{Node: "a", Backend: "b", Model: "phi", Load: true, Evict: []schemas.Victim{{Backend: "b", Model: "qwen"}}},
		},
		"and a choice": {
			fleetOf(gpu("a", 24*gib, 4*gib, installed, qwen(1)), &Node{ID: "h", Backends: []Backend{{Name: "api", Models: []Model{phi(schemas.Remote, 0)}}}}),
			Ask{Model: "phi"},
			Choice{Node: "h", Backend: "api", Model: "phi"},
		},
		"the cheaper of two hosted APIs, however busy": {
			fleetOf(api("a", 0.75, phi(schemas.Remote, 0)), api("b", 0.5, phi(schemas.Remote, 1))),
			Ask{Model: "phi"},
			Choice{Node: "b", Backend: "api", Model: "phi"},
		},
		"the dearer where the cheaper is full": {
			fleetOf(api("a", 0.75, phi(schemas.Remote, 0)), api("b", 0.5, phi(schemas.Remote, 2))),
			Ask{Model: "phi"},
			Choice{Node: "a", Backend: "api", Model: "phi"},
		},
		"the less busy of two that cost the same": {
			fleetOf(api("a", 0.5, phi(schemas.Remote, 1)), api("b", 0.5, phi(schemas.Remote, 0))),
			Ask{Model: "phi"},
			Choice{Node: "b", Backend: "api", Model: "phi"},
		},
		"a hosted API that costs nothing is the last choice all the same": {
			fleetOf(func() *Node { n := gpu("a", 24*gib, 4*gib, installed, qwen(0)); n.Backends[0].Cost = 9; return n }(), api("b", 0, phi(schemas.Remote, 0))),
			Ask{Model: "phi"},
			Choice{Node: "a", Backend: "b", Model: "phi", Load: true, Evict: []schemas.Victim{{Backend: "b", Model: "qwen"}}},
		},
		"the kind must be served": {
			fleetOf(gpu("a", 24*gib, 2*gib, phi(schemas.Resident, 0))), Ask{Model: "phi", Kind: schemas.Embedding}, Choice{},
		},
		"a place that failed the job is avoided": {
			fleetOf(gpu("a", 24*gib, 2*gib, phi(schemas.Resident, 0)), gpu("b", 24*gib, 2*gib, phi(schemas.Resident, 1))),
			Ask{Model: "phi", Avoid: []string{"a/b"}},
			Choice{Node: "b", Backend: "b", Model: "phi"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := tt.fleet.Choose(tt.ask, 0)
			got.Plan = nil // see TestChooseKeepsItsPromises
			if diff := cmp.Diff(tt.want, got); diff != "" || ok != (tt.want.Node != "") {
				t.Errorf("Choose: %v, (-want +got)\n%s\nwhy: %v", ok, diff, tt.fleet.Explain(tt.ask, 0, func(string) []int64 { return nil }, 0).Places)
			}
		})
	}
}

// TestChooseKeepsItsPromises draws fleets and checks what must hold of every
// choice, whatever the order of preference.
func TestChooseKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := drawNodes(t)
		ask := Ask{Model: rapid.SampledFrom([]string{"A", "B", "C"}).Draw(t, "ask")}
		jobs := rapid.IntRange(0, 6).Draw(t, "waiting")
		f := fleetOf(nodes...).waits(ask.Model, jobs)
		got, ok := f.Choose(ask, 0)

		slices.Reverse(nodes)
		if again, _ := fleetOf(nodes...).waits(ask.Model, jobs).Choose(ask, 0); !cmp.Equal(again, got) {
			t.Fatalf("the order of the nodes matters: %+v, then %+v", got, again)
		}
		if !ok {
			return
		}
		n := f.nodes[got.Node]
		b := n.Backends[0]
		room, lacking := n.Devices[0].Free.Bytes, n.Devices[0].Lacking
		for _, m := range b.Models {
			switch {
			case m.Name == ask.Model && m.Busy >= m.Slots:
				t.Fatalf("%+v has no slot: %+v", got, m)
			case m.Name == ask.Model && (m.State == schemas.Installed) != got.Load:
				t.Fatalf("%+v, but the model is %s", got, m.State)
			case slices.Contains(got.Evict, schemas.Victim{Backend: "b", Model: m.Name}) && (m.Busy > 0 || m.State != schemas.Resident || m.Pinned):
				t.Fatalf("%+v evicts %+v", got, m)
			case slices.Contains(got.Evict, schemas.Victim{Backend: "b", Model: m.Name}):
				room += m.Held["d0"].Minus(lacking)
				lacking = lacking.Minus(m.Held["d0"])
			}
		}
		for _, m := range b.Models {
			if m.Name == ask.Model && got.Load && (room < m.Need.Bytes || got.Plan["d0"] != m.Need.Bytes) {
				t.Fatalf("%+v overfills %+v", got, n)
			}
		}
		if n.Closed != "" {
			t.Fatalf("%+v chose a closed node", got)
		}
		is := chosen(f, got)
		for _, p := range f.pools[ask.Model].places {
			if p.why() == "" && p.model.Busy < p.model.Slots && p.model.State == is.model.State && !got.Load && p.backend.Cost < is.backend.Cost {
				t.Fatalf("%+v costs %v, and %+v %v", got, is.backend.Cost, p.choice(), p.backend.Cost)
			}
		}
	})
}

// chosen returns the place that a choice is.
func chosen(s *Scheduler, c Choice) *place {
	return s.nodes[c.Node].places[schemas.Victim{Backend: c.Backend, Model: c.Model}]
}

func drawNodes(t *rapid.T) []*Node {
	var nodes []*Node
	for i := range rapid.IntRange(0, 5).Draw(t, "nodes") {
		var models []Model
		for _, name := range []string{"A", "B", "C", "D"} {
			state := rapid.SampledFrom([]schemas.ModelState{schemas.Installed, schemas.Resident, schemas.Loading, schemas.Remote, ""}).Draw(t, "state")
			if state == "" {
				continue
			}
			busy := rapid.IntRange(0, 2).Draw(t, "busy")
			if state == schemas.Installed {
				busy = 0
			}
			m := model(name, state, schemas.Bytes(rapid.IntRange(1, 20).Draw(t, "need"))*gib, busy)
			m.Pinned = rapid.Bool().Draw(t, "pinned")
			models = append(models, m)
		}
		n := gpu(fmt.Sprintf("n%d", i), 48*gib, schemas.Bytes(rapid.IntRange(0, 48).Draw(t, "free"))*gib, models...)
		n.Backends[0].Cost = float64(rapid.IntRange(0, 2).Draw(t, "cost"))
		if rapid.IntRange(0, 4).Draw(t, "closed") == 0 {
			n.Closed = "is draining"
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func TestFleetIndex(t *testing.T) {
	f := fleetOf(gpu("a", gib, gib, model("x", schemas.Resident, gib, 0)), gpu("b", gib, gib, model("x", schemas.Resident, gib, 0), model("y", schemas.Resident, gib, 0)))
	f.Set(gpu("a", gib, gib, model("z", schemas.Resident, gib, 0)), 0) // replaces
	if got := f.Models(); !slices.Equal(got, []string{"x", "y", "z"}) {
		t.Errorf("Models = %v", got)
	}
	f.Remove("b")
	f.Remove("nobody")
	if f.Serves(Ask{Model: "x"}) || !f.Serves(Ask{Model: "z", Kind: schemas.Chat}) || f.Serves(Ask{Model: "z", Kind: schemas.Embedding}) {
		t.Error("the index keeps what is gone, or lost what is there")
	}
	c, _ := f.Choose(Ask{Model: "z"}, 0)
	f.AddBusy(c, 2)
	if _, ok := f.Choose(Ask{Model: "z"}, 0); ok {
		t.Error("two taken slots of two leave one")
	}
	f.AddBusy(c, -1)
	if _, ok := f.Choose(Ask{Model: "z"}, 0); !ok {
		t.Error("a slot that was given back is not there")
	}
}

// TestElsewhere: a job that failed at a place waits for another one only where that takes
// jobs and has the model.
func TestElsewhere(t *testing.T) {
	first := gpu("a", 24*gib, 4*gib, model("phi", schemas.Resident, 9*gib, 0))
	busy := gpu("b", 24*gib, 4*gib, model("phi", schemas.Resident, 9*gib, 2))
	closed := gpu("b", 24*gib, 4*gib, model("phi", schemas.Resident, 9*gib, 0))
	closed.Closed = "is draining"
	without := gpu("b", 24*gib, 4*gib, model("phi", schemas.Installed, 9*gib, 0))
	for name, tt := range map[string]struct {
		second *Node
		avoid  []string
		want   bool
	}{
		"busy":     {busy, []string{"a/b"}, true},
		"avoided":  {busy, []string{"a/b", "b/b"}, false},
		"closed":   {closed, []string{"a/b"}, false},
		"unloaded": {without, []string{"a/b"}, false},
	} {
		if got := fleetOf(first, tt.second).Elsewhere(Ask{Model: "phi", Avoid: tt.avoid}); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
