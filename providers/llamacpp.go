package providers

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// pollEvery is how often a server is asked whether a load or unload is done.
const pollEvery = 50 * time.Millisecond

// LlamaServer is a llama-server that was started with a model. It holds that one
// for as long as it runs.
type LlamaServer struct {
	*OpenAI
	own    last[props]
	embeds atomic.Bool // it runs with --embeddings, as it said when it was last asked
	asked  atomic.Bool // whether it does, since it was last gone
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
// each of them has. A server that sleeps gave its memory back; a request wakes it.
func (p *LlamaServer) Models(ctx context.Context) ([]Model, error) {
	models, err := p.OpenAI.Models(ctx)
	short, stop := aside(ctx)
	defer stop()
	var now props
	var failed error
	if err == nil {
		now, failed = p.props(short)
		if failed != nil && schemas.AsError(failed).Code == schemas.ModelLoading {
			err = failed // some versions list their model while they load it
		}
	}
	if err != nil {
		p.asked.Store(false) // when it is back, it may be another
		return nil, err
	}
	own := p.own.learn(now, failed) // props may be switched off
	if failed == nil && !own.Sleeping {
		p.askEmbeds(short)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for i := range models {
		own.describe(&models[i])
		if p.embeds.Load() {
			models[i].Kinds = []schemas.Kind{schemas.Embedding}
		}
	}
	return models, nil
}

func (p *LlamaServer) props(ctx context.Context) (own props, err error) {
	err = p.call(ctx, http.MethodGet, p.root+"/props", nil, &own)
	return own, err
}

// describe adds what the server says of itself to its model.
func (p *props) describe(m *Model) {
	m.Slots = p.TotalSlots
	if can := p.abilities(); can != nil {
		m.Abilities = can
	}
	if p.Sleeping {
		m.State = schemas.Installed
	}
	if p.Defaults.Ctx > 0 {
		m.Context = p.Defaults.Ctx
	}
	if p.Pooling != "" && p.Pooling != "none" && !slices.Contains(m.Kinds, schemas.Embedding) {
		m.Kinds = append(m.Kinds, schemas.Embedding)
	}
}

// askEmbeds asks whether the server runs with --embeddings. It shows only in how it
// turns a request down that has no input, before the model sees any of it. Such a
// request would wake a server that sleeps, and keep one awake that is to: it is made
// once.
func (p *LlamaServer) askEmbeds(ctx context.Context) {
	if p.asked.Load() {
		return
	}
	err := p.call(ctx, http.MethodPost, p.v1+"/embeddings", []byte("{}"), nil)
	if ctx.Err() == nil {
		p.embeds.Store(err != nil && schemas.AsError(err).Code == schemas.InvalidRequest)
		p.asked.Store(true)
	}
}

// Pressure implements PressureReporter. Only /metrics, which is off by default,
// tells how many requests wait.
func (p *LlamaServer) Pressure(ctx context.Context, _ string) (Pressure, error) {
	own, err := p.props(ctx)
	switch {
	case err != nil && !absent(err):
		return Pressure{}, err
	case own.Sleeping:
		return Pressure{Slots: own.TotalSlots, KVUsed: -1}, nil
	}
	return p.busy(ctx, "", own.TotalSlots)
}

// busy asks a llama-server with so many slots how busy it is, a router with the
// query that names a model. To ask for /slots is work that keeps a server from its
// sleep, to ask for /metrics is not.
func (s *server) busy(ctx context.Context, query string, slots int) (Pressure, error) {
	m, err := s.metrics(ctx, s.root+"/metrics"+query)
	running := m.sum("llamacpp:requests_processing", -1)
	switch {
	case err != nil && !absent(err):
		return Pressure{}, err
	case running < 0:
		return s.slots(ctx, s.root+"/slots"+query)
	}
	return Pressure{Running: int(running), Waiting: int(m.sum("llamacpp:requests_deferred", -1)), Slots: slots, KVUsed: -1}, nil
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
			m.Slots = l.Status.slots()
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

// Load implements Loader. A model that sleeps is unloaded first: the router takes no
// other order for it.
func (p *LlamaRouter) Load(ctx context.Context, model string) error {
	again, err := p.load(ctx, model)
	if !again {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pollEvery):
	}
	_, err = p.load(ctx, model)
	return err
}

// load has the router load a model. again means that the router held it already, and
// does no more: what failed was not this load.
func (p *LlamaRouter) load(ctx context.Context, model string) (again bool, err error) {
	err = p.order(ctx, "load", model)
	running := says(err, "already running", "already loaded")
	if err != nil && !running {
		if schemas.AsError(err).Code == schemas.Unsupported { // an unknown model's path is not found
			err = schemas.Errorf(schemas.ModelNotFound, "%s: there is no model %q to load", p.name, model)
		}
		return false, err
	}
	asleep := false
	err = p.until(ctx, model, func(s *loadStatus) (bool, error) {
		switch s.state() {
		case schemas.Resident:
			return !running || p.alive(ctx, model), nil
		case schemas.Loading:
			return false, nil
		default:
			again, asleep = running || s.asleep(), s.asleep()
			return true, p.loadFailure(model, s)
		}
	})
	if !asleep {
		return again, err
	}
	if err := p.drop(ctx, model); err != nil {
		return false, err
	}
	return true, schemas.Errorf(schemas.UpstreamError, "%s: the model %q fell asleep while it was to be loaded", p.name, model)
}

// alive reports whether the process of a loaded model is there: for a moment, the
// router calls one loaded that was killed.
func (p *LlamaRouter) alive(ctx context.Context, model string) bool {
	_, err := p.fetch(ctx, http.MethodGet, p.root+"/props"+of(model), nil)
	return err == nil || schemas.AsError(err).Code != schemas.UpstreamError
}

// Pressure implements PressureReporter. A model that sleeps is not asked.
func (p *LlamaRouter) Pressure(ctx context.Context, model string) (Pressure, error) {
	s, err := p.status(ctx, model)
	if err != nil {
		return Pressure{}, err
	}
	if s.asleep() {
		return Pressure{Slots: s.slots(), KVUsed: -1}, nil
	}
	return p.busy(ctx, of(model), s.slots())
}

// of is the query for what the process of a model says. The router starts none for
// it.
func of(model string) string { return "?autoload=false&model=" + url.QueryEscape(model) }

// Unload implements Loader.
func (p *LlamaRouter) Unload(ctx context.Context, model string) error {
	if err := p.idle(ctx, p, model); err != nil {
		return err
	}
	return p.drop(ctx, model)
}

// drop has the router unload a model, and returns once that has no process any more.
func (p *LlamaRouter) drop(ctx context.Context, model string) error {
	err := p.order(ctx, "unload", model)
	if err != nil {
		if says(err, "not running", "not loaded") {
			return nil
		}
		return err
	}
	return p.until(ctx, model, func(s *loadStatus) (bool, error) {
		return s.state() == schemas.Installed && !s.asleep(), nil
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
		s, err := p.status(ctx, model)
		if err != nil {
			return false, err
		}
		return done(s)
	})
}

// status returns what the router's list says of a model.
func (p *LlamaRouter) status(ctx context.Context, model string) (*loadStatus, error) {
	list, err := p.list(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(l listed) bool { return l.ID == model })
	switch {
	case i < 0:
		return nil, schemas.Errorf(schemas.ModelNotFound, "%s: the model %q is not in the list any more", p.name, model)
	case list[i].Status == nil:
		return nil, schemas.Errorf(schemas.Unsupported, "%s: the server has no router: it was started with its model", p.name)
	}
	return list[i].Status, nil
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
