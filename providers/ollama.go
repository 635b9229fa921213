package providers

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/ollama/ollama/api"
	ollama "github.com/ollama/ollama/types/model"

	"github.com/vramjet/vramjet/schemas"
)

// Ollama is an Ollama server, spoken to in its own dialect: that is the one that
// loads and unloads, and that says when a stream failed.
//
// Models are named without ":latest", as people write them; the server takes
// both.
type Ollama struct {
	server
	shown   sync.Map // digest → []ollama.Capability: what /api/show said, which never changes
	recipes sync.Map // digest → Recipe, without the version
}

// NewOllama returns the provider for an Ollama server.
func NewOllama(cfg Config) *Ollama { return &Ollama{server: newServer(cfg)} }

// tagged is a model in Ollama's list. Its capabilities are there since 0.32.
type tagged struct {
	api.ListModelResponse
	Capabilities []ollama.Capability `json:"capabilities"`
}

// Models implements Provider.
func (p *Ollama) Models(ctx context.Context) ([]Model, error) {
	var tags struct {
		Models []tagged `json:"models"`
	}
	if err := p.call(ctx, http.MethodGet, p.root+"/api/tags", nil, &tags); err != nil {
		return nil, err
	}
	if tags.Models == nil {
		return nil, schemas.Errorf(schemas.UpstreamError, "%s: the list of models is none", p.name)
	}
	now, err := p.running(ctx)
	if err != nil {
		return nil, err
	}
	models := make([]Model, 0, len(tags.Models))
	for i := range tags.Models {
		m, err := p.model(ctx, &tags.Models[i], now)
		if err != nil {
			return nil, err
		}
		models = append(models, m)
	}
	return models, nil
}

// running returns what the server has in memory, by the models' short names. A
// model appears only once its load has ended.
func (p *Ollama) running(ctx context.Context) (map[string]api.ProcessModelResponse, error) {
	var ps api.ProcessResponse
	if err := p.call(ctx, http.MethodGet, p.root+"/api/ps", nil, &ps); err != nil {
		return nil, err
	}
	now := make(map[string]api.ProcessModelResponse, len(ps.Models))
	for _, m := range ps.Models {
		now[shortName(m.Name)] = m
	}
	return now, nil
}

func shortName(name string) string { return strings.TrimSuffix(name, ":latest") }

func (p *Ollama) model(ctx context.Context, t *tagged, now map[string]api.ProcessModelResponse) (Model, error) {
	m := Model{Name: shortName(t.Name), Digest: t.Digest, State: schemas.Installed}
	can, err := p.capabilities(ctx, t)
	if err != nil {
		return Model{}, err
	}
	m.Kinds, m.Abilities = kindsOf(can, t.Name), abilitiesOf(can)
	if t.RemoteHost != "" || t.RemoteModel != "" {
		m.State = schemas.Remote
		return m, nil
	}
	// The weights must fit at least. How much more a load takes, the server
	// does not tell.
	if t.Size > 0 {
		m.Need = schemas.Known(schemas.Bytes(t.Size))
	}
	if r, ok := now[m.Name]; ok {
		m.State, m.Context = schemas.Resident, r.ContextLength
		if r.SizeVRAM > 0 { // 0 is also what a server says that runs on the CPU
			m.VRAM = schemas.Known(schemas.Bytes(r.SizeVRAM))
		}
	}
	return m, nil
}

// capabilities returns what a model can do: from the list, or shown once per
// digest; nil: nobody tells.
func (p *Ollama) capabilities(ctx context.Context, t *tagged) ([]ollama.Capability, error) {
	if len(t.Capabilities) > 0 {
		return t.Capabilities, nil
	}
	if known, ok := p.shown.Load(t.Digest); ok {
		if can, ok := known.([]ollama.Capability); ok {
			return can, nil
		}
	}
	var show api.ShowResponse
	body := slicesConcat(`{"model":`, quote(t.Name), `}`)
	if err := p.call(ctx, http.MethodPost, p.root+"/api/show", body, &show); err != nil {
		if ctx.Err() != nil || schemas.AsError(err).Code == schemas.Unreachable {
			return nil, err
		}
		return nil, nil // one damaged model must not hide the others
	}
	p.shown.Store(t.Digest, show.Capabilities)
	return show.Capabilities, nil
}

func abilitiesOf(capabilities []ollama.Capability) []Ability {
	if len(capabilities) == 0 {
		return nil
	}
	can := []Ability{}
	for _, c := range []struct {
		theirs ollama.Capability
		ours   Ability
	}{{ollama.CapabilityTools, Tools}, {ollama.CapabilityVision, Vision}, {ollama.CapabilityThinking, Reasoning}} {
		if slices.Contains(capabilities, c.theirs) {
			can = append(can, c.ours)
		}
	}
	return can
}

func kindsOf(capabilities []ollama.Capability, name string) []schemas.Kind {
	var kinds []schemas.Kind
	if slices.Contains(capabilities, ollama.CapabilityCompletion) {
		kinds = append(kinds, schemas.Chat, schemas.Completion)
	}
	if slices.Contains(capabilities, ollama.CapabilityEmbedding) {
		kinds = append(kinds, schemas.Embedding)
	}
	if kinds == nil {
		return kindsByName(name)
	}
	return kinds
}

// Load implements Loader. The model stays until it is unloaded: it is not the
// server that decides here when memory is needed.
func (p *Ollama) Load(ctx context.Context, model string) error {
	return p.keep(ctx, model, "-1")
}

// Unload implements Loader. The server lets running requests finish first.
func (p *Ollama) Unload(ctx context.Context, model string) error {
	if err := p.idle(ctx, nil, model); err != nil {
		return err
	}
	if err := p.keep(ctx, model, "0"); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		now, err := p.running(ctx)
		_, there := now[shortName(model)]
		return !there, err
	})
}

// keep sends a request without a prompt, which only sets how long the model is
// kept, and loads it if that is longer than nothing. A model that only embeds is
// refused there, and loaded by embedding something.
func (p *Ollama) keep(ctx context.Context, model, how string) error {
	body := slicesConcat(`{"model":`, quote(model), `,"stream":false,"keep_alive":`+how+`}`)
	err := p.call(ctx, http.MethodPost, p.root+"/api/generate", body, &json.RawMessage{})
	if err == nil || !says(err, "does not support generate") {
		return err
	}
	body = slicesConcat(`{"model":`, quote(model), `,"input":"a","keep_alive":`+how+`}`)
	return p.call(ctx, http.MethodPost, p.root+"/api/embed", body, &json.RawMessage{})
}

// Generate implements Provider.
func (p *Ollama) Generate(ctx context.Context, req Request, emit func([]byte) error) (Answer, error) {
	path := "/api/chat"
	switch req.Kind {
	case schemas.Chat:
	case schemas.Completion:
		path = "/api/generate"
	default:
		return Answer{}, schemas.Errorf(schemas.InvalidRequest, "%s: a job of the kind %q generates nothing", p.name, req.Kind)
	}
	body, err := toOllama(req)
	if err != nil {
		return Answer{}, err
	}
	run := ollamaRun{retold: newRetold(req)}
	err = p.stream(ctx, req, p.root+path, body, func(r *bufio.Reader, chunk func()) error {
		lines := lineReader{r: r}
		return p.retell(lines.line, &run, chunk, emit)
	})
	if err != nil {
		return Answer{}, err
	}
	return run.answer.whole(req.Kind, run.prompt), nil
}

// Embed implements Embedder.
func (p *Ollama) Embed(ctx context.Context, req Request) (Answer, error) {
	body, err := toOllama(req)
	if err != nil {
		return Answer{}, err
	}
	return p.once(ctx, req, p.root+"/api/embed", body, func(raw []byte) (Answer, error) { return p.readEmbeddings(raw, req.Body) })
}
