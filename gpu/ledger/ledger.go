// Package ledger keeps the books of a node's device memory, and answers whether a
// model fits: now, or after which evictions, and on which devices.
//
// Measuring alone is blind to a load under way, whose weights arrive over a minute;
// adding up alone is blind to everybody else on the machine. So a device has free
// what is measured or what the books say, whichever is less, minus what is promised.
//
// The package is pure: readings and the time are parameters. A Ledger belongs to one
// goroutine, the node's; the dispatcher uses only Fit and MakeRoom, on what the
// nodes report.
package ledger

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// DrainTime is how long the memory of an unloaded model is waited for, while the
// devices do not show that it came back. Drivers show it after 0.2 to 1.5 s.
const DrainTime = 5 * time.Second

// A Reading is what a device was measured to be.
type Reading struct {
	schemas.Device

	// Held is what processes of the node's own model servers hold of it; unknown:
	// nobody can tell whose processes those on it are.
	Held schemas.Amount
}

// A Resident is a model that a backend holds in memory.
type Resident struct {
	Model string
	Bytes schemas.Amount // as the server says, or else as known from elsewhere
}

// A Ledger is the books of a node. Make it with New.
type Ledger struct {
	readings     map[string][]Reading      // by who took them
	others       map[string]schemas.Amount // what anybody else held at the readings, by device
	beside       map[string]schemas.Bytes  // what the node's servers held then beside what is booked
	residents    map[schemas.Victim]Plan
	reservations map[schemas.Victim]*reservation
	drains       []drain
	recent       []freeThen // the readings of the last DrainTime
	least        map[schemas.Victim]lesson
}

// A reservation keeps memory for a load, from the decision until the model is seen
// in memory, the load failed, or its deadline passed. No reading ends it.
type reservation struct {
	plan      Plan
	deadline  time.Time
	before    map[string]Reading // of its devices when it began; nil: it did not
	disturbed bool               // memory came free meanwhile that another model had
}

// A drain is memory that a model held which is no longer there, until the device
// shows that it came back.
type drain struct {
	device string
	bytes  schemas.Bytes
	free   schemas.Bytes // while the model was there
	until  time.Time
}

// back reports whether a device shows that most of the memory came back. Three
// quarters are enough, as Ollama has it: something else may have grown meanwhile.
func (d drain) back(r Reading) bool { return !r.Free.Known || d.shows(r.Free.Bytes) }

// shows reports whether so much is free that most of the memory came back.
func (d drain) shows(free schemas.Bytes) bool { return free.Minus(d.free) >= d.bytes/4*3 }

// freeThen is what a device had free some time ago.
type freeThen struct {
	device string
	bytes  schemas.Bytes
	at     time.Time
}

// New returns the books of a node of which nothing is known.
func New() *Ledger {
	return &Ledger{
		readings:     map[string][]Reading{},
		others:       map[string]schemas.Amount{},
		beside:       map[string]schemas.Bytes{},
		residents:    map[schemas.Victim]Plan{},
		reservations: map[schemas.Victim]*reservation{},
		least:        map[schemas.Victim]lesson{},
	}
}

// Observe takes in what a source measured its devices to be, all of them: those it
// told of before and no longer are gone. Each device has one source.
//
// What is booked must be as old as the readings: a model that was loaded is in both
// or in none. So observe after Residents, never with readings from before.
func (l *Ledger) Observe(source string, readings []Reading, now time.Time) {
	l.readings[source] = slices.Clone(readings)
	l.recent = slices.DeleteFunc(l.recent, func(f freeThen) bool { return now.Sub(f.at) > DrainTime })
	for _, r := range readings {
		l.recent = append(l.recent, freeThen{r.ID, r.Free.Bytes, now})
	}
	l.drains = slices.DeleteFunc(l.drains, func(d drain) bool {
		r, ok := l.reading(d.device)
		return !ok || d.back(r) || !now.Before(d.until)
	})
	// What is booked later is not in these readings.
	for _, r := range readings {
		ours := l.booked(r.ID) + l.draining(r.ID)
		if r.Held.Known {
			_, arrived := l.open(r)
			l.beside[r.ID] = r.Held.Bytes.Minus(ours + arrived)
			ours = r.Held.Bytes
		}
		l.others[r.ID] = schemas.Amount{Bytes: r.Used.Bytes.Minus(ours), Known: r.Used.Known}
	}
}

func (l *Ledger) reading(device string) (Reading, bool) {
	for _, readings := range l.readings {
		if i := slices.IndexFunc(readings, func(r Reading) bool { return r.ID == device }); i >= 0 {
			return readings[i], true
		}
	}
	return Reading{}, false
}

// Reserve keeps the memory of a plan for a load, in place of what was kept for it
// before. Whether there is that much is for Fit to say.
func (l *Ledger) Reserve(v schemas.Victim, p Plan, deadline time.Time) {
	l.reservations[v] = &reservation{plan: maps.Clone(p), deadline: deadline}
}

// Begin says that a load that is reserved begins to take memory: what its devices
// show more than right before that is its own.
func (l *Ledger) Begin(v schemas.Victim, before []Reading) {
	x := l.reservations[v]
	if x == nil {
		return
	}
	x.before, x.disturbed = map[string]Reading{}, false
	for _, r := range before {
		x.before[r.ID] = r
	}
}

// Extend moves the deadline of a reservation to a later time, never to an earlier one.
func (l *Ledger) Extend(v schemas.Victim, deadline time.Time) {
	if r := l.reservations[v]; r != nil && deadline.After(r.deadline) {
		r.deadline = deadline
	}
}

// Loaded ends a reservation because the model is in memory. It takes what was
// reserved, until Residents says otherwise, and lies where the devices show that.
func (l *Ledger) Loaded(v schemas.Victim) {
	if r := l.reservations[v]; r != nil {
		l.residents[v] = r.plan
		if grown, sure := l.Grown(v); sure && grown.Sum() > 0 && r.plan.Sum() > 0 {
			l.residents[v] = grown.scaled(r.plan.Sum())
		}
		delete(l.reservations, v)
		delete(l.least, v)
	}
}

// Failed ends a reservation because the load failed, or never began. What the load
// had taken, the devices show.
func (l *Ledger) Failed(v schemas.Victim) { delete(l.reservations, v) }

// OutOfMemory ends a reservation because the load took more than there was, and
// teaches the books that the model needs more than was reserved. One that never began
// teaches nothing: others had its room.
func (l *Ledger) OutOfMemory(v schemas.Victim, now time.Time) {
	if r := l.reservations[v]; r != nil && r.before != nil && r.plan.Sum() > 0 {
		l.least[v] = lesson{bytes: r.plan.Sum() / 10 * 11, until: now.Add(lessonTime)}
	}
	l.Failed(v)
}

// lessonTime is how long a load that ran out of memory counts. It may have been
// another's fault, so a model that seems to fit nowhere is tried again some time.
const lessonTime = 10 * time.Minute

// A lesson is what a load needs at least, as one with less failed.
type lesson struct {
	bytes schemas.Bytes
	until time.Time
}

// Least is what a model needs at least, since a load with less ran out of memory in
// the last 10 minutes: a tenth more than that one was given. It's unknown where none
// did, or where another was loaded since.
func (l *Ledger) Least(v schemas.Victim, now time.Time) schemas.Amount {
	x, ok := l.least[v]
	if !ok || !now.Before(x.until) {
		return schemas.Amount{}
	}
	return schemas.Known(x.bytes)
}

// Expire ends the reservations whose deadline has passed, and lists them.
func (l *Ledger) Expire(now time.Time) []schemas.Victim {
	var expired []schemas.Victim
	for v, r := range l.reservations {
		if !now.Before(r.deadline) {
			expired = append(expired, v)
			delete(l.reservations, v)
		}
	}
	return expired
}

// Residents takes in which models a backend holds, on the devices it may use. What
// it held before and holds no longer is given back once the devices show that, and
// within DrainTime. A model whose load is still reserved stays with its reservation.
func (l *Ledger) Residents(backend string, devices []string, now []Resident, at time.Time) {
	there := map[string]bool{}
	for _, r := range now {
		there[r.Model] = true
	}
	for v, held := range l.residents {
		if v.Backend == backend && !there[v.Model] {
			l.drain(held, at)
			delete(l.residents, v)
		}
	}
	for _, r := range now {
		v := schemas.Victim{Backend: backend, Model: r.Model}
		if l.reservations[v] == nil {
			l.residents[v] = l.lay(l.residents[v], r.Bytes, devices)
		}
	}
}

// lay says where a model lies: as it was, in new proportions, or where memory is
// taken that nothing else explains; else, on all devices alike.
func (l *Ledger) lay(was Plan, bytes schemas.Amount, devices []string) Plan {
	switch sum := was.Sum(); {
	case !bytes.Known:
		return was
	case sum > 0 && sum == bytes.Bytes:
		return was
	case sum > 0:
		return was.scaled(bytes.Bytes)
	case len(devices) == 1:
		return Plan{devices[0]: bytes.Bytes}
	}
	unexplained := Plan{}
	for _, d := range devices {
		if r, ok := l.reading(d); ok {
			unexplained.add(d, r.Used.Bytes.Minus(l.booked(d)))
		}
	}
	for d, more := range unexplained {
		if more >= bytes.Bytes && more-bytes.Bytes < bytes.Bytes/2 {
			return Plan{d: bytes.Bytes} // a good match
		}
	}
	if len(unexplained) == 0 { // the readings are older, or there are none
		for _, d := range devices {
			unexplained.add(d, 1)
		}
	}
	return unexplained.scaled(bytes.Bytes)
}

// scaled is p with another sum; nil of nothing.
func (p Plan) scaled(sum schemas.Bytes) Plan {
	was := p.Sum()
	if was == 0 {
		return nil
	}
	q, left := Plan{}, sum
	ids := slices.Sorted(maps.Keys(p))
	for i, d := range ids {
		share := min(left, schemas.Bytes(float64(sum)*(float64(p[d])/float64(was))))
		if i == len(ids)-1 {
			share = left
		}
		q.add(d, share)
		left -= share
	}
	return q
}

// drain keeps the memory of a model that is gone until it came back. That may be
// before anybody said that the model is gone.
func (l *Ledger) drain(held Plan, now time.Time) {
	for device, bytes := range held {
		for _, x := range l.reservations {
			_, begun := x.before[device]
			x.disturbed = x.disturbed || begun
		}
		r, ok := l.reading(device)
		if !ok || !r.Free.Known {
			continue // no reading will ever show it
		}
		d, back := drain{device: device, bytes: bytes, free: r.Free.Bytes, until: now.Add(DrainTime)}, false
		for i, f := range l.readingsOf(device) {
			back = back || i > 0 && d.shows(f.bytes) // another load may have taken it since
			if i == 0 || f.bytes < d.free {
				d.free = f.bytes
			}
		}
		if !back && !d.back(r) {
			l.drains = append(l.drains, d)
		}
	}
}

// readingsOf is what a device had free in the last DrainTime, the oldest first.
func (l *Ledger) readingsOf(device string) []freeThen {
	return slices.DeleteFunc(slices.Clone(l.recent), func(f freeThen) bool { return f.device != device })
}

// Held is where a model lies, by device; empty: it doesn't, or nobody knows.
func (l *Ledger) Held(v schemas.Victim) Plan { return maps.Clone(l.residents[v]) }

// A Reservation is memory that is kept for a load.
type Reservation struct {
	schemas.Victim
	Plan     Plan
	Arrived  schemas.Amount // how much of it is there; unknown where nobody can tell
	Deadline time.Time
}

// Reservations lists what is kept, by the names of backends and models.
func (l *Ledger) Reservations() []Reservation {
	all := make([]Reservation, 0, len(l.reservations))
	for v, r := range l.reservations {
		all = append(all, Reservation{Victim: v, Plan: maps.Clone(r.plan), Arrived: l.progress(r), Deadline: r.deadline})
	}
	slices.SortFunc(all, func(a, b Reservation) int { return strings.Compare(a.String(), b.String()) })
	return all
}
