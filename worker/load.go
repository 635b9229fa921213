package worker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// A load brings a model into memory, for all jobs that wait for it. It is
// promised with the first offer, wanted from the first go on, and runs when no
// other load uses one of its devices. Its memory is kept in the books.
type load struct {
	schemas.Victim // whom it loads, as users name it
	backend        *backend
	evict          []schemas.Victim
	plan           ledger.Plan // nil: the server decides

	offers  int // accepted offers that have no go yet
	wanted  bool
	active  bool
	again   bool                    // the first attempt ran out of memory
	arrived schemas.Bytes           // what of it was seen when its deadline was moved last
	stop    context.CancelCauseFunc // of an active load

	done chan struct{} // closed when the load ended
	err  error         // why it failed; read it after done
}

// loadOf returns the load of a model that is promised or under way, or nil.
func (n *node) loadOf(b *backend, model string) *load {
	return n.loadBy(schemas.Victim{Backend: b.Name, Model: model})
}

func (n *node) loadBy(v schemas.Victim) *load {
	for _, l := range n.loads {
		if l.Victim == v {
			return l
		}
	}
	return nil
}

// promise returns the load of a model, a new one if there is none. Its memory is
// reserved and its victims are as good as gone from now on.
func (n *node) promise(b *backend, model string, evict []schemas.Victim, plan ledger.Plan) *load {
	if l := n.loadOf(b, model); l != nil {
		return l
	}
	l := &load{Victim: schemas.Victim{Backend: b.Name, Model: model}, backend: b, done: make(chan struct{})}
	n.loads = append(n.loads, l)
	n.plan(l, evict, plan)
	return l
}

// plan keeps the memory for a load, and marks its victims.
func (n *node) plan(l *load, evict []schemas.Victim, plan ledger.Plan) {
	l.evict, l.plan = evict, plan
	n.books.Reserve(l.Victim, plan, l.deadline())
	for _, v := range evict {
		if b := n.backend(v.Backend); b != nil {
			b.leaving[v.Model] = l
		}
	}
	n.changed = true
}

// deadline is when a load that begins now must have ended.
func (l *load) deadline() time.Time {
	return time.Now().Add(l.backend.loadLimit(l.plan.Sum()))
}

// loadLimit is how long a load of so much may take without a sign of progress: what
// the configuration says, else 5 minutes, and 20 s for each GiB, as on a slow disk or
// network.
func (b Backend) loadLimit(size schemas.Bytes) time.Duration {
	if b.LoadTimeout > 0 {
		return b.LoadTimeout
	}
	const base, perGiB = 5 * time.Minute, 20 * time.Second
	return base + time.Duration(float64(perGiB)*float64(size)/float64(schemas.GiB))
}

// dropUnwanted forgets a load that no job waits for or may come to wait for.
func (n *node) dropUnwanted(l *load) {
	if l.offers == 0 && !l.wanted {
		n.dropLoad(l)
	}
}

// dropLoad forgets a load: its reservation ends and its victims may stay.
func (n *node) dropLoad(l *load) {
	n.loads = slices.DeleteFunc(n.loads, func(x *load) bool { return x == l })
	n.books.Failed(l.Victim)
	n.spare(l)
	n.changed = true
}

// spare lets the victims of a load stay, as far as they are there.
func (n *node) spare(l *load) {
	for _, b := range n.backends {
		for name, by := range b.leaving {
			if by == l {
				delete(b.leaving, name)
			}
		}
	}
}

// startLoads starts each load that is wanted and has its devices to itself.
func (n *node) startLoads(ctx context.Context) {
	for i, l := range n.loads {
		if !l.wanted || l.active || slices.ContainsFunc(n.loads[:i], func(x *load) bool { return n.collide(x, l) }) {
			continue
		}
		n.startLoad(ctx, l)
	}
}

func (n *node) startLoad(ctx context.Context, l *load) {
	l.active, l.arrived, n.changed = true, 0, true
	n.books.Extend(l.Victim, l.deadline())
	run := loading{load: l, Backend: l.backend.Backend, loader: l.backend.loader, model: l.Model, plan: l.plan, devices: n.idsOf(l.backend)}
	for _, v := range l.evict {
		if b := n.backend(v.Backend); b != nil && b.loader != nil {
			run.evict = append(run.evict, eviction{Backend: b.Backend, loader: b.loader, model: v.Model})
		}
	}
	var lctx context.Context
	lctx, l.stop = context.WithCancelCause(ctx)
	n.beside.Go(func() { n.w.send(n.w.load(lctx, run)) })
}

// collide reports whether an earlier load keeps a later one from starting.
func (n *node) collide(earlier, later *load) bool {
	if !earlier.wanted {
		return false
	}
	if earlier.backend == later.backend {
		return true
	}
	others := n.idsOf(later.backend)
	return slices.ContainsFunc(n.idsOf(earlier.backend), func(id string) bool { return slices.Contains(others, id) })
}

var errLoadTimeout = errors.New("the load took too long")

// progressStep is what must have arrived for a load to be seen to go on, and
// progressTime how long it may then take until more has.
const (
	progressStep = 64 * schemas.MiB
	progressTime = 5 * time.Minute
)

// progress gives more time to the loads that are seen to go on.
func (n *node) progress(now time.Time) {
	for _, l := range n.loads {
		grown, _ := n.books.Grown(l.Victim)
		if !l.active || grown.Sum() < l.arrived+progressStep {
			continue
		}
		l.arrived = grown.Sum()
		n.books.Extend(l.Victim, now.Add(min(progressTime, l.backend.loadLimit(0))))
	}
}

// sweepLoads stops the loads whose time is over. One that has not begun has time.
func (n *node) sweepLoads(now time.Time) {
	for _, l := range n.loads {
		if !l.active {
			n.books.Extend(l.Victim, l.deadline())
		}
	}
	for _, v := range n.books.Expire(now) {
		if l := n.loadBy(v); l != nil {
			l.stop(errLoadTimeout)
		}
	}
}

// loaded says that a load ended, and what was seen right after it.
type loaded struct {
	load    *load
	err     error
	held    schemas.Victim // who was to make room and runs requests of others
	took    time.Duration
	looks   []look   // of its backend first, then of those whose models made room
	reading *reading // of the devices; nil: they could not be read
}

func (m loaded) apply(ctx context.Context, n *node) {
	l := m.load
	l.stop(nil)
	if m.reading != nil {
		n.observe(*m.reading)
	}
	if b := n.backend(m.held.Backend); b != nil {
		b.held[m.held.Model] = time.Now().Add(heldFor)
	}
	if m.err != nil && n.loadAgain(ctx, m) {
		return
	}
	n.concludeLoad(ctx, m)
	n.seeAll(m.looks)
	if m.reading != nil { // what is booked now is in it
		n.observe(*m.reading)
	}
	n.dropLoad(l)
	l.err = m.err
	close(l.done)
	n.planAnew()
	n.startLoads(ctx)
}

// planAnew plans the loads that have not begun into what is free now: a server may
// have laid the last model on other devices than was planned. One that does not fit any
// more stays as it is, and finds out.
func (n *node) planAnew() {
	for _, l := range n.loads {
		if l.active || l.plan == nil {
			continue
		}
		n.books.Failed(l.Victim)
		gone := make([]ledger.Candidate, 0, len(l.evict))
		for _, v := range l.evict {
			gone = append(gone, ledger.Candidate{Victim: v, Held: n.books.Held(v)})
		}
		need := ledger.Need{Bytes: schemas.Known(l.plan.Sum()), Split: l.backend.Split}
		spaces := ledger.Without(n.books.Spaces(n.idsOf(l.backend)), gone)
		for i := range spaces {
			spaces[i].Kind = "" // what is planned has the runtime in it
		}
		if plan, ok := ledger.Fit(need, spaces); ok && plan != nil {
			l.plan = plan
		}
		n.books.Reserve(l.Victim, l.plan, l.deadline())
	}
}

// concludeLoad enters how a load ended.
func (n *node) concludeLoad(ctx context.Context, m loaded) {
	l, metrics := m.load, n.w.metrics
	if m.err != nil {
		metrics.loads.WithLabelValues(l.Model, string(schemas.AsError(m.err).Code)).Inc()
		n.w.cfg.Logger.Warn("model was not loaded", "backend", l.Backend, "model", l.Model, "err", m.err)
		return
	}
	l.backend.took[l.Model] = m.took.Milliseconds()
	n.learn(ctx, l)
	n.books.Loaded(l.Victim)
	metrics.loads.WithLabelValues(l.Model, "ok").Inc()
	metrics.loading.WithLabelValues(l.Model).Observe(m.took.Seconds())
	for _, v := range l.evict {
		metrics.evictions.WithLabelValues(v.Model).Inc()
	}
	n.w.cfg.Logger.Info("model was loaded", "backend", l.Backend, "model", l.Model, "took", m.took, "evicted", names(l.evict))
}

// loadAgain has a load that ran out of memory tried once more, where idle models can
// make room for a little more than it was given.
func (n *node) loadAgain(ctx context.Context, m loaded) bool {
	l, now := m.load, time.Now()
	if schemas.AsError(m.err).Code != schemas.OutOfMemory {
		return false
	}
	n.books.OutOfMemory(l.Victim, now)
	n.spare(l)
	n.seeAll(m.looks)
	if l.again {
		return false
	}
	plan, evict := n.makeWay(l.backend, l.Model)
	if plan == nil {
		return false
	}
	n.w.cfg.Logger.Warn("model was not loaded yet: once more with more room", "backend", l.Backend, "model", l.Model,
		"room", plan.Sum(), "evicted", names(evict), "err", m.err)
	l.again = true
	n.plan(l, evict, plan)
	n.startLoad(ctx, l)
	return true
}

// makeWay plans a load into what is free once some idle models are gone. The plan is
// nil where there is no room, or nobody can say.
func (n *node) makeWay(b *backend, model string) (plan ledger.Plan, evict []schemas.Victim) {
	m, _ := n.model(b, model)
	plan, evict, _ = ledger.MakeRoom(ledger.Need{Bytes: m.Need, Split: b.Split}, n.books.Spaces(n.idsOf(b)), n.idle(b))
	return plan, evict
}

// idle lists the models that may be unloaded for another of b's, the quickest to
// bring back first.
func (n *node) idle(b *backend) []ledger.Candidate {
	var all []ledger.Candidate
	took := map[schemas.Victim]int64{}
	for _, other := range n.backends {
		for i := range other.models {
			m, _ := n.model(other, other.models[i].Name)
			v := schemas.Victim{Backend: other.Name, Model: m.Name}
			if n.unloadable(v) != "" || m.Pinned || other != b && len(m.Devices) == 0 {
				continue
			}
			took[v] = m.LoadMS
			all = append(all, ledger.Candidate{Victim: v, Held: m.Devices})
		}
	}
	slices.SortStableFunc(all, func(x, y ledger.Candidate) int { return int(took[x.Victim] - took[y.Victim]) })
	return all
}

// unloadable says why a model cannot be unloaded now; "" where it can.
func (n *node) unloadable(v schemas.Victim) string {
	b := n.backend(v.Backend)
	if b == nil || b.loader == nil {
		return "is nobody's who can be told"
	}
	m, ok := b.model(v.Model)
	_, leaving := b.leaving[v.Model]
	switch {
	case !ok || m.State != schemas.Resident:
		return "is not in memory"
	case m.Busy > 0 || leaving || n.loadOf(b, v.Model) != nil:
		return "is not idle"
	default:
		return ""
	}
}

func names(victims []schemas.Victim) []string {
	all := make([]string, len(victims))
	for i, v := range victims {
		all[i] = v.Model
	}
	return all
}

// loading is what the goroutine of a load needs to know.
type loading struct {
	Backend
	loader  providers.Loader
	load    *load // only to name it: it belongs to the owner
	model   string
	evict   []eviction
	plan    ledger.Plan
	devices []string // on which its backend loads
}

// An eviction is a model that has to go first.
type eviction struct {
	Backend
	loader providers.Loader
	model  string
}
