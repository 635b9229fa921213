package simulate

import (
	"time"

	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// A planner has the real placement code decide, as the dispatcher does.
type planner struct {
	*run
	sched   *placement.Scheduler
	byName  map[string]*machine
	flows   map[schemas.Flow]*queue
	waiting map[string][3]int // jobs that wait, by model and rank of the class
	ticking bool
}

// A queue is a flow and its jobs, in their order.
type queue struct {
	flow *placement.Flow
	jobs []*request
}

const backendName = "sim"

func newPlanner(r *run) *planner {
	p := &planner{
		run: r, sched: placement.NewScheduler(placement.NewFleet(), r.Tune, nil),
		byName: map[string]*machine{}, flows: map[schemas.Flow]*queue{}, waiting: map[string][3]int{},
	}
	for _, m := range r.machines {
		p.byName[m.Name] = m
		p.loaded(m)
	}
	return p
}

func (p *planner) ms() int64 { return p.now.Milliseconds() }

func (p *planner) arrive(r *request) {
	key := schemas.Flow{Tenant: r.Tenant, Class: r.Class, Model: r.Model}
	q := p.flows[key]
	if q == nil {
		q = &queue{flow: p.sched.Flow(key, p.Weights[r.Tenant])}
		p.flows[key] = q
	}
	q.jobs = append(q.jobs, r)
	n := p.waiting[r.Model]
	n[r.Class.Rank()]++
	p.waiting[r.Model] = n
	p.sched.Arrive(q.flow, 1, p.ms())
}

// tick is how often time alone is a reason to decide.
const tick = 250 * time.Millisecond

func (p *planner) settle() {
	for p.decide() {
	}
	p.look()
	if waits := len(p.waiting) > 0; waits && !p.ticking {
		p.ticking = true
		p.after(tick, func() { p.ticking = false })
	}
}

// decide serves one job, and returns false where none can be.
func (p *planner) decide() bool {
	began := time.Now()
	f, c, ok := p.sched.Next(p.ms())
	var cost float64
	if ok {
		cost = p.sched.Serve(f, c, p.ms())
	}
	p.decided = append(p.decided, time.Since(began))
	if !ok {
		return false
	}
	q := p.flows[f.Flow]
	r := q.jobs[0]
	q.jobs = q.jobs[1:]
	n := p.waiting[r.Model]
	if n[r.Class.Rank()]--; n == [3]int{} {
		delete(p.waiting, r.Model)
	} else {
		p.waiting[r.Model] = n
	}
	r.charged = cost
	m := p.byName[c.Node]
	if c.Load {
		for _, v := range c.Evict {
			m.unload(m.loaded[v.Model])
		}
		m.load(p.models[c.Model], c.Plan)
		p.loaded(m)
	}
	p.sched.AddBusy(c, 1)
	m.run(m.loaded[c.Model], r)
	return true
}

func (p *planner) ended(m *machine, r *request) {
	took := (r.end - r.start).Seconds()
	f := p.flows[schemas.Flow{Tenant: r.Tenant, Class: r.Class, Model: r.Model}].flow
	p.sched.Done(f, r.Model, r.charged, took)
	p.sched.AddBusy(placement.Choice{Node: m.Name, Backend: backendName, Model: r.Model}, -1)
}

// loaded reports a machine, as a worker would.
func (p *planner) loaded(m *machine) {
	n := &placement.Node{ID: m.Name}
	b := placement.Backend{Name: backendName, Split: schemas.Spread, Loads: true}
	for _, s := range m.free {
		n.Devices = append(n.Devices, placement.Device{ID: s.Device, Kind: s.Kind, Free: s.Free})
		b.Devices = append(b.Devices, s.Device)
	}
	for _, x := range p.Fleet.Models {
		if !m.has(x.Name) {
			continue
		}
		s := placement.Model{
			Name: x.Name, State: schemas.Installed, Need: schemas.Known(x.Need), Slots: x.Slots,
			LoadMS: x.loadTime(m.Node).Milliseconds(), Kinds: []schemas.Kind{schemas.Chat},
		}
		if c := m.loaded[x.Name]; c != nil {
			s.State, s.Held, s.Busy = schemas.Loading, c.plan, c.running+len(c.waiting)
			if c.resident {
				s.State = schemas.Resident
			}
		}
		b.Models = append(b.Models, s)
	}
	n.Backends = []placement.Backend{b}
	p.sched.Set(n, p.ms())
}

// look notes what is free of models for which jobs wait. What is kept for
// others is not.
func (p *planner) look() {
	p.idle.free, p.idle.leaving = 0, 0
	for model, waiting := range p.waiting {
		for _, m := range p.machines {
			c := m.loaded[model]
			if c == nil || !c.resident {
				continue
			}
			free := 0
			for rank, class := range schemas.Classes {
				kept := p.sched.Kept(model, class, c.Slots, p.ms())
				take := min(waiting[rank], max(0, c.Slots-c.running-free-kept))
				free += take
				waiting[rank] -= take
			}
			if p.sched.GivesWay(placement.Choice{Node: m.Name, Backend: backendName, Model: model}) {
				p.idle.leaving += free
			} else {
				p.idle.free += free
			}
		}
	}
}
