package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
	"github.com/vramjet/vramjet/worker"
)

const (
	smallContext = 4096             // tokens; a longer prompt is refused, or cut by some servers without a word
	slowRate     = 2.0              // tokens/s
	slowStart    = 10 * time.Second // until the first token of a model that is loaded
	trialTokens  = 32
)

// A trial is a short generation, or the embedding of a few words.
type trial struct {
	Model        string       `json:"model"`
	Kind         schemas.Kind `json:"kind"`
	LoadMS       int64        `json:"load_ms,omitzero"`
	FirstTokenMS int64        `json:"first_token_ms,omitzero"` // of an embedding: until it was there
	Tokens       int          `json:"tokens,omitzero"`
	TokensPerSec float64      `json:"tokens_per_s,omitzero"` // from the first token on; not there: not measured
	Dimensions   int          `json:"dimensions,omitzero"`   // of an embedding
	Complete     bool         `json:"complete"`              // the final marker came

	ready bool // the model was loaded before
}

// pick returns the model to try, or says why none is tried.
func (k *inspection) pick(models []providers.Model) (m providers.Model, why string) {
	named := func(m providers.Model) bool { return m.Name == strings.TrimPrefix(k.model, k.b.Prefix) }
	loaded := func(m providers.Model) bool { return m.State == schemas.Resident }
	switch i := slices.IndexFunc(models, loaded); {
	case k.idle:
		return m, "not asked for"
	case k.model != "":
		if i := slices.IndexFunc(models, named); i >= 0 {
			return models[i], ""
		}
		return m, ""
	case i >= 0:
		if j := slices.IndexFunc(models, func(m providers.Model) bool { return loaded(m) && generates(&m) }); j >= 0 {
			i = j
		}
		return models[i], ""
	case k.scene.hosted:
		return m, "it may cost money: --model NAME tries one"
	default:
		return m, "no model is loaded: --model NAME loads one, tries it and unloads it again"
	}
}

// try runs a short generation.
func (k *inspection) try(ctx context.Context, backend worker.Backend, models []providers.Model) {
	m, why := k.pick(models)
	switch {
	case why != "":
		k.add(stepTrial, resultSkipped, "", why)
		return
	case m.Name == "" && k.scene.hosted: // it may serve more than it lists
		m = providers.Model{Name: strings.TrimPrefix(k.model, k.b.Prefix), State: schemas.Remote}
	case m.Name == "":
		r := resultWarning // another backend may have it
		if len(k.finder.want) == 1 {
			r = resultFailed
		}
		names := make([]string, len(models))
		for i := range models {
			names[i] = models[i].Name
		}
		k.add(stepTrial, r, causeModelNotFound, fmt.Sprintf("there is no model %q here", k.model), nearestOf([]string{k.model}, names)...)
		return
	}
	limit := cmp.Or(backend.Run, 10*time.Minute)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, schemas.Errorf(schemas.Deadline, "it took longer than %s", limit))
	defer cancel()
	t := &trial{Model: m.Name, Kind: kindToTry(&m), ready: m.State == schemas.Resident}
	k.out.Trial = t
	unload, err := k.load(ctx, backend.Provider, &m, t)
	defer unload()
	if err == nil {
		err = k.ask(ctx, backend, t)
	}
	if err == nil {
		t.Complete = true
		k.add(stepTrial, resultOK, "", t.text())
		k.out.Findings = append(k.out.Findings, judge(t)...)
		return
	}
	k.add(stepTrial, resultFailed, causeOf(err), m.Name+": "+saying(err, k.b))
	if resting, ok := backend.Provider.(providers.Breaker); ok && resting.Open() != nil {
		k.add(stepKeys, resultWarning, "", "a worker would leave it alone now: "+saying(resting.Open(), k.b))
	}
}

// load loads a model that is not, where vramjet does that with its server. What
// it returns undoes that.
func (k *inspection) load(ctx context.Context, p providers.Provider, m *providers.Model, t *trial) (undo func(), err error) {
	loader, ok := p.(providers.Loader)
	if !ok || m.State != schemas.Installed {
		return func() {}, nil
	}
	begun := time.Now()
	undo = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if err := loader.Unload(ctx, m.Name); err != nil {
			k.add(stepTrial, resultWarning, causeOf(err), m.Name+" was loaded for this and stays loaded: "+saying(err, k.b), m.Name)
		}
	}
	err = loader.Load(ctx, m.Name)
	t.LoadMS, t.ready = time.Since(begun).Milliseconds(), true
	if err != nil && ctx.Err() == nil {
		undo = func() {} // there is nothing to undo
	}
	return undo, err
}

// ask runs the request.
func (k *inspection) ask(ctx context.Context, backend worker.Backend, t *trial) error {
	req := providers.Request{Kind: t.Kind, Model: t.Model, Body: trialBody(t.Kind, k.limitName()), Limits: backend.Limits}
	begun := time.Now()
	if t.Kind == schemas.Embedding {
		embedder, ok := backend.Provider.(providers.Embedder)
		if !ok {
			return schemas.Errorf(schemas.Unsupported, "this kind of server computes no embeddings")
		}
		answer, err := embedder.Embed(ctx, req)
		t.FirstTokenMS, t.Dimensions = time.Since(begun).Milliseconds(), dimensions(answer.Body)
		return err
	}
	var first, last time.Time
	chunks, decorated := 0, false
	answer, err := backend.Provider.Generate(ctx, req, func(chunk []byte) error {
		last = time.Now()
		if chunks++; chunks == 1 {
			first = last
		}
		decorated = decorated || k.b.Kind == providers.KindLlamaSwap && isDecoration(chunk)
		return nil
	})
	if chunks > 0 {
		t.FirstTokenMS = first.Sub(begun).Milliseconds()
	}
	t.Tokens = answer.Usage.CompletionTokens
	if span := last.Sub(first); t.Tokens > 1 && span > time.Millisecond {
		t.TokensPerSec = float64(t.Tokens-1) / span.Seconds()
	}
	if decorated {
		k.add(stepTrial, resultWarning, causeSwapDecorates, "llama-swap streams a text of its own while it loads")
	}
	return err
}

// limitName is how the server calls the most tokens of an answer: OpenAI's newer
// models know one name only, and other servers often only the other.
func (k *inspection) limitName() string {
	if k.b.Kind == providers.KindAzure || strings.HasSuffix(k.at.Hostname(), ".openai.com") {
		return "max_completion_tokens"
	}
	return "max_tokens"
}

// trialBody is a request that costs next to nothing.
func trialBody(kind schemas.Kind, limit string) []byte {
	switch kind {
	case schemas.Embedding:
		return []byte(`{"input":"Why is the sky blue?"}`)
	case schemas.Completion:
		return fmt.Appendf(nil, `{"prompt":"The sky is blue because","max_tokens":%d}`, trialTokens)
	default:
		return fmt.Appendf(nil, `{"messages":[{"role":"user","content":"Why is the sky blue?"}],"%s":%d}`, limit, trialTokens)
	}
}

// kindToTry is the first kind of jobs that a model does.
func kindToTry(m *providers.Model) schemas.Kind {
	for _, kind := range []schemas.Kind{schemas.Chat, schemas.Completion, schemas.Embedding} {
		if slices.Contains(m.Kinds, kind) {
			return kind
		}
	}
	return schemas.Chat
}

func generates(m *providers.Model) bool { return kindToTry(m) != schemas.Embedding }

// judge says what a trial that went well tells of the server.
func judge(t *trial) []finding {
	var found []finding
	if t.ready && t.FirstTokenMS > slowStart.Milliseconds() {
		found = append(found, finding{stepTrial, resultWarning, causeSlowStart, "the first token took " + ms(t.FirstTokenMS), []string{t.Model}})
	}
	if t.TokensPerSec > 0 && t.TokensPerSec < slowRate {
		found = append(found, finding{stepTrial, resultWarning, causeSlow, fmt.Sprintf("%.1f tokens/s is very slow", t.TokensPerSec), []string{t.Model}})
	}
	return found
}

// isDecoration reports whether a chunk is what llama-swap tells of itself while it
// loads: thoughts without the id that all chunks of models have.
func isDecoration(chunk []byte) bool {
	var c struct {
		ID string `json:"id"`
	}
	return json.Unmarshal(chunk, &c) == nil && c.ID == "" && bytes.Contains(chunk, []byte(`"reasoning_content"`))
}

// dimensions is the length of the first vector.
func dimensions(body []byte) int {
	var list struct {
		Data []struct {
			Embedding []json.RawMessage `json:"embedding"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &list) != nil || len(list.Data) == 0 {
		return 0
	}
	return len(list.Data[0].Embedding)
}
