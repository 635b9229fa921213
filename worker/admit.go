package worker

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vramjet/vramjet/gpu/ledger"
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
	spaces   []ledger.Space // of the backend's devices; none: unknown
	split    schemas.Split
}

// A victim is a model that an offer wants unloaded first.
type victim struct {
	ledger.Candidate
	trouble string // why it cannot be; "" where it can
}

// admit decides about an offer. A reason means no. Else plan is the memory to
// reserve on each device; nil where none is to be, or where nobody can say.
func admit(c candidate) (plan ledger.Plan, reason string) {
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
func admitLoad(c candidate) (plan ledger.Plan, reason string) {
	gone := make([]ledger.Candidate, 0, len(c.evict))
	unknown := false // how much of it comes free
	for _, v := range c.evict {
		if v.trouble != "" {
			return nil, fmt.Sprintf("%s on %s %s, so it cannot be unloaded", v.Model, v.Backend, v.trouble)
		}
		gone = append(gone, v.Candidate)
		unknown = unknown || len(v.Held) == 0
	}
	after := ledger.Without(c.spaces, gone)
	plan, ok := ledger.Fit(ledger.Need{Bytes: c.model.Need, Split: c.split}, after)
	switch {
	case unknown:
		return nil, "" // nobody can say: the server decides
	case ok:
		return plan, ""
	}
	var room schemas.Bytes
	for _, s := range after {
		room += s.Free.Bytes
	}
	return nil, fmt.Sprintf("%s needs %s and %s is free%s", c.name, c.model.Need, room, evicting(c.evict))
}

func evicting(victims []victim) string {
	if len(victims) == 0 {
		return ""
	}
	names := make([]string, len(victims))
	for i, v := range victims {
		names[i] = v.Model
	}
	return ", even without " + strings.Join(names, ", ")
}
