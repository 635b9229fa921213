package worker

import (
	"context"
	"time"

	"github.com/vramjet/vramjet/gpu/estimate"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// A forecast is what a load of a model is computed to take, and for which way to load
// it.
type forecast struct {
	total             schemas.Amount
	context, parallel int // of all slots together, and slots; 0: as the server has it
	kvType, version   string
}

// estimated says what was computed of a backend's model.
type estimated struct {
	backend, model string // the model as users name it
	forecast
}

func (m estimated) apply(_ context.Context, n *node) {
	if b := n.backend(m.backend); b != nil {
		b.estimates[m.model] = m.forecast
		n.account(b, time.Now())
		n.changed = true
	}
}

// An estimator computes what the models of a backend take. It belongs to the
// backend's watcher.
type estimator struct {
	w    *Worker
	b    Backend
	d    providers.Describer  // nil: its server says nothing
	done map[string]string    // digests, by the server's names
	last map[string]time.Time // when one that could not be computed was tried
}

func newEstimator(w *Worker, b Backend) *estimator {
	d, _ := b.Provider.(providers.Describer)
	return &estimator{w: w, b: b, d: d, done: map[string]string{}, last: map[string]time.Time{}}
}

// The bounds of an estimator's work between two looks at a backend.
const (
	estimatesAtOnce = 4
	estimateAgain   = 10 * time.Minute // for what could not be computed
	estimateWithin  = 5 * time.Second
)

// look computes what is new, a few models at a time.
func (e *estimator) look(ctx context.Context, models []providers.Model) {
	if e.d == nil {
		return
	}
	left := estimatesAtOnce
	for i := range models {
		m := &models[i]
		digest, done := e.done[m.Name]
		if m.State == schemas.Remote || done && digest == m.Digest || time.Since(e.last[m.Name]) < estimateAgain {
			continue
		}
		if left--; left < 0 || ctx.Err() != nil {
			return
		}
		f, err := e.compute(ctx, m.Name)
		if err != nil {
			e.last[m.Name] = time.Now()
			e.w.cfg.Logger.Debug("what a load takes is not computed", "backend", e.b.Name, "model", m.Name, "err", err)
			continue
		}
		e.done[m.Name] = m.Digest
		e.w.send(estimated{backend: e.b.Name, model: e.b.Prefix + m.Name, forecast: f})
	}
}

func (e *estimator) compute(ctx context.Context, model string) (forecast, error) {
	ctx, cancel := context.WithTimeout(ctx, estimateWithin)
	defer cancel()
	r, err := e.d.Recipe(ctx, model)
	if err != nil {
		return forecast{}, err
	}
	made, err := ModelOf(ctx, &r)
	if err != nil {
		return forecast{}, err
	}
	load := e.loadOf(ctx, &r, made)
	f := forecast{context: load.Context, parallel: load.Parallel, kvType: load.KVType, version: r.Version}
	if made == nil {
		return f, nil
	}
	found, err := made.Estimate(load)
	if err != nil {
		return forecast{}, err
	}
	f.total = schemas.Known(found.Total())
	return f, nil
}

// loadOf is how the server loads a model: as the configuration says, else as it says
// itself. Nothing may be known of the model: nil.
func (e *estimator) loadOf(ctx context.Context, r *providers.Recipe, made *estimate.Model) estimate.Load {
	load := estimate.Load{Context: r.Context, Parallel: r.Parallel, KVType: r.KVType, FlashAttention: r.FlashAttention, UBatch: r.UBatch}
	cfg := e.b.Load
	if cfg.Parallel > 0 {
		load.Parallel = cfg.Parallel
	}
	if e.b.Kind == providers.KindOllama && load.Context == 0 {
		load.Context = e.ollamaContext(ctx)
		if made != nil && made.Context > 0 {
			load.Context = min(load.Context, made.Context)
		}
		load.Context *= max(1, load.Parallel)
	}
	if cfg.Context > 0 {
		load.Context = cfg.Context * max(1, load.Parallel)
	}
	if cfg.KVType != "" {
		load.KVType = cfg.KVType
	}
	return load
}

// ollamaContext is the context that Ollama gives a model by itself: it goes by the
// memory of all devices (server/routes.go).
func (e *estimator) ollamaContext(ctx context.Context) int {
	var total schemas.Bytes
	r, err := e.w.readFor(ctx, e.b)
	for _, d := range r.readings {
		total += d.Total.Bytes
	}
	switch {
	case err != nil, total < 24*schemas.GiB:
		return 4096
	case total < 48*schemas.GiB:
		return 32768
	default:
		return 262144
	}
}

// ModelOf reads the file that a server names where it is on this machine, and takes
// what the server says otherwise. It's nil without an error where that is nothing.
func ModelOf(ctx context.Context, r *providers.Recipe) (*estimate.Model, error) {
	var unread error
	if r.File != "" {
		m, err := estimate.Read(ctx, r.File)
		if err == nil {
			return m, nil
		}
		unread = err
	}
	if r.Info == nil {
		return nil, unread
	}
	return estimate.FromInfo(r.Info, r.Size)
}
