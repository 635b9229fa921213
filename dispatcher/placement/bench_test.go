package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/schemas"
)

// A hall is a fleet under load: nodes of 8 devices, each with one of 64 models of 18 GiB,
// all of which every node has on its disk; the rarer half is hardly anywhere in memory.
// All flows always wait.
type hall struct {
	*Scheduler
	rnd     *rand.Rand
	nodes   []*Node
	index   map[string]int
	running []Choice
	now     int64
	loads   int
}

const hallModels = 64

func newHall(nodes, flows int) *hall {
	h := &hall{Scheduler: NewScheduler(NewFleet(), DefaultPolicy(), nil), rnd: rand.New(rand.NewPCG(1, 2)), index: map[string]int{}}
	for i := range nodes {
		n := &Node{ID: fmt.Sprintf("n%05d", i)}
		b := Backend{Name: "b", Split: schemas.Spread, Loads: true}
		at := map[int]string{}
		for d := range 8 {
			id := fmt.Sprintf("d%d", d)
			n.Devices = append(n.Devices, Device{ID: id, Free: schemas.Known(gib)})
			b.Devices = append(b.Devices, id)
			m := h.rnd.IntN(hallModels / 2)
			for at[m] != "" {
				m = (m + 1) % hallModels
			}
			at[m] = id
		}
		for m := range hallModels {
			x := Model{Name: fmt.Sprintf("m%02d", m), State: schemas.Installed, Need: schemas.Known(18 * gib), Slots: 4, LoadMS: 11_000}
			if d := at[m]; d != "" {
				x.State, x.Held = schemas.Resident, ledger.Plan{d: 18 * gib}
			}
			b.Models = append(b.Models, x)
		}
		n.Backends = []Backend{b}
		h.Set(n, 0)
		h.index[n.ID] = len(h.nodes)
		h.nodes = append(h.nodes, n)
	}
	for i := range flows {
		key := schemas.Flow{Tenant: fmt.Sprintf("t%d", i/hallModels), Class: schemas.Classes[i%3], Model: fmt.Sprintf("m%02d", i%hallModels)}
		h.Arrive(h.Flow(key, 1), 10, 0)
	}
	for h.decide() {
	}
	h.now = 60_000 // all models that are in memory have been there for long
	return h
}

// decide serves a job, and returns false where none can be.
func (h *hall) decide() bool {
	f, c, ok := h.Next(h.now)
	if !ok {
		return false
	}
	h.Serve(f, c, h.now)
	h.Arrive(f, 1, h.now)
	if c.Load {
		h.load(c)
	}
	h.AddBusy(c, 1)
	h.running = append(h.running, c)
	return true
}

// load reports a load as if it took no time.
func (h *hall) load(c Choice) {
	n := *h.nodes[h.index[c.Node]]
	b := n.Backends[0]
	b.Models = slices.Clone(b.Models)
	n.Devices = slices.Clone(n.Devices)
	for j := range b.Models {
		m := &b.Models[j]
		switch {
		case m.Name == c.Model:
			m.State, m.Held = schemas.Resident, c.Plan
			take(&n, c.Plan)
		case slices.Contains(c.Evict, schemas.Victim{Backend: "b", Model: m.Name}):
			give(&n, m.Held)
			m.State, m.Held = schemas.Installed, nil
		}
	}
	n.Backends = []Backend{b}
	h.report(&n)
	h.loads++
}

func (h *hall) report(n *Node) {
	h.nodes[h.index[n.ID]] = n
	h.Set(n, h.now)
}

func take(n *Node, plan ledger.Plan) {
	for i := range n.Devices {
		n.Devices[i].Free.Bytes -= plan[n.Devices[i].ID]
	}
}

func give(n *Node, plan ledger.Plan) {
	for i := range n.Devices {
		n.Devices[i].Free.Bytes += plan[n.Devices[i].ID]
	}
}

// end has a job end, and time pass as it does where a job takes 2 s.
func (h *hall) end(i int) {
	k := h.rnd.IntN(len(h.running))
	c := h.running[k]
	h.running[k] = h.running[len(h.running)-1]
	h.running = h.running[:len(h.running)-1]
	h.AddBusy(c, -1)
	if i%64 == 0 { // a node reports what it said before, and that somebody else's process ended
		n := *h.nodes[h.rnd.IntN(len(h.nodes))]
		n.Devices = slices.Clone(n.Devices)
		n.Devices[0].Free.Bytes++
		h.report(&n)
	}
	if perMS := max(1, len(h.running)/2000); i%perMS == 0 {
		h.now++
	}
}

// BenchmarkDecision has a job end, and decides what is served instead: the time of all
// that the scheduler does for it, which is what a dispatcher does for each job.
func BenchmarkDecision(b *testing.B) {
	for _, size := range []struct {
		nodes, flows int
		mean, p99    time.Duration // at most; 0: as it is
	}{
		{10, 100, 0, 0},
		{100, 1000, 20 * time.Microsecond, 0},
		{1000, 1000, 0, 0},
		{1000, 10_000, 0, time.Millisecond},
		{10_000, 10_000, 0, 0},
	} {
		b.Run(fmt.Sprintf("%d nodes %d flows", size.nodes, size.flows), func(b *testing.B) {
			h := newHall(size.nodes, size.flows)
			took := make([]time.Duration, 0, b.N)
			decided, loads := 0, h.loads
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				began := time.Now()
				h.end(i)
				for h.decide() {
					decided++
				}
				took = append(took, time.Since(began))
			}
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1000, "p99-us")
			b.ReportMetric(float64(took[len(took)-1].Nanoseconds())/1000, "max-us")
			b.ReportMetric(float64(decided)/float64(b.N), "jobs/op")
			b.ReportMetric(float64(h.loads-loads)*1000/float64(b.N), "loads/1000-ops")
			p99, mean := took[len(took)*99/100], b.Elapsed()/time.Duration(b.N)
			if b.N >= 10_000 && (size.mean > 0 && mean > size.mean || size.p99 > 0 && p99 > size.p99) {
				b.Errorf("a decision takes %s, 99 of 100 at most %s: more than %s and %s", mean, p99, size.mean, size.p99)
			}
		})
	}
}
