package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// A load brings a model into memory, for all jobs that wait for it. It is
// promised with the first offer, wanted from the first go on, and runs when no
// other load uses one of its devices.
type load struct {
	backend *backend
	model   string // as users name it
	evict   []string
	plan    map[string]schemas.Bytes // reserved until the load ended; nil: nothing
	expires time.Time                // of the reservation, for people

	offers int // accepted offers that have no go yet
	wanted bool
	active bool

	done chan struct{} // closed when the load ended
	err  error         // why it failed; read it after done
}

// loadOf returns the load of a model that is promised or under way, or nil.
func (n *node) loadOf(b *backend, model string) *load {
	for _, l := range n.loads {
		if l.backend == b && l.model == model {
			return l
		}
	}
	return nil
}

// promise returns the load of a model, a new one if there is none. Its memory is
// reserved and its victims are as good as gone from now on.
func (n *node) promise(b *backend, model string, evict []string, plan map[string]schemas.Bytes) *load {
	if l := n.loadOf(b, model); l != nil {
		return l
	}
	l := &load{
		backend: b, model: model, evict: evict, plan: plan,
		expires: time.Now().Add(b.LoadTimeout), done: make(chan struct{}),
	}
	for _, name := range evict {
		b.leaving[name] = l
	}
	n.loads = append(n.loads, l)
	n.changed = true
	return l
}

// dropUnwanted forgets a load that no job waits for or may come to wait for.
func (n *node) dropUnwanted(l *load) {
	if l.offers == 0 && !l.wanted {
		n.dropLoad(l)
	}
}

// dropLoad forgets a load: its reservation ends and its victims may stay.
func (n *node) dropLoad(l *load) {
	n.loads = slices.DeleteFunc(n.loads, func(x *load) bool { return x == l })
	for name, by := range l.backend.leaving {
		if by == l {
			delete(l.backend.leaving, name)
		}
	}
	n.changed = true
}

// startLoads starts each load that is wanted and has its devices to itself.
func (n *node) startLoads(ctx context.Context) {
	for i, l := range n.loads {
		if !l.wanted || l.active || slices.ContainsFunc(n.loads[:i], func(x *load) bool { return n.collide(x, l) }) {
			continue
		}
		l.active, l.expires, n.changed = true, time.Now().Add(l.backend.LoadTimeout), true
		job := loading{load: l, Backend: l.backend.Backend, loader: l.backend.loader, model: l.model, evict: l.evict, plan: l.plan}
		n.beside.Go(func() { n.w.send(n.w.load(ctx, job)) })
	}
}

// collide reports whether an earlier load keeps a later one from starting.
func (n *node) collide(earlier, later *load) bool {
	if !earlier.wanted {
		return false
	}
	if earlier.backend == later.backend {
		return true
	}
	others := n.devicesOf(later.backend)
	return slices.ContainsFunc(n.devicesOf(earlier.backend), func(d schemas.Device) bool {
		return slices.ContainsFunc(others, func(o schemas.Device) bool { return o.ID == d.ID })
	})
}

// loading is what the goroutine of a load needs to know.
type loading struct {
	Backend
	loader providers.Loader
	load   *load // only to name it: it belongs to the owner
	model  string
	evict  []string
	plan   map[string]schemas.Bytes
}

// loaded says that a load ended, and what was seen right after it.
type loaded struct {
	load    *load
	err     error
	held    string // the model that was to make room and runs requests of others; "": none
	took    time.Duration
	look    look
	devices []schemas.Device // of the node; nil: unknown
}

var errLoadTimeout = errors.New("the load took too long")

// load unloads, waits for the memory, loads, and looks at the outcome.
func (w *Worker) load(ctx context.Context, l loading) loaded {
	began := time.Now()
	lctx, cancel := context.WithTimeoutCause(ctx, l.LoadTimeout, errLoadTimeout)
	defer cancel()
	held, err := w.makeRoom(lctx, l)
	if err == nil {
		err = l.loader.Load(lctx, l.serverName(l.model))
	}
	if err != nil && lctx.Err() != nil && ctx.Err() == nil {
		err = schemas.Errorf(schemas.UpstreamError, "%s was not loaded within %s", l.model, l.LoadTimeout)
	}
	m := loaded{load: l.load, err: err, held: held, took: time.Since(began)}
	m.look = l.look(ctx)
	if devices, err := w.readDevices(ctx); err == nil {
		m.devices = devices
	}
	return m
}

// roomWait bounds the wait for memory that was freed to come back.
const roomWait = 10 * time.Second

// heldFor is how long a model counts as busy that could not be unloaded.
const heldFor = 30 * time.Second

// makeRoom unloads what is to be unloaded, and returns once the memory for the
// load is there. held is the model that runs requests of others, where that is why
// there is no room: the job waits, and that is no fault of the server's.
func (w *Worker) makeRoom(ctx context.Context, l loading) (held string, err error) {
	for _, name := range l.evict {
		err := l.loader.Unload(ctx, l.serverName(name))
		if err != nil && schemas.AsError(err).Code == schemas.Overloaded {
			busy := schemas.Errorf(schemas.ModelLoading, "%s cannot be loaded yet: %s was to make room and runs requests of others", l.model, name)
			busy.RetryAfter = 2 * time.Second
			return name, busy
		}
		if err != nil {
			return "", fmt.Errorf("unload %s: %w", name, err)
		}
	}
	if len(l.evict) == 0 || l.plan == nil {
		return "", nil
	}
	deadline := time.Now().Add(roomWait)
	for {
		if w.hasRoom(ctx, l) {
			return "", nil
		}
		if time.Now().After(deadline) {
			return "", schemas.Errorf(schemas.OutOfMemory, "the memory of the unloaded models did not come back within %s", roomWait)
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(w.pace.devices / 4):
		}
	}
}

// hasRoom reports whether the devices have what the plan takes, all of them
// together: nobody knows on which an unloaded model was. Where they cannot be
// read, the server decides.
func (w *Worker) hasRoom(ctx context.Context, l loading) bool {
	devices, err := w.readDevices(ctx)
	if r, ok := l.Provider.(providers.DeviceReporter); ok {
		devices, err = r.Devices(ctx)
	}
	if err != nil {
		return true
	}
	var need, free schemas.Bytes
	for _, d := range devices {
		bytes, ok := l.plan[d.ID]
		if !ok {
			continue
		}
		if !d.Free.Known {
			return true
		}
		need += bytes
		free += d.Free.Bytes
	}
	return free >= need
}

func (m loaded) apply(ctx context.Context, n *node) {
	l := m.load
	if m.err != nil {
		n.w.cfg.Logger.Warn("model was not loaded", "backend", l.backend.Name, "model", l.model, "err", m.err)
	} else {
		l.backend.took[l.model] = m.took.Milliseconds()
		n.w.cfg.Logger.Info("model was loaded", "backend", l.backend.Name, "model", l.model, "took", m.took, "evicted", l.evict)
	}
	if m.devices != nil {
		n.devices = m.devices
	}
	if m.held != "" {
		l.backend.held[m.held] = time.Now().Add(heldFor)
	}
	n.see(l.backend, m.look)
	n.dropLoad(l)
	l.err = m.err
	close(l.done)
	n.startLoads(ctx)
}

// rooms is the memory of b's devices, for admit.
func (n *node) rooms(b *backend) []room {
	devices := n.devicesOf(b)
	rooms := make([]room, len(devices))
	for i, d := range devices {
		rooms[i] = room{id: d.ID, free: d.Free, total: d.Total}
		for _, l := range n.loads {
			rooms[i].promised += l.plan[d.ID]
		}
	}
	return rooms
}
