package placement

import (
	"cmp"
	"slices"
	"strings"

	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/schemas"
)

// A victim is a model that may be unloaded for another.
type victim struct {
	ledger.Candidate
	place *place
	used  bool    // it is in use, and gives way
	loss  float64 // seconds of loading that a second without it brings on
	other int     // 1: of another backend than the one that loads
	held  schemas.Bytes
}

// victims lists the models of a place's node that may go for it, in the order in
// which they do: those that are not in use first, of these the ones that are asked for
// least and are quickest to bring back, and of the same its own backend's. Those of
// other backends count only where they are known to hold memory of its devices.
func (s *Scheduler) victims(p *place, ask Ask, now int64) []victim {
	var all []victim
	for _, q := range p.node.loaded {
		m, own := q.model, q.backend == p.backend
		if !q.backend.Loads || m.Pinned || q == p || !own && len(m.Held) == 0 {
			continue
		}
		used, ok := s.mayGo(q, p.pool, ask, now)
		if !ok {
			continue
		}
		v := victim{place: q, used: used, held: m.Held.Sum(), loss: q.pool.arrivals.now(now) * float64(q.loadTime())}
		v.Candidate = ledger.Candidate{Victim: schemas.Victim{Backend: q.backend.Name, Model: m.Name}, Held: m.Held}
		if !own {
			v.other = 1
		}
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b victim) int {
		return cmp.Or(
			compareBool(a.used, b.used),
			compareBool(a.place.pool.waiting > 0, b.place.pool.waiting > 0),
			cmp.Compare(a.loss, b.loss),
			cmp.Compare(a.place.loadTime(), b.place.loadTime()),
			cmp.Compare(a.other, b.other),
			cmp.Compare(b.held, a.held),
			strings.Compare(a.Backend, b.Backend),
			strings.Compare(a.Model, b.Model),
		)
	})
	return all
}

// mayGo reports whether a model in memory may go for a job that waits for another,
// and whether it is in use then. One that gives way to a model is nobody else's.
func (s *Scheduler) mayGo(q *place, p *pool, ask Ask, now int64) (used, ok bool) {
	switch {
	case q.givesTo != nil:
		return true, q.givesTo == p
	case !inUse(q, ask.Flow, now):
		return false, true
	default:
		return true, ask.Flow != nil && s.keepsUntil(q, p, ask.Flow, now) <= now
	}
}

// inUse reports whether a model in memory serves anybody: a job runs or waits, jobs
// come so often that one is to be expected before it could be loaded again, or one of a
// class above that of the flow ran lately.
func inUse(q *place, by *Flow, now int64) bool {
	v := q.pool
	if q.model.Busy > 0 || v.waiting > 0 || v.arrivals.now(now)*float64(q.loadTime()) >= 1 {
		return true
	}
	for rank := 0; by != nil && rank < by.Class.Rank(); rank++ {
		if now-v.served[rank] < recentMS {
			return true
		}
	}
	return false
}

// never is a time that does not come.
const never = 1 << 60

// keepsUntil is until when a model that is in use keeps its place against a flow that
// waits for pool p. That is the whole policy of residency:
//
//   - A model stays for as long as its load took, whoever waits.
//   - It gives way to a job that waited for MaxModelWaitMS while its model was nowhere
//     in memory, or will have when that is loaded.
//   - Where it is in memory elsewhere as well, it gives way to a model that would need
//     longer for what waits for it, with this place more, than it does with one less.
//   - It gives way to a more urgent class at once, and never to a less urgent one.
//   - Inside a class it gives way once the flow is AffinityLag behind.
func (s *Scheduler) keepsUntil(q *place, p *pool, by *Flow, now int64) int64 {
	v, settled := q.pool, q.since+q.loadTime()
	spare := v.slots > q.slots
	if p.slots > 0 {
		if spare && v.backlogMS(v.slots-q.slots)+q.loadTime() < p.backlogMS(p.slots+q.slots) {
			return settled
		}
		return never
	}
	forced := int64(never)
	if most := s.policy.MaxModelWaitMS.Of(by.Class); most > 0 {
		forced = max(settled, by.since+most-loadTime(p))
	}
	switch top := v.urgent(now); {
	case spare, by.Class.Rank() < top:
		return settled
	case by.Class.Rank() > top:
		return forced
	default:
		lag := s.lagMS(q, by)
		if v.waiting == 0 {
			lag = min(lag, q.loadTime())
		}
		return min(forced, max(settled, max(q.since, by.since)+lag))
	}
}

// lagMS is how long a flow waits for a model that is in use at a place.
func (s *Scheduler) lagMS(q *place, by *Flow) int64 {
	switch lag := s.policy.AffinityLag; {
	case lag < 0:
		return 0
	case lag == 0:
		return int64(lagInLoads * float64(q.loadTime()) / by.weight)
	default:
		return int64(lag * 1000 / float64(max(1, q.model.Slots)) / by.weight)
	}
}

// backlogMS is how long n slots need for what waits for a pool.
func (p *pool) backlogMS(n int) int64 {
	return int64(float64(p.waiting) * cmp.Or(p.seconds, 1) * 1000 / float64(max(1, n)))
}

// loadTime is how long a load of a pool's model takes.
func loadTime(p *pool) int64 { return cmp.Or(p.loadMS, unknownLoadMS) }

// worthLoading reports whether a load is worth its while: always for the first copy
// of a model, and for another where the wait for a slot is longer than the load.
func (*Scheduler) worthLoading(p *pool) bool {
	return p.slots == 0 || p.backlogMS(p.slots) > loadTime(p)
}

// makeWay tells models in use to take no more jobs, so that they can be unloaded for
// another.
func (s *Scheduler) makeWay(p *pool, o *option) {
	told := p.target == o.place && len(p.claims) == len(o.choice.Evict) && !slices.ContainsFunc(o.choice.Evict, func(v schemas.Victim) bool {
		return o.place.node.places[v].givesTo != p
	})
	if told {
		return
	}
	s.dropClaims(p)
	p.target = o.place
	for _, v := range o.choice.Evict {
		q := o.place.node.places[v]
		q.givesTo = p
		p.claims = append(p.claims, q)
		s.settle(q)
	}
}

// dropClaims lets the models stay that were to give way for a pool.
func (f *Fleet) dropClaims(p *pool) {
	for _, q := range p.claims {
		if q.givesTo == p {
			q.givesTo = nil
			f.settle(q)
			f.roomier[q.node] = true
		}
	}
	p.claims, p.target = p.claims[:0], nil
}
