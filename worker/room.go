package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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
	n.observe(m.reading.source, m.reading.readings)
	n.books.Begin(m.load.Victim, n.idsOf(m.load.backend))
}

// roomWait bounds the wait for memory that was freed to come back.
const roomWait = 10 * time.Second

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
	if len(l.evict) == 0 || l.plan == nil {
		return schemas.Victim{}, nil
	}
	return schemas.Victim{}, w.awaitRoom(ctx, l)
}

// awaitRoom returns once the devices have what the plan takes.
func (w *Worker) awaitRoom(ctx context.Context, l loading) error {
	deadline := time.Now().Add(roomWait)
	for !w.hasRoom(ctx, l) {
		if time.Now().After(deadline) {
			return schemas.Errorf(schemas.OutOfMemory, "the memory of the unloaded models did not come back within %s", roomWait)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(w.pace.devices / 4):
		}
	}
	return nil
}

// hasRoom reports whether each device has what the plan takes of it. Where they
// cannot be read, the server decides.
func (w *Worker) hasRoom(ctx context.Context, l loading) bool {
	now, err := w.readFor(ctx, l.Backend)
	if err != nil {
		return true
	}
	for _, d := range now.readings {
		if d.Free.Known && d.Free.Bytes < l.plan[d.ID] {
			return false
		}
	}
	return true
}
