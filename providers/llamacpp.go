package providers

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// pollEvery is how often a server is asked whether a load or unload is done.
const pollEvery = 50 * time.Millisecond

// LlamaServer is a llama-server that was started with a model. It holds that one
// for as long as it runs.
type LlamaServer struct {
	*OpenAI
	embeds sync.Map // model → bool: what it said when it was last awake
}

// props is what llama-server says of itself.
type props struct {
	Role       string `json:"role"` // "router" without a model
	TotalSlots int    `json:"total_slots"`
	Defaults   struct {
		Ctx int `json:"n_ctx"` // of one slot
	} `json:"default_generation_settings"`
	Pooling    string `json:"pooling_type"`
	Sleeping   bool   `json:"is_sleeping"`
	Modalities *struct {
		Vision bool `json:"vision"`
	} `json:"modalities"`
	Template struct {
		Tools bool `json:"supports_tools"`
	} `json:"chat_template_caps"`
}

// abilities are what the model can do beside text; nil: an old server, which does
// not tell.
func (p *props) abilities() []Ability {
	if p.Modalities == nil {
		return nil
	}
	can := []Ability{}
	if p.Template.Tools {
		can = append(can, Tools)
	}
	if p.Modalities.Vision {
		can = append(can, Vision)
	}
	return can
}

// Models implements Provider. It also asks for the slots, and the context that
// each of them has.
func (p *LlamaServer) Models(ctx context.Context) ([]Model, error) {
	models, err := p.OpenAI.Models(ctx)
	if err != nil {
		return nil, err
	}
	var own props
	if err := p.call(ctx, http.MethodGet, p.root+"/props", nil, &own); err != nil {
		if code := schemas.AsError(err).Code; ctx.Err() != nil || code == schemas.Unreachable || code == schemas.ModelLoading {
			return nil, err // some versions list their model while they load it
		}
		return models, nil // props may be switched off
	}
	for i := range models {
		models[i].Slots, models[i].Abilities = own.TotalSlots, own.abilities()
		if own.Defaults.Ctx > 0 {
			models[i].Context = own.Defaults.Ctx
		}
		if own.Pooling != "" && own.Pooling != "none" && !slices.Contains(models[i].Kinds, schemas.Embedding) {
			models[i].Kinds = append(models[i].Kinds, schemas.Embedding)
		}
		if p.onlyEmbeds(ctx, models[i].Name, &own) {
			models[i].Kinds = []schemas.Kind{schemas.Embedding}
		}
	}
	return models, nil
}

// onlyEmbeds reports whether the server runs with --embeddings. It shows only in
// how it turns a request down that has no input, before the model sees any of it.
// A server that sleeps is not asked: it would wake.
func (p *LlamaServer) onlyEmbeds(ctx context.Context, model string, own *props) bool {
	if own.Sleeping {
		known, _ := p.embeds.Load(model)
		embeds, ok := known.(bool)
		return ok && embeds
	}
	err := p.call(ctx, http.MethodPost, p.v1+"/embeddings", []byte("{}"), nil)
	embeds := err != nil && schemas.AsError(err).Code == schemas.InvalidRequest
	p.embeds.Store(model, embeds)
	return embeds
}

// Pressure implements PressureReporter. Only /metrics, which is off by default,
// tells how many requests wait; /slots would wake a server that sleeps.
func (p *LlamaServer) Pressure(ctx context.Context, _ string) (Pressure, error) {
	var own props
	if err := p.call(ctx, http.MethodGet, p.root+"/props", nil, &own); err != nil {
		return Pressure{}, err
	}
	if own.Sleeping {
		return Pressure{Waiting: 0, Slots: own.TotalSlots, KVUsed: -1}, nil
	}
	return p.busy(ctx, "")
}

// busy asks a llama-server how busy it is, a router with the query that names a
// model.
func (s *server) busy(ctx context.Context, query string) (Pressure, error) {
	found, err := s.slots(ctx, s.root+"/slots"+query)
	if err != nil {
		return Pressure{}, err
	}
	if m, err := s.metrics(ctx, s.root+"/metrics"+query); err == nil {
		found.Waiting = int(m.sum("llamacpp:requests_deferred", -1))
	}
	return found, nil
}

// slots reads how busy a llama-server is from its list of slots.
func (s *server) slots(ctx context.Context, target string) (Pressure, error) {
	var slots []struct {
		Processing bool `json:"is_processing"`
	}
	if err := s.call(ctx, http.MethodGet, target, nil, &slots); err != nil {
		return Pressure{}, err
	}
	found := Pressure{Waiting: -1, Slots: len(slots), KVUsed: -1}
	for _, slot := range slots {
		if slot.Processing {
			found.Running++
		}
	}
	return found, nil
}

// LlamaRouter is a llama-server that was started without a model and loads what
// it is told to.
type LlamaRouter struct {
	*OpenAI
}

// Models implements Provider.
func (p *LlamaRouter) Models(ctx context.Context) ([]Model, error) {
	list, err := p.list(ctx)
	if err != nil {
		return nil, err
	}
	models := make([]Model, 0, len(list))
	for i := range list {
		l := &list[i]
		m := l.model()
		if l.Status != nil {
			m.Slots = l.Status.flag("--parallel", "-np")
			// --ctx-size is of all slots together, and no slot has more than the
			// model was trained with, which is what is listed
			if total := l.Status.flag("--ctx-size", "-c"); total > 0 && (l.Meta == nil || l.Meta.Ctx == 0) {
				m.Context = min(total/max(1, m.Slots), cmp.Or(m.Context, total))
			}
			if slices.Contains(l.Status.Args, "--embeddings") || slices.Contains(l.Status.Args, "--embedding") {
				m.Kinds = []schemas.Kind{schemas.Embedding}
			}
		}
		models = append(models, m)
	}
	return models, nil
}

// Load implements Loader.
func (p *LlamaRouter) Load(ctx context.Context, model string) error {
	err := p.order(ctx, "load", model)
	running := says(err, "already running", "already loaded")
	if err != nil && !running {
		if schemas.AsError(err).Code == schemas.Unsupported { // an unknown model's path is not found
			return schemas.Errorf(schemas.ModelNotFound, "%s: there is no model %q to load", p.name, model)
		}
		return err
	}
	err = p.until(ctx, model, func(s *loadStatus) (bool, error) {
		switch s.state() {
		case schemas.Resident:
			return !running || p.alive(ctx, model), nil
		case schemas.Loading:
			return false, nil
		default:
			return true, p.loadFailure(model, s)
		}
	})
	if running && err != nil && ctx.Err() == nil { // it has ended since: what failed was not this load
		return p.Load(ctx, model)
	}
	return err
}

// alive reports whether the process of a loaded model is there: for a moment, the
// router calls one loaded that was killed.
func (p *LlamaRouter) alive(ctx context.Context, model string) bool {
	_, err := p.fetch(ctx, http.MethodGet, p.root+"/props"+of(model), nil)
	return err == nil || schemas.AsError(err).Code != schemas.UpstreamError
}

// Pressure implements PressureReporter.
func (p *LlamaRouter) Pressure(ctx context.Context, model string) (Pressure, error) {
	return p.busy(ctx, of(model))
}

// of is the query for what the process of a model says. The router starts none for
// it.
func of(model string) string { return "?autoload=false&model=" + url.QueryEscape(model) }

// Unload implements Loader.
func (p *LlamaRouter) Unload(ctx context.Context, model string) error {
	if err := p.idle(ctx, p, model); err != nil {
		return err
	}
	err := p.order(ctx, "unload", model)
	if err != nil {
		if says(err, "not running", "not loaded") {
			return nil
		}
		return err
	}
	return p.until(ctx, model, func(s *loadStatus) (bool, error) {
		return s.state() == schemas.Installed, nil
	})
}

// order tells the router to load or unload. It answers before that is done.
func (p *LlamaRouter) order(ctx context.Context, what, model string) error {
	body := slicesConcat(`{"model":`, quote(model), `}`)
	return p.call(ctx, http.MethodPost, p.root+"/models/"+what, body, nil)
}

// until polls the model's status until done says so.
func (p *LlamaRouter) until(ctx context.Context, model string, done func(*loadStatus) (bool, error)) error {
	return poll(ctx, func() (bool, error) {
		list, err := p.list(ctx)
		if err != nil {
			return false, err
		}
		i := slices.IndexFunc(list, func(l listed) bool { return l.ID == model })
		if i < 0 {
			return false, schemas.Errorf(schemas.ModelNotFound, "%s: the model %q is not in the list any more", p.name, model)
		}
		if list[i].Status == nil {
			return false, schemas.Errorf(schemas.Unsupported, "%s: the server has no router: it was started with its model", p.name)
		}
		return done(list[i].Status)
	})
}

// loadFailure says why a load failed. The router tells no more than an exit code:
// 137, or -9, is what is left of a process that the kernel killed, which it does
// when memory runs out.
func (p *LlamaRouter) loadFailure(model string, s *loadStatus) error {
	if s.Log != "" {
		return p.failure(http.StatusInternalServerError, nil, []byte(s.Log))
	}
	code := schemas.UpstreamError
	if s.ExitCode == 137 || s.ExitCode == -9 || s.ExitCode == 9 {
		code = schemas.OutOfMemory
	}
	return schemas.Errorf(code, "%s: the model %q did not load: its process ended with code %d", p.name, model, s.ExitCode)
}

// poll calls ready now and every pollEvery until it says so or fails.
func poll(ctx context.Context, ready func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if ok, err := ready(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// says reports whether a server's error holds one of the texts. Use it only where
// the server leaves no other way.
func says(err error, texts ...string) bool {
	var e *schemas.Error
	return errors.As(err, &e) && slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(e.Message, t) })
}
