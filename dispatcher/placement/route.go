package placement

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/schemas"
)

// Routes are names that stand for models, the preferred one first. A name may be that
// of a model as well, and then be among what it stands for. What a route stands for
// is never a route.
//
// A flow of a route waits for one model at a time: the first that a node could serve
// it with. What would wait there for longer than OverflowMS goes to the others,
// where these have a slot free and nothing has to be loaded.
type Routes map[string][]string

// models is what a name stands for: itself where it is no route.
func (r Routes) models(name string) []string {
	if models := r[name]; len(models) > 0 {
		return models
	}
	return []string{name}
}

// routesEvery is how often flows of routes are looked at, in ms: far less than anybody
// lets a job wait before it overflows.
const routesEvery = 250

// SetSpent says why the budget lets routes use no hosted API that costs anything; ""
// where it does.
func (s *Scheduler) SetSpent(why string) { s.spent = why }

// Serves reports whether any node has what a job asks for, open to jobs or not. A kind
// of "" is any.
func (s *Scheduler) Serves(ask Ask) bool {
	return slices.ContainsFunc(s.routes.models(ask.Model), func(model string) bool {
		p := s.pools[model]
		return p != nil && slices.ContainsFunc(p.places, func(q *place) bool {
			return (ask.Kind == "" || slices.Contains(q.model.Kinds, ask.Kind)) && (!ask.Local || !q.hosted())
		})
	})
}

// Elsewhere reports whether a place that a job need not avoid takes it once it has a
// slot, without a load that waits for memory.
func (s *Scheduler) Elsewhere(ask Ask) bool {
	return slices.ContainsFunc(s.routes.models(ask.Model), func(model string) bool {
		p := s.pools[model]
		return p != nil && slices.ContainsFunc(p.places, func(q *place) bool {
			return q.why() == "" && q.model.State != schemas.Installed && s.bars(q, ask) == "" && !slices.Contains(ask.Avoid, q.choice().Place())
		})
	})
}

// Takes reports whether a place takes a job, once it has a slot.
func (s *Scheduler) Takes(c Choice, ask Ask) bool {
	x := s.nodes[c.Node]
	if x == nil {
		return false
	}
	p := x.places[schemas.Victim{Backend: c.Backend, Model: c.Model}]
	return p != nil && s.bars(p, ask) == ""
}

// Models lists the names that jobs may ask for, sorted: models and routes.
func (s *Scheduler) Models() []string {
	names := slices.Collect(maps.Keys(s.pools))
	names = slices.DeleteFunc(names, func(name string) bool { return len(s.pools[name].places) == 0 })
	for route := range s.routes {
		if s.Serves(Ask{Model: route}) {
			names = append(names, route)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// hosted reports whether a place is a hosted API's.
func (p *place) hosted() bool { return p.model.State == schemas.Remote }

// bindRoutes has flows of routes wait for the first of their models that could serve
// them. A flow that none could stays out of everybody's way.
func (s *Scheduler) bindRoutes(now int64) {
	if now < s.bindAt {
		return
	}
	s.bindAt = now + routesEvery
	for _, f := range s.routed {
		p := s.firstOf(f.route, Ask{Flow: f})
		if p != nil && p != f.pool {
			s.move(f, p, now)
		}
		if barred := p == nil; barred != f.barred {
			f.barred = barred
			s.queue(f, now)
		}
	}
}

// firstOf returns the first of some models that could serve a job; nil where none can.
func (s *Scheduler) firstOf(models []string, ask Ask) *pool {
	for _, model := range models {
		p := s.pools[model]
		if p != nil && slices.ContainsFunc(p.places, func(q *place) bool { return s.couldServe(q, ask) }) {
			return p
		}
	}
	return nil
}

// couldServe reports whether a place might begin with a job as soon as it has a slot
// and room.
func (s *Scheduler) couldServe(p *place, ask Ask) bool {
	if p.node.Closed != "" || p.backend.Closed != "" || s.bars(p, ask) != "" {
		return false
	}
	return p.model.State != schemas.Installed || p.couldLoad()
}

// couldLoad reports whether a model would fit at a place if all went that may ever go.
// While another is being loaded nobody knows: then it counts as if it did.
func (p *place) couldLoad() bool {
	need, spaces := ledger.Need{Bytes: p.model.Need, Split: p.backend.Split}, p.spaces()
	if !need.Bytes.Known || len(spaces) == 0 {
		return true
	}
	var gone []ledger.Candidate
	for _, q := range p.node.places {
		switch {
		case q.model.State == schemas.Loading:
			return true
		case q.model.State == schemas.Resident && q.backend.Loads && !q.model.Pinned:
			gone = append(gone, ledger.Candidate{Held: q.model.Held})
		}
	}
	_, ok := ledger.Fit(need, ledger.Without(spaces, gone))
	return ok
}

// move has a flow wait for another model. It keeps its turn and by how much it is
// ahead; what its jobs take there is to be seen.
func (s *Scheduler) move(f *Flow, p *pool, now int64) {
	from, waiting, since, lead := f.pool, f.waiting, f.since, max(0, s.Lead(f))
	s.SetWaiting(f, 0, now)
	from.flows--
	s.tidy(from)
	f.pool, f.seconds = p, 0
	p.flows++
	f.tag = f.lane().clock + lead
	s.SetWaiting(f, waiting, now)
	f.since = since
	s.queue(f, now)
}

// overflow returns the most urgent flow of a route that would wait for too long, and
// where a job of it can begin instead.
func (s *Scheduler) overflow(now int64) (best *Flow, c Choice, ok bool) {
	if now < s.overflowAt {
		return nil, c, false
	}
	var at *place
	for _, f := range s.routed {
		if f.index < 0 || best != nil && !f.before(best) || !s.waitsTooLong(f, now) {
			continue
		}
		for _, model := range f.route {
			p := s.pools[model]
			if p == nil || p == f.pool {
				continue
			}
			if q := s.bestOpen(p, Ask{Model: model, Flow: f}, now); q != nil {
				best, at = f, q
				break
			}
		}
	}
	if best == nil {
		s.overflowAt = now + routesEvery
		return nil, c, false
	}
	return best, at.choice(), true
}

// before orders flows of routes: the more urgent, and then who was served longest ago.
func (f *Flow) before(g *Flow) bool {
	if a, b := f.Class.Rank(), g.Class.Rank(); a != b {
		return a < b
	}
	return f.since < g.since
}

// waitsTooLong reports whether the last of a flow's jobs would wait for longer than
// OverflowMS for the model that it waits for.
func (s *Scheduler) waitsTooLong(f *Flow, now int64) bool {
	most := s.policy.OverflowMS
	return most > 0 && f.pool.waitMS(f, now) > most
}

// waitMS is for how long the last of a flow's jobs would wait, roughly.
func (p *pool) waitMS(f *Flow, now int64) int64 {
	slots, ready := p.usable()
	l := p.line(f, f.waiting)
	wait := (float64(l.above) + float64(l.own)/l.share) * 1000 * f.Cost() / float64(max(1, slots))
	if !ready { // and when its load begins nobody knows: it is as far off as it was until now
		wait += float64(loadTime(p))
	}
	if slots == 0 {
		wait += float64(now - f.since)
	}
	return int64(wait)
}

// usable is how many slots of a model there are that are in use or take a job now or
// when it is loaded, and whether any of these needs no load.
func (p *pool) usable() (slots int, ready bool) {
	for _, q := range p.places {
		if q.why() == "" && q.model.State != schemas.Installed {
			slots += q.model.Slots
			ready = ready || q.model.State != schemas.Loading
		}
	}
	return slots, ready
}

// chooseRouted returns the best place for a job of a route that was fetched already:
// where the first model has one that could serve it, or where others have a slot free
// if it would wait there for too long.
func (s *Scheduler) chooseRouted(models []string, ask Ask, now int64) (Choice, bool) {
	p := s.firstOf(models, ask)
	if p == nil {
		return Choice{}, false
	}
	p.scan = 0
	if c, ok := s.choose(p, ask, now); ok {
		return c, true
	}
	if !s.waitsTooLong(ask.Flow, now) {
		return Choice{}, false
	}
	for _, model := range models {
		if other := s.pools[model]; other != nil && other != p {
			if q := s.bestOpen(other, ask, now); q != nil {
				return q.choice(), true
			}
		}
	}
	return Choice{}, false
}

// explainRoute adds to an explanation which model a job of a route waits for, and what
// of the others.
func (s *Scheduler) explainRoute(x *Explanation, ask Ask, now int64) {
	f, names := ask.Flow, strings.Join(ask.Flow.route, ", ")
	if f.barred {
		x.Reason, x.Next, x.ETAMS = fmt.Sprintf("%s stands for %s, and none of these can serve it now", f.Model, names), "it waits until one can", -1
	} else {
		x.Reason = fmt.Sprintf("%s stands for %s, and is %s now: %s", f.Model, names, f.pool.name, x.Reason)
	}
	open := false
	for _, model := range f.route {
		p := s.pools[model]
		if p == f.pool {
			continue
		}
		if p == nil || len(p.places) == 0 {
			x.Places = append(x.Places, "no node has "+model)
			continue
		}
		for _, q := range p.places {
			why := s.outlook(q, ask, now)
			if q.model.State == schemas.Installed && why.after == 0 {
				why.why = "is not loaded for what would wait elsewhere"
			} else {
				open = open || why.after == 0
			}
			x.Places = append(x.Places, fmt.Sprintf("%s on %s/%s: %s", model, q.node.ID, q.backend.Name, why.why))
		}
	}
	if s.spent != "" {
		x.Fix = append(x.Fix, "raise policy.overflow_budget, or wait until the next day begins in UTC")
	}
	if open && s.policy.OverflowMS > 0 {
		x.Next += "; or on one of the others, if its flow would wait for longer than " + duration(s.policy.OverflowMS)
	}
}
