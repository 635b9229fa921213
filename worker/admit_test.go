package worker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/schemas"
)

const gib = schemas.GiB

// fits is a candidate that is admitted: tests change one thing in it.
func fits() candidate {
	return candidate{
		backend: "b", known: true, healthy: true, name: "m", served: true, kind: schemas.Chat,
		model: schemas.Model{Name: "m", Kinds: []schemas.Kind{schemas.Chat}, Slots: 2, Busy: 1, Need: schemas.Known(8 * gib)},
		load:  true,
		rooms: []room{device("d0", 12*gib, 24*gib, 0)},
	}
}

func device(id string, free, total, promised schemas.Bytes) room {
	return room{id: id, free: schemas.Known(free), total: schemas.Known(total), promised: promised}
}

func idle(name string, vram schemas.Bytes) victim {
	return victim{name: name, model: schemas.Model{Name: name, VRAM: schemas.Known(vram)}, idle: true}
}

func TestAdmit(t *testing.T) {
	tests := map[string]struct {
		change func(c *candidate)
		plan   map[string]schemas.Bytes
		reason string // part of it
	}{
		"fits":             {func(*candidate) {}, map[string]schemas.Bytes{"d0": 8 * gib}, ""},
		"resident":         {func(c *candidate) { c.load, c.rooms[0].free = false, schemas.Known(0) }, nil, ""},
		"promised already": {func(c *candidate) { c.promised, c.rooms[0].free = true, schemas.Known(0) }, nil, ""},
		"again":            {func(c *candidate) { c.again = true }, nil, "already running"},
		"draining":         {func(c *candidate) { c.draining = true }, nil, "takes no more jobs"},
		"no such backend":  {func(c *candidate) { c.known = false }, nil, "no backend b"},
		"unhealthy":        {func(c *candidate) { c.healthy, c.trouble = false, "refused" }, nil, "not healthy: refused"},
		"no such model":    {func(c *candidate) { c.served = false }, nil, "does not serve m"},
		"wrong kind":       {func(c *candidate) { c.kind = schemas.Embedding }, nil, "does no embedding"},
		"leaving":          {func(c *candidate) { c.leaving = true }, nil, "about to be unloaded"},
		"full":             {func(c *candidate) { c.model.Busy = 2 }, nil, "all 2 slots"},
		"too large":        {func(c *candidate) { c.model.Need.Bytes = 11 * gib }, nil, "needs 11.0 GiB"},
		"promised away":    {func(c *candidate) { c.rooms[0].promised = 4 * gib }, nil, "needs 8.0 GiB"},
		"all promised":     {func(c *candidate) { c.rooms[0].promised = 40 * gib }, nil, "0 B is free"},
		"small device": {func(c *candidate) { // 512 MiB stay free, not 5 %
			c.rooms = []room{device("d0", gib, gib, 0)}
			c.model.Need.Bytes = 513 * schemas.MiB
		}, nil, "512.0 MiB is free"},
		"unknown need":    {func(c *candidate) { c.model.Need = schemas.Amount{} }, nil, ""},
		"unknown devices": {func(c *candidate) { c.rooms = nil }, nil, ""},
		"unknown free":    {func(c *candidate) { c.rooms[0].free = schemas.Amount{}; c.model.Need.Bytes = 99 * gib }, nil, ""},
		"unknown total":   {func(c *candidate) { c.rooms[0].total = schemas.Amount{}; c.model.Need.Bytes = 99 * gib }, nil, ""},
		"the roomier device": {func(c *candidate) {
			c.rooms = append(c.rooms, device("d1", 20*gib, 24*gib, 0))
		}, map[string]schemas.Bytes{"d1": 8 * gib}, ""},
		"spread": {func(c *candidate) {
			c.rooms = []room{device("d0", 6*gib, 10*gib, 0), device("d1", 7*gib, 10*gib, 0)}
		}, map[string]schemas.Bytes{"d1": 7*gib - 512*schemas.MiB, "d0": gib + 512*schemas.MiB}, ""},
		"evicts": {func(c *candidate) {
			c.model.Need.Bytes = 14 * gib
			c.evict = []victim{idle("x", 6*gib)}
		}, map[string]schemas.Bytes{"d0": 14 * gib}, ""},
		"evicts too little": {func(c *candidate) {
			c.model.Need.Bytes = 20 * gib
			c.evict = []victim{idle("x", 6*gib), idle("y", gib)}
		}, nil, "even without x, y"},
		"evicts who knows how much": {func(c *candidate) {
			c.model.Need.Bytes = 20 * gib
			c.evict = []victim{{name: "x", idle: true}}
		}, nil, ""},
		"evicts a busy one": {func(c *candidate) { c.evict = []victim{{name: "x"}} }, nil, "x on b is not idle"},
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

// TestReserveNeverOvercommits: what is planned is what is needed, and no device
// gives more than it has, but for what evictions free.
func TestReserveNeverOvercommits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		amount := rapid.Custom(func(t *rapid.T) schemas.Bytes {
			return schemas.Bytes(rapid.Uint64Range(0, uint64(100*gib)).Draw(t, "bytes"))
		})
		rooms := make([]room, rapid.IntRange(1, 8).Draw(t, "devices"))
		var sum, lacking schemas.Bytes
		for i := range rooms {
			rooms[i] = device(fmt.Sprintf("d%d", i), amount.Draw(t, "free"), amount.Draw(t, "total"), amount.Draw(t, "promised"))
			spoken := rooms[i].promised + schemas.SafetyMargin(rooms[i].total)
			sum += rooms[i].free.Bytes.Minus(spoken)
			lacking += spoken.Minus(rooms[i].free.Bytes)
		}
		need, gain := amount.Draw(t, "need"), amount.Draw(t, "gain")
		plan, space := reserve(need, gain, rooms)
		gain = gain.Minus(lacking) // what is left once the devices have their margins again
		if space != sum+gain {
			t.Fatalf("space %d, want %d", space, sum+gain)
		}
		if (plan != nil) != (need <= space) {
			t.Fatalf("plan %v for %d of %d", plan, need, space)
		}
		var planned, over schemas.Bytes
		for i, r := range rooms {
			bytes := plan[r.id]
			planned += bytes
			over += bytes.Minus(rooms[i].free.Bytes.Minus(r.promised).Minus(schemas.SafetyMargin(r.total)))
		}
		if plan != nil && planned != need {
			t.Fatalf("planned %d, want %d", planned, need)
		}
		if over > gain {
			t.Fatalf("%d over what is there, and evictions free %d", over, gain)
		}
	})
}

// TestEvictionMakesUpForTheMarginFirst: memory that is freed on a device that is
// full beyond its margin is not there for the load yet.
func TestEvictionMakesUpForTheMarginFirst(t *testing.T) {
	full := []room{{id: "d", free: schemas.Known(0), total: schemas.Known(40 * schemas.GiB)}} // its margin is 2 GiB
	if plan, has := reserve(4*schemas.GiB, 5*schemas.GiB, full); plan != nil || has != 3*schemas.GiB {
		t.Errorf("reserve = %v, %s; want no room, 3.0 GiB", plan, has)
	}
	if plan, _ := reserve(4*schemas.GiB, 6*schemas.GiB, full); plan["d"] != 4*schemas.GiB {
		t.Errorf("reserve = %v, want all on d", plan)
	}
}
