package ledger

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/schemas"
)

var start = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

func after(d time.Duration) time.Time { return start.Add(d) }

// device is a device of 80 GiB, of which the margin is 4, with so much used. ours is
// what the node's own servers hold of that; unknown where nobody can tell.
func device(id string, used schemas.Bytes, ours schemas.Amount) Reading {
	return Reading{
		Device: schemas.Device{ID: id, Kind: "cuda", Total: known(80 * gib), Used: known(used), Free: known(80*gib - used), Reserved: known(0)},
		Held:   ours,
	}
}

var (
	big    = schemas.Victim{Backend: "x", Model: "big"}
	small  = schemas.Victim{Backend: "x", Model: "small"}
	devA   = []string{"a"}
	nobody schemas.Amount // can tell whose memory it is
)

func wantAccount(t *testing.T, l *Ledger, want Account) {
	t.Helper()
	if diff := cmp.Diff(want, l.Account("a")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A load that can be watched: what has arrived is not counted twice.
func TestLoad(t *testing.T) {
	l := New()
	l.Observe("", []Reading{device("a", 10*gib, known(0))}, start)
	wantAccount(t, l, Account{Ours: known(0), Others: known(10 * gib), Available: known(66 * gib)})

	l.Reserve(big, Plan{"a": 40 * gib}, after(time.Hour))
	l.Begin(big, l.readings[""])
	wantAccount(t, l, Account{Ours: known(0), Others: known(10 * gib), Promised: 40 * gib, Available: known(26 * gib)})

	l.Observe("", []Reading{device("a", 25*gib, known(15*gib))}, after(time.Second))
	wantAccount(t, l, Account{Ours: known(15 * gib), Others: known(10 * gib), Promised: 25 * gib, Available: known(26 * gib)})
	if got := l.Reservations()[0].Arrived; got != known(15*gib) {
		t.Errorf("%s arrived", got)
	}

	l.Observe("", []Reading{device("a", 30*gib, known(15*gib))}, after(2*time.Second)) // somebody else takes 5
	wantAccount(t, l, Account{Ours: known(15 * gib), Others: known(15 * gib), Promised: 25 * gib, Available: known(21 * gib)})

	l.Loaded(big) // the last reading is old: the books count
	wantAccount(t, l, Account{Ours: known(15 * gib), Others: known(15 * gib), Available: known(21 * gib)})
	l.Observe("", []Reading{device("a", 56*gib, known(41*gib))}, after(3*time.Second))
	wantAccount(t, l, Account{Ours: known(41 * gib), Others: known(15 * gib), Available: known(20 * gib)})
}

// What the node's servers hold beside what is booked, as a process that has not ended
// yet, counts beside a model that was loaded since the reading.
func TestMemoryBesideTheBooks(t *testing.T) {
	l := New()
	before := []Reading{device("a", 30*gib, known(30*gib))}
	l.Observe("", before, start)
	l.Reserve(big, Plan{"a": 40 * gib}, after(time.Hour))
	l.Begin(big, before)
	l.Loaded(big)
	wantAccount(t, l, Account{Ours: known(30 * gib), Others: known(0), Available: known(6 * gib)})
}

// Where nobody can tell whose memory it is, a load counts in full until it ended.
func TestLoadThatCannotBeWatched(t *testing.T) {
	l := New()
	l.Observe("", []Reading{device("a", 10*gib, nobody)}, start)
	l.Reserve(big, Plan{"a": 40 * gib}, after(time.Hour))
	l.Begin(big, l.readings[""])
	l.Observe("", []Reading{device("a", 25*gib, nobody)}, start)
	wantAccount(t, l, Account{Ours: known(0), Others: known(25 * gib), Promised: 40 * gib, Available: known(11 * gib)})
	l.Observe("", []Reading{device("a", 50*gib, nobody)}, start)
	l.Loaded(big)
	if got := l.Account("a"); got.Available.Bytes > 0 {
		t.Errorf("before the next reading nobody knows what of it is new: %+v", got)
	}
	l.Observe("", []Reading{device("a", 50*gib, nobody)}, start)
	wantAccount(t, l, Account{Ours: known(40 * gib), Others: known(10 * gib), Available: known(26 * gib)})
}

// A reservation ends when its model is there, its load failed, or its deadline
// passed, and with nothing else.
func TestReservationsEnd(t *testing.T) {
	l := New()
	l.Observe("", []Reading{device("a", 0, nobody)}, start)
	l.Reserve(big, Plan{"a": 40 * gib}, after(time.Minute))
	l.Reserve(small, Plan{"a": gib}, after(time.Minute))
	for range 100 {
		l.Observe("", []Reading{device("a", 0, nobody)}, after(time.Minute))
		l.Residents("x", devA, nil, start)
	}
	if got := l.Account("a").Promised; got != 41*gib {
		t.Errorf("after readings %s are promised", got)
	}
	l.Extend(big, after(2*time.Minute))
	if diff := cmp.Diff([]schemas.Victim{small}, l.Expire(after(time.Minute))); diff != "" {
		t.Errorf("expired (-want +got):\n%s", diff)
	}
	want := []Reservation{{Victim: big, Plan: Plan{"a": 40 * gib}, Arrived: known(0), Deadline: after(2 * time.Minute)}}
	if diff := cmp.Diff(want, l.Reservations()); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	l.Failed(big)
	l.Failed(big)
	wantAccount(t, l, Account{Ours: known(0), Others: known(0), Available: known(76 * gib)})
}

// The memory of an unloaded model is not there before the device shows it, or 5 s
// have passed.
func TestDrain(t *testing.T) {
	for name, back := range map[string]Reading{"it came back": device("a", 5*gib, nobody), "it takes too long": device("a", 40*gib, nobody)} {
		t.Run(name, func(t *testing.T) {
			l := New()
			l.Observe("", []Reading{device("a", 40*gib, nobody)}, start)
			l.Residents("x", devA, []Resident{{"big", known(38 * gib)}}, start)
			l.Residents("y", devA, []Resident{{"other", known(gib)}}, start)
			l.Observe("", []Reading{device("a", 40*gib, nobody)}, start)
			l.Residents("x", devA, nil, start)
			wantAccount(t, l, Account{Ours: known(39 * gib), Others: known(gib), Available: known(36 * gib)})
			l.Observe("", []Reading{device("a", 20*gib, nobody)}, after(4*time.Second)) // not all
			wantAccount(t, l, Account{Ours: known(39 * gib), Others: known(0), Available: known(37 * gib)})
			l.Observe("", []Reading{back}, after(5*time.Second))
			if got := l.Account("a"); got.Ours != known(gib) || got.Available.Bytes != back.Free.Bytes-4*gib {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Memory that came back and went to the load that it was freed for is not waited for.
func TestDrainThatIsTakenAgain(t *testing.T) {
	l := New()
	l.Observe("", []Reading{device("a", 41*gib, nobody)}, start)
	l.Residents("x", devA, []Resident{{"big", known(40 * gib)}}, start)
	other := schemas.Victim{Backend: "x", Model: "other"}
	l.Reserve(other, Plan{"a": 40 * gib}, after(time.Hour))
	l.Observe("", []Reading{device("a", gib, nobody)}, after(time.Second)) // it went
	l.Begin(other, l.readings[""])
	l.Observe("", []Reading{device("a", 41*gib, nobody)}, after(2*time.Second))
	l.Loaded(other)
	l.Residents("x", devA, []Resident{{"other", known(40 * gib)}}, after(2*time.Second))
	l.Observe("", []Reading{device("a", 41*gib, nobody)}, after(2*time.Second))
	wantAccount(t, l, Account{Ours: known(40 * gib), Others: known(gib), Available: known(35 * gib)})
}

// What the server says of its models counts: with more than one device, where they
// were loaded, or else where memory is taken that nothing explains.
func TestResidents(t *testing.T) {
	l := New()
	l.Observe("", []Reading{device("a", 50*gib, nobody), device("b", 21*gib, nobody)}, start)
	both := []string{"a", "b"}
	l.Residents("x", both, []Resident{{"big", known(20 * gib)}, {"unknown", nobody}}, start)
	if diff := cmp.Diff(Plan{"b": 20 * gib}, l.Held(big)); diff != "" {
		t.Errorf("big (-want +got):\n%s", diff)
	}
	l.Reserve(small, Plan{"a": 6 * gib, "b": 2 * gib}, after(time.Hour))
	l.Residents("x", both, []Resident{{"big", known(20 * gib)}, {"small", known(4 * gib)}}, start)
	if got := l.Held(small); len(got) > 0 {
		t.Errorf("a load that has not ended lies on %v", got)
	}
	l.Loaded(small)
	l.Residents("x", both, []Resident{{"big", known(20 * gib)}, {"small", known(4 * gib)}}, start)
	if diff := cmp.Diff(Plan{"a": 3 * gib, "b": gib}, l.Held(small)); diff != "" {
		t.Errorf("small (-want +got):\n%s", diff)
	}
	if got := l.Held(schemas.Victim{Backend: "x", Model: "unknown"}); len(got) > 0 {
		t.Errorf("of an unknown size lies on %v", got)
	}
}

// Where the devices say nothing, a model is on all of them alike.
func TestResidentsWithoutReadings(t *testing.T) {
	l := New()
	l.Residents("x", []string{"a", "b"}, []Resident{{"big", known(7)}}, start)
	if diff := cmp.Diff(Plan{"a": 3, "b": 4}, l.Held(big)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatIsNotKnown(t *testing.T) {
	l := New()
	if diff := cmp.Diff(Account{}, l.Account("a")); diff != "" {
		t.Errorf("never observed (-want +got):\n%s", diff)
	}
	l.Reserve(small, Plan{"a": gib}, after(time.Hour))
	l.Observe("", []Reading{{Device: schemas.Device{ID: "a", Total: known(10 * gib)}}}, start)
	wantAccount(t, l, Account{Ours: known(0), Promised: gib, Available: known(9*gib - 512*mib)})
	l.Observe("", []Reading{{Device: schemas.Device{ID: "a", Free: known(10 * gib)}}}, start)
	wantAccount(t, l, Account{Ours: known(0), Promised: gib, Available: known(9*gib - 512*mib)})
	l.Observe("", []Reading{{Device: schemas.Device{ID: "a"}}}, start)
	wantAccount(t, l, Account{Ours: known(0), Promised: gib})
	l.Observe("", []Reading{{Device: schemas.Device{ID: "a", Total: known(10 * gib), Error: "XID 79"}}}, start)
	wantAccount(t, l, Account{Ours: known(0), Promised: gib, Available: known(0), Lacking: 10 * gib})
	if got := l.Spaces([]string{"a", "gone"}); len(got) != 1 {
		t.Errorf("spaces of one device: %v", got)
	}
}

// A load that ran out of memory teaches that more is needed; one that never began, as
// others had its room, teaches nothing.
func TestOutOfMemoryTeaches(t *testing.T) {
	l := New()
	l.Observe("", []Reading{device("a", 0, nobody)}, start)
	l.Reserve(big, Plan{"a": 10 * gib}, after(time.Minute))
	l.OutOfMemory(big, start)
	if got := l.Least(big, start); got.Known || len(l.Reservations()) > 0 {
		t.Errorf("a load that never began: needs %s", got)
	}
	l.Reserve(big, Plan{"a": 10 * gib}, after(time.Minute))
	l.Begin(big, l.readings[""])
	l.OutOfMemory(big, start)
	if got := l.Least(big, after(9*time.Minute)); got != known(11*gib) {
		t.Errorf("one that began with 10 GiB: needs %s", got)
	}
	if got := l.Least(big, after(10*time.Minute)); got.Known {
		t.Errorf("10 minutes later it needs %s", got)
	}
}

// Less than the margin is free: that has to come back first.
func TestLacking(t *testing.T) {
	l := New()
	l.Observe("", []Reading{device("a", 79*gib, nobody)}, start)
	wantAccount(t, l, Account{Ours: known(0), Others: known(79 * gib), Available: known(0), Lacking: 3 * gib})
}
