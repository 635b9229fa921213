package ledger

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/schemas"
)

const gib, mib = schemas.GiB, schemas.MiB

func known(b schemas.Bytes) schemas.Amount { return schemas.Known(b) }

func TestFit(t *testing.T) {
	two := []Space{{Device: "a", Free: known(10 * gib)}, {Device: "b", Free: known(20 * gib)}}
	cuda := []Space{{Device: "a", Kind: "cuda", Free: known(10 * gib)}, {Device: "b", Kind: "cuda", Free: known(20 * gib)}}
	for name, c := range map[string]struct {
		need   Need
		spaces []Space
		want   Plan
		no     bool
	}{
		"one device is enough":               {need: Need{known(12 * gib), schemas.Spread}, spaces: two, want: Plan{"b": 12 * gib}},
		"to the last byte":                   {need: Need{known(20 * gib), schemas.Spread}, spaces: two, want: Plan{"b": 20 * gib}},
		"two are needed":                     {need: Need{known(24 * gib), schemas.Spread}, spaces: two, want: Plan{"a": 8 * gib, "b": 16 * gib}},
		"both to the last byte":              {need: Need{known(30 * gib), schemas.Spread}, spaces: two, want: Plan{"a": 10 * gib, "b": 20 * gib}},
		"too large":                          {need: Need{known(30*gib + 1), schemas.Spread}, spaces: two, no: true},
		"the runtime is on both":             {need: Need{known(30*gib - 589*mib), schemas.Spread}, spaces: cuda, no: true},
		"the runtime fits on both":           {need: Need{known(30*gib - 590*mib), schemas.Spread}, spaces: cuda, want: Plan{"a": 10 * gib, "b": 20 * gib}},
		"always on all":                      {need: Need{known(3 * gib), schemas.Proportional}, spaces: two, want: Plan{"a": gib, "b": 2 * gib}},
		"equal shares":                       {need: Need{known(12 * gib), schemas.Equal}, spaces: two, want: Plan{"a": 6 * gib, "b": 6 * gib}},
		"equal shares, of which one is over": {need: Need{known(21 * gib), schemas.Equal}, spaces: two, no: true},
		"nobody knows the need":              {need: Need{schemas.Amount{}, schemas.Spread}, spaces: two},
		"nobody knows a device":              {need: Need{known(gib), schemas.Spread}, spaces: []Space{{Device: "a"}}},
		"no device":                          {need: Need{known(gib), schemas.Spread}},
		"nothing free":                       {need: Need{known(gib), schemas.Proportional}, spaces: []Space{{Device: "a", Free: known(0)}}, no: true},
		"nothing needed":                     {need: Need{known(0), schemas.Proportional}, spaces: []Space{{Device: "a", Free: known(0)}}, want: Plan{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := Fit(c.need, c.spaces)
			if diff := cmp.Diff(c.want, got); diff != "" || ok == c.no {
				t.Errorf("fits: %t (-want +got):\n%s", ok, diff)
			}
		})
	}
}

func held(backend, model string, on Plan) Candidate {
	return Candidate{Victim: schemas.Victim{Backend: backend, Model: model}, Held: on}
}

func TestMakeRoom(t *testing.T) {
	full := []Space{{Device: "a", Free: known(2 * gib)}, {Device: "b", Free: known(0), Lacking: gib}}
	cheap, dear := held("x", "cheap", Plan{"a": 3 * gib}), held("y", "dear", Plan{"a": 8 * gib})
	lacking := held("x", "lacking", Plan{"b": 4 * gib})
	elsewhere, unknown := held("x", "elsewhere", Plan{"c": 99 * gib}), held("x", "unknown", nil)
	for name, c := range map[string]struct {
		need       schemas.Bytes
		candidates []Candidate
		plan       Plan
		evict      []schemas.Victim
		no         bool
	}{
		"nothing has to go":            {need: 2 * gib, candidates: []Candidate{cheap, dear}, plan: Plan{"a": 2 * gib}},
		"the cheap one is enough":      {need: 5 * gib, candidates: []Candidate{cheap, dear}, plan: Plan{"a": 5 * gib}, evict: []schemas.Victim{cheap.Victim}},
		"the cheap one would not help": {need: 9 * gib, candidates: []Candidate{cheap, dear}, plan: Plan{"a": 9 * gib}, evict: []schemas.Victim{dear.Victim}},
		"both have to go":              {need: 13 * gib, candidates: []Candidate{cheap, dear}, plan: Plan{"a": 13 * gib}, evict: []schemas.Victim{cheap.Victim, dear.Victim}},
		"what is lacking comes first":  {need: 3 * gib, candidates: []Candidate{lacking}, plan: Plan{"b": 3 * gib}, evict: []schemas.Victim{lacking.Victim}},
		"what is lacking is not there": {need: 5*gib + 1, candidates: []Candidate{lacking}, no: true},
		"other devices do not help":    {need: 3 * gib, candidates: []Candidate{elsewhere}, no: true},
		"an unknown one goes last":     {need: 5 * gib, candidates: []Candidate{unknown, cheap}, plan: Plan{"a": 5 * gib}, evict: []schemas.Victim{cheap.Victim}},
		"an unknown one may make room": {need: 6 * gib, candidates: []Candidate{unknown, cheap}, evict: []schemas.Victim{cheap.Victim, unknown.Victim}},
		"nothing may go":               {need: 3 * gib, no: true},
	} {
		t.Run(name, func(t *testing.T) {
			p, evict, ok := MakeRoom(Need{known(c.need), schemas.Spread}, full, c.candidates)
			if diff := cmp.Diff(c.plan, p); diff != "" || ok == c.no {
				t.Errorf("fits: %t (-want +got):\n%s", ok, diff)
			}
			if diff := cmp.Diff(c.evict, evict); diff != "" {
				t.Errorf("evicts (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever is asked, a plan takes what is needed, and of no device more than it has.
func TestPlansFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		amount := rapid.Custom(func(t *rapid.T) schemas.Bytes {
			return schemas.Bytes(rapid.Uint64Range(0, uint64(90*gib)).Draw(t, "bytes"))
		})
		split := rapid.SampledFrom([]schemas.Split{schemas.Spread, schemas.Proportional, schemas.Equal}).Draw(t, "split")
		need := Need{known(amount.Draw(t, "need")), split}
		var spaces []Space
		var candidates []Candidate
		for _, d := range []string{"a", "b", "c", "d"}[:rapid.IntRange(1, 4).Draw(t, "devices")] {
			s := Space{Device: d, Kind: rapid.SampledFrom([]string{"cuda", "sim"}).Draw(t, "kind"), Free: known(amount.Draw(t, "free"))}
			if s.Free.Bytes%3 == 0 {
				s.Free, s.Lacking = known(0), amount.Draw(t, "lacking")
			}
			spaces = append(spaces, s)
			candidates = append(candidates, held("x", "on "+d, Plan{d: amount.Draw(t, "held")}))
		}
		p, evict, ok := MakeRoom(need, spaces, candidates)
		if !ok {
			if _, fits := Fit(need, Without(spaces, candidates)); fits {
				t.Fatalf("there is no room, but %v fit without all of %v", need, candidates)
			}
			return
		}
		var gone []Candidate
		for _, v := range evict {
			for _, c := range candidates {
				if c.Victim == v {
					gone = append(gone, c)
				}
			}
		}
		if len(gone) != len(evict) {
			t.Fatalf("%v evicts who is no candidate", evict)
		}
		for _, s := range Without(spaces, gone) {
			if p[s.Device] > s.Free.Bytes {
				t.Fatalf("%v takes %s of %+v", p, p[s.Device], s)
			}
		}
		if p.Sum() < need.Bytes.Bytes {
			t.Fatalf("%v is less than %s", p, need.Bytes)
		}
		for i := range gone { // nobody goes for nothing
			rest := append(append([]Candidate{}, gone[:i]...), gone[i+1:]...)
			if _, fits := Fit(need, Without(spaces, rest)); fits {
				t.Fatalf("%v is not needed", gone[i])
			}
		}
	})
}
