package placement

import (
	"slices"

	"github.com/vramjet/vramjet/schemas"
)

// A Scheduler decides which flow is served next, and where. It keeps indexes, so that
// a decision costs what changed since the last one, and not what there is. It belongs
// to one goroutine.
type Scheduler struct {
	*Fleet

	policy Policy
	routes Routes
	flows  map[schemas.Flow]*Flow
	routed []*Flow     // of those, the ones of routes
	ready  heap[*pool] // that may be served
	stuck  heap[*pool] // that wait and could not be served when they were looked at
	turn   uint64
	hinted []*pool // only to reuse its memory

	spent      string // why routes use no hosted API that costs anything; "" where they do
	bindAt     int64  // when to look next which models flows of routes wait for
	overflowAt int64  // when to look next for those that wait too long
}

// retryMS is how long a pool that could not be served is left alone where nothing
// changed but the time: a sixteenth of what its load takes, from 20 to 500 ms.
func retryMS(p *pool) int64 { return min(500, max(20, loadTime(p)/16)) }

// NewScheduler returns a Scheduler for which nothing waits. Another one that used the
// fleet must not be used any more.
func NewScheduler(fleet *Fleet, policy Policy, routes Routes) *Scheduler {
	s := &Scheduler{
		Fleet: fleet, policy: policy, routes: routes, flows: map[schemas.Flow]*Flow{},
		ready: heap[*pool]{
			at:   func(p *pool) *int { return &p.ready },
			less: func(a, b *pool) bool { return a.claim.less(b.claim) },
		},
		stuck: heap[*pool]{
			at:   func(p *pool) *int { return &p.stuck },
			less: func(a, b *pool) bool { return a.retry < b.retry },
		},
	}
	for _, p := range fleet.pools {
		fleet.dropClaims(p)
		p.demand = newDemand()
		fleet.tidy(p)
	}
	return s
}

// Flow returns the flow of a key, made where it is new. weight is its tenant's share;
// 0 means 1.
func (s *Scheduler) Flow(key schemas.Flow, weight float64) *Flow {
	f := s.flows[key]
	if f == nil {
		f = &Flow{Flow: key, route: s.routes[key.Model], index: -1}
		f.pool = s.pool(s.routes.models(key.Model)[0])
		f.pool.flows++
		s.flows[key] = f
		if f.route != nil {
			s.routed, s.bindAt = append(s.routed, f), 0
		}
	}
	if weight <= 0 {
		weight = 1
	}
	f.weight = weight
	return f
}

// Forget drops a flow for which nothing waits.
func (s *Scheduler) Forget(f *Flow) {
	if s.flows[f.Flow] != f {
		return
	}
	s.SetWaiting(f, 0, f.since)
	delete(s.flows, f.Flow)
	if f.route != nil {
		s.routed = slices.DeleteFunc(s.routed, func(g *Flow) bool { return g == f })
	}
	f.pool.flows--
	s.tidy(f.pool)
}

// Arrive notes jobs that came.
func (s *Scheduler) Arrive(f *Flow, n int, now int64) {
	f.pool.arrivals.add(n, now)
	s.SetWaiting(f, f.waiting+n, now)
}

// SetWaiting corrects how many jobs of a flow wait.
func (s *Scheduler) SetWaiting(f *Flow, n int, now int64) {
	if f.waiting == 0 && n > 0 {
		f.since = now
		f.tag = max(f.tag, f.lane().clock) // no credit for the time that it wanted nothing
	}
	f.pool.waiting += n - f.waiting
	f.waiting = n
	if f.pool.waiting == 0 {
		s.dropClaims(f.pool)
		f.pool.scan = 0
	}
	s.queue(f, now)
}

// Pause keeps a flow from being served, as long as it is not resumed with "": why is
// for people.
func (s *Scheduler) Pause(f *Flow, why string, now int64) {
	f.paused = why
	s.queue(f, now)
}

func (f *Flow) lane() *lane { return &f.pool.lanes[f.Class.Rank()] }

// queue has a flow stand in its lane if it may be served, and its pool among those
// that are looked at.
func (s *Scheduler) queue(f *Flow, now int64) {
	l := f.lane()
	if f.waiting == 0 || f.paused != "" || f.barred {
		l.flows.remove(f)
	} else {
		if len(l.flows.items) == 0 {
			l.since = now
		}
		l.flows.fix(f)
	}
	// A pool that is stuck stays so, but for a more urgent class.
	p := f.pool
	if more := f.index >= 0 && f.Class.Rank() < p.claim.rank; more {
		p.scan = 0
		s.wake(p, now)
	} else if p.stuck < 0 || p.waiting == 0 {
		s.wake(p, now)
	}
}

// wake has a pool looked at.
func (s *Scheduler) wake(p *pool, now int64) {
	s.stuck.remove(p)
	f, _ := p.next(now, s.policy.AgingMS)
	if f == nil {
		s.ready.remove(p)
		return
	}
	p.claim = claim{rank: f.Class.Rank(), waited: float64(now-f.since) * f.weight, turn: f.turn, name: p.name}
	s.ready.fix(p)
}

// Next returns the flow to serve and where, and false where none can be now. Serve
// must be told if it is.
func (s *Scheduler) Next(now int64) (f *Flow, c Choice, ok bool) {
	s.bindRoutes(now)
	if f, c, ok := s.next(now); ok {
		return f, c, true
	}
	return s.overflow(now)
}

// next is Next, but for what of routes waits too long.
func (s *Scheduler) next(now int64) (f *Flow, c Choice, ok bool) {
	const rounds = 2 // what is found to be free while one looks is looked at once more
	for range rounds {
		s.wakeAll(now)
		for len(s.ready.items) > 0 {
			p := s.ready.items[0]
			f, aged := p.next(now, s.policy.AgingMS)
			if f == nil {
				s.ready.remove(p)
				continue
			}
			if c, ok := s.choose(p, Ask{Model: p.name, Flow: f, Aged: aged}, now); ok {
				return f, c, true
			}
			s.ready.remove(p)
			p.retry = now + retryMS(p)
			s.stuck.fix(p)
		}
	}
	return nil, Choice{}, false
}

// wakeAll has the pools looked at that may be served now and could not before.
func (s *Scheduler) wakeAll(now int64) {
	hinted := s.hinted[:0]
	for p := range s.fresh {
		if p.stuck >= 0 {
			s.wake(p, now)
		}
	}
	clear(s.fresh)
	for x := range s.roomier {
		for _, p := range s.stuck.items {
			if len(x.byPool[p]) > 0 && (p.target == nil || p.target.node == x) {
				p.hints = append(p.hints, x)
				hinted = append(hinted, p)
			}
		}
	}
	clear(s.roomier)
	for _, p := range hinted {
		s.wake(p, now)
	}
	s.hinted = hinted
	for {
		p, ok := s.stuck.first()
		if !ok || p.retry > now {
			return
		}
		s.wake(p, now)
	}
}

// Serve charges a flow for a job that it is given, and returns what it is expected to
// cost, in slot-seconds: nothing where it went to another model than that which the
// flow waits for. The caller takes the slot.
func (s *Scheduler) Serve(f *Flow, c Choice, now int64) (cost float64) {
	p, l := f.pool, f.lane()
	if c.Model != p.name {
		s.SetWaiting(f, f.waiting-1, now)
		return 0
	}
	cost = f.Cost()
	p.overtook = f.Class.Rank() > p.top()
	l.serve(f, cost, now)
	s.turn++
	f.turn, f.since = s.turn, now
	p.served[f.Class.Rank()] = now
	f.waiting--
	p.waiting--
	if f.waiting == 0 {
		l.flows.remove(f)
	} else {
		l.flows.fix(f)
	}
	if p.target != nil && p.slots > 0 || p.waiting == 0 {
		s.dropClaims(p)
	}
	s.wake(p, now)
	return cost
}

// Choose returns the best place for a job that was fetched already, and false where
// none can take it now.
func (s *Scheduler) Choose(ask Ask, now int64) (Choice, bool) {
	if ask.Flow != nil && ask.Flow.route != nil {
		return s.chooseRouted(ask.Flow.route, ask, now)
	}
	p := s.pools[ask.Model]
	if p == nil {
		return Choice{}, false
	}
	p.scan = 0 // it is asked for once, not each time that something changes
	return s.choose(p, ask, now)
}

// TrueUp replaces what a job of a flow was expected to cost by what it did.
func (*Scheduler) TrueUp(f *Flow, estimate, actual float64) {
	f.tag += (actual - estimate) / f.weight
	if f.index >= 0 {
		f.lane().flows.fix(f)
	}
}

// Charge charges a flow for a job that Choose found a place for, as Serve does.
func (s *Scheduler) Charge(f *Flow, c Choice) (cost float64) {
	if c.Model != f.pool.name {
		return 0
	}
	cost = f.Cost()
	s.TrueUp(f, 0, cost)
	return cost
}

// Lead is by how much a flow is ahead of what its lane served last, in slot-seconds
// divided by its weight.
func (*Scheduler) Lead(f *Flow) float64 { return f.tag - f.lane().clock }

// Restore puts a flow ahead by a lead that another scheduler had of it. What it was
// served since counts on top.
func (s *Scheduler) Restore(f *Flow, lead float64) { s.TrueUp(f, 0, lead*f.weight) }

// Done notes what a job of a flow took of a model, in slot-seconds, and puts right what
// the flow was charged.
func (s *Scheduler) Done(f *Flow, model string, charged, seconds float64) {
	if model == f.pool.name {
		s.TrueUp(f, charged, seconds)
		learn(seconds, &f.seconds, &f.pool.seconds)
	} else if p := s.pools[model]; p != nil {
		learn(seconds, &p.seconds)
	}
}

// learn has moving averages move.
func learn(seconds float64, averages ...*float64) {
	const weight = 0.1
	for _, avg := range averages {
		if *avg == 0 {
			*avg = seconds
		}
		*avg += weight * (seconds - *avg)
	}
}

// GivesWay reports whether a model takes no more jobs, since another is to have its
// place.
func (s *Scheduler) GivesWay(c Choice) bool {
	x := s.nodes[c.Node]
	if x == nil {
		return false
	}
	p := x.places[schemas.Victim{Backend: c.Backend, Model: c.Model}]
	return p != nil && p.givesTo != nil
}
