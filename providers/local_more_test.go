package providers_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

func TestSGLangPressure(t *testing.T) {
	p, ok := local(t, providers.KindSGLang, &sglangServer{metrics: true, busy: 3}).(providers.PressureReporter)
	if !ok {
		t.Fatal("it reports none")
	}
	got, err := p.Pressure(t.Context(), "qwen3-vl")
	if diff := cmp.Diff(providers.Pressure{Running: 6, Waiting: 6, KVUsed: 0.28}, got); diff != "" || err != nil { // of two that share the work
		t.Error(err, diff)
	}
}

func TestLMStudioOld(t *testing.T) {
	const llama = "meta-llama-3.1-8b-instruct"
	p := local(t, providers.KindLMStudio, &studioServer{old: true})
	got, err := p.Models(t.Context())
	want := []providers.Model{
		{Name: "qwen2-vl-7b-instruct", Kinds: text, State: schemas.Installed, Context: 32768, Abilities: []providers.Ability{providers.Vision}},
		{Name: llama, Kinds: text, State: schemas.Resident, Context: 4096, Abilities: []providers.Ability{providers.Tools}},
		{Name: "text-embedding-nomic-embed-text-v1.5", Kinds: []schemas.Kind{schemas.Embedding}, State: schemas.Installed, Context: 2048},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if err := p.Load(t.Context(), llama); err != nil { // it is loaded
		t.Error(err)
	}
	if err := p.Load(t.Context(), "qwen2-vl-7b-instruct"); err != nil { // a request loads it
		t.Error(err)
	}
	wantRefusal(t, p.Unload(t.Context(), llama), schemas.Unsupported, "0.4")

	ancient := local(t, providers.KindLMStudio, &studioServer{ancient: true})
	if err := ancient.Load(t.Context(), "text-embedding-nomic-embed-text-v1.5"); err != nil {
		t.Error(err)
	}
	got, err = ancient.Models(t.Context())
	want = []providers.Model{{Name: "text-embedding-nomic-embed-text-v1.5", Kinds: []schemas.Kind{schemas.Embedding}, State: schemas.Installed}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestLMStudioOrders(t *testing.T) {
	both := []string{gemma, gemma + ":2"}
	s := &studioServer{loaded: both, next: slices.Clone(both)}
	p := local(t, providers.KindLMStudio, s)
	if err := p.Load(t.Context(), gemma); err != nil || s.orders != nil { // it would be a third one
		t.Error(err, s.orders)
	}
	s.next = s.next[:1] // somebody else unloads it at the same time
	if err := p.Unload(t.Context(), gemma); err != nil || len(s.next) != 0 {
		t.Error(err, s.next)
	}
	if err := p.Load(t.Context(), gemma); err != nil {
		t.Error(err)
	}
	want := []string{
		`/api/v1/models/unload {"instance_id":"google/gemma-4-26b-a4b"}`,
		`/api/v1/models/unload {"instance_id":"google/gemma-4-26b-a4b:2"}`,
		`/api/v1/models/load {"model":"google/gemma-4-26b-a4b"}`,
	}
	if diff := cmp.Diff(want, s.orders); diff != "" {
		t.Error(diff)
	}
	wantRefusal(t, p.Load(t.Context(), "nope"), schemas.ModelNotFound, "nope")
	wantRefusal(t, p.Unload(t.Context(), "nope"), schemas.ModelNotFound, "nope")
	wantRefusal(t, p.Load(t.Context(), "llama-3.2-1b"), schemas.ModelNotFound, "Model not found")
}

func TestLocalAIUnload(t *testing.T) {
	qwen := func() map[string]bool { return map[string]bool{"qwen3-4b": true} }
	for name, c := range map[string]struct {
		server *localAIServer
		code   schemas.Code
		word   string
	}{
		"unloads":                {&localAIServer{state: 2, loaded: qwen()}, "", ""},
		"does not say how it is": {&localAIServer{state: -1, loaded: qwen()}, "", ""},
		"was gone":               {&localAIServer{state: 2, loaded: map[string]bool{}}, "", ""},
		"is busy":                {&localAIServer{state: 1, loaded: qwen()}, schemas.Overloaded, "runs something"},
		"is too busy to tell":    {&localAIServer{hang: true, loaded: qwen()}, schemas.Overloaded, "too busy"},
		"takes no orders":        {&localAIServer{old: true, state: 2, loaded: qwen()}, schemas.Unsupported, "nothing by order"},
		"not from us":            {&localAIServer{closed: true, loaded: qwen()}, schemas.Permission, "Admin"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := local(t, providers.KindLocalAI, c.server)
				if err := p.Unload(t.Context(), "qwen3-4b"); c.code != "" {
					wantRefusal(t, err, c.code, c.word)
				} else if err != nil || stateOf(t, p, "qwen3-4b") != schemas.Installed {
					t.Error(err)
				}
			})
		})
	}
}

func TestLocalAILoad(t *testing.T) {
	s := &localAIServer{loaded: map[string]bool{}}
	p := local(t, providers.KindLocalAI, s)
	wantRefusal(t, p.Load(t.Context(), "nope"), schemas.ModelNotFound, "nope")
	wantRefusal(t, p.Load(t.Context(), "bge-m3"), schemas.UpstreamError, "failed to load model")
	s.old = true // a request loads it
	if err := p.Load(t.Context(), "qwen3-4b"); err != nil {
		t.Error(err)
	}
	if err := local(t, providers.KindLocalAI, &localAIServer{closed: true}).Load(t.Context(), "qwen3-4b"); err != nil {
		t.Error(err)
	}
}

// What a model takes is asked for once per load: some backends answer only when they
// are done with what they run.
func TestLocalAIMonitor(t *testing.T) {
	s := &localAIServer{state: 2, loaded: map[string]bool{"qwen3-4b": true}}
	p := local(t, providers.KindLocalAI, s)
	for range 3 {
		if stateOf(t, p, "qwen3-4b") != schemas.Resident {
			t.Error("it is gone")
		}
	}
	if s.monitors != 1 {
		t.Errorf("it was asked %d times", s.monitors)
	}
	if err := errors.Join(p.Unload(t.Context(), "qwen3-4b"), p.Load(t.Context(), "qwen3-4b")); err != nil {
		t.Error(err)
	}
	if stateOf(t, p, "qwen3-4b") != schemas.Resident || s.monitors != 3 { // is it busy, and what does it take now
		t.Errorf("it was asked %d times", s.monitors)
	}
	synctest.Test(t, func(t *testing.T) {
		slow, began := &localAIServer{hang: true, loaded: map[string]bool{"qwen3-4b": true, "loose.gguf": true}}, time.Now()
		p := local(t, providers.KindLocalAI, slow)
		for range 2 {
			if stateOf(t, p, "qwen3-4b") != schemas.Resident || time.Since(began) > time.Second || slow.monitors != 2 {
				t.Errorf("some that do not tell: after %s, asked %d times", time.Since(began), slow.monitors)
			}
		}
		later(time.Minute)
		if stateOf(t, p, "qwen3-4b") != schemas.Resident || slow.monitors != 4 {
			t.Errorf("a minute later: asked %d times", slow.monitors)
		}
	})
	got, err := local(t, providers.KindLocalAI, &localAIServer{old: true, closed: true}).Models(t.Context())
	if err != nil || len(got) != 4 || got[0].State != schemas.Installed || got[0].Abilities != nil || got[0].VRAM.Known {
		t.Errorf("one that tells nothing: %+v %v", got, err)
	}
}
