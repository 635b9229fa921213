package providers_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// scripted returns a provider of any kind without connections.
func scripted(t *testing.T, kind string, h http.Handler) providers.Provider {
	t.Helper()
	p, err := providers.New(providers.Config{Kind: kind, URL: "http://test.invalid", HTTP: &http.Client{Transport: handlerTransport{h}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// hangs answers nothing.
func hangs(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// Only the list of models says whether a server is well. Where the rest fails, what
// it said last stands.
func TestAsides(t *testing.T) {
	router := &llamaRouterServer{state: "loaded"}
	for name, c := range map[string]struct {
		kind   string
		server http.Handler
		limit  time.Duration
	}{
		"llama-server":        {providers.KindLlamaCpp, llamaServerKind().Server(), time.Second},
		"llama-server asleep": {providers.KindLlamaCpp, &sleepingLlama{asleep: true}, time.Second},
		"the router":          {providers.KindLlamaRouter, router, 0},
		"llama-swap":          {providers.KindLlamaSwap, &llamaSwapServer{running: true}, time.Second},
		"vllm":                {providers.KindVLLM, &vllmServer{}, time.Second},
		"vllm asleep":         {providers.KindVLLM, &vllmServer{dev: true, level: 1}, time.Second},
		"vllm asleep of old":  {providers.KindVLLM, &vllmServer{level: 1}, time.Second},
		"sglang":              {providers.KindSGLang, &sglangServer{seed: 1}, time.Second},
		"localai":             {providers.KindLocalAI, localAIKinds()[0].Server(), time.Second},
		"litellm": {providers.KindLiteLLM, providertest.Routes(map[string]string{
			"GET /v1/models":     `{"data":[{"id":"a"}]}`,
			"GET /v1/model/info": `{"data":[{"model_name":"a","model_info":{"mode":"embedding","max_input_tokens":9}}]}`,
		}), time.Second},
	} {
		for how, fail := range map[string]http.HandlerFunc{"fails": says(http.StatusInternalServerError, `{"error":"it broke"}`), "hangs": hangs} {
			t.Run(name+" "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					broken := false
					h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if broken && r.URL.Path != "/v1/models" {
							fail(w, r)
							return
						}
						c.server.ServeHTTP(w, r)
					})
					p := scripted(t, c.kind, h)
					want, err := p.Models(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					broken = true
					began := time.Now()
					got, err := p.Models(t.Context())
					if diff := cmp.Diff(want, got); diff != "" || err != nil || time.Since(began) > c.limit {
						t.Errorf("after %s: %v (-before +after):\n%s", time.Since(began), err, diff)
					}
					if got, err := scripted(t, c.kind, h).Models(t.Context()); err != nil || len(got) == 0 {
						t.Errorf("one of which nothing is known: %v, %v", got, err)
					}
					ctx, stop := context.WithTimeoutCause(t.Context(), time.Second/2, errors.New("enough"))
					defer stop()
					if got, err := p.Models(ctx); how == "hangs" && c.limit > 0 && (err == nil || err.Error() != "enough") {
						t.Errorf("after the caller's own limit: %v, %v", got, err)
					}
				})
			})
		}
	}
}

// An SGLang that released its memory keeps being known for it.
func TestAsidesOfReleased(t *testing.T) {
	s, broken := &sglangServer{saver: true, backup: true, metrics: true, seed: 1}, false
	p := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken && r.URL.Path != "/v1/models" {
			says(http.StatusInternalServerError, "")(w, r)
			return
		}
		s.ServeHTTP(w, r)
	}))
	if err := p.Unload(t.Context(), "qwen3-vl"); err != nil {
		t.Fatal(err)
	}
	broken = true
	if state := stateOf(t, p, "qwen3-vl"); state != schemas.Installed {
		t.Errorf("it is %s", state)
	}
	s.seed, s.released = 2, false // the list does not tell that it is another
	if err := p.Load(t.Context(), "qwen3-vl"); err == nil || s.orders != 1 || s.dead {
		t.Errorf("%v, %d orders", err, s.orders)
	}
}

// A sleepingLlama is a llama-server that runs with --embeddings and notes what would
// wake it.
type sleepingLlama struct {
	metered bool // has /metrics

	mu     sync.Mutex // guards what follows
	asleep bool
	gone   bool
	work   []string
}

func (s *sleepingLlama) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	route := r.Method + " " + r.URL.Path
	switch {
	case s.gone:
		panic(http.ErrAbortHandler)
	case route == "GET /v1/models":
		fmt.Fprint(w, `{"object":"list","data":[{"id":"vectors","object":"model","owned_by":"llamacpp"}]}`)
	case route == "GET /props":
		fmt.Fprintf(w, `{"default_generation_settings":{"n_ctx":512},"total_slots":2,"is_sleeping":%t}`, s.asleep)
	case route == "GET /metrics" && s.metered:
		fmt.Fprint(w, "llamacpp:requests_processing 1\nllamacpp:requests_deferred 3\n")
	case route == "GET /metrics":
		w.WriteHeader(http.StatusNotImplemented)
		fmt.Fprint(w, "{\"error\":{\"code\":501,\"message\":\"This server does not support metrics endpoint. Start it with `--metrics`\",\"type\":\"not_supported_error\"}}")
	case route == "POST /v1/embeddings":
		s.work = append(s.work, route)
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":{"code":400,"message":"\"input\" or \"content\" must be provided","type":"invalid_request_error"}}`)
	case route == "GET /slots":
		s.work = append(s.work, route)
		fmt.Fprint(w, llamaSlots)
	default:
		http.NotFound(w, r)
	}
}

// Looking at a llama-server keeps it from no sleep, and wakes it from none.
func TestLlamaServerSleeps(t *testing.T) {
	s := &sleepingLlama{metered: true}
	p := scripted(t, providers.KindLlamaCpp, s)
	look := func(state schemas.ModelState, pressure providers.Pressure, work ...string) {
		t.Helper()
		for range 3 {
			got, err := p.Models(t.Context())
			want := []providers.Model{{Name: "vectors", Kinds: []schemas.Kind{schemas.Embedding}, State: state, Slots: 2, Context: 512}}
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Error(err, diff)
			}
			r, ok := p.(providers.PressureReporter)
			if !ok {
				t.Fatal("it reports no pressure")
			}
			now, err := r.Pressure(t.Context(), "vectors")
			if diff := cmp.Diff(pressure, now); diff != "" || err != nil {
				t.Error(err, diff)
			}
		}
		if diff := cmp.Diff(work, s.work); diff != "" {
			t.Error(diff)
		}
		s.work = nil
	}
	busy := providers.Pressure{Running: 1, Waiting: 3, Slots: 2, KVUsed: -1}
	look(schemas.Resident, busy, "POST /v1/embeddings")
	s.asleep = true
	look(schemas.Installed, providers.Pressure{Slots: 2, KVUsed: -1})
	s.gone, s.asleep = true, false
	if got, err := p.Models(t.Context()); err == nil {
		t.Errorf("one that is gone: %v", got)
	}
	s.gone = false
	look(schemas.Resident, busy, "POST /v1/embeddings")
	s.metered = false
	look(schemas.Resident, providers.Pressure{Running: 1, Waiting: -1, Slots: 2, KVUsed: -1}, "GET /slots", "GET /slots", "GET /slots")
}

// A model of the router that sleeps is loaded anew, and asked nothing before.
func TestRouterSleeps(t *testing.T) {
	s := &llamaRouterServer{state: "sleeping", metered: true}
	p := local(t, providers.KindLlamaRouter, s)
	press := func(want providers.Pressure) {
		t.Helper()
		r, ok := p.(providers.PressureReporter)
		if !ok {
			t.Fatal("it reports no pressure")
		}
		got, err := r.Pressure(t.Context(), "one")
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Error(err, diff)
		}
	}
	press(providers.Pressure{Slots: 2, KVUsed: -1})
	if err := p.Load(t.Context(), "one"); err != nil || stateOf(t, p, "one") != schemas.Resident {
		t.Error(err)
	}
	press(providers.Pressure{Running: 1, Waiting: 3, Slots: 2, KVUsed: -1})
	s.state = "sleeping"
	if err := p.Unload(t.Context(), "one"); err != nil || s.state != "unloaded" { // sleep is not enough
		t.Errorf("%v, and it is %s", err, s.state)
	}
	want := []string{"/models/load", "/models/unload", "/models/load", "/models/unload"}
	if diff := cmp.Diff(want, s.orders); diff != "" {
		t.Error(diff)
	}
}

// A router that holds a model for running that has no process is asked twice, with a
// pause.
func TestRouterLoadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		orders := 0
		p := local(t, providers.KindLlamaRouter, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				orders++
				says(http.StatusBadRequest, `{"error":{"code":400,"message":"model is already running","type":"invalid_request_error"}}`)(w, r)
				return
			}
			fmt.Fprint(w, `{"data":[{"id":"one","status":{"value":"unloaded","exit_code":137}}]}`)
		}))
		began := time.Now()
		wantRefusal(t, p.Load(t.Context(), "one"), schemas.OutOfMemory, "137")
		if took := time.Since(began); orders != 2 || took < 50*time.Millisecond || took > time.Second {
			t.Errorf("%d orders in %s", orders, took)
		}
	})
}
