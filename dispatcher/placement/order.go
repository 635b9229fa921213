package placement

import (
	"cmp"

	"github.com/vramjet/vramjet/schemas"
)

// A Claim is a flow's claim on the next free slot.
type Claim struct {
	Class    schemas.Class
	Tag      float64 // the tenant's virtual start time: the lowest is served first
	IdleMS   int64   // since the flow was last served, or since it began to wait
	AgingMS  int64   // so long unserved, a flow moves up a class; 0: never
	Sequence uint64  // breaks ties: when the flow was last served, as a counter
}

// rank is the class, less the classes that the flow moved up while it waited.
// Only the flow ages, never its jobs: a bulk batch would invert the classes.
func (c Claim) rank() int {
	rank := c.Class.Rank()
	if c.AgingMS > 0 {
		rank -= int(min(c.IdleMS/c.AgingMS, int64(rank)))
	}
	return rank
}

// CompareClaims orders claims, the one to serve first in front: classes are
// strict, tenants inside a class share by their tags (start-time fair queueing),
// and a tenant's own flows take turns.
func CompareClaims(a, b Claim) int {
	return cmp.Or(
		cmp.Compare(a.rank(), b.rank()),
		cmp.Compare(a.Tag, b.Tag),
		cmp.Compare(a.Sequence, b.Sequence),
	)
}

// A Share is what a tenant was served in a class, in virtual time: slot-seconds
// divided by the tenant's weight.
type Share struct{ Tag float64 }

// A Clock is the virtual time of one class: the tag of what was served last.
type Clock struct{ Now float64 }

// Join makes a tenant that waits for nothing catch up: no credit for idle time.
func (c *Clock) Join(s *Share) { s.Tag = max(s.Tag, c.Now) }

// Serve charges an estimated cost, in slot-seconds, to a tenant whose turn it is.
func (c *Clock) Serve(s *Share, cost, weight float64) {
	c.Now = max(c.Now, s.Tag)
	s.Tag += cost / weight
}

// TrueUp replaces an estimated cost by what it was, in slot-seconds.
func (s *Share) TrueUp(estimate, actual, weight float64) { s.Tag += (actual - estimate) / weight }
