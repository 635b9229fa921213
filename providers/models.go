package providers

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// A listed is a model in a list of OpenAI's API, with what servers add to it.
type listed struct {
	ID            string      `json:"id"`
	OwnedBy       string      `json:"owned_by"`
	Parent        string      `json:"parent"`               // vLLM: what a LoRA adapter is for
	MaxModelLen   int         `json:"max_model_len"`        // vLLM, SGLang
	ContextLength int         `json:"context_length"`       // OpenRouter, llama-swap, llama-server's router
	Status        *loadStatus `json:"status"`               // llama-server's router, llama-swap
	Meta          *listedMeta `json:"meta"`                 // llama-server
	Type          string      `json:"type"`                 // Together
	Parameters    []string    `json:"supported_parameters"` // OpenRouter
	Architecture  struct {
		Input  []string `json:"input_modalities"`
		Output []string `json:"output_modalities"`
	} `json:"architecture"`

	can   []Ability // what else is known of it
	known bool      // can is what somebody told
}

type listedMeta struct {
	Ctx int `json:"n_ctx"`
}

// A loadStatus is what llama-server's router says of a model.
type loadStatus struct {
	Value    string   `json:"value"`
	Args     []string `json:"args"`
	Preset   string   `json:"preset"` // the same, as lines of an INI file
	Failed   bool     `json:"failed"`
	ExitCode int      `json:"exit_code"`
	Log      string   `json:"log"`
}

// UnmarshalJSON implements json.Unmarshaler. Azure's status is a word, and says
// nothing of memory.
func (s *loadStatus) UnmarshalJSON(raw []byte) error {
	type plain loadStatus
	_ = json.Unmarshal(raw, (*plain)(s)) // then it has no value
	return nil
}

// list returns the server's list of models.
func (p *OpenAI) list(ctx context.Context) ([]listed, error) {
	var raw json.RawMessage
	if err := p.call(ctx, http.MethodGet, p.models, nil, &raw); err != nil {
		return nil, err
	}
	var whole struct {
		Data []listed `json:"data"`
	}
	err := json.Unmarshal(raw, &whole)
	if err != nil {
		err = json.Unmarshal(raw, &whole.Data) // Together's list is bare
	}
	if err != nil || whole.Data == nil {
		return nil, schemas.Errorf(schemas.UpstreamError, "%s: the list of models is none: %.200s", p.name, p.keys.redact(string(raw)))
	}
	return whole.Data, nil
}

// Models implements Provider. A server that has no list, or shows the key none,
// serves what the configuration names.
func (p *OpenAI) Models(ctx context.Context) ([]Model, error) {
	list, err := p.list(ctx)
	unlisted := p.quirk.unlisted // it answers, and that is all that its list is good for
	if err != nil {
		code := schemas.AsError(err).Code
		unlisted = code == schemas.Unsupported || code == schemas.ModelNotFound || code == schemas.Permission
	}
	switch {
	case unlisted && len(p.named) > 0:
		return p.describe(p.named), nil
	case err != nil && unlisted:
		e := *schemas.AsError(err)
		e.Message += ": if it has no list, name its models in `models:`"
		return nil, &e
	case err != nil:
		return nil, err
	case unlisted:
		return nil, schemas.Errorf(schemas.Unsupported, "%s: its list is not of what it serves: name that in `models:`", p.name)
	case p.quirk.hosted:
		list = slices.DeleteFunc(list, isMute)
	}
	return p.describe(list), nil
}

// describe returns the models of a list, without those that can do nothing for us.
func (p *OpenAI) describe(list []listed) []Model {
	models := make([]Model, 0, len(list))
	for i := range list {
		m := list[i].model()
		if p.quirk.hosted {
			m.State = schemas.Remote
			m.Name = strings.TrimPrefix(m.Name, p.quirk.prefix)
		}
		if p.quirk.kinds != nil {
			m.Kinds = slices.DeleteFunc(slices.Clone(m.Kinds), func(k schemas.Kind) bool { return !slices.Contains(p.quirk.kinds, k) })
		}
		if len(m.Kinds) > 0 {
			models = append(models, m)
		}
	}
	return models
}

// model returns what a list says of a model. A model without a status is there:
// its server was started with it.
func (l *listed) model() Model {
	m := Model{
		Name:      l.ID,
		Kinds:     l.kinds(),
		State:     schemas.Resident,
		Context:   max(l.MaxModelLen, l.ContextLength),
		Abilities: l.abilities(),
	}
	if l.Meta != nil && l.Meta.Ctx > 0 {
		m.Context = l.Meta.Ctx
	}
	if l.Status != nil && l.Status.Value != "" {
		m.State = l.Status.state()
	}
	return m
}

// kinds returns what a model does, as the list says, or by its name.
func (l *listed) kinds() []schemas.Kind {
	if kinds, ok := kindsByType[l.Type]; ok {
		return kinds
	}
	out := l.Architecture.Output
	switch {
	case slices.Contains(out, "embedding"), slices.Contains(out, "embeddings"):
		return []schemas.Kind{schemas.Embedding}
	case len(out) > 0 && !slices.Contains(out, "text"):
		return nil
	default:
		return kindsByName(l.ID)
	}
}

// abilities returns what the list says that a model can do beside text.
func (l *listed) abilities() []Ability {
	can := slices.Clone(l.can)
	if l.Parameters != nil && can == nil {
		can = []Ability{}
	}
	if slices.Contains(l.Parameters, "tools") {
		can = append(can, Tools)
	}
	if slices.Contains(l.Architecture.Input, "image") {
		can = append(can, Vision)
	}
	if slices.Contains(l.Parameters, "reasoning") {
		can = append(can, Reasoning)
	}
	return can
}

// state returns where the router says that a model is. A model that sleeps gave
// its memory back, and wakes by a request.
func (s *loadStatus) state() schemas.ModelState {
	switch s.Value {
	case "loaded", "ready", "stopping":
		return schemas.Resident
	case "loading", "starting":
		return schemas.Loading
	default:
		return schemas.Installed
	}
}

// asleep reports whether the model gave its memory back and keeps its process.
func (s *loadStatus) asleep() bool { return s.Value == "sleeping" }

// slots returns how many jobs the model was told to run at once, 0 without.
func (s *loadStatus) slots() int { return s.flag("--parallel", "-np") }

// flag returns the value of a command-line flag by any of its names, 0 without.
func (s *loadStatus) flag(names ...string) int {
	for i := 0; i+1 < len(s.Args); i++ {
		if slices.Contains(names, s.Args[i]) {
			return max(0, atoi([]byte(s.Args[i+1])))
		}
	}
	return 0
}

// asideTime is how long all may take that is asked beside a list of models.
const asideTime = time.Second

// aside bounds what a provider asks beside the list of models. The list alone says
// whether the server is well.
func aside(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, asideTime)
}

// A last is what a server last said beside its list of models.
type last[T any] struct{ said atomic.Pointer[T] }

// learn keeps what the server says now, or that it keeps it to itself, and returns it.
// Where it could not be asked, learn returns what it said the last time; the zero
// value: nothing.
func (l *last[T]) learn(now T, err error) T {
	if err == nil || absent(err) {
		l.said.Store(&now)
		return now
	}
	return l.last()
}

// last returns what the server said the last time, the zero value where it never did.
func (l *last[T]) last() T {
	if old := l.said.Load(); old != nil {
		return *old
	}
	var unknown T
	return unknown
}

// find returns what a provider says of one of its models now.
func (s *server) find(ctx context.Context, p Provider, model string) (Model, error) {
	models, err := p.Models(ctx)
	if err != nil {
		return Model{}, err
	}
	i := slices.IndexFunc(models, func(m Model) bool { return m.Name == model })
	if i < 0 {
		return Model{}, schemas.Errorf(schemas.ModelNotFound, "%s: there is no model %q", s.name, model)
	}
	return models[i], nil
}

// await returns once a provider says that a model is in that state.
func (s *server) await(ctx context.Context, p Provider, model string, state schemas.ModelState) error {
	return poll(ctx, func() (bool, error) {
		m, err := s.find(ctx, p, model)
		return m.State == state, err
	})
}

// kindsByName guesses what a model can do where its server does not tell.
func kindsByName(name string) []schemas.Kind {
	low := strings.ToLower(name)
	if strings.Contains(low, "embed") || strings.Contains(low, "bge") {
		return []schemas.Kind{schemas.Embedding}
	}
	return []schemas.Kind{schemas.Chat, schemas.Completion}
}
