// Package placement decides which flow is served next, and on which node.
//
// It's pure: it reads no clock, starts no goroutine, logs nothing and knows no
// NATS. The same state and the same question always give the same answer, so
// every rule can be tested with a table, a decision seen in production can be
// replayed from the states that the nodes reported, and a simulation on a virtual
// clock decides exactly as the dispatcher does.
//
// A Fleet is what could serve, a Scheduler what waits for it. Times are in ms, of
// whatever clock the caller has.
package placement

import (
	"cmp"
	"slices"

	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/schemas"
)

// An Ask is what one job needs of a node.
type Ask struct {
	Model string
	Kind  schemas.Kind // "" where it isn't known yet
	Flow  *Flow        // whose job it is; nil: for it, no model that is in use gives way
	Aged  bool         // its class moved up, so that it may have a slot that is kept for others
	Local bool         // no hosted API may have it

	// Avoid lists places that turned the job away, as "node/backend".
	Avoid []string
}

// A Choice is a place for a job. The zero Choice is none.
type Choice struct {
	Node    string
	Backend string
	Model   string
	Load    bool             // the model must be loaded first
	Evict   []schemas.Victim // idle models of the node to unload before that
	Plan    ledger.Plan      // what the load takes of which device; nil: the node decides
}

// Place is how Avoid names where a Choice is.
func (c Choice) Place() string { return c.Node + "/" + c.Backend }

// An option is one way to load a model for a job.
type option struct {
	place  *place
	choice Choice
	way    int
	loss   float64       // of the models that go: seconds of loading that a second without them brings on
	busy   bool          // some of them run jobs
	left   schemas.Bytes // free memory that stays on the devices
}

// compare orders options, the preferred one first: the way, the least to be loaded
// again, fewer evictions, what need not be waited for, lower cost, the tightest fit (so
// that large gaps stay whole), and the names, so that the answer never depends on the
// order of the nodes.
func compare(a, b *option) int {
	return cmp.Or(
		cmp.Compare(a.way, b.way),
		cmp.Compare(a.loss, b.loss),
		cmp.Compare(len(a.choice.Evict), len(b.choice.Evict)),
		compareBool(a.busy, b.busy),
		cmp.Compare(a.place.backend.Cost, b.place.backend.Cost),
		cmp.Compare(a.left, b.left),
		cmp.Compare(a.choice.Node, b.choice.Node),
		cmp.Compare(a.choice.Backend, b.choice.Backend),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// choose returns the best place for a job, and false where none can take it now.
// Where that is because models must give way first, those are told to.
func (s *Scheduler) choose(p *pool, ask Ask, now int64) (Choice, bool) {
	best := s.bestOpen(p, ask, now)
	if best != nil && best.way() != hosted {
		return best.choice(), true
	}
	o := s.bestLoad(p, ask, now)
	switch {
	case o != nil && (o.way != givesWay || best == nil && !o.busy):
		return o.choice, true
	case best != nil:
		s.dropClaims(p) // nothing need give way for it
		return best.choice(), true
	case o != nil:
		s.makeWay(p, o)
	}
	return Choice{}, false
}

func (p *place) choice() Choice {
	return Choice{Node: p.node.ID, Backend: p.backend.Name, Model: p.model.Name}
}

// bestOpen returns the best place that takes the job and has nothing to load; nil
// where there is none.
func (s *Scheduler) bestOpen(p *pool, ask Ask, now int64) *place {
	best, ok := p.open.first()
	if !ok || s.suits(best, ask, now) == "" {
		return best
	}
	best = nil
	for _, q := range p.open.items {
		if s.suits(q, ask, now) == "" && (best == nil || comparePlaces(q, best) < 0) {
			best = q
		}
	}
	return best
}

// keptForOthers is why a place with free slots takes no job of the class batch.
const keptForOthers = "its free slots are kept for interactive jobs"

// suits says why a place that takes jobs does not take this one; "" where it does.
func (s *Scheduler) suits(p *place, ask Ask, now int64) string {
	switch {
	case len(ask.Avoid) > 0 && slices.Contains(ask.Avoid, p.choice().Place()):
		return "turned the job away"
	case s.bars(p, ask) != "":
		return s.bars(p, ask)
	case !ask.Aged && ask.Flow != nil && p.model.Slots-p.model.Busy <= s.kept(p.pool, ask.Flow.Class, p.model.Slots, now):
		return keptForOthers
	default:
		return ""
	}
}

// Kept is how many slots of a model in memory, which has so many in all, jobs of a
// class leave free now.
func (s *Scheduler) Kept(model string, class schemas.Class, slots int, now int64) int {
	p := s.pools[model]
	if p == nil {
		return 0
	}
	return s.kept(p, class, slots, now)
}

// keptOfSlots is of how many slots of a model one is kept at most: batches are slowed down
// by a quarter at most, and a model with few slots keeps none.
const keptOfSlots = 4

func (s *Scheduler) kept(p *pool, class schemas.Class, slots int, now int64) int {
	if class != schemas.Batch || now-p.served[schemas.Interactive.Rank()] >= recentMS {
		return 0
	}
	return max(0, min(s.policy.InteractiveReserve, slots/keptOfSlots))
}

// bars says why a place never takes a job, whatever comes free; "" where it does.
func (s *Scheduler) bars(p *place, ask Ask) string {
	switch {
	case ask.Kind != "" && !slices.Contains(p.model.Kinds, ask.Kind):
		return "serves no " + string(ask.Kind)
	case !p.hosted():
		return ""
	case ask.Local:
		return "is a hosted API, and the job is to stay local"
	case s.spent != "" && p.backend.Cost > 0 && ask.Flow != nil && ask.Flow.route != nil:
		return s.spent
	default:
		return ""
	}
}

// enough is how many ways to load a model are compared at most: in a large fleet the
// best of so many is as good as the best of all.
const enough = 16

// bestLoad returns the best way to load the model; nil where there is none, or where
// it is not worth its while. All nodes are looked at now and then, and in between those
// that may have room which they had not.
func (s *Scheduler) bestLoad(p *pool, ask Ask, now int64) *option {
	hints := p.hints
	p.hints = p.hints[:0]
	if !s.worthLoading(p) {
		return nil
	}
	if o := s.onTarget(p, ask, now); o != nil {
		return o
	}
	var best *option
	if now < p.scan && len(ask.Avoid) == 0 {
		for _, x := range hints {
			for _, q := range x.byPool[p] {
				best, _ = s.better(best, q, ask, now)
			}
		}
		return best
	}
	seen := 0
	for i := range p.places {
		var considered bool
		if best, considered = s.better(best, p.places[(p.from+i)%len(p.places)], ask, now); considered {
			seen++
		}
		if seen == enough {
			p.from = (p.from + i + 1) % len(p.places)
			break
		}
	}
	if best == nil {
		p.scan = now + retryMS(p)
	}
	return best
}

// better returns the better of best and a load at a place, and whether there is one.
func (s *Scheduler) better(best *option, q *place, ask Ask, now int64) (*option, bool) {
	if q.model.State != schemas.Installed || q.why() != "" || s.suits(q, ask, now) != "" {
		return best, false
	}
	o, ok := s.considerLoad(q, ask, now)
	switch {
	case !ok:
		return best, false
	case best == nil || compare(o, best) < 0:
		return o, true
	default:
		return best, true
	}
}

// onTarget returns the load for which models give way already; nil where there is no
// such, or where it came to nothing.
func (s *Scheduler) onTarget(p *pool, ask Ask, now int64) *option {
	q := p.target
	if q == nil {
		return nil
	}
	if q.index >= 0 && q.model.State == schemas.Installed && q.why() == "" && s.suits(q, ask, now) == "" {
		if o, ok := s.considerLoad(q, ask, now); ok {
			return o
		}
	}
	s.dropClaims(p)
	return nil
}

// considerLoad says how the model could be loaded at a place: into free memory, after
// idle models are gone, or after others gave way.
func (s *Scheduler) considerLoad(p *place, ask Ask, now int64) (*option, bool) {
	o := &option{place: p, choice: p.choice(), way: fits}
	o.choice.Load = true
	spaces := p.spaces()
	need := ledger.Need{Bytes: p.model.Need, Split: p.backend.Split}
	ok := false
	if !need.Bytes.Known || room(spaces) >= need.Bytes.Bytes || len(spaces) == 0 {
		o.choice.Plan, ok = ledger.Fit(need, spaces)
	}
	if ok {
		o.left = left(spaces, o.choice.Plan)
		return o, true
	}
	victims := s.victims(p, ask, now)
	if len(victims) == 0 {
		return nil, false
	}
	candidates := make([]ledger.Candidate, len(victims))
	for i, v := range victims {
		candidates[i] = v.Candidate
	}
	if o.choice.Plan, o.choice.Evict, ok = ledger.MakeRoom(need, spaces, candidates); !ok {
		return nil, false
	}
	o.way = fitsAfterEviction
	gone := candidates[:0]
	for _, v := range victims {
		if !slices.Contains(o.choice.Evict, v.Victim) {
			continue
		}
		gone = append(gone, v.Candidate)
		o.loss += v.loss
		o.busy = o.busy || v.place.model.Busy > 0
		if v.used {
			o.way = givesWay
		}
	}
	o.left = left(ledger.Without(spaces, gone), o.choice.Plan)
	return o, true
}

// left is what stays free on the devices that a plan takes something of.
func left(spaces []ledger.Space, plan ledger.Plan) (sum schemas.Bytes) {
	for _, s := range spaces {
		if plan[s.Device] > 0 {
			sum += s.Free.Bytes - plan[s.Device]
		}
	}
	return sum
}

// spaces is what the devices of a place's backend have for a load. What a device
// does not tell, as one of a CPU, nobody plans with.
func (p *place) spaces() []ledger.Space {
	var spaces []ledger.Space
	for _, d := range p.node.Devices {
		if slices.Contains(p.backend.Devices, d.ID) && d.Free.Known {
			spaces = append(spaces, ledger.Space{Device: d.ID, Kind: d.Kind, Free: d.Free, Lacking: d.Lacking})
		}
	}
	return spaces
}

// room is all that is free.
func room(spaces []ledger.Space) schemas.Bytes {
	var sum schemas.Bytes
	for _, s := range spaces {
		sum += s.Free.Bytes
	}
	return sum
}
