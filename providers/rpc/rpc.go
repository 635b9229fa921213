// Package rpc is the provider of backends that anybody may write, in any language
// and without HTTP: services on NATS, asked on the subjects of schemas.RPCSubject.
//
// It is the one provider that knows NATS.
package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// Config says which service to ask.
type Config struct {
	Name string // the service's, in its subjects: a token of schemas.ValidToken
}

// Provider asks a service. It can embed, load, unload and tell the pressure as far as
// the service can: what that has no endpoint for is schemas.Unsupported.
type Provider struct {
	nc    *nats.Conn
	name  string
	relay *providers.Relay
}

// New returns the provider for a service. It sends nothing: whether somebody serves
// shows in the first call. An error says that cfg is wrong.
func New(nc *nats.Conn, cfg Config) (*Provider, error) {
	if !schemas.ValidToken(cfg.Name) {
		return nil, fmt.Errorf("backend %s: the name of a service is 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'", cfg.Name)
	}
	return &Provider{nc: nc, name: cfg.Name, relay: providers.NewRelay(cfg.Name)}, nil
}

// Open implements providers.Breaker.
func (p *Provider) Open() error { return p.relay.Open() }

// Generate implements providers.Provider. The service is told when the caller wants
// no more of the answer.
func (p *Provider) Generate(ctx context.Context, req providers.Request, emit func(chunk []byte) error) (a providers.Answer, err error) {
	c := p.newCall(schemas.RPCGenerate, req.Kind)
	defer func() { c.end(err) }()
	return p.relay.Generate(ctx, req, c.ask, emit)
}

// Embed implements providers.Embedder.
func (p *Provider) Embed(ctx context.Context, req providers.Request) (a providers.Answer, err error) {
	c := p.newCall(schemas.RPCEmbed, schemas.Embedding)
	defer func() { c.end(err) }()
	return p.relay.Embed(ctx, req, c.ask)
}

// Models implements providers.Provider.
func (p *Provider) Models(ctx context.Context) ([]providers.Model, error) {
	raw, err := p.once(ctx, schemas.RPCModels, nil)
	if err != nil {
		return nil, err
	}
	var list schemas.RPCModelList
	if err := json.Unmarshal(raw, &list); err != nil || list.Models == nil {
		return nil, p.unreadable(schemas.RPCModels, raw)
	}
	models := make([]providers.Model, 0, len(list.Models))
	for i := range list.Models {
		m, err := read(&list.Models[i])
		if err != nil {
			return nil, schemas.Errorf(schemas.UpstreamError, "%s: the model %q %s", p.name, list.Models[i].Name, err)
		}
		models = append(models, m)
	}
	return models, nil
}

// read takes a model as the service lists it. What it does not say is as for a
// model that just is there.
func read(m *schemas.RPCModel) (providers.Model, error) {
	found := providers.Model{
		Name: m.Name, Kinds: m.Kinds, State: m.State, VRAM: m.VRAM, Need: m.Need,
		Slots: max(m.Slots, 1), Context: max(m.Context, 0), Digest: m.Digest,
	}
	if m.Name == "" {
		return found, errors.New("has no name")
	}
	if len(m.Kinds) == 0 {
		found.Kinds = []schemas.Kind{schemas.Chat, schemas.Completion}
	}
	for _, k := range m.Kinds {
		if !slices.Contains([]schemas.Kind{schemas.Chat, schemas.Completion, schemas.Embedding}, k) {
			return found, fmt.Errorf("has the kind %q, which is none of chat, completion and embedding", k)
		}
	}
	switch m.State {
	case "":
		found.State = schemas.Resident
	case schemas.Resident, schemas.Loading, schemas.Installed, schemas.Remote:
	default:
		return found, fmt.Errorf("is in the state %q, which is none of resident, loading, installed and remote", m.State)
	}
	if m.Abilities != nil {
		found.Abilities = []providers.Ability{}
		for _, a := range m.Abilities {
			found.Abilities = append(found.Abilities, providers.Ability(a))
		}
	}
	return found, nil
}

// Load implements providers.Loader.
func (p *Provider) Load(ctx context.Context, model string) error {
	_, err := p.once(ctx, schemas.RPCLoad, schemas.RPCModelRequest{Model: model})
	return err
}

// Unload implements providers.Loader.
func (p *Provider) Unload(ctx context.Context, model string) error {
	if err := p.relay.Idle(ctx, p, model); err != nil {
		return err
	}
	_, err := p.once(ctx, schemas.RPCUnload, schemas.RPCModelRequest{Model: model})
	return err
}

// Pressure implements providers.PressureReporter.
func (p *Provider) Pressure(ctx context.Context, model string) (providers.Pressure, error) {
	raw, err := p.once(ctx, schemas.RPCPressure, schemas.RPCModelRequest{Model: model})
	if err != nil {
		return providers.Pressure{}, err
	}
	var report schemas.RPCPressureReport
	if err := json.Unmarshal(raw, &report); err != nil {
		return providers.Pressure{}, p.unreadable(schemas.RPCPressure, raw)
	}
	now := providers.Pressure{Running: -1, Waiting: -1, Slots: max(report.Slots, 0), KVUsed: -1}
	if report.Running != nil {
		now.Running = *report.Running
	}
	if report.Waiting != nil {
		now.Waiting = *report.Waiting
	}
	if report.KVUsed != nil {
		now.KVUsed = *report.KVUsed
	}
	return now, nil
}

// once asks what is answered by one message. request may be nil.
func (p *Provider) once(ctx context.Context, verb string, request any) (raw []byte, err error) {
	var body []byte
	if request != nil {
		if body, err = json.Marshal(request); err != nil {
			return nil, schemas.Errorf(schemas.Internal, "%s: %s", p.name, err)
		}
	}
	c := p.newCall(verb, "")
	defer func() { c.end(err) }()
	next, err := c.ask(ctx, body)
	if err != nil {
		return nil, err
	}
	if raw, err = next(); err != nil {
		return nil, err
	}
	var failure struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(raw, &failure) == nil && len(failure.Error) > 0 && string(failure.Error) != "null" {
		return nil, p.relay.Failure(http.StatusOK, raw)
	}
	return raw, nil
}

func (p *Provider) unreadable(verb string, raw []byte) error {
	return schemas.Errorf(schemas.UpstreamError, "%s: what it answers to %s is none of the protocol: %.200q", p.name, verb, raw)
}
