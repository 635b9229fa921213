package providers

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// LlamaSwap is a llama-swap: it starts a server for a model when it is asked for
// and stops it when another needs the room.
type LlamaSwap struct {
	*OpenAI
	now last[running]
}

// running is what llama-swap runs now.
type running struct {
	Running []struct {
		Model string `json:"model"`
		State string `json:"state"`
		Cmd   string `json:"cmd"`
	} `json:"running"`
}

// Models implements Provider. The list calls a model loaded that still starts,
// so what is there is taken from /running.
func (p *LlamaSwap) Models(ctx context.Context) ([]Model, error) {
	models, err := p.OpenAI.Models(ctx)
	if err != nil {
		return nil, err
	}
	short, stop := aside(ctx)
	defer stop()
	now := p.now.learn(p.running(short))
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for i := range models {
		models[i].State = schemas.Installed
		for _, r := range now.Running {
			if r.Model != models[i].Name {
				continue
			}
			started := loadStatus{Value: r.State, Args: strings.Fields(r.Cmd)}
			models[i].State = started.state()
			models[i].Slots = started.slots()
			if total := started.flag("-c", "--ctx-size"); total > 0 {
				models[i].Context = total / max(1, models[i].Slots)
			}
		}
	}
	return models, nil
}

func (p *LlamaSwap) running(ctx context.Context) (now running, err error) {
	err = p.call(ctx, http.MethodGet, p.root+"/running", nil, &now)
	return now, err
}

// Load implements Loader. llama-swap has no order for it: it starts a model that
// is asked for its health, and answers once that is up.
func (p *LlamaSwap) Load(ctx context.Context, model string) error {
	return p.call(ctx, http.MethodGet, p.root+"/upstream/"+escapePath(model)+"/health", nil, nil)
}

// Pressure implements PressureReporter, for models that run on llama-server. It is
// asked only where the model runs: else llama-swap would start it. To llama-swap it is
// a request like any other: the time after which the model is to be unloaded (ttl)
// begins anew.
func (p *LlamaSwap) Pressure(ctx context.Context, model string) (Pressure, error) {
	now, err := p.running(ctx)
	if err != nil {
		return Pressure{}, err
	}
	for _, r := range now.Running {
		if r.Model == model && r.State == "ready" {
			return p.slots(ctx, p.root+"/upstream/"+escapePath(model)+"/slots")
		}
	}
	return Pressure{Slots: 0, KVUsed: -1}, nil
}

// Unload implements Loader. llama-swap answers once the model's server stopped.
func (p *LlamaSwap) Unload(ctx context.Context, model string) error {
	if err := p.idle(ctx, p, model); err != nil {
		return err
	}
	if err := p.call(ctx, http.MethodPost, p.root+"/api/models/unload/"+escapePath(model), nil, nil); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		now, err := p.running(ctx)
		gone := true
		for _, r := range now.Running {
			gone = gone && r.Model != model
		}
		return gone, err
	})
}

// escapePath escapes a model's name for a path. Slashes stay: llama-swap takes
// names that have them as they are.
func escapePath(model string) string {
	parts := strings.Split(model, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}
