package worker

import (
	"cmp"
	"context"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// lookTimeout bounds one look at a backend or at the devices.
const lookTimeout = 5 * time.Second

// A backend is what the node knows of one of its backends. It belongs to the
// owner of the node.
type backend struct {
	Backend
	loader  providers.Loader // nil: the server decides what it loads
	healthy bool
	trouble string               // why it is not
	own     []ledger.Reading     // the devices that it reports itself
	models  []schemas.Model      // as users name them, by name; without Busy and LoadMS
	index   map[string]int       // into models
	busy    map[string]int       // slots that are taken, by model
	full    map[string]bool      // models for which requests wait at the server
	others  map[string]int       // requests of others that run, where the server tells
	held    map[string]time.Time // models that could not be unloaded: they count as busy until then
	ended   map[string]time.Time // when the last job of ours ended
	took    map[string]int64     // how long the last load took in ms, by model
	leaving map[string]*load     // models about to be unloaded; nil load: by an operator

	estimates map[string]forecast // of what a load takes, by model
	fresh     time.Time           // looks that began earlier show an older state
	nudge     chan struct{}       // asks its watcher to look now
}

func newBackend(cfg Backend) *backend {
	loader, _ := cfg.Provider.(providers.Loader)
	return &backend{
		Backend:   cfg,
		loader:    loader,
		trouble:   "it was not reached yet",
		index:     map[string]int{},
		busy:      map[string]int{},
		full:      map[string]bool{},
		others:    map[string]int{},
		held:      map[string]time.Time{},
		ended:     map[string]time.Time{},
		took:      map[string]int64{},
		leaving:   map[string]*load{},
		estimates: map[string]forecast{},
		nudge:     make(chan struct{}, 1),
	}
}

// model returns a model as it is now.
func (b *backend) model(name string) (schemas.Model, bool) {
	i, ok := b.index[name]
	if !ok {
		return schemas.Model{}, false
	}
	m := b.models[i]
	ours := b.busy[name]
	most := max(1, m.Slots-1) // one may try: some servers count only while they work
	m.Busy, m.LoadMS = max(ours, min(b.others[name], most)), b.took[name]
	switch {
	case b.full[name] && ours > 0:
		m.Busy = m.Slots
	case b.full[name]:
		m.Busy = max(m.Busy, m.Slots-1)
	}
	if time.Now().Before(b.held[name]) {
		m.Busy = max(m.Busy, 1)
	}
	return m, true
}

// poke has the backend looked at soon.
func (b *backend) poke() {
	select {
	case b.nudge <- struct{}{}:
	default:
	}
}

// serverName is the name by which the server knows a model.
func (b Backend) serverName(model string) string { return strings.TrimPrefix(model, b.Prefix) }

// A look is what was seen of a backend.
type look struct {
	backend  string
	began    time.Time
	listed   time.Time // when models were asked for
	models   []providers.Model
	devices  []schemas.Device              // of a providers.DeviceReporter
	measured time.Time                     // when these were asked for
	busy     map[string]providers.Pressure // by the server's names; what is not told is not there
	err      error                         // why the backend takes no job
}

// hostedPoll is how often a hosted API is asked for its models: they change rarely,
// and it counts what it is asked.
const hostedPoll = 5 * time.Minute

// look asks the server what it serves.
func (b Backend) look(ctx context.Context) look { return b.lookAfter(ctx, look{}) }

// lookAfter is look, where last is what was seen before.
func (b Backend) lookAfter(ctx context.Context, last look) look {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	l := look{backend: b.Name, began: time.Now(), listed: last.listed, models: last.models}
	if !providers.Hosted(b.Kind) || l.models == nil || l.began.Sub(l.listed) > hostedPoll {
		l.listed = l.began
		if l.models, l.err = b.Provider.Models(ctx); l.err != nil {
			return l
		}
	}
	if breaker, ok := b.Provider.(providers.Breaker); ok {
		if l.err = breaker.Open(); l.err != nil {
			return l
		}
	}
	if r, ok := b.Provider.(providers.DeviceReporter); ok {
		l.measured = time.Now()
		l.devices, l.err = r.Devices(ctx)
	}
	return l
}

// gaugeLimit bounds all questions of one look about how busy a server is. What it
// does not say in that time stays as it was.
const gaugeLimit = time.Second

// A gauge reads how busy the models of a server are. It belongs to its watcher.
type gauge struct {
	server providers.PressureReporter // nil: it doesn't tell
	silent map[string]bool            // models of which the server does not tell whether requests wait
}

// read asks about the models that are resident. One whose server does not tell what
// waits is asked once only: asking may keep a server awake.
func (g *gauge) read(ctx context.Context, models []providers.Model) map[string]providers.Pressure {
	if g.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, gaugeLimit)
	defer cancel()
	told := map[string]providers.Pressure{}
	for _, m := range models {
		if m.State != schemas.Resident || g.silent[m.Name] {
			continue
		}
		switch p, err := g.server.Pressure(ctx, m.Name); {
		case err == nil && p.Waiting >= 0:
			told[m.Name] = p
		case err == nil, schemas.AsError(err).Code == schemas.Unsupported:
			g.silent[m.Name] = true
		}
	}
	return told
}

// watchBackend looks at a backend again and again, until ctx ends.
func (w *Worker) watchBackend(ctx context.Context, b Backend, nudge <-chan struct{}) {
	g := gauge{silent: map[string]bool{}}
	g.server, _ = b.Provider.(providers.PressureReporter)
	e := newEstimator(w, b)
	var l look
	for {
		l = b.lookAfter(ctx, l)
		if l.err == nil {
			l.busy = g.read(ctx, l.models)
		} else {
			clear(g.silent) // it may come back as another
		}
		if ctx.Err() != nil {
			return
		}
		w.send(l)
		if l.err == nil {
			e.look(ctx, l.models)
		}
		pause := jitter(w.pace.poll)
		if rest := schemas.AsError(l.err).RetryAfter; l.err != nil && rest > 0 {
			pause = min(pause, rest)
		}
		select {
		case <-ctx.Done():
			return
		case <-nudge:
		case <-time.After(pause):
		}
	}
}

// hearBackend has the backend looked at when its server says that something
// changed, until ctx ends or the server turns out to have nothing to say. What gets
// lost meanwhile, the regular look finds.
func (w *Worker) hearBackend(ctx context.Context, p providers.Watcher, poke func()) {
	for {
		err := p.Watch(ctx, poke)
		if ctx.Err() != nil || schemas.AsError(err).Code == schemas.Unsupported {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(jitter(w.pace.poll)):
		}
	}
}

// jitter returns d, a tenth longer or shorter.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

func (l look) apply(_ context.Context, n *node) { n.seeAll([]look{l}) }

// seeAll takes in what was seen of backends.
func (n *node) seeAll(looks []look) {
	for _, l := range looks {
		if b := n.backend(l.backend); b != nil {
			n.see(b, l)
		}
	}
}

// see takes in what was seen of b, unless something newer is known.
func (n *node) see(b *backend, l look) {
	if l.began.Before(b.fresh) {
		return
	}
	was, first := b.healthy, b.fresh.IsZero()
	b.fresh, b.healthy, b.trouble = l.began, l.err == nil, ""
	n.changed = true
	if l.err != nil {
		b.trouble = schemas.AsError(l.err).Message
		if was || first {
			n.w.cfg.Logger.Warn("backend is not healthy", "backend", b.Name, "err", l.err)
		}
		return
	}
	if !was {
		n.w.cfg.Logger.Info("backend is healthy", "backend", b.Name, "models", len(l.models))
	}
	b.models = b.models[:0]
	for _, m := range l.models {
		if b.Serves(m.Name) {
			b.models = append(b.models, b.describe(m))
			b.hear(m, l)
		}
	}
	slices.SortFunc(b.models, func(x, y schemas.Model) int { return cmp.Compare(x.Name, y.Name) })
	clear(b.index)
	for i := range b.models {
		b.index[b.models[i].Name] = i
	}
	n.account(b, time.Now())
	if l.devices != nil {
		n.observe(reading{source: b.Name, at: l.measured, readings: ownReadings(l.devices)})
	}
}

// Serves reports whether a model, as the server names it, is among those that
// b.Models names.
func (b Backend) Serves(name string) bool {
	if name == "" || len(b.Prefix)+len(name) > schemas.MaxModelBytes {
		return false // no job can name it
	}
	if len(b.Models) == 0 {
		return true
	}
	return slices.ContainsFunc(b.Models, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return (err == nil && ok) || pattern == name
	})
}

func (b *backend) describe(m providers.Model) schemas.Model {
	return schemas.Model{
		Name: b.Prefix + m.Name, Kinds: m.Kinds, State: m.State, VRAM: m.VRAM, Need: m.Need,
		Slots: cmp.Or(b.Slots, m.Slots, defaultSlots(b.Kind, m.State)), Context: m.Context, Digest: m.Digest,
	}
}

// defaultSlots is how many jobs a model runs at once where neither the server nor
// the configuration says: 8 of a hosted one; 16 of a server that batches what
// arrives, which is far from what it can do (vLLM's own limit is 256), but fills
// most of a GPU; 1 else.
func defaultSlots(kind string, state schemas.ModelState) int {
	switch {
	case state == schemas.Remote:
		return 8
	case providers.Batches(kind):
		return 16
	default:
		return 1
	}
}

// hear takes in how busy a model is. What runs there is others' where nothing of
// ours did since the server was asked.
func (b *backend) hear(m providers.Model, l look) {
	name := b.Prefix + m.Name
	p, told := l.busy[m.Name]
	switch {
	case told:
		b.full[name] = p.Waiting > 0
		b.others[name] = 0
		if b.busy[name] == 0 && b.ended[name].Before(l.began) {
			b.others[name] = max(0, p.Running)
		}
	case m.State != schemas.Resident:
		delete(b.full, name)
		delete(b.others, name)
	}
}
