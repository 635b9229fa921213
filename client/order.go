package client

import (
	"cmp"
	"slices"

	"github.com/vramjet/vramjet/schemas"
)

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

// aheadMost is how many stored events are held back for one that belongs before them.
// NATS keeps the order of what comes by one connection. While a server ends, some of a
// node's events are on their way through it when the next ones come by another.
const aheadMost = 64

// ahead holds stored events of one attempt back whose turn has not come, in their order.
type ahead []Event

// add takes an event in. An attempt that is over counts no more.
func (a *ahead) add(e *Event) {
	switch {
	case len(*a) == 0 || (*a)[0].Attempt == e.Attempt:
	case (*a)[0].Attempt > e.Attempt:
		return
	default:
		*a = nil
	}
	at, found := slices.BinarySearchFunc(*a, e.Seq, func(h Event, seq uint64) int { return cmp.Compare(h.Seq, seq) })
	if !found {
		*a = slices.Insert(*a, at, *e)
	}
}

// next takes the event whose turn it is by o: the one before it has come, or will not any
// more, as the end has, or enough others have.
func (a *ahead) next(o *order) (e Event, ok bool) {
	for len(*a) > 0 {
		last := &(*a)[len(*a)-1]
		step := o.look(&(*a)[0])
		if step == lost && last.Kind != schemas.EventEnd && len(*a) <= aheadMost {
			return Event{}, false
		}
		e, *a = (*a)[0], (*a)[1:]
		if step != drop {
			return e, true
		}
	}
	return Event{}, false
}
