package ledger

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// lines reads a file of recorded readings or events of a real H100.
func lines[T any](t *testing.T, name string) []T {
	t.Helper()
	shared := os.Getenv("VRAMJET_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	file, err := os.Open(filepath.Join(shared, "data", name))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("no %s: set VRAMJET_SHARED to the directory above its data directory", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []T
	for s := bufio.NewScanner(file); s.Scan(); {
		var v T
		if err := json.Unmarshal(s.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

// A sample is a recorded reading.
type sample struct {
	MS                          int64
	Total, Used, Free, Reserved schemas.Bytes
	Procs                       [][2]uint64 // pid, bytes
}

// reading is the sample as a node takes it in, where foreign processes are not its
// own servers'.
func (s sample) reading(foreign ...uint64) Reading {
	r := Reading{
		Device: schemas.Device{ID: "a", Kind: "cuda", Total: known(s.Total), Used: known(s.Used), Free: known(s.Free), Reserved: known(s.Reserved)},
		Held:   known(0),
	}
	for _, p := range s.Procs {
		if !slices.Contains(foreign, p[0]) {
			r.Held.Bytes += schemas.Bytes(p[1])
		}
	}
	return r
}

func (s sample) at() time.Time { return after(time.Duration(s.MS) * time.Millisecond) }

// near reports whether two amounts differ by no more than by.
func near(a, b, by schemas.Bytes) bool { return max(a, b)-min(a, b) <= by }

// What the process of the recording did, in ms after its own start. Its context, at
// 401 ms, is the first step that the device shows, at 7096 ms (h100-alloc-log.txt).
var allocations = []int64{1402, 2103, 2804, 3504, 4205, 4906} // of 4 GiB

const (
	allocClock = 7096 - 401
	allocFreed = 7638
	oneSample  = 101
)

// Somebody else's process takes 4 GiB six times and gives all back: what is available
// follows each step within one sample.
func TestReplayOfAllocations(t *testing.T) {
	l := New()
	var before schemas.Bytes
	checked := 0
	for _, s := range lines[sample](t, "h100-nvml-trace.jsonl") {
		r := s.reading()
		r.Held = known(0) // none of it is ours
		l.Observe("", []Reading{r}, s.at())
		a := l.Account("a")
		if want := s.Free.Minus(schemas.SafetyMargin(r.Total)); a.Available != known(want) || a.Others != r.Used {
			t.Fatalf("at %d ms %+v, with %s free and %s used", s.MS, a, s.Free, s.Used)
		}
		now := s.MS - allocClock
		if now < 1000 {
			before = a.Available.Bytes // with its context
		}
		for i, at := range allocations {
			if now < at+oneSample || now >= at+2*oneSample {
				continue
			}
			checked++
			if want := before - schemas.Bytes(i+1)*4*gib; !near(a.Available.Bytes, want, 16*mib) {
				t.Errorf("%d ms after allocation %d: %s are available, want %s", now-at, i, a.Available, want)
			}
		}
		if now >= allocFreed+oneSample && now < allocFreed+2*oneSample {
			checked++
			if !near(a.Available.Bytes, before, gib/4) { // its libraries stay until it ends
				t.Errorf("after all was freed: %s are available, want %s", a.Available, before)
			}
		}
	}
	if checked != len(allocations)+1 {
		t.Errorf("%d steps were checked", checked)
	}
}

// The same process, as a load of ours: from its beginning to its end, others may take
// what they could take all the time, whatever of it has arrived.
func TestReplayOfAllocationsAsALoad(t *testing.T) {
	const need = 25 * gib // with its context
	l := New()
	loading, arrived := false, schemas.Bytes(0)
	var left schemas.Bytes
	for _, s := range lines[sample](t, "h100-nvml-trace.jsonl") {
		l.Observe("", []Reading{s.reading()}, s.at())
		a := l.Account("a")
		switch {
		case !loading && s.MS > 6000:
			left = a.Available.Bytes - need
			l.Reserve(big, Plan{"a": need}, after(time.Hour))
			l.Begin(big, []Reading{s.reading()})
			loading = true
		case loading && s.Used >= arrived:
			arrived = s.Used
			if !near(a.Available.Bytes, left, 32*mib) { // processes hold 9 MB less than is used
				t.Fatalf("at %d ms %s are available beside the load, want %s: %+v", s.MS, a.Available, left, a)
			}
		case loading:
			l.Failed(big)
			return
		}
	}
	t.Error("the load never ended")
}

// An event is what happened to the router that was recorded.
type event struct {
	MS    int64
	What  string
	Model string
	PID   uint64
}

// The needs of the router's models, with 2 slots and a context of 8192 in all: what
// nvidia-smi showed of their processes.
var routerNeeds = map[string]schemas.Bytes{"llama3.1-8b-q4_0": 5756 * mib, "qwen2.5-32b-q4_0": 20008 * mib, "llama3-70b-q4_0": 40680 * mib}

// router replays the recorded hour of a router: what it did, and what the device
// showed meanwhile.
type router struct {
	t        *testing.T
	l        *Ledger
	foreign  uint64
	resident []Resident
	loading  string
	began    schemas.Bytes // available before the load, less what it needs
	late     int           // readings in a row with which the books do not agree
	seen     map[string]int
}

func (*router) victim(model string) schemas.Victim {
	return schemas.Victim{Backend: "router", Model: model}
}

func (r *router) happened(e event) {
	v := r.victim(e.Model)
	now := after(time.Duration(e.MS) * time.Millisecond)
	r.seen[e.What]++
	switch e.What {
	case "load asked":
		need := routerNeeds[e.Model]
		_, fits := Fit(Need{known(need), schemas.Proportional}, r.l.Spaces(devA))
		if want := r.foreign == 0; fits != want {
			r.t.Errorf("at %d ms %s fits: %t, with %+v", e.MS, e.Model, fits, r.l.Account("a"))
		}
		r.began = r.l.Account("a").Available.Bytes.Minus(need)
		r.l.Reserve(v, Plan{"a": need}, now.Add(10*time.Minute))
		r.l.Begin(v, r.l.readings[""])
		r.loading = e.Model
	case "loaded":
		grown, sure := r.l.Grown(v)
		if need := routerNeeds[e.Model]; !sure || !near(grown.Sum(), need, need/50) {
			r.t.Errorf("%s took %v (sure: %t), want %s", e.Model, grown, sure, need)
		}
		r.l.Loaded(v)
		r.resident = append(r.resident, Resident{Model: e.Model})
		r.loading = ""
	case "load failed":
		r.l.OutOfMemory(v, now)
		r.loading = ""
		if got := r.l.Least(v, now); got.Bytes <= routerNeeds[e.Model] || len(r.l.Reservations()) > 0 {
			r.t.Errorf("after the failed load it needs %s, and kept are %v", got, r.l.Reservations())
		}
	case "unloaded", "SIGKILL to the child of the 70b":
		r.resident = slices.DeleteFunc(r.resident, func(x Resident) bool { return x.Model == e.Model || e.PID == x.pid() })
	case "foreign process: 24 GiB":
		r.foreign = e.PID
	case "foreign process gone":
		r.foreign = 0
	}
	r.l.Residents("router", devA, r.resident, now)
}

// pid is that of the only process which was killed.
func (r Resident) pid() uint64 {
	if r.Model == "llama3-70b-q4_0" {
		return 5487
	}
	return 0
}

// looked checks the books against the reading that was taken in just now.
func (r *router) looked(s sample) {
	a := r.l.Account("a")
	margin := schemas.SafetyMargin(known(s.Total))
	if r.loading == "" {
		// The events' clock is up to 0.3 s behind; what is not free is never available.
		free := s.Free.Minus(margin)
		if r.late++; near(a.Available.Bytes, free, 16*mib) {
			r.late = 0
		}
		if a.Available.Bytes > free || r.late > 3 {
			r.t.Fatalf("at %d ms %+v, with %s free", s.MS, a, s.Free)
		}
		return
	}
	if most := r.began + 64*mib; a.Available.Bytes > most {
		r.t.Fatalf("at %d ms, while %s loads: %s are available, want at most %s", s.MS, r.loading, a.Available, most)
	}
	if r.loading == "llama3-70b-q4_0" && r.foreign != 0 {
		r.seen["kept"]++
		if _, fits := Fit(Need{known(10 * gib), schemas.Spread}, r.l.Spaces(devA)); fits {
			r.t.Fatalf("at %d ms another model takes the place of the 70B: %+v", s.MS, a)
		}
	}
}

// A real router on a real H100: an 8B and a 32B are loaded and the 8B is unloaded;
// somebody else takes 24 GiB, a 70B does not fit beside them and its load fails after
// 20 s, in which its process shows half a GiB; it fits once they are gone; its
// process is killed.
func TestReplayOfARouter(t *testing.T) {
	events := lines[event](t, "h100-router-events.jsonl")
	r := &router{t: t, l: New(), seen: map[string]int{}}
	for _, s := range lines[sample](t, "h100-router-trace.jsonl") {
		for len(events) > 0 && events[0].MS <= s.MS {
			r.happened(events[0])
			events = events[1:]
		}
		var foreign []uint64
		if r.foreign != 0 {
			foreign = []uint64{r.foreign}
		}
		r.l.Observe("", []Reading{s.reading(foreign...)}, s.at())
		r.looked(s)
	}
	if r.seen["load asked"] != 4 || r.seen["loaded"] != 3 || r.seen["kept"] < 150 || len(events) > 0 {
		t.Errorf("replayed %v, %d events are left", r.seen, len(events))
	}
}
