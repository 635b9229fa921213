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

// How many stored events are held back for one that belongs before them: so many while it
// may yet be stored, and so many where others are stored that were not read. NATS keeps the
// order of what comes by one connection. While a server ends, some of a node's events are on
// their way through it when the next ones, and the end, come by another.
const (
	aheadMost  = 64
	unreadMost = 4096
)

// ahead holds stored events of one attempt back whose turn has not come, in their order.
type ahead struct {
	events []Event
	unread bool // others are stored behind the last one that was read
}

// add takes an event in. An attempt that is over counts no more.
func (a *ahead) add(e *Event) {
	switch {
	case len(a.events) == 0 || a.events[0].Attempt == e.Attempt:
	case a.events[0].Attempt > e.Attempt:
		return
	default:
		a.events = nil
	}
	at, found := slices.BinarySearchFunc(a.events, e.Seq, func(h Event, seq uint64) int { return cmp.Compare(h.Seq, seq) })
	if !found {
		a.events = slices.Insert(a.events, at, *e)
	}
}

// next takes the event whose turn it is by o: the one before it has come, or is not waited
// for any more.
func (a *ahead) next(o *order) (e Event, ok bool) {
	for len(a.events) > 0 {
		step := o.look(&a.events[0])
		if step == lost && a.waits() {
			return Event{}, false
		}
		e, a.events = a.events[0], a.events[1:]
		if step != drop {
			return e, true
		}
	}
	return Event{}, false
}

// waits reports whether one that is missing may be behind those that were read. After the
// end no more is published, but some may be stored.
func (a *ahead) waits() bool {
	if a.unread {
		return len(a.events) <= unreadMost
	}
	return len(a.events) <= aheadMost && !a.ended()
}

// ended reports whether the end is held back.
func (a *ahead) ended() bool {
	return len(a.events) > 0 && a.events[len(a.events)-1].Kind == schemas.EventEnd
}
