package dispatcher

import (
	"fmt"
	"testing"

	"github.com/vramjet/vramjet/schemas"
)

// TestSharesOutliveTheLeader: who was ahead of its share is so for the next leader, also
// where a cluster that elects swallows what it asks first.
func TestSharesOutliveTheLeader(t *testing.T) {
	s := newSystem(t)
	stop := s.dispatch(Config{})
	n := s.nodeWith("a", nil, schemas.Backend{Name: "sim", Kind: "sim", Healthy: true, Models: []schemas.Model{
		{Name: "m", Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Resident, Slots: 1}, // so they run in the order of their offers
	}})
	n.busyMS = 100_000
	s.publish("vj.v1.jobs.greedy.normal.m", "g0")
	n.finish(n.next())
	s.wantQueued(0)
	s.until("the job is paid for", func(t *term) bool { return len(t.shares()) == 1 })
	stop()

	n.busyMS = 1
	for i := range 4 {
		s.publish("vj.v1.jobs.greedy.normal.m", fmt.Sprint("g", i+1))
	}
	for i := range 4 {
		s.publish("vj.v1.jobs.modest.normal.m", fmt.Sprint("m", i))
	}
	s.run(s.deaf(Config{}))
	var order []string
	for range 8 {
		r := n.next()
		order = append(order, r.offer.Header.Get(schemas.HeaderTenant))
		n.finish(r)
	}
	for i, tenant := range order {
		if want := map[bool]string{true: "modest", false: "greedy"}[i < 4]; tenant != want {
			t.Fatalf("served in the order %v: the one that had more than its share goes last", order)
		}
	}
}
