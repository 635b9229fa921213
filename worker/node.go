package worker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// A node is what a worker knows. It belongs to the goroutine of Run.
type node struct {
	w        *Worker
	beside   *sync.WaitGroup
	backends []*backend              // in the order of the configuration
	devices  []ledger.Reading        // of the machine
	measured map[string]time.Time    // when the devices were read last, by source
	books    *ledger.Ledger          // who has their memory
	learned  map[string]learnedNeed  // what loads took, by backend.keyOf
	pins     map[schemas.Victim]bool // by operators: never unloaded to make room
	unloads  []*unloading            // by operators, of models that are busy still
	tasks    map[taskKey]*task
	numbers  map[uint64]*task // the same tasks
	number   uint64           // of the last task
	loads    []*load          // promised or under way, the oldest first

	draining bool // takes no more jobs: an operator said so
	leaving  bool // takes no more jobs: Run's context ended
	aborting bool // gives back those it has

	seq       uint64           // of the last state that was built
	changed   bool             // since the last state that was published
	reported  time.Time        // when that was
	due       <-chan time.Time // when the next may be, where one waits
	extending bool             // leases are being extended
}

func newNode(w *Worker, beside *sync.WaitGroup) *node {
	return &node{
		w:        w,
		beside:   beside,
		measured: map[string]time.Time{},
		books:    ledger.New(),
		learned:  map[string]learnedNeed{},
		pins:     map[schemas.Victim]bool{},
		tasks:    map[taskKey]*task{},
		numbers:  map[uint64]*task{},
		changed:  true,
	}
}

// A taskKey names one attempt at a job.
type taskKey struct {
	tenant, job string
	attempt     uint64
}

// A task is an offer that the node accepted, until it is forgotten or settled.
type task struct {
	key      taskKey
	number   uint64
	offer    *offer
	backend  *backend
	slot     bool      // whether it holds a slot
	load     *load     // what it waits for; nil: the model is there
	accepted time.Time // when the answer was about to be sent

	// Of a task that got its go.
	lease *lease                  // nil before
	began time.Time               // when it came
	stop  context.CancelCauseFunc // ends the work, not the settling
	drop  context.CancelCauseFunc // ends everything: the job is not ours

	cause error // why a task must end that has no go yet
	probe int   // the last probe that nobody heard
}

// end stops the task's work for cause. Its job is settled then.
func (t *task) end(cause error) {
	if t.stop == nil {
		t.cause = cause
		return
	}
	t.stop(cause)
}

// backend returns the backend of that name, or nil.
func (n *node) backend(name string) *backend {
	for _, b := range n.backends {
		if b.Name == name {
			return b
		}
	}
	return nil
}

// added is a backend that the node gets while it runs.
type added struct {
	backend Backend
	answer  chan error // has room for one
}

func (m added) apply(ctx context.Context, n *node) {
	if n.backend(m.backend.Name) != nil {
		m.answer <- fmt.Errorf("the node has a backend %s already", m.backend.Name)
		return
	}
	n.add(ctx, m.backend)
	m.answer <- nil
}

// add takes the backend in and begins to watch it.
func (n *node) add(ctx context.Context, cfg Backend) {
	b := newBackend(cfg)
	n.backends = append(n.backends, b)
	n.w.owners.add(cfg)
	n.beside.Go(func() { n.w.watchBackend(ctx, cfg, b.nudge) })
	if p, ok := cfg.Provider.(providers.Watcher); ok {
		n.beside.Go(func() { n.w.hearBackend(ctx, p, b.poke) })
	}
	n.changed = true
}

// offered is an offer that arrived.
type offered struct{ *offer }

func (m offered) apply(_ context.Context, n *node) {
	c := n.candidate(m.offer)
	plan, reason := admit(c)
	if reason != "" {
		n.refuse(m.offer, reason)
		return
	}
	n.number++
	t := &task{
		key:     m.key(),
		number:  n.number,
		offer:   m.offer,
		backend: n.backend(m.Backend),
		slot:    true,
		probe:   -1,
	}
	n.tasks[t.key], n.numbers[t.number] = t, t
	t.backend.busy[m.Model]++
	if c.load {
		t.load = n.promise(t.backend, m.Model, m.Evict, plan)
		t.load.offers++
	}
	n.changed = true
	t.accepted = time.Now()
	n.accept(t)
}

// candidate is what admit needs to know of an offer.
func (n *node) candidate(o *offer) candidate {
	c := candidate{draining: n.draining || n.leaving, kind: o.Job.Kind, backend: o.Backend, name: o.Model}
	_, c.again = n.tasks[o.key()]
	b := n.backend(o.Backend)
	if b == nil {
		return c
	}
	n.fill(&c, b, o.Model, o.Evict)
	return c
}

// fill adds to c what the node knows of the backend and the model.
func (n *node) fill(c *candidate, b *backend, model string, evict []schemas.Victim) {
	c.known, c.healthy, c.trouble = true, b.healthy, b.trouble
	m, ok := n.model(b, model)
	if !ok {
		return
	}
	c.served, c.model = true, m
	_, c.leaving = b.leaving[model]
	if b.loader == nil || m.State == schemas.Resident || m.State == schemas.Remote {
		return
	}
	c.load = true
	if n.loadOf(b, model) != nil {
		c.promised = true // its memory is reserved, or the server decides
		return
	}
	for _, v := range evict {
		trouble := n.unloadable(v)
		if n.pinned(v) {
			trouble = "is pinned"
		}
		c.evict = append(c.evict, victim{Candidate: ledger.Candidate{Victim: v, Held: n.books.Held(v)}, trouble: trouble})
	}
	c.spaces, c.split = n.books.Spaces(n.idsOf(b)), b.Split
}

// claim is the go of an accepted offer.
type claim struct {
	number uint64
	ack    string
	lease  time.Duration // how long it lasts at least, when the go was sent; 0: unknown
}

func (m claim) apply(ctx context.Context, n *node) {
	t := n.numbers[m.number]
	if t == nil || t.lease != nil {
		return // too late, or twice
	}
	now := time.Now()
	// The go was sent after the accept: counted from there, the lease is shorter
	// than it is, never longer.
	l := newLease(m.ack, t.accepted, m.lease-n.w.pace.margin)
	if !l.held(now) {
		n.w.cfg.Logger.Warn("go came too late", "job", t.key.job, "model", t.offer.Model, "attempt", t.key.attempt)
		n.forget(t)
		return
	}
	t.lease, t.began = l, now
	life, drop := context.WithCancelCause(ctx)
	work, stop := context.WithCancelCause(life)
	t.stop, t.drop = stop, drop
	if t.cause == nil && n.aborting {
		t.cause = errDraining
	}
	if t.cause != nil {
		stop(t.cause)
	}
	if t.load != nil {
		t.load.offers--
		t.load.wanted = t.load.wanted || t.cause == nil
		n.dropUnwanted(t.load)
		n.startLoads(ctx)
	}
	a := newAttempt(n.w, t)
	n.beside.Go(func() {
		defer drop(nil)
		a.run(life, work)
	})
	n.changed = true
}

// forget lets go of an offer that nobody claimed.
func (n *node) forget(t *task) {
	n.free(t)
	if t.load != nil {
		t.load.offers--
		n.dropUnwanted(t.load)
	}
	n.remove(t)
}

// free gives the task's slot back.
func (n *node) free(t *task) {
	if !t.slot {
		return
	}
	t.slot = false
	busy := t.backend.busy
	t.backend.ended[t.offer.Model] = time.Now()
	if busy[t.offer.Model]--; busy[t.offer.Model] <= 0 {
		delete(busy, t.offer.Model)
	}
	n.changed = true
	n.startUnloads()
}

func (n *node) remove(t *task) {
	delete(n.tasks, t.key)
	delete(n.numbers, t.number)
	n.changed = true
}

// disowned says that nobody heard that an offer was accepted.
type disowned struct{ number uint64 }

func (m disowned) apply(_ context.Context, n *node) {
	if t := n.numbers[m.number]; t != nil && t.lease == nil {
		n.forget(t)
	}
}

// freed says that the backend is done with a job.
type freed struct {
	number uint64
	code   schemas.Code
	usage  schemas.Usage
	retry  time.Duration // when the queue delivers it again; -1: it does not
	status schemas.Status
}

func (m freed) apply(_ context.Context, n *node) {
	t := n.numbers[m.number]
	if t == nil {
		return
	}
	n.free(t)
	done := schemas.JobDone{
		Node: n.w.cfg.Node, Boot: n.w.boot,
		Job: t.key.job, Tenant: t.key.tenant, Attempt: t.key.attempt,
		BusyMS: time.Since(t.began).Milliseconds(), Code: m.code, RetryMS: -1, Status: m.status,
		Tokens: int64(max(0, m.usage.PromptTokens+m.usage.CompletionTokens)), Cost: t.backend.Price.Of(m.usage),
	}
	if m.retry >= 0 {
		done.RetryMS = m.retry.Milliseconds()
	}
	n.w.publishJSON(schemas.NodeSubject(n.w.cfg.Node, "done"), done)
	if m.code != "" && m.code.Verdict().Blame == schemas.BlameBackend {
		t.backend.poke()
	}
}

// settled says that nothing is left to do about a job.
type settled struct{ number uint64 }

func (m settled) apply(_ context.Context, n *node) {
	if t := n.numbers[m.number]; t != nil {
		n.free(t)
		n.remove(t)
	}
}

// cancelled asks to stop a job.
type cancelled struct {
	tenant, job string
	schemas.Cancel
}

func (m cancelled) apply(_ context.Context, n *node) {
	for key, t := range n.tasks {
		if key.job != m.job || key.tenant != m.tenant || (m.Attempt != 0 && key.attempt > m.Attempt) {
			continue
		}
		switch {
		case !m.Void:
			t.end(errCancelled)
		case t.lease == nil:
			n.forget(t)
		default:
			t.lease.lose()
			t.drop(errVoid)
		}
	}
}

// sweep looks at what only time tells: claims, leases and their extension.
func (n *node) sweep(ctx context.Context, now time.Time) {
	n.sweepLoads(now)
	var short []*lease
	for _, t := range n.tasks {
		switch {
		case t.lease == nil:
			if now.Sub(t.accepted) > n.w.pace.claim {
				n.forget(t)
			}
		case !t.lease.held(now):
			t.drop(errLost)
		case t.lease.left(now) < n.w.pace.lease*2/3-n.w.pace.margin:
			short = append(short, t.lease)
		}
	}
	if len(short) == 0 || n.extending {
		return
	}
	n.extending = true
	n.beside.Go(func() {
		n.w.extend(ctx, short)
		n.w.send(extended{})
	})
}

// extended says that the leases were extended, or could not be.
type extended struct{}

func (extended) apply(_ context.Context, n *node) { n.extending = false }
