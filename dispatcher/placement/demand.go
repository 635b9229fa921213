package placement

import "github.com/vramjet/vramjet/schemas"

// demand is what is asked of a pool.
type demand struct {
	lanes   [3]lane // by the rank of their class
	flows   int     // that are known, waiting or not
	waiting int     // jobs of all flows
	seconds float64 // what a job takes, in slot-seconds: a moving average; 0: unknown

	arrivals rate
	served   [3]int64 // when a job of a class was last served, by its rank
	overtook bool     // the last job served was of a class below one that waited

	target *place   // where the model is to be loaded once claims are gone; nil: nowhere yet
	claims []*place // that give way for it

	claim claim
	ready int   // its index among the pools that may be served
	stuck int   // its index among those that can't
	retry int64 // when to look again at the latest

	scan  int64   // when to look for a load on all nodes again
	from  int     // at which place to begin with that
	hints []*node // nodes that may have room now which they had not
}

// long is a time that is over.
const long = -1 << 40

func newDemand() demand {
	d := demand{ready: -1, stuck: -1}
	for i := range d.lanes {
		d.lanes[i] = newLane()
		d.served[i] = long
	}
	return d
}

// next returns the flow whose turn it is; nil where none may be served. Classes are
// strict, but one that was not served for agingMS times the classes above it that wait
// has its turn, for one job, after which one of a class above has its own. Only the
// class of a model ages, never a job or a tenant: a bulk batch, or many tenants with a
// job each, would invert the classes.
func (d *demand) next(now, agingMS int64) (f *Flow, aged bool) {
	top, overdue := 0, int64(-1)
	for rank := range d.lanes {
		l := &d.lanes[rank]
		first, ok := l.flows.first()
		switch late := now - l.since - agingMS*int64(rank-top); {
		case !ok:
		case f == nil:
			f, top = first, rank
		case agingMS > 0 && !d.overtook && late > overdue:
			f, aged, overdue = first, true, late
		}
	}
	return f, aged
}

// top is the rank of the most urgent class that may be served; 3 where none may.
func (d *demand) top() int {
	rank := 0
	for rank < len(d.lanes) && len(d.lanes[rank].flows.items) == 0 {
		rank++
	}
	return rank
}

// A claim orders pools, by their flows whose turn it is.
type claim struct {
	rank   int
	waited float64 // in ms, times the weight of the tenant
	turn   uint64
	name   string
}

func (c claim) less(d claim) bool {
	switch {
	case c.rank != d.rank:
		return c.rank < d.rank
	case c.waited != d.waited:
		return c.waited > d.waited
	case c.turn != d.turn:
		return c.turn < d.turn
	default:
		return c.name < d.name
	}
}

// urgent is the rank of the most urgent class that waits for a pool or was served
// lately.
func (d *demand) urgent(now int64) int {
	for rank := range d.lanes {
		if len(d.lanes[rank].flows.items) > 0 || now-d.served[rank] < recentMS {
			return rank
		}
	}
	return schemas.Batch.Rank()
}
