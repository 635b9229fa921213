package placement

import (
	"cmp"
	"math"

	"github.com/vramjet/vramjet/schemas"
)

// A Flow is what the scheduler knows of the jobs of a tenant, a class and a model.
// It belongs to its Scheduler, whose methods change it.
type Flow struct {
	schemas.Flow

	weight  float64
	route   []string // the models that its name stands for; nil: it is a model's
	pool    *pool    // the model that it waits for
	barred  bool     // none of these could serve it
	waiting int
	paused  string  // why nothing of it is served now; "" where it is
	since   int64   // when it was last served, or began to wait
	turn    uint64  // which service of all was its last
	tag     float64 // virtual start time of its next job
	seconds float64 // what a job of it takes, in slot-seconds: a moving average; 0: unknown
	index   int     // in its lane
}

// Waiting is how many jobs wait that nobody was given.
func (f *Flow) Waiting() int { return f.waiting }

// Cost is what a job of it is expected to take, in slot-seconds. 1 where nothing
// is known.
func (f *Flow) Cost() float64 { return cmp.Or(f.seconds, f.pool.seconds, 1) }

// A lane is the flows of a model and class that wait: tenants, who share by
// start-time fair queueing. Each has a tag, the virtual time at which its next job
// begins; the lowest is served first, and served work moves it on by its cost
// divided by the tenant's weight (Goyal, Vin and Cheng 1996; with several slots:
// Jin, Chase and Kaur 2004).
type lane struct {
	flows heap[*Flow]
	clock float64 // the tag of what was served last
	since int64   // when it was last served, or began to wait
}

func newLane() lane {
	return lane{flows: heap[*Flow]{
		at: func(f *Flow) *int { return &f.index },
		less: func(a, b *Flow) bool {
			return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.turn, b.turn), cmp.Compare(a.Tenant, b.Tenant)) < 0
		},
	}}
}

// serve moves a flow of the lane on by what a job of it is expected to cost.
func (l *lane) serve(f *Flow, cost float64, now int64) {
	l.clock = max(l.clock, f.tag)
	l.since = now
	f.tag += cost / f.weight
}

// rate is an average of how often something happens, which forgets with time.
type rate struct {
	perMS float64
	at    int64
}

// rateMS is over how long a rate is averaged.
const rateMS = 60_000

func (r *rate) add(n int, now int64) {
	r.perMS = r.now(now) + float64(n)/rateMS
	r.at = now
}

// now is how often it happens, per ms.
func (r *rate) now(now int64) float64 {
	return r.perMS * math.Exp(-float64(now-r.at)/rateMS)
}
