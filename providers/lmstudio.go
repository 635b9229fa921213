package providers

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/vramjet/vramjet/schemas"
)

// LMStudio is an LM Studio. It has orders to load and unload since version 0.4;
// older ones only load what a request asks for. It has a status of 200 for paths
// that it does not know.
type LMStudio struct {
	*OpenAI
}

// A studioModel is a model in LM Studio's own list.
type studioModel struct {
	Type         string `json:"type"` // llm, embedding
	Key          string `json:"key"`
	Size         int64  `json:"size_bytes"`
	Context      int    `json:"max_context_length"`
	Capabilities *struct {
		Vision    bool            `json:"vision"`
		Tools     bool            `json:"trained_for_tool_use"`
		Reasoning json.RawMessage `json:"reasoning"` // how it can be set; null: it can't think
	} `json:"capabilities"`
	Loaded []struct {
		ID     string `json:"id"`
		Config struct {
			Context  int `json:"context_length"`
			Parallel int `json:"parallel"`
		} `json:"config"`
	} `json:"loaded_instances"`
}

// studioList returns LM Studio's own list of models.
func (s *server) studioList(ctx context.Context) ([]studioModel, error) {
	var list struct {
		Models []studioModel `json:"models"`
	}
	if err := s.call(ctx, http.MethodGet, s.root+"/api/v1/models", nil, &list); err != nil {
		return nil, err
	}
	if list.Models == nil {
		return nil, schemas.Errorf(schemas.UpstreamError, "%s: the list of models is none", s.name)
	}
	return list.Models, nil
}

// Models implements Provider.
func (p *LMStudio) Models(ctx context.Context) ([]Model, error) {
	list, err := p.studioList(ctx)
	if absent(err) {
		return p.oldModels(ctx)
	}
	if err != nil {
		return nil, err
	}
	models := make([]Model, 0, len(list))
	for i := range list {
		models = append(models, list[i].model())
	}
	return models, nil
}

func (l *studioModel) model() Model {
	m := Model{Name: l.Key, Kinds: studioKinds(l.Type), State: schemas.Installed, Context: l.Context, Abilities: l.abilities()}
	if l.Size > 0 { // the weights must fit at least
		m.Need = schemas.Known(schemas.Bytes(l.Size))
	}
	if len(l.Loaded) > 0 { // the first is the one that a request by the model's name gets
		config := l.Loaded[0].Config
		m.State, m.Slots = schemas.Resident, max(0, config.Parallel)
		if config.Context > 0 {
			m.Context = config.Context
		}
	}
	return m
}

func studioKinds(kind string) []schemas.Kind {
	if kind == "embedding" || kind == "embeddings" {
		return []schemas.Kind{schemas.Embedding}
	}
	return []schemas.Kind{schemas.Chat, schemas.Completion}
}

func (l *studioModel) abilities() []Ability {
	c := l.Capabilities
	if c == nil {
		if l.Type == "embedding" {
			return []Ability{}
		}
		return nil
	}
	can := []Ability{}
	if c.Tools {
		can = append(can, Tools)
	}
	if c.Vision {
		can = append(can, Vision)
	}
	if len(c.Reasoning) > 0 && !isNull(c.Reasoning) {
		can = append(can, Reasoning)
	}
	return can
}

// An oldStudioModel is a model in the list of LM Studio 0.3.
type oldStudioModel struct {
	ID           string   `json:"id"`
	Type         string   `json:"type"` // llm, vlm, embeddings
	Format       string   `json:"compatibility_type"`
	State        string   `json:"state"` // loaded, not-loaded
	Context      int      `json:"max_context_length"`
	Loaded       int      `json:"loaded_context_length"`
	Capabilities []string `json:"capabilities"` // tool_use, since 0.3.16
}

func (s *server) oldStudioList(ctx context.Context) ([]oldStudioModel, error) {
	var list struct {
		Data []oldStudioModel `json:"data"`
	}
	if err := s.call(ctx, http.MethodGet, s.root+"/api/v0/models", nil, &list); err != nil {
		return nil, err
	}
	if list.Data == nil {
		return nil, schemas.Errorf(schemas.UpstreamError, "%s: the list of models is none", s.name)
	}
	return list.Data, nil
}

// oldModels lists the models of versions before 0.4, and of those before 0.3.6,
// which have only OpenAI's list.
func (p *LMStudio) oldModels(ctx context.Context) ([]Model, error) {
	list, err := p.oldStudioList(ctx)
	if absent(err) {
		models, err := p.OpenAI.Models(ctx)
		for i := range models { // it lists what it could load
			models[i].State = schemas.Installed
		}
		return models, err
	}
	if err != nil {
		return nil, err
	}
	models := make([]Model, 0, len(list))
	for i := range list {
		l := &list[i]
		m := Model{Name: l.ID, Kinds: studioKinds(l.Type), State: schemas.Installed, Context: l.Context}
		switch l.State {
		case "loaded":
			m.State = schemas.Resident
		case "loading":
			m.State = schemas.Loading
		}
		if l.Loaded > 0 {
			m.Context = l.Loaded
		}
		if slices.Contains(l.Capabilities, "tool_use") {
			m.Abilities = append(m.Abilities, Tools)
		}
		if l.Type == "vlm" {
			m.Abilities = append(m.Abilities, Vision)
		}
		models = append(models, m)
	}
	return models, nil
}

// Load implements Loader. A model that is loaded already is left as it is: LM
// Studio would load it once more. A version that takes no orders gets none: the first
// request for the model loads it.
func (p *LMStudio) Load(ctx context.Context, model string) error {
	m, err := p.find(ctx, p, model)
	if err != nil || m.State == schemas.Resident {
		return err
	}
	body := slicesConcat(`{"model":`, quote(model), `}`)
	if err := p.call(ctx, http.MethodPost, p.root+"/api/v1/models/load", body, &json.RawMessage{}); err != nil {
		if schemas.AsError(err).Code == schemas.Unsupported {
			return nil
		}
		return err
	}
	return p.await(ctx, p, model, schemas.Resident)
}

// Unload implements Loader. A model may be loaded several times.
func (p *LMStudio) Unload(ctx context.Context, model string) error {
	list, err := p.studioList(ctx)
	if absent(err) && schemas.AsError(err).Code == schemas.Unsupported {
		return schemas.Errorf(schemas.Unsupported, "%s: LM Studio unloads by order since version 0.4: this one is older", p.name)
	}
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(l studioModel) bool { return l.Key == model })
	if i < 0 {
		return schemas.Errorf(schemas.ModelNotFound, "%s: there is no model %q", p.name, model)
	}
	if err := p.idle(ctx, nil, model); err != nil {
		return err
	}
	for _, instance := range list[i].Loaded {
		body := slicesConcat(`{"instance_id":`, quote(instance.ID), `}`)
		err := p.call(ctx, http.MethodPost, p.root+"/api/v1/models/unload", body, &json.RawMessage{})
		if err != nil && schemas.AsError(err).Code != schemas.ModelNotFound { // somebody else's order may have come first
			return err
		}
	}
	return p.await(ctx, p, model, schemas.Installed)
}
