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
	*placement.Flow
	tenant  *tenant
	fleet   *fleet // whose scheduler has the flow
	subject string

	hints    uint64 // hints seen
	fetched  uint64 // the highest sequence of a job that was
	awaiting []want // slots that wait for their job to be fetched, in order
	fewest   int    // of awaiting, since looked
	looked   time.Time
	held     int // jobs fetched and not over
	local    int // of these, the ones that wait for a slot that is not a hosted API's
	consumer *consumer
	since    time.Time // since when something waits
	next     time.Time // when the queue took the job that was fetched last: the next one came after it
	unknown  time.Time // since when no node has the model; zero: one has
	pause    *schemas.Pause
}

// A want is a slot that waits for a job.
type want struct {
	promise *promise // nil: for a job that is to end without a node
	cost    float64  // what the tenant was charged
	hints   uint64   // hints of the flow seen when the pull was sent
	sent    time.Time
}

// why says why nothing of the flow may be served now; "" where it may.
func (f *flow) why() string {
	switch {
	case f.pause != nil:
		return pausedSince(f.pause)
	case f.tenant.held != "":
		return f.tenant.held
	case f.local > 0:
		return "a job before it must not leave for a hosted API, and waits for a slot elsewhere"
	default:
		return ""
	}
}

// regard has the flow served, or not.
func (f *flow) regard(now time.Time) { f.fleet.place.Pause(f.Flow, f.why(), f.fleet.ms(now)) }

// arrived notes a job that the queue has taken.
func (f *flow) arrived(now time.Time) {
	if f.Waiting() == 0 {
		f.since = now
	}
	f.fleet.place.Arrive(f.Flow, 1, f.fleet.ms(now))
	f.hints++
}

// returned notes a job that the queue delivers again.
func (f *flow) returned(now time.Time) {
	f.wait(f.Waiting()+1, now)
	f.hints++
}

// wait sets how many jobs wait that nobody was given, as far as known.
func (f *flow) wait(n int, now time.Time) {
	if f.Waiting() == 0 {
		f.since = now
	}
	f.fleet.place.SetWaiting(f.Flow, n, f.fleet.ms(now))
}

// oldest is how long the first job that waits has done so at most, 1 ms at least; 0 where
// none does.
func (f *flow) oldest(now time.Time) time.Duration {
	if f.Waiting() == 0 {
		return 0
	}
	came := f.since
	if f.next.After(came) {
		came = f.next
	}
	return max(time.Millisecond, now.Sub(came))
}

// counted corrects the estimate by the number of jobs the stream holds.
func (f *flow) counted(inStream int, now time.Time) {
	f.wait(max(0, inStream-f.held-len(f.awaiting)), now)
}

// answered takes the want that is next: pulls are answered in about the order in which
// they were sent, and no answer says to which of them it is one.
func (f *flow) answered() (want, bool) {
	if len(f.awaiting) == 0 {
		return want{}, false
	}
	w := f.awaiting[0]
	f.awaiting = f.awaiting[1:]
	f.fewest = min(f.fewest, len(f.awaiting))
	return w, true
}

// delivered takes the want that a delivery fulfils, and how many jobs the
// consumer says are left.
func (f *flow) delivered(left int, now time.Time) (want, bool) {
	w, ok := f.answered()
	if ok && f.Waiting() == 0 {
		f.wait(max(0, left-len(f.awaiting)), now) // a hint was lost
	}
	return w, ok
}

// empty takes the want that a pull without a job was for. Hints that came after
// the pull was sent may be of jobs that it did not see.
func (f *flow) empty(now time.Time) (want, bool) {
	w, ok := f.answered()
	if ok {
		f.wait(min(f.Waiting(), int(f.hints-w.hints)), now)
	}
	return w, ok
}

// unheard takes the want of a pull that no consumer got: its job may wait as before.
func (f *flow) unheard(now time.Time) (want, bool) {
	w, ok := f.answered()
	if ok {
		f.wait(f.Waiting()+1, now)
	}
	return w, ok
}

// lost returns how many pulls nothing will answer: the server was gone, or elected a
// leader. As many were always under way for as long as each may be.
func (f *flow) lost(now time.Time) (n int) {
	if f.consumer == nil || !f.consumer.ready {
		f.fewest, f.looked = len(f.awaiting), now
		return 0
	}
	if now.Sub(f.looked) < pullTimeout {
		return 0
	}
	n = f.fewest
	f.fewest, f.looked = len(f.awaiting)-n, now
	return n
}

// refund takes back what a tenant was charged for a job that was not run.
func (f *flow) refund(cost float64) { f.fleet.place.TrueUp(f.Flow, cost, 0) }
