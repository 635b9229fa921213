package providers

import (
	"context"
	"net/http"

	"github.com/vramjet/vramjet/schemas"
)

// Sim is a simulated model server, providers/sim. It generates as OpenAI's
// servers do, loads as llama-server's router does, and tells what no real server
// tells: its devices and how much of them each model takes.
type Sim struct {
	LlamaRouter
}

// Generate implements Provider.
func (p *Sim) Generate(ctx context.Context, req Request, emit func([]byte) error) (Answer, error) {
	req.priority = lowFirst(req.Class)
	return p.LlamaRouter.Generate(ctx, req, emit)
}

// Embed implements Embedder.
func (p *Sim) Embed(ctx context.Context, req Request) (Answer, error) {
	req.priority = lowFirst(req.Class)
	return p.LlamaRouter.Embed(ctx, req)
}

// simState is what a simulated server says of itself.
type simState struct {
	Devices []schemas.Device `json:"devices"`
	Models  []schemas.Model  `json:"models"`
}

func (p *Sim) state(ctx context.Context) (simState, error) {
	var s simState
	err := p.call(ctx, http.MethodGet, p.root+"/sim/state", nil, &s)
	if err == nil && s.Models == nil {
		err = schemas.Errorf(schemas.UpstreamError, "%s: the server is not a simulated one", p.name)
	}
	return s, err
}

// Pressure implements PressureReporter.
func (p *Sim) Pressure(ctx context.Context, model string) (Pressure, error) {
	s, err := p.state(ctx)
	if err != nil {
		return Pressure{}, err
	}
	for _, m := range s.Models {
		if m.Name == model {
			return Pressure{Running: m.Busy, Waiting: -1, Slots: m.Slots, KVUsed: -1}, nil
		}
	}
	return Pressure{}, schemas.Errorf(schemas.ModelNotFound, "%s: there is no model %q", p.name, model)
}

// Models implements Provider.
func (p *Sim) Models(ctx context.Context) ([]Model, error) {
	s, err := p.state(ctx)
	if err != nil {
		return nil, err
	}
	models := make([]Model, 0, len(s.Models))
	for _, m := range s.Models {
		models = append(models, Model{
			Name: m.Name, Kinds: m.Kinds, State: m.State, VRAM: m.VRAM, Need: m.Need,
			Slots: m.Slots, Context: m.Context, Digest: m.Digest,
		})
	}
	return models, nil
}

// Devices implements DeviceReporter.
func (p *Sim) Devices(ctx context.Context) ([]schemas.Device, error) {
	s, err := p.state(ctx)
	return s.Devices, err
}
