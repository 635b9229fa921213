package dispatcher

import (
	"encoding/json"
	"slices"
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
				c, ok := f.place.Choose(placement.Ask{Model: "m"}, f.ms(now))
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
			c, ok := f.place.Choose(placement.Ask{Model: "m"}, f.ms(now))
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
		Devices: []schemas.Device{{ID: "d", Available: schemas.Known(20 * schemas.GiB)}},
		Backends: []schemas.Backend{{Name: "s", Healthy: true, Devices: []string{"d"}, Models: []schemas.Model{
			{Name: "m", State: schemas.Installed, Slots: 2, Need: schemas.Known(12 * schemas.GiB)},
			{Name: "n", State: schemas.Installed, Slots: 2, Need: schemas.Known(12 * schemas.GiB)},
		}}},
	}
	f.observe(s, now)
	c, ok := f.place.Choose(placement.Ask{Model: "m"}, f.ms(now))
	if !ok || !c.Load {
		t.Fatalf("Choose = %+v, %v", c, ok)
	}
	p := f.promise(c, now)
	if c, ok := f.place.Choose(placement.Ask{Model: "n"}, f.ms(now)); ok {
		t.Errorf("n was placed too: %+v", c)
	}
	if c, ok := f.place.Choose(placement.Ask{Model: "m"}, f.ms(now)); !ok || c.Load {
		t.Errorf("a second job of m: %+v, %v; want it to share the load", c, ok)
	}
	f.release(p, now)
	if _, ok := f.place.Choose(placement.Ask{Model: "n"}, f.ms(now)); !ok {
		t.Error("the memory of a promise that was taken back is not there")
	}
}

// TestPromisedLoadIsCountedOnce: once the node keeps the memory itself, the promise
// counts no more.
func TestPromisedLoadIsCountedOnce(t *testing.T) {
	now := time.Now()
	f := newFleet()
	s := &schemas.NodeState{
		Node: "a", Boot: "b",
		Devices: []schemas.Device{{ID: "d", Available: schemas.Known(30 * schemas.GiB)}},
		Backends: []schemas.Backend{{Name: "s", Healthy: true, Devices: []string{"d"}, Models: []schemas.Model{
			{Name: "m", State: schemas.Installed, Slots: 2, Need: schemas.Known(12 * schemas.GiB)},
			{Name: "n", State: schemas.Installed, Slots: 2, Need: schemas.Known(12 * schemas.GiB)},
		}}},
	}
	f.observe(s, now)
	c, _ := f.place.Choose(placement.Ask{Model: "m"}, f.ms(now))
	f.promise(c, now)
	kept := *s
	kept.Seq, kept.Devices = 1, []schemas.Device{{ID: "d", Available: schemas.Known(18 * schemas.GiB)}}
	kept.Backends = slices.Clone(s.Backends)
	kept.Backends[0].Models = slices.Clone(s.Backends[0].Models)
	kept.Backends[0].Models[0].State = schemas.Loading
	f.observe(&kept, now)
	if c, ok := f.place.Choose(placement.Ask{Model: "n"}, f.ms(now)); !ok || !c.Load {
		t.Errorf("n was not placed: %+v", c)
	}
	if c, ok := f.place.Choose(placement.Ask{Model: "m"}, f.ms(now)); !ok || c.Load {
		t.Errorf("a second job of m: %+v, %v; want it to share the load", c, ok)
	}
}

// TestPromisedEvictionMakesRoomOnce: a model that makes room is as good as gone.
func TestPromisedEvictionMakesRoomOnce(t *testing.T) {
	now := time.Now()
	f := newFleet()
	f.observe(&schemas.NodeState{
		Node: "a", Boot: "b",
		Devices: []schemas.Device{{ID: "d", Available: schemas.Known(0), Lacking: schemas.GiB}},
		Backends: []schemas.Backend{
			{Name: "s", Healthy: true, Devices: []string{"d"}, Models: []schemas.Model{
				{Name: "m", State: schemas.Installed, Slots: 2, Need: schemas.Known(12 * schemas.GiB)},
				{Name: "n", State: schemas.Installed, Slots: 2, Need: schemas.Known(7 * schemas.GiB)},
				{Name: "o", State: schemas.Installed, Slots: 2, Need: schemas.Known(8 * schemas.GiB)},
			}},
			{Name: "t", Healthy: true, Loads: true, Devices: []string{"d"}, Models: []schemas.Model{
				{Name: "v", State: schemas.Resident, Slots: 2, Devices: map[string]schemas.Bytes{"d": 20 * schemas.GiB}},
			}},
		},
	}, now)
	c, ok := f.place.Choose(placement.Ask{Model: "m"}, f.ms(now))
	if !ok || len(c.Evict) != 1 {
		t.Fatalf("Choose = %+v, %v", c, ok)
	}
	f.promise(c, now)
	if c, ok := f.place.Choose(placement.Ask{Model: "o"}, f.ms(now)); ok {
		t.Errorf("8 GiB of the 7 that are left: %+v", c)
	}
	if c, ok := f.place.Choose(placement.Ask{Model: "n"}, f.ms(now)); !ok || len(c.Evict) > 0 {
		t.Errorf("Choose = %+v, %v; want the 7 GiB that are left", c, ok)
	}
	if c, ok := f.place.Choose(placement.Ask{Model: "v"}, f.ms(now)); ok && !c.Load {
		t.Errorf("a job goes to the model that makes room: %+v", c)
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
	if c, _ := f.place.Choose(placement.Ask{Model: "m"}, 0); c.Backend != "b" {
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
	c, _ := f.place.Choose(placement.Ask{Model: "m"}, f.ms(now))
	f.promise(c, now)
	if !f.observe(state("b2"), now) {
		t.Error("another boot was not noticed")
	}
	if _, ok := f.place.Choose(placement.Ask{Model: "m"}, f.ms(now)); !ok {
		t.Error("the slot of the old boot's job is still taken")
	}
}

// TestLoadIsNoTimeOfAJob: what a job is learned to take is what it took from when its
// model was in memory, though it held its slot before.
func TestLoadIsNoTimeOfAJob(t *testing.T) {
	now := time.Now()
	f := newFleet()
	seq := uint64(0)
	say := func(state schemas.ModelState) {
		seq++
		f.observe(&schemas.NodeState{Node: "a", Boot: "b", Seq: seq, Backends: []schemas.Backend{{
			Name: "s", Healthy: true, Loads: true, Models: []schemas.Model{{Name: "m", State: state, Slots: 3}},
		}}}, now)
	}
	c := placement.Choice{Node: "a", Backend: "s", Model: "m", Load: true}
	say(schemas.Installed)
	first := f.promise(c, now)
	say(schemas.Installed) // the report was under way
	say(schemas.Loading)
	c.Load = false
	second := f.promise(c, now)
	now = now.Add(10 * time.Second)
	say(schemas.Resident)
	third := f.promise(c, now)
	now = now.Add(2 * time.Second)
	say(schemas.Resident)
	for i, p := range []*promise{first, second, third} {
		held := []time.Duration{12 * time.Second, 12 * time.Second, 2 * time.Second}[i]
		if ran := p.ran(held, now); ran != 2*time.Second {
			t.Errorf("of %s, job %d ran %s, want 2s", held, i+1, ran)
		}
	}
}

// TestPromisesEndWithTheirTerm: a leader that leads again counts as taken what the nodes
// say is taken. Nobody else ends the promises of the jobs that it had given away before.
func TestPromisesEndWithTheirTerm(t *testing.T) {
	now := time.Now()
	f := newFleet()
	seq := uint64(0)
	say := func(busy int) {
		seq++
		f.observe(&schemas.NodeState{Node: "a", Boot: "b", Seq: seq, Backends: []schemas.Backend{{
			Name: "s", Healthy: true, Models: []schemas.Model{{Name: "m", State: schemas.Resident, Slots: 1, Busy: busy}},
		}}}, now)
	}
	free := func() bool {
		_, ok := f.place.Choose(placement.Ask{Model: "m"}, f.ms(now))
		return ok
	}
	say(0)
	f.promise(placement.Choice{Node: "a", Backend: "s", Model: "m"}, now).offered = true
	say(1)
	f.forgetPromises(now)
	if free() {
		t.Error("the slot is free, though the node says that it is taken")
	}
	say(0)
	if !free() {
		t.Error("the slot is taken, though the node says that it is free")
	}
}

// Whatever nodes say, the dispatcher goes on, and gives nobody more jobs than there is
// a number for.
func FuzzNodeState(f *testing.F) {
	for _, state := range []string{
		`{"node":"a","backends":[{"name":"s","healthy":true,"loads":true,"devices":["d"],"models":[{"name":"m","state":"installed","slots":2,"need":12}]}],"devices":[{"id":"d","available":20}]}`,
		`{"node":"a","backends":[{"name":"s","healthy":true,"models":[{"name":"m","state":"resident","slots":-1,"busy":9223372036854775807,"load_ms":-1},{"name":"m","state":"loading","slots":9223372036854775807}]},{"name":"s"}]}`,
		`{"node":"b","boot":"x","seq":1,"devices":[{"id":"d","available":-5,"lacking":9223372036854775807},{"id":"d","total":null}],"backends":[{"name":"t","healthy":true,"split":"equal","devices":["d","d","e"],"models":[{"name":"m","state":"installed","slots":1,"need":9223372036854775807,"devices":{"d":-1}}]}]}`,
		`{"node":"c","backends":[{"name":"h","healthy":true,"price":{"input":1e308,"output":-1},"models":[{"name":"m","state":"remote","slots":1},{"name":"m","state":"?"}]}],"draining":true}`,
	} {
		f.Add([]byte(state), []byte(`{"node":"a","boot":"2"}`))
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		now := time.Unix(1e9, 0)
		fleet := newFleet()
		fleet.began = now
		flow := fleet.place.Flow(schemas.Flow{Model: "m", Tenant: "t", Class: schemas.Normal}, 1)
		fleet.place.Arrive(flow, 100, fleet.ms(now))
		var promises []*promise
		for _, said := range [][]byte{one, two, one} {
			var state schemas.NodeState
			if json.Unmarshal(said, &state) != nil {
				return
			}
			now = now.Add(time.Second)
			fleet.observe(&state, now)
			for range 20 {
				c, ok := fleet.place.Choose(placement.Ask{Model: "m", Flow: flow}, fleet.ms(now))
				if !ok {
					break
				}
				promises = append(promises, fleet.promise(c, now))
			}
			for len(promises) > 10 {
				fleet.release(promises[0], now)
				promises = promises[1:]
			}
			fleet.rest(placement.Choice{Node: state.Node, Backend: "s", Model: "m"}, now)
		}
		for id := range fleet.nodes {
			fleet.forget(id, now)
		}
		if c, ok := fleet.place.Choose(placement.Ask{Model: "m", Flow: flow}, fleet.ms(now)); ok {
			t.Errorf("no node is left, and a job goes to %+v", c)
		}
	})
}
