package placement

import "github.com/vramjet/vramjet/schemas"

// A Policy is what an operator decides. The zero Policy ages nothing, waits for no
// model and keeps no slot: use DefaultPolicy.
type Policy struct {
	// AgingMS is how long a class of a model may go unserved before it moves up a
	// class for one job. 0: it never does.
	AgingMS int64

	// AffinityLag is for how many slot-seconds a model in memory is kept against a
	// job of the same class that waits for another model: its slots times the time
	// that the job has waited, less what it waited before the model came. A tenant
	// of weight 2 waits half of it. 0 means six times what it takes to load the
	// model anew, so that at most a seventh of a device's time goes into loading. A
	// negative one keeps nothing.
	AffinityLag float64

	// MaxModelWaitMS is how long a job waits for a model to be loaded at most, as far
	// as there is any memory that it could have: after that, less the time that the
	// load takes, it makes any other model give way. 0: no limit.
	MaxModelWaitMS PerClass[int64]

	// OverflowMS is how long a job of a route waits for the first model that could
	// serve it, before another has it where that has a slot free. 0: for as long as
	// it takes.
	OverflowMS int64

	// InteractiveReserve is how many slots of each model in memory jobs of the class
	// batch leave free, as long as interactive jobs for it came in the last minute: at
	// most a quarter of its slots.
	InteractiveReserve int
}

// PerClass is a value for each class.
type PerClass[T any] struct{ Interactive, Normal, Batch T }

// Of returns the value of a class.
func (p PerClass[T]) Of(c schemas.Class) T {
	switch c {
	case schemas.Interactive:
		return p.Interactive
	case schemas.Batch:
		return p.Batch
	default:
		return p.Normal
	}
}

// DefaultPolicy is what holds where an operator says nothing.
func DefaultPolicy() Policy {
	return Policy{
		AgingMS:        30_000,
		OverflowMS:     30_000,
		MaxModelWaitMS: PerClass[int64]{Interactive: 120_000, Normal: 300_000, Batch: 1_800_000},

		InteractiveReserve: 1,
	}
}

const (
	// lagInLoads is how many times the load of a model it is kept for by default.
	lagInLoads = 6

	// unknownLoadMS is a load that nobody has timed: some GiB from a disk.
	unknownLoadMS = 10_000

	// recentMS is how long a model counts as used, after its last job, for jobs of a
	// lower class, and keeps slots free for interactive ones.
	recentMS = 60_000
)
