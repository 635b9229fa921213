package worker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// A candidate is what the node knows about an offer when it decides.
type candidate struct {
	draining bool
	again    bool // the same attempt is here already
	backend  string
	known    bool // the node has that backend
	healthy  bool
	trouble  string // why it is not
	name     string // of the model
	served   bool   // the backend serves it
	leaving  bool   // it is about to be unloaded
	model    schemas.Model
	kind     schemas.Kind

	// Where the model must be loaded first.
	load     bool
	promised bool // for another job: there is nothing to decide
	evict    []victim
	rooms    []room // of the backend's devices; none: unknown
}

// A victim is a model that an offer wants unloaded first.
type victim struct {
	name  string
	model schemas.Model
	idle  bool // resident, and nobody uses it or is about to
}

// A room is the memory of one device.
type room struct {
	id       string
	free     schemas.Amount // as measured
	total    schemas.Amount
	promised schemas.Bytes // to loads that have not taken it yet
}

// admit decides about an offer. A reason means no. Else plan is the memory to
// reserve on each device; nil where none is to be, or where nobody can say.
func admit(c candidate) (plan map[string]schemas.Bytes, reason string) {
	switch {
	case c.again:
		return nil, "already running"
	case c.draining:
		return nil, "the node takes no more jobs"
	case !c.known:
		return nil, "the node has no backend " + c.backend
	case !c.healthy:
		return nil, fmt.Sprintf("backend %s is not healthy: %s", c.backend, c.trouble)
	case !c.served:
		return nil, fmt.Sprintf("backend %s does not serve %s", c.backend, c.name)
	case !slices.Contains(c.model.Kinds, c.kind):
		return nil, fmt.Sprintf("%s on %s does no %s", c.name, c.backend, c.kind)
	case c.leaving:
		return nil, fmt.Sprintf("%s on %s is about to be unloaded", c.name, c.backend)
	case c.model.Busy >= c.model.Slots:
		return nil, fmt.Sprintf("all %d slots of %s on %s are taken", c.model.Slots, c.name, c.backend)
	case !c.load || c.promised:
		return nil, ""
	}
	return admitLoad(c)
}

// admitLoad decides about a model that must be loaded first.
func admitLoad(c candidate) (plan map[string]schemas.Bytes, reason string) {
	gain := schemas.Known(0) // what evicting frees
	for _, v := range c.evict {
		if !v.idle {
			return nil, fmt.Sprintf("%s on %s is not idle, so it cannot be unloaded", v.name, c.backend)
		}
		held := v.model.VRAM
		if !held.Known { // at least what a load of it needs
			held = v.model.Need
		}
		gain.Bytes += held.Bytes
		gain.Known = gain.Known && held.Known
	}
	if !c.model.Need.Known || !gain.Known || len(c.rooms) == 0 {
		return nil, "" // nobody can say: the server decides
	}
	for _, r := range c.rooms {
		if !r.free.Known || !r.total.Known {
			return nil, ""
		}
	}
	plan, room := reserve(c.model.Need.Bytes, gain.Bytes, c.rooms)
	if plan == nil {
		return nil, fmt.Sprintf("%s needs %s and %s is free%s", c.name, c.model.Need, room, evicting(c.evict))
	}
	return plan, ""
}

func evicting(victims []victim) string {
	if len(victims) == 0 {
		return ""
	}
	names := make([]string, len(victims))
	for i, v := range victims {
		names[i] = v.name
	}
	return ", even without " + strings.Join(names, ", ")
}

// reserve plans need on one device where one has the room, else on several. gain
// is what evictions free, nobody knows on which device: it counts once. A nil
// plan means that there is no room; then the room that there is.
func reserve(need, gain schemas.Bytes, rooms []room) (map[string]schemas.Bytes, schemas.Bytes) {
	type space struct {
		id   string
		free schemas.Bytes
	}
	spaces := make([]space, len(rooms))
	var sum, lacking schemas.Bytes // lacking: of what is spoken for; what is freed first makes up for it
	for i, r := range rooms {
		spoken := r.promised + schemas.SafetyMargin(r.total)
		spaces[i] = space{r.id, r.free.Bytes.Minus(spoken)}
		sum += spaces[i].free
		lacking += spoken.Minus(r.free.Bytes)
	}
	gain = gain.Minus(lacking)
	sum += gain
	if sum < need {
		return nil, sum
	}
	// The most room first: most servers choose so.
	slices.SortStableFunc(spaces, func(a, b space) int { return cmp.Compare(b.free, a.free) })
	plan := map[string]schemas.Bytes{}
	for i := range spaces {
		take := min(need, spaces[i].free)
		if gain > 0 && take < need { // the device where the evicted model was
			more := min(need-take, gain)
			take, gain = take+more, gain-more
		}
		if take > 0 {
			plan[spaces[i].id] += take
		}
		need -= take
	}
	return plan, sum
}
