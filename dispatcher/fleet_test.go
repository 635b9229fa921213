package dispatcher

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// TestFleetNeverPromisesASlotTwice runs a node and what the dispatcher believes
// of it side by side: the node's messages arrive late, but in order. No slot is
// promised twice, and once all is quiet none is lost.
func TestFleetNeverPromisesASlotTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const slots = 4
		now := time.Now()
		f := newFleet()
		seq := uint64(0)
		busy := map[*promise]bool{} // the node's truth
		state := func() *schemas.NodeState {
			seq++
			return &schemas.NodeState{Node: "a", Boot: "b", Seq: seq, Backends: []schemas.Backend{{
				Name: "s", Healthy: true,
				Models: []schemas.Model{{Name: "m", State: schemas.Resident, Slots: slots, Busy: len(busy)}},
			}}}
		}
		f.observe(state(), now)
		var inbox []func() // what the node said and the dispatcher has not heard
		hear := func() {
			if len(inbox) > 0 {
				inbox[0]()
				inbox = inbox[1:]
			}
		}
		var running []*promise
		t.Repeat(map[string]func(*rapid.T){
			"place": func(t *rapid.T) {
				c, ok := f.place.Choose(placement.Ask{Model: "m"})
				if !ok {
					return
				}
				if len(busy) >= slots {
					t.Fatalf("a slot was promised, and all %d are busy", slots)
				}
				p := f.promise(c, now)
				p.offered = true
				busy[p] = true
				running = append(running, p)
			},
			"end": func(t *rapid.T) {
				if len(running) == 0 {
					return
				}
				i := rapid.IntRange(0, len(running)-1).Draw(t, "which")
				p := running[i]
				running = append(running[:i], running[i+1:]...)
				delete(busy, p)
				inbox = append(inbox, func() { f.release(p, now); f.release(p, now) }) // twice does nothing
			},
			"report": func(*rapid.T) {
				s := state()
				inbox = append(inbox, func() { f.observe(s, now) })
			},
			"hear": func(*rapid.T) { hear() },
		})
		for len(inbox) > 0 {
			hear()
		}
		f.observe(state(), now)
		free := 0
		for {
			c, ok := f.place.Choose(placement.Ask{Model: "m"})
			if !ok {
				break
			}
			f.promise(c, now)
			free++
		}
		if free != slots-len(busy) {
			t.Fatalf("%d slots are free, want %d", free, slots-len(busy))
		}
	})
}

// TestPromisedLoadTakesMemory: what is promised to a load isn't promised again
// before the node reports it.
func TestPromisedLoadTakesMemory(t *testing.T) {
	now := time.Now()
	f := newFleet()
	s := &schemas.NodeState{
		Node: "a", Boot: "b",
		Devices: []schemas.Device{{ID: "d", Total: schemas.Known(24 * schemas.GiB), Free: schemas.Known(20 * schemas.GiB)}},
		Backends: []schemas.Backend{{Name: "s", Healthy: true, Devices: []string{"d"}, Models: []schemas.Model{
			{Name: "m", State: schemas.Installed, Slots: 2, Need: schemas.Known(12 * schemas.GiB)},
			{Name: "n", State: schemas.Installed, Slots: 2, Need: schemas.Known(12 * schemas.GiB)},
		}}},
	}
	f.observe(s, now)
	c, ok := f.place.Choose(placement.Ask{Model: "m"})
	if !ok || !c.Load {
		t.Fatalf("Choose = %+v, %v", c, ok)
	}
	p := f.promise(c, now)
	if c, ok := f.place.Choose(placement.Ask{Model: "n"}); ok {
		t.Errorf("n was placed too: %+v", c)
	}
	if c, ok := f.place.Choose(placement.Ask{Model: "m"}); !ok || c.Load {
		t.Errorf("a second job of m: %+v, %v; want it to share the load", c, ok)
	}
	f.release(p, now)
	if _, ok := f.place.Choose(placement.Ask{Model: "n"}); !ok {
		t.Error("the memory of a promise that was taken back is not there")
	}
}

// TestTheCheaperAPIFirst: what a node says of prices decides between hosted APIs,
// by the sum of both.
func TestTheCheaperAPIFirst(t *testing.T) {
	f := newFleet()
	hosted := func(name string, input, output float64) schemas.Backend {
		return schemas.Backend{
			Name: name, Healthy: true, Price: schemas.Price{Input: input, Output: output},
			Models: []schemas.Model{{Name: "m", State: schemas.Remote, Slots: 1}},
		}
	}
	f.observe(&schemas.NodeState{Node: "a", Boot: "b", Seq: 1, Backends: []schemas.Backend{hosted("a", 1, 9), hosted("b", 3, 5), hosted("c", 9, 1)}}, time.Now())
	if c, _ := f.place.Choose(placement.Ask{Model: "m"}); c.Backend != "b" {
		t.Errorf("Choose = %+v", c)
	}
}

// TestNewBootForgetsPromises: a worker that was started again runs nothing.
func TestNewBootForgetsPromises(t *testing.T) {
	now := time.Now()
	f := newFleet()
	state := func(boot string) *schemas.NodeState {
		return &schemas.NodeState{Node: "a", Boot: boot, Seq: 1, Backends: []schemas.Backend{{
			Name: "s", Healthy: true, Models: []schemas.Model{{Name: "m", State: schemas.Resident, Slots: 1}},
		}}}
	}
	f.observe(state("b1"), now)
	c, _ := f.place.Choose(placement.Ask{Model: "m"})
	f.promise(c, now)
	if !f.observe(state("b2"), now) {
		t.Error("another boot was not noticed")
	}
	if _, ok := f.place.Choose(placement.Ask{Model: "m"}); !ok {
		t.Error("the slot of the old boot's job is still taken")
	}
}
