package client

import "github.com/vramjet/vramjet/schemas"

// A step is what becomes of an event.
type step int

const (
	drop  step = iota // seen before, or of an attempt that is over
	fresh             // the next one
	lost              // one before it is missing
)

// order puts a job's events in the order in which its reader gets them: of the
// highest attempt only, each once, and the end last. It is pure.
type order struct {
	attempt uint64 // the highest so far; 0: none
	next    uint64 // the Vj-Seq that comes next in it
	began   bool
	open    bool // the reader joins in the middle: the first event is no gap
	gap     bool // an event of attempt is missing
	ended   bool
}

// look says what becomes of e. It changes nothing.
func (o *order) look(e *Event) step {
	end := e.Kind == schemas.EventEnd
	switch {
	case o.ended:
		return drop
	case !o.began && o.open:
		return fresh
	case e.Attempt > o.attempt:
		if e.Seq > 0 {
			return lost
		}
		return fresh
	case end && (e.Attempt < o.attempt || e.Seq < o.next):
		return fresh // a job has one end, whoever wrote it
	case e.Attempt < o.attempt, e.Seq < o.next:
		return drop
	case e.Seq > o.next:
		return lost
	default:
		return fresh
	}
}

// take moves on to e, which look did not drop. It reports whether e begins
// another attempt than the reader was reading.
func (o *order) take(e *Event) (restarted bool) {
	missing := o.look(e) == lost
	o.ended = e.Kind == schemas.EventEnd
	switch {
	case e.Attempt > o.attempt || !o.began:
		restarted = o.began && !o.ended
		o.attempt, o.gap = e.Attempt, missing
	case e.Attempt == o.attempt:
		o.gap = o.gap || missing
	default: // an end of an attempt that was thought to be over
	}
	o.next = e.Seq + 1
	o.began = true
	return restarted
}
