package ledger

import (
	"cmp"
	"slices"

	"github.com/vramjet/vramjet/schemas"
)

// A Space is a device as a load sees it.
type Space struct {
	Device string
	Kind   string         // of the device
	Free   schemas.Amount // what a load may take; unknown: nobody can say

	// Lacking is what must come free first before a load may take any of it.
	Lacking schemas.Bytes
}

// A Need is what a load takes.
type Need struct {
	Bytes schemas.Amount // on one device; unknown: nobody can say
	Split schemas.Split  // how it lies on several
}

// A Plan is what a load takes of each device, by its id. The nil Plan is that nobody
// can say: the server decides.
type Plan map[string]schemas.Bytes

// Sum is what the plan takes of all devices.
func (p Plan) Sum() schemas.Bytes {
	var sum schemas.Bytes
	for _, b := range p {
		sum += b
	}
	return sum
}

// runtimeMemory is what the runtime of a server takes of each further device that a
// model lies on, by the kind of device: on an H100 with CUDA 13, processes of
// llama-server took 589 to 593 MiB more than the buffers that they allocated. Of the
// first device it is part of the need.
var runtimeMemory = map[string]schemas.Bytes{"cuda": 590 * schemas.MiB, "rocm": 590 * schemas.MiB}

// Fit plans a load into what is free. Where it does not fit, ok is false.
func Fit(n Need, spaces []Space) (p Plan, ok bool) {
	if !n.known(spaces) {
		return nil, true
	}
	free := make([]Space, len(spaces))
	copy(free, spaces)
	// The most room first: servers choose so.
	slices.SortStableFunc(free, func(a, b Space) int { return cmp.Compare(b.Free.Bytes, a.Free.Bytes) })
	switch n.Split {
	case schemas.Equal:
		return n.equal(free)
	case schemas.Proportional:
		return n.proportional(free)
	default:
		return n.spread(free)
	}
}

// known reports whether a plan can be made.
func (n Need) known(spaces []Space) bool {
	return n.Bytes.Known && len(spaces) > 0 && !slices.ContainsFunc(spaces, func(s Space) bool { return !s.Free.Known })
}

// spread takes as few devices as it goes, the roomiest first.
func (n Need) spread(free []Space) (Plan, bool) {
	for i := range free {
		if p, ok := n.proportional(free[:i+1]); ok {
			return p, true
		}
	}
	return nil, false
}

// proportional takes of each device in proportion to what is free there.
func (n Need) proportional(free []Space) (Plan, bool) {
	need, room := n.on(free), schemas.Bytes(0)
	for _, s := range free {
		room += s.Free.Bytes
	}
	if room < need {
		return nil, false
	}
	p, left := Plan{}, need
	for _, s := range free {
		share := min(left, s.Free.Bytes, schemas.Bytes(float64(need)*(float64(s.Free.Bytes)/float64(max(room, 1)))))
		p.add(s.Device, share)
		left -= share
	}
	for _, s := range free { // what rounding left over
		more := min(left, s.Free.Bytes-p[s.Device])
		p.add(s.Device, more)
		left -= more
	}
	return p, true
}

// equal takes the same of each device, all of them.
func (n Need) equal(free []Space) (Plan, bool) {
	devices := schemas.Bytes(len(free))
	share := (n.on(free) + devices - 1) / devices
	p := Plan{}
	for _, s := range free {
		if s.Free.Bytes < share {
			return nil, false
		}
		p.add(s.Device, share)
	}
	return p, true
}

// on is what the model takes of so many devices together: the runtime is on each.
func (n Need) on(devices []Space) schemas.Bytes {
	need := n.Bytes.Bytes
	for _, s := range devices[1:] {
		need += runtimeMemory[s.Kind]
	}
	return need
}

func (p Plan) add(device string, bytes schemas.Bytes) {
	if bytes > 0 {
		p[device] += bytes
	}
}

// A Candidate is a model that may be unloaded to make room.
type Candidate struct {
	schemas.Victim
	Held map[string]schemas.Bytes // by device; empty: nobody knows how much it holds, or where
}

// MakeRoom plans a load into what is free once some of the candidates are gone. It
// takes those in front first, and none that does not help. Where nothing is to be
// unloaded, evict is empty; where even all of them are not enough, ok is false.
//
// Candidates of unknown size come last: where one of those is needed the plan is
// nil, since nobody can say.
func MakeRoom(n Need, spaces []Space, candidates []Candidate) (p Plan, evict []schemas.Victim, ok bool) {
	if p, ok = Fit(n, spaces); ok {
		return p, nil, true
	}
	var chosen, unknown []Candidate
	for _, c := range candidates {
		if len(c.Held) == 0 {
			unknown = append(unknown, c)
			continue
		}
		if !c.helps(spaces) {
			continue
		}
		chosen = append(chosen, c)
		if p, ok = Fit(n, Without(spaces, chosen)); ok {
			p, chosen = n.spare(p, spaces, chosen)
			return p, victims(chosen), true
		}
	}
	if len(unknown) == 0 {
		return nil, nil, false
	}
	return nil, victims(append(chosen, unknown...)), true
}

// spare leaves out of chosen, the last first, whoever is not needed for a plan: a
// later one may have made up for an earlier one.
func (n Need) spare(p Plan, spaces []Space, chosen []Candidate) (Plan, []Candidate) {
	for i := len(chosen) - 2; i >= 0; i-- { // without the last one it did not fit
		fewer := slices.Delete(slices.Clone(chosen), i, i+1)
		if q, ok := Fit(n, Without(spaces, fewer)); ok {
			p, chosen = q, fewer
		}
	}
	return p, chosen
}

// helps reports whether c holds memory of one of the devices.
func (c Candidate) helps(spaces []Space) bool {
	return slices.ContainsFunc(spaces, func(s Space) bool { return c.Held[s.Device] > 0 })
}

// Without is what is free once the candidates are gone.
func Without(spaces []Space, gone []Candidate) []Space {
	after := slices.Clone(spaces)
	for i := range after {
		for _, c := range gone {
			held := c.Held[after[i].Device]
			after[i].Free.Bytes += held.Minus(after[i].Lacking)
			after[i].Lacking = after[i].Lacking.Minus(held)
		}
	}
	return after
}

func victims(chosen []Candidate) []schemas.Victim {
	all := make([]schemas.Victim, len(chosen))
	for i, c := range chosen {
		all[i] = c.Victim
	}
	return all
}
