package dispatcher

import (
	"testing"
	"time"

	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// TestSuspects: a place that fails three jobs in a row rests for longer each time, has one
// job at a time, and is trusted again after one that went well.
func TestSuspects(t *testing.T) {
	f, began := newFleet(), time.Now()
	state := &schemas.NodeState{Node: "a", Boot: "1", Seq: 1, Backends: []schemas.Backend{{
		Name: "x", Healthy: true, Models: []schemas.Model{{Name: "m", State: schemas.Resident, Slots: 4}, {Name: "other", State: schemas.Resident, Slots: 4}},
	}}}
	f.observe(state, began)
	c := placement.Choice{Node: "a", Backend: "x", Model: "m"}
	takes := func(model string, at time.Duration, slots int) {
		t.Helper()
		f.wake(began.Add(at))
		got := 0
		for _, m := range f.nodes["a"].view(began.Add(at)).Backends[0].Models {
			if m.Name == model && m.Closed == "" {
				got = m.Slots
			}
		}
		if got != slots {
			t.Errorf("after %s, %s has %d slots, want %d", at, model, got, slots)
		}
	}
	fails := func(given, at time.Duration) { f.failed(c, began.Add(given), began.Add(at)) }
	for range 10 {
		fails(0, time.Second) // beside each other
	}
	fails(2*time.Second, 3*time.Second)
	takes("m", 3*time.Second, 4)
	fails(4*time.Second, 5*time.Second)
	takes("m", 5*time.Second, 0)
	takes("other", 5*time.Second, 4)
	takes("m", 6*time.Second+1, 1)
	fails(7*time.Second, 8*time.Second)
	takes("m", 9*time.Second, 0)
	takes("m", 10*time.Second+1, 1)
	fails(20*time.Second, 20*time.Second) // 4 s
	fails(40*time.Second, 40*time.Second) // 8 s
	for at := 60 * time.Second; at < 300*time.Second; at += 20 * time.Second {
		fails(at, at+1)
		takes("m", at+longestRest-1, 0)
		takes("m", at+longestRest+2, 1)
	}
	f.served(c, began.Add(time.Hour))
	takes("m", time.Hour, 4)

	for range 5 {
		fails(2*time.Hour, 2*time.Hour)
		fails(3*time.Hour, 3*time.Hour)
		fails(4*time.Hour, 4*time.Hour)
	}
	takes("m", 4*time.Hour, 0)
	again := *state
	again.Boot = "2"
	f.observe(&again, began.Add(4*time.Hour))
	takes("m", 4*time.Hour, 4)
}
