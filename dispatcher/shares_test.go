package dispatcher

import (
	"fmt"
	"testing"

	"github.com/vramjet/vramjet/schemas"
)

// TestSharesOutliveTheLeader: who was ahead of its share is so for the next leader.
func TestSharesOutliveTheLeader(t *testing.T) {
	s := newSystem(t)
	stop := s.dispatch(Config{})
	n := s.node("a", nil, "m")
	n.busyMS = 100_000
	s.publish("vj.v1.jobs.greedy.normal.m", "g0")
	n.finish(n.next())
	s.wantQueued(0)
	var list schemas.FlowList
	s.ask("list", "", &list) // so the leader has heard that the job is done
	stop()

	n.busyMS = 1
	for i := range 4 {
		s.publish("vj.v1.jobs.greedy.normal.m", fmt.Sprint("g", i+1))
	}
	for i := range 4 {
		s.publish("vj.v1.jobs.modest.normal.m", fmt.Sprint("m", i))
	}
	s.dispatch(Config{})
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
