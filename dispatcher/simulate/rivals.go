package simulate

import (
	"math/rand/v2"
	"time"
)

// A balancer sends each job to a node as it comes. The nodes do as servers that manage
// their own memory, Ollama for one: requests are looked at in their order; one whose
// model is in memory goes to it, one whose model fits is loaded, and else the model that
// was used least recently and is idle goes for it. Where none is idle, the node waits
// until the least recently used one has done what it has, and looks at no further
// request meanwhile.
type balancer struct {
	*run
	rnd    *rand.Rand
	turn   int
	homes  map[string]int // where a model was served last
	queues map[*machine][]*request
	lead   map[string][]int // nodes on which a model fits at all
}

func newBalancer(r *run) *balancer {
	b := &balancer{run: r, rnd: rand.New(rand.NewPCG(r.Seed, 1)), homes: map[string]int{}, queues: map[*machine][]*request{}, lead: map[string][]int{}} //nolint:gosec // a simulation
	for _, m := range r.models {
		for i, x := range r.machines {
			if x.fitsEmpty(m) {
				b.lead[m.Name] = append(b.lead[m.Name], i)
			}
		}
	}
	return b
}

func (b *balancer) arrive(r *request) {
	i := b.choose(r.Model)
	m := b.machines[i]
	b.homes[r.Model] = i
	b.queues[m] = append(b.queues[m], r)
	b.advance(m)
}

// outstanding is how many requests a machine has that did not end.
func (b *balancer) outstanding(i int) int {
	m := b.machines[i]
	return m.open + len(b.queues[m])
}

func (b *balancer) choose(model string) int {
	nodes := b.lead[model]
	switch b.Policy {
	case Random:
		return nodes[b.rnd.IntN(len(nodes))]
	case RoundRobin:
		b.turn++
		return nodes[b.turn%len(nodes)]
	case LRUReactive:
		if home, ok := b.homes[model]; ok {
			sum := 0
			for i := range b.machines {
				sum += b.outstanding(i)
			}
			if b.outstanding(home) <= 2*(sum/len(b.machines)+1) {
				return home
			}
		}
	}
	best := nodes[0]
	for _, i := range nodes {
		if b.outstanding(i) < b.outstanding(best) {
			best = i
		}
	}
	return best
}

// advance takes requests of a machine as far as it goes.
func (b *balancer) advance(m *machine) {
	for len(b.queues[m]) > 0 {
		r := b.queues[m][0]
		c := m.loaded[r.Model]
		if c == nil {
			if c = m.reactivelyLoad(b.models[r.Model]); c == nil {
				return
			}
		}
		b.queues[m] = b.queues[m][1:]
		m.run(c, r)
	}
}

// reactivelyLoad loads a model, and drops those that were used least recently where
// that needs room. It returns nil where they are busy.
func (m *machine) reactivelyLoad(model Model) *copied {
	for {
		if plan, ok := m.fit(model); ok {
			return m.load(model, plan)
		}
		c := m.leastRecent()
		if c == nil {
			return nil
		}
		m.unload(c)
	}
}

// leastRecent is the idle model that was used least recently; nil where all are busy.
func (m *machine) leastRecent() *copied {
	var oldest *copied
	for _, c := range m.loaded {
		if c.idle() && (oldest == nil || c.used < oldest.used || c.used == oldest.used && c.Name < oldest.Name) {
			oldest = c
		}
	}
	return oldest
}

func (b *balancer) ended(m *machine, _ *request) { b.advance(m) }
func (b *balancer) loaded(m *machine)            { b.advance(m) }
func (*balancer) settle()                        {}

// single is one queue in front of all nodes: the first job goes to a node that has its
// model in memory and a free slot, else to one on which it fits, else to where the model
// goes that was used least recently of all. Nobody overtakes it.
type single struct {
	*run
	queue []*request
}

func (s *single) arrive(r *request)      { s.queue = append(s.queue, r) }
func (*single) ended(*machine, *request) {}
func (*single) loaded(*machine)          {}

func (s *single) settle() {
	for len(s.queue) > 0 && s.place(s.queue[0]) {
		s.queue = s.queue[1:]
	}
}

func (s *single) place(r *request) bool {
	var best *machine
	for _, m := range s.machines {
		if c := m.loaded[r.Model]; c != nil && c.running+len(c.waiting) < c.Slots && (best == nil || m.open < best.open) {
			best = m
		}
	}
	if best != nil {
		best.run(best.loaded[r.Model], r)
		return true
	}
	model := s.models[r.Model]
	for _, m := range s.machines {
		if plan, ok := m.fit(model); ok && m.loaded[r.Model] == nil {
			m.run(m.load(model, plan), r)
			return true
		}
	}
	if m := s.leastRecent(r.Model, model); m != nil {
		if c := m.reactivelyLoad(model); c != nil {
			m.run(c, r)
			return true
		}
	}
	return false
}

// leastRecent is the machine whose idle models were used least recently, of those that
// have not got the model already.
func (s *single) leastRecent(name string, model Model) (best *machine) {
	var used time.Duration
	for _, m := range s.machines {
		if m.loaded[name] != nil || !m.fitsEmpty(model) {
			continue
		}
		if c := m.leastRecent(); c != nil && (best == nil || c.used < used) {
			best, used = m, c.used
		}
	}
	return best
}
