package worker

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/schemas"
)

const gib = schemas.GiB

// fits is a candidate that is admitted: tests change one thing in it.
func fits() candidate {
	return candidate{
		backend: "b", known: true, healthy: true, name: "m", served: true, kind: schemas.Chat,
		model:  schemas.Model{Name: "m", Kinds: []schemas.Kind{schemas.Chat}, Slots: 2, Busy: 1, Need: schemas.Known(8 * gib)},
		load:   true,
		spaces: []ledger.Space{{Device: "d0", Free: schemas.Known(10 * gib)}},
	}
}

func idle(name string, held ledger.Plan) victim {
	return victim{Candidate: ledger.Candidate{Victim: schemas.Victim{Backend: "b", Model: name}, Held: held}}
}

func TestAdmit(t *testing.T) {
	tests := map[string]struct {
		change func(c *candidate)
		plan   ledger.Plan
		reason string // part of it
	}{
		"fits":             {func(*candidate) {}, ledger.Plan{"d0": 8 * gib}, ""},
		"resident":         {func(c *candidate) { c.load, c.spaces[0].Free = false, schemas.Known(0) }, nil, ""},
		"promised already": {func(c *candidate) { c.promised, c.spaces[0].Free = true, schemas.Known(0) }, nil, ""},
		"again":            {func(c *candidate) { c.again = true }, nil, "already running"},
		"draining":         {func(c *candidate) { c.draining = true }, nil, "takes no more jobs"},
		"no such backend":  {func(c *candidate) { c.known = false }, nil, "no backend b"},
		"unhealthy":        {func(c *candidate) { c.healthy, c.trouble = false, "refused" }, nil, "not healthy: refused"},
		"no such model":    {func(c *candidate) { c.served = false }, nil, "does not serve m"},
		"wrong kind":       {func(c *candidate) { c.kind = schemas.Embedding }, nil, "does no embedding"},
		"leaving":          {func(c *candidate) { c.leaving = true }, nil, "about to be unloaded"},
		"full":             {func(c *candidate) { c.model.Busy = 2 }, nil, "all 2 slots"},
		"too large":        {func(c *candidate) { c.model.Need.Bytes = 11 * gib }, nil, "needs 11.0 GiB and 10.0 GiB is free"},
		"unknown need":     {func(c *candidate) { c.model.Need = schemas.Amount{} }, nil, ""},
		"unknown devices":  {func(c *candidate) { c.spaces = nil }, nil, ""},
		"unknown free":     {func(c *candidate) { c.spaces[0].Free = schemas.Amount{}; c.model.Need.Bytes = 99 * gib }, nil, ""},
		"in equal shares": {func(c *candidate) {
			c.split = schemas.Equal
			c.spaces = append(c.spaces, ledger.Space{Device: "d1", Free: schemas.Known(20 * gib)})
		}, ledger.Plan{"d0": 4 * gib, "d1": 4 * gib}, ""},
		"evicts": {func(c *candidate) {
			c.model.Need.Bytes = 14 * gib
			c.evict = []victim{idle("x", ledger.Plan{"d0": 6 * gib})}
		}, ledger.Plan{"d0": 14 * gib}, ""},
		"evicts too little": {func(c *candidate) {
			c.model.Need.Bytes = 20 * gib
			c.evict = []victim{idle("x", ledger.Plan{"d0": 6 * gib}), idle("y", ledger.Plan{"d1": 6 * gib})}
		}, nil, "even without x, y"},
		"evicts who knows how much": {func(c *candidate) {
			c.model.Need.Bytes = 20 * gib
			c.evict = []victim{idle("x", nil)}
		}, nil, ""},
		"evicts a busy one": {func(c *candidate) { c.evict = []victim{{Candidate: idle("x", nil).Candidate, trouble: "is not idle"}} }, nil, "x on b is not idle"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := fits()
			tt.change(&c)
			plan, reason := admit(c)
			if tt.reason == "" && reason != "" || !strings.Contains(reason, tt.reason) {
				t.Errorf("reason %q, want %q", reason, tt.reason)
			}
			if diff := cmp.Diff(tt.plan, plan); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}
