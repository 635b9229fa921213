package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/schemas"
)

// load unloads, waits for the memory, loads, and looks at the outcome.
func (w *Worker) load(ctx context.Context, l loading) loaded {
	began := time.Now()
	held, err := w.makeRoom(ctx, l)
	if err == nil {
		if before, rerr := w.readFor(ctx, l.Backend); rerr == nil {
			w.send(begun{load: l.load, reading: before})
		}
		err = l.loader.Load(ctx, l.serverName(l.model))
	}
	if err != nil && errors.Is(context.Cause(ctx), errLoadTimeout) {
		err = schemas.Errorf(schemas.UpstreamError, "%s was not loaded within %s", l.model, time.Since(began).Round(time.Second))
	}
	m := loaded{load: l.load, err: err, held: held, took: time.Since(began)}
	after := context.WithoutCancel(ctx) // both are bounded
	m.looks = l.lookAround(after)
	if r, err := w.readFor(after, l.Backend); err == nil {
		m.reading = &r
	}
	return m
}

// lookAround looks at the backend that loaded, and at those whose models made room.
func (l loading) lookAround(ctx context.Context) []look {
	looks := []look{l.look(ctx)}
	for _, v := range l.evict {
		if !slices.ContainsFunc(looks, func(seen look) bool { return seen.backend == v.Name }) {
			looks = append(looks, v.look(ctx))
		}
	}
	return looks
}

// begun says that a load begins to take memory, and what the devices were before.
type begun struct {
	load    *load
	reading reading
}

func (m begun) apply(_ context.Context, n *node) {
	n.observe(m.reading)
	ids := n.idsOf(m.load.backend)
	n.books.Begin(m.load.Victim, slices.DeleteFunc(slices.Clone(m.reading.readings), func(r ledger.Reading) bool { return !slices.Contains(ids, r.ID) }))
}

// roomWait bounds the wait for memory to come back that models had which were
// unloaded, or to be given back by others who took it meanwhile.
const roomWait = ledger.DrainTime

// heldFor is how long a model counts as busy that could not be unloaded.
const heldFor = 30 * time.Second

// makeRoom unloads what is to be unloaded, and returns once the memory for the
// load is there. held is the model that runs requests of others, where that is why
// there is no room: the job waits, and that is no fault of the server's.
func (w *Worker) makeRoom(ctx context.Context, l loading) (held schemas.Victim, err error) {
	for _, v := range l.evict {
		err := v.loader.Unload(ctx, v.serverName(v.model))
		if err != nil && schemas.AsError(err).Code == schemas.Overloaded {
			busy := schemas.Errorf(schemas.ModelLoading, "%s cannot be loaded yet: %s was to make room and runs requests of others", l.model, v.model)
			busy.RetryAfter = 2 * time.Second
			return schemas.Victim{Backend: v.Name, Model: v.model}, busy
		}
		if err != nil {
			return schemas.Victim{}, fmt.Errorf("unload %s: %w", v.model, err)
		}
	}
	if l.plan == nil {
		return schemas.Victim{}, nil
	}
	return schemas.Victim{}, w.awaitRoom(ctx, l)
}

// awaitRoom returns once the devices have what the plan takes.
func (w *Worker) awaitRoom(ctx context.Context, l loading) error {
	deadline := time.Now().Add(roomWait)
	for !w.hasRoom(ctx, l) {
		if time.Now().After(deadline) {
			return schemas.Errorf(schemas.OutOfMemory, "%s was to have %s, and that did not come free within %s: somebody else has it", l.model, l.plan.Sum(), roomWait)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(w.pace.devices / 4):
		}
	}
	return nil
}

// hasRoom reports whether the devices have what the plan takes, in whatever way the
// server lays it. Where they cannot be read, the server decides.
func (w *Worker) hasRoom(ctx context.Context, l loading) bool {
	now, err := w.readFor(ctx, l.Backend)
	if err != nil {
		return true
	}
	var spaces []ledger.Space
	for _, d := range now.readings {
		if slices.Contains(l.devices, d.ID) {
			spaces = append(spaces, ledger.Space{Device: d.ID, Free: d.Free})
		}
	}
	_, ok := ledger.Fit(ledger.Need{Bytes: schemas.Known(l.plan.Sum()), Split: l.Split}, spaces)
	return ok
}
