package ledger

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/schemas"
)

// A world is a machine as it really is, and the ledger that keeps its books from
// readings that are older than what happened since.
type world struct {
	l        *Ledger
	now      time.Time
	watched  bool // whether it can be told whose memory is whose
	total    schemas.Bytes
	devices  []string
	foreign  map[string]schemas.Bytes
	seen     map[string]schemas.Bytes // foreign, at the last reading
	loading  map[schemas.Victim]*loading
	resident map[schemas.Victim]Plan
	leaving  []leaving
	next     int
}

type loading struct {
	plan     Plan
	arrived  Plan // by device
	deadline time.Time
}

// leaving is memory of a process that has not ended yet.
type leaving struct {
	device string
	bytes  schemas.Bytes
	until  time.Time
}

func newWorld(t *rapid.T) *world {
	w := &world{
		l: New(), now: start, watched: rapid.Bool().Draw(t, "watched"), total: 80 * gib,
		devices: []string{"a", "b", "c"}[:rapid.IntRange(1, 3).Draw(t, "devices")],
		foreign: map[string]schemas.Bytes{}, seen: map[string]schemas.Bytes{},
		loading: map[schemas.Victim]*loading{}, resident: map[schemas.Victim]Plan{},
	}
	w.observe(t)
	return w
}

// ours is what the node's servers really hold of a device.
func (w *world) ours(device string) schemas.Bytes {
	var sum schemas.Bytes
	for _, p := range w.resident {
		sum += p[device]
	}
	for _, x := range w.loading {
		sum += x.arrived[device]
	}
	for _, x := range w.leaving {
		if x.device == device {
			sum += x.bytes
		}
	}
	return sum
}

// promised is what loads will take of a device yet.
func (w *world) promised(device string) schemas.Bytes {
	var sum schemas.Bytes
	for _, x := range w.loading {
		sum += x.plan[device] - x.arrived[device]
	}
	return sum
}

func (w *world) observe(*rapid.T) {
	w.leaving = slices.DeleteFunc(w.leaving, func(x leaving) bool { return !w.now.Before(x.until) })
	var readings []Reading
	for _, d := range w.devices {
		used := min(w.total, w.foreign[d]+w.ours(d))
		r := Reading{Device: schemas.Device{ID: d, Total: known(w.total), Used: known(used), Free: known(w.total - used), Reserved: known(0)}}
		if w.watched {
			r.Held = known(w.ours(d))
		}
		readings = append(readings, r)
		w.seen[d] = w.foreign[d]
	}
	w.l.Observe("", readings, w.now)
}

// ask reserves a load where the ledger says that it fits.
func (w *world) ask(t *rapid.T) {
	need := Need{known(schemas.Bytes(rapid.Uint64Range(1, 60).Draw(t, "need")) * gib), rapid.SampledFrom([]schemas.Split{schemas.Spread, schemas.Proportional}).Draw(t, "split")}
	p, ok := Fit(need, w.l.Spaces(w.devices))
	if !ok {
		return
	}
	for _, d := range w.devices {
		if has, all := w.ours(d)+w.promised(d)+w.seen[d], w.total; p[d] > 0 && has+p[d] > all {
			t.Fatalf("%s of %s were promised on %s, where %s are taken or promised", p[d], all, d, has)
		}
	}
	w.next++
	v, deadline := schemas.Victim{Backend: "x", Model: fmt.Sprint("m", w.next)}, w.now.Add(time.Minute)
	w.l.Reserve(v, p, deadline)
	w.loading[v] = &loading{plan: p, arrived: Plan{}, deadline: deadline}
	if len(w.loading) == 1 {
		w.begin()
	}
}

// first draws one of the models of m.
func first[V any](t *rapid.T, m map[schemas.Victim]V) (schemas.Victim, bool) {
	all := sorted(m)
	if len(all) == 0 {
		return schemas.Victim{}, false
	}
	return rapid.SampledFrom(all).Draw(t, "model"), true
}

// arrive has more of the load that began take its place.
func (w *world) arrive(t *rapid.T) {
	v, ok := first(t, w.loading)
	if !ok || w.l.reservations[v].before == nil {
		return
	}
	x := w.loading[v]
	for _, d := range w.devices {
		all := x.plan[d]
		x.arrived[d] = min(all, x.arrived[d]+all/schemas.Bytes(rapid.IntRange(1, 4).Draw(t, "part")))
	}
}

func (w *world) loaded(t *rapid.T) {
	if v, ok := first(t, w.loading); ok && w.l.reservations[v].before != nil {
		w.resident[v] = w.loading[v].plan
		delete(w.loading, v)
		w.l.Loaded(v)
		w.tell()
		w.begin()
	}
}

func (w *world) failed(t *rapid.T) {
	if v, ok := first(t, w.loading); ok {
		delete(w.loading, v)
		w.l.Failed(v)
		w.observe(t) // as the node does after a load
		w.begin()
	}
}

func (w *world) unload(t *rapid.T) {
	v, ok := first(t, w.resident)
	if !ok {
		return
	}
	for _, d := range w.devices {
		b := w.resident[v][d]
		w.leaving = append(w.leaving, leaving{d, b, w.now.Add(time.Duration(rapid.IntRange(0, 9).Draw(t, "until")) * time.Second)})
	}
	delete(w.resident, v)
	w.tell()
}

// begin lets a load take memory, after a look at the devices, as the node does it.
func (w *world) begin() {
	w.observe(nil)
	for _, v := range sorted(w.loading) {
		if w.l.reservations[v].before != nil {
			return // one at a time
		}
	}
	for _, v := range sorted(w.loading)[:min(1, len(w.loading))] {
		w.l.Begin(v, w.l.readings[""])
	}
}

func sorted[V any](m map[schemas.Victim]V) []schemas.Victim {
	return slices.SortedFunc(maps.Keys(m), func(a, b schemas.Victim) int { return strings.Compare(a.Model, b.Model) })
}

// tell has the backend say what it holds.
func (w *world) tell() {
	var now []Resident
	for v, p := range w.resident {
		now = append(now, Resident{v.Model, known(p.Sum())})
	}
	w.l.Residents("x", w.devices, now, w.now)
}

func (w *world) pass(t *rapid.T) {
	w.now = w.now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
	for _, v := range w.l.Expire(w.now) {
		if w.now.Before(w.loading[v].deadline) {
			t.Fatalf("%v expired early", v)
		}
		delete(w.loading, v)
	}
	w.begin()
	for v, x := range w.loading {
		if !w.now.Before(x.deadline) {
			t.Fatalf("%v did not expire", v)
		}
	}
	w.observe(t)
}

func (w *world) others(t *rapid.T) {
	w.foreign[rapid.SampledFrom(w.devices).Draw(t, "device")] = schemas.Bytes(rapid.Uint64Range(0, 40).Draw(t, "foreign")) * gib
}

// Whatever happens, in whatever order, the node never promises memory that is taken
// or promised, as far as it was shown; every reservation ends; nothing is negative.
func TestNeverOvercommitted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		t.Repeat(map[string]func(*rapid.T){
			"ask": w.ask, "arrive": w.arrive, "loaded": w.loaded, "failed": w.failed, "unload": w.unload,
			"observe": w.observe, "time passes": w.pass, "others": w.others,
			"": func(t *rapid.T) {
				if got, want := len(w.l.Reservations()), len(w.loading); got != want {
					t.Fatalf("%d reservations of %d loads", got, want)
				}
				for _, d := range w.devices {
					a := w.l.Account(d)
					for _, b := range []schemas.Bytes{a.Ours.Bytes, a.Promised, a.Available.Bytes, a.Lacking} {
						if b > 4*w.total {
							t.Fatalf("%+v of a device of %s", a, w.total)
						}
					}
				}
			},
		})
		w.now = w.now.Add(time.Hour)
		w.l.Expire(w.now)
		if left := w.l.Reservations(); len(left) > 0 {
			t.Fatalf("%v never ends", left)
		}
	})
}
