package simulate

import (
	"container/heap"
	"slices"
	"time"

	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/schemas"
)

// A request is a job on its way.
type request struct {
	Job
	index   int           // in the workload
	start   time.Duration // when it began to generate
	end     time.Duration
	charged float64 // what its tenant was charged, in slot-seconds
	done    bool
}

// A machine is a node of the fleet as it is: its memory, its models, and what runs. It
// knows no policy.
type machine struct {
	Node
	*clock
	free    []ledger.Space
	loaded  map[string]*copied
	queue   []*copied // that are to be loaded, one at a time
	loading bool
	open    int // requests it was given that have not ended
	bill    *bill
	changed func(*machine)           // called after a load ended
	ended   func(*machine, *request) // called after a request ended
}

// A copied model is in memory, or on its way there.
type copied struct {
	Model
	plan     ledger.Plan
	resident bool
	running  int
	waiting  []*request // for a slot, or for the load
	used     time.Duration
}

// bill is what a run cost.
type bill struct {
	loads, evictions int
	lost             time.Duration // of devices, to loading
	busy             time.Duration // of slots
}

func newMachine(n Node, c *clock, b *bill) *machine {
	m := &machine{Node: n, clock: c, loaded: map[string]*copied{}, bill: b}
	for i, d := range n.Devices {
		m.free = append(m.free, ledger.Space{Device: deviceID(i), Kind: "sim", Free: schemas.Known(d)})
	}
	return m
}

func deviceID(i int) string { return "d" + string(rune('0'+i%10)) + string(rune('a'+i/10)) }

// fit plans a model into what is free.
func (m *machine) fit(model Model) (ledger.Plan, bool) {
	return ledger.Fit(ledger.Need{Bytes: schemas.Known(model.Need), Split: schemas.Spread}, m.free)
}

// fitsEmpty reports whether a model could be there at all.
func (m *machine) fitsEmpty(model Model) bool {
	if !m.has(model.Name) {
		return false
	}
	spaces := slices.Clone(m.free)
	for i := range spaces {
		spaces[i].Free = schemas.Known(m.Devices[i])
	}
	_, ok := ledger.Fit(ledger.Need{Bytes: schemas.Known(model.Need), Split: schemas.Spread}, spaces)
	return ok
}

// load begins to load a model into memory that is free.
func (m *machine) load(model Model, plan ledger.Plan) *copied {
	c := &copied{Model: model, plan: plan, used: m.now}
	m.loaded[model.Name] = c
	for i := range m.free {
		m.free[i].Free.Bytes -= plan[m.free[i].Device]
	}
	m.queue = append(m.queue, c)
	m.loadNext()
	return c
}

// loadNext begins with the next load, when no other is under way.
func (m *machine) loadNext() {
	if m.loading || len(m.queue) == 0 {
		return
	}
	c := m.queue[0]
	m.queue = m.queue[1:]
	m.loading = true
	took := c.loadTime(m.Node)
	m.bill.loads++
	m.bill.lost += took * time.Duration(len(c.plan))
	m.after(took, func() {
		m.loading, c.resident = false, true
		m.loadNext()
		m.runNext(c)
		if m.changed != nil {
			m.changed(m)
		}
	})
}

// unload takes an idle model out of memory.
func (m *machine) unload(c *copied) {
	if c.running > 0 || len(c.waiting) > 0 || !c.resident {
		panic("simulate: a model in use is unloaded") // the policies never do
	}
	delete(m.loaded, c.Name)
	for i := range m.free {
		m.free[i].Free.Bytes += c.plan[m.free[i].Device]
	}
	m.bill.evictions++
}

// run has a model do a request, as soon as it is loaded and has a slot.
func (m *machine) run(c *copied, r *request) {
	m.open++
	c.waiting = append(c.waiting, r)
	m.runNext(c)
}

func (m *machine) runNext(c *copied) {
	for c.resident && c.running < c.Slots && len(c.waiting) > 0 {
		r := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.running++
		r.start = m.now
		took := c.runTime(r.Job)
		m.after(took, func() {
			c.running--
			c.used = m.now
			m.open--
			m.bill.busy += took
			r.end, r.done = m.now, true
			m.runNext(c)
			m.ended(m, r)
		})
	}
}

// idle reports whether nothing runs or waits on a model that is in memory.
func (c *copied) idle() bool { return c.resident && c.running == 0 && len(c.waiting) == 0 }

// A clock is the virtual time, and what happens at which.
type clock struct {
	now    time.Duration
	events events
	last   uint64
}

// after has something happen after a time.
func (c *clock) after(d time.Duration, do func()) { c.at(c.now+d, do) }

func (c *clock) at(t time.Duration, do func()) {
	c.last++
	heap.Push(&c.events, event{t, c.last, do})
}

// step moves on to what happens next, and has all of that instant happen. It returns
// false where nothing does.
func (c *clock) step() bool {
	if len(c.events) == 0 {
		return false
	}
	c.now = c.events[0].at
	for len(c.events) > 0 && c.events[0].at == c.now {
		e, ok := heap.Pop(&c.events).(event)
		if ok {
			e.do()
		}
	}
	return true
}

type event struct {
	at  time.Duration
	seq uint64 // of two at the same time, the one that was arranged first is first
	do  func()
}

type events []event

// Len implements heap.Interface.
func (e *events) Len() int { return len(*e) }

// Less implements heap.Interface.
func (e *events) Less(i, j int) bool {
	a, b := (*e)[i], (*e)[j]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

// Swap implements heap.Interface.
func (e *events) Swap(i, j int) { (*e)[i], (*e)[j] = (*e)[j], (*e)[i] }

// Push implements heap.Interface.
func (e *events) Push(x any) {
	if v, ok := x.(event); ok {
		*e = append(*e, v)
	}
}

// Pop implements heap.Interface.
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = event{}
	*e = (*e)[:last]
	return x
}
