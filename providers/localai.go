package providers

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// Some backends of LocalAI say nothing before they are done with what they run.
const (
	monitorTime = time.Second // how long one may take to say how it does
	monitorRest = time.Minute // after which one that said nothing is asked again what it takes
)

// LocalAI is a LocalAI. It loads a model when it is asked for, and by order.
type LocalAI struct {
	*OpenAI
	described last[[]localModel]
	inMemory  last[[]string] // names of models
	memory    sync.Map       // model → localSize, of loaded models
}

// A localModel is what LocalAI says of what a model can do.
type localModel struct {
	ID           string   `json:"id"`
	Capabilities []string `json:"capabilities"` // nil: a file that nobody described
}

// Models implements Provider. Models that do nothing of what a job can ask for, such
// as those that speak or paint, are left out.
func (p *LocalAI) Models(ctx context.Context) ([]Model, error) {
	all, err := p.OpenAI.Models(ctx)
	if err != nil {
		return nil, err
	}
	short, stop := aside(ctx)
	defer stop()
	described := p.described.learn(p.localList(short))
	loaded := p.inMemory.learn(p.loaded(short))
	models := make([]Model, 0, len(all))
	for _, m := range all {
		i := slices.IndexFunc(described, func(l localModel) bool { return l.ID == m.Name })
		if i >= 0 && described[i].Capabilities != nil {
			described[i].describe(&m)
		}
		if len(m.Kinds) == 0 {
			continue
		}
		if !slices.Contains(loaded, m.Name) { // or it keeps to itself what it loads
			m.State = schemas.Installed
			p.memory.Delete(m.Name)
		}
		models = append(models, m)
	}
	p.sizes(ctx, models)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return models, nil
}

// localList returns what LocalAI says of what its models can do.
func (s *server) localList(ctx context.Context) ([]localModel, error) {
	var list struct {
		Data []localModel `json:"data"`
	}
	err := s.call(ctx, http.MethodGet, s.root+"/v1/models/capabilities", nil, &list)
	return list.Data, err
}

func (l *localModel) describe(m *Model) {
	m.Kinds, m.Abilities = nil, []Ability{}
	for _, k := range []struct {
		theirs string
		ours   schemas.Kind
	}{{"chat", schemas.Chat}, {"completion", schemas.Completion}, {"embeddings", schemas.Embedding}} {
		if slices.Contains(l.Capabilities, k.theirs) {
			m.Kinds = append(m.Kinds, k.ours)
		}
	}
	for _, a := range []struct {
		theirs string
		ours   Ability
	}{{"tools", Tools}, {"vision", Vision}, {"thinking", Reasoning}} {
		if slices.Contains(l.Capabilities, a.theirs) {
			m.Abilities = append(m.Abilities, a.ours)
		}
	}
}

// loaded returns the models that are in memory.
func (p *LocalAI) loaded(ctx context.Context) ([]string, error) {
	var system struct {
		Loaded []struct {
			ID string `json:"id"`
		} `json:"loaded_models"`
	}
	if err := p.call(ctx, http.MethodGet, p.root+"/system", nil, &system); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(system.Loaded))
	for _, l := range system.Loaded {
		names = append(names, l.ID)
	}
	return names, nil
}

// A monitored is how a backend of LocalAI does.
type monitored struct {
	State  int `json:"state"` // 1: it runs something
	Memory struct {
		Total     int64            `json:"total"`
		Breakdown map[string]int64 `json:"breakdown"`
	} `json:"memory"`
}

// monitor asks how the backend of a model does that is loaded. An error is ctx's
// cause, or says that it does not tell.
func (p *LocalAI) monitor(ctx context.Context, model string) (monitored, error) {
	short, stop := context.WithTimeoutCause(ctx, monitorTime, schemas.Errorf(schemas.Overloaded, "%s: %q is too busy to tell how it does", p.name, model))
	defer stop()
	var m monitored
	err := p.call(short, http.MethodGet, p.root+"/backend/monitor?model="+url.QueryEscape(model), nil, &m)
	return m, err
}

// A localSize is what a loaded model takes, as far as its backend says.
type localSize struct {
	schemas.Amount
	until time.Time // when to ask again
}

// sizes adds what each loaded model takes. All backends are asked at once: one may
// have no time for us.
func (p *LocalAI) sizes(ctx context.Context, models []Model) {
	var asked sync.WaitGroup
	for i := range models {
		if m := &models[i]; m.State == schemas.Resident {
			asked.Go(func() { m.VRAM = p.size(ctx, m.Name) })
		}
	}
	asked.Wait()
}

// size returns what a loaded model takes, asked for once per load. Most backends
// only say what their process takes of the host's memory, which is another thing.
func (p *LocalAI) size(ctx context.Context, model string) schemas.Amount {
	if known, ok := p.memory.Load(model); ok {
		if size, ok := known.(localSize); ok && (size.until.IsZero() || time.Now().Before(size.until)) {
			return size.Amount
		}
	}
	if p.flights.of(model) > 0 { // later: it may have no time for us
		return schemas.Amount{}
	}
	var size localSize
	m, err := p.monitor(ctx, model)
	if err != nil {
		size.until = time.Now().Add(monitorRest)
	}
	if _, weights := m.Memory.Breakdown["weights"]; err == nil && weights && m.State >= 0 && m.Memory.Total > 0 {
		size.Amount = schemas.Known(schemas.Bytes(m.Memory.Total))
	}
	if ctx.Err() == nil {
		p.memory.Store(model, size)
	}
	return size.Amount
}

// Load implements Loader. LocalAI answers once the model is loaded. A version that
// takes no such order, or not from us, gets none: the first request for the model
// loads it.
func (p *LocalAI) Load(ctx context.Context, model string) error {
	m, err := p.find(ctx, p, model)
	if err != nil || m.State == schemas.Resident {
		return err
	}
	if err := p.order(ctx, "load", model); err != nil {
		if pathless(err) || schemas.AsError(err).Code == schemas.Permission {
			return nil
		}
		return err
	}
	return p.settle(ctx, model, slices.Contains[[]string])
}

// settle returns once the list of what is loaded has a model, or lacks it; at once
// where LocalAI has no such list.
func (p *LocalAI) settle(ctx context.Context, model string, done func(loaded []string, model string) bool) error {
	return poll(ctx, func() (bool, error) {
		loaded, err := p.loaded(ctx)
		if absent(err) {
			return true, nil
		}
		return err == nil && done(loaded, model), err
	})
}

func lacks(loaded []string, model string) bool { return !slices.Contains(loaded, model) }

// gone reports whether LocalAI says that a model is not loaded.
func (p *LocalAI) gone(ctx context.Context, model string) (bool, error) {
	loaded, err := p.loaded(ctx)
	if absent(err) {
		return false, nil
	}
	return err == nil && lacks(loaded, model), err
}

// Unload implements Loader.
func (p *LocalAI) Unload(ctx context.Context, model string) error {
	if _, err := p.find(ctx, p, model); err != nil {
		return err
	}
	if gone, err := p.gone(ctx, model); gone || err != nil {
		return err
	}
	if err := p.idle(ctx, nil, model); err != nil {
		return err
	}
	now, err := p.monitor(ctx, model)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && schemas.AsError(err).Code == schemas.Overloaded:
		return err
	case err == nil && now.State == 1:
		return schemas.Errorf(schemas.Overloaded, "%s: %q runs something: unload it when that is done", p.name, model)
	}
	switch err := p.order(ctx, "shutdown", model); {
	case err == nil:
		return p.settle(ctx, model, lacks)
	case !pathless(err):
		return err
	}
	// A model that is not loaded is answered like a path that is not there.
	if gone, err := p.gone(ctx, model); gone || err != nil {
		return err
	}
	return schemas.Errorf(schemas.Unsupported, "%s: this version of LocalAI unloads nothing by order", p.name)
}

func (p *LocalAI) order(ctx context.Context, what, model string) error {
	return p.call(ctx, http.MethodPost, p.root+"/backend/"+what, slicesConcat(`{"model":`, quote(model), `}`), &json.RawMessage{})
}

// pathless reports whether a server said that there is nothing of that name.
func pathless(err error) bool {
	code := schemas.AsError(err).Code
	return code == schemas.ModelNotFound || code == schemas.Unsupported
}
