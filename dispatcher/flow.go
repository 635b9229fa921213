package dispatcher

import (
	"time"

	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// A flow is what the leader knows of one subject of the queue. How many jobs
// wait there is an estimate between two counts of the stream: hints raise it,
// decisions lower it, and an empty answer to a pull corrects it.
type flow struct {
	schemas.Flow
	subject string
	share   *placement.Share
	weight  float64

	waiting  int    // jobs that nobody was given, as far as known
	hints    uint64 // hints seen
	awaiting []want // slots that wait for their job to be fetched, in order
	held     int    // jobs fetched and not over
	consumer *consumer

	served  uint64    // the turn in which it was last served
	since   time.Time // when it was last served, or began to wait
	unknown time.Time // since when no node has the model; zero: one has
	seconds float64   // what a job of it takes, in slot-seconds: a moving average
}

// A want is a slot that waits for a job.
type want struct {
	promise *promise // nil: for a job that is to end without a node
	cost    float64  // what the tenant was charged
	hints   uint64   // hints of the flow seen when the pull was sent
	sent    time.Time
}

// arrived notes a job that the queue has taken.
func (f *flow) arrived(now time.Time) {
	if f.waiting == 0 && len(f.awaiting) == 0 {
		f.since = now
	}
	f.waiting++
	f.hints++
}

// counted corrects the estimate by the number of jobs the stream holds.
func (f *flow) counted(inStream int, now time.Time) {
	waiting := max(0, inStream-f.held-len(f.awaiting))
	if f.waiting == 0 && waiting > 0 {
		f.since = now
	}
	f.waiting = waiting
}

// delivered takes the want that a delivery fulfils, and how many jobs the
// consumer says are left.
func (f *flow) delivered(left int) (want, bool) {
	if len(f.awaiting) == 0 {
		return want{}, false
	}
	w := f.awaiting[0]
	f.awaiting = f.awaiting[1:]
	if f.waiting == 0 {
		f.waiting = max(0, left-len(f.awaiting)) // a hint was lost
	}
	return w, true
}

// empty takes the want that a pull without a job was for. Hints that came after
// the pull was sent may be of jobs that it did not see.
func (f *flow) empty() (want, bool) {
	if len(f.awaiting) == 0 {
		return want{}, false
	}
	w := f.awaiting[0]
	f.awaiting = f.awaiting[1:]
	f.waiting = min(f.waiting, int(f.hints-w.hints))
	return w, true
}

// learn notes what a job took.
func (f *flow) learn(busy time.Duration) {
	const weight = 0.1
	if f.seconds == 0 {
		f.seconds = busy.Seconds()
		return
	}
	f.seconds += weight * (busy.Seconds() - f.seconds)
}

// cost is what a job is expected to take, in slot-seconds. 1 where nothing is
// known.
func (f *flow) cost() float64 {
	if f.seconds == 0 {
		return 1
	}
	return f.seconds
}

// waitMS is how long a job would wait for one of n slots, in ms.
func (f *flow) waitMS(n int) int64 {
	if n == 0 {
		return 0
	}
	return int64(f.cost() * 1000 * float64(f.waiting) / float64(n))
}

// refund takes back what a tenant was charged for a job that was not run.
func (f *flow) refund(cost float64) { f.share.TrueUp(cost, 0, f.weight) }
