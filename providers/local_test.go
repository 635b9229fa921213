package providers_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// A handlerTransport asks a handler without any connection: in a bubble no time
// passes then.
type handlerTransport struct{ h http.Handler }

// RoundTrip implements http.RoundTripper. A handler that breaks off is a connection
// that does.
func (t handlerTransport) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	defer func() {
		if recover() != nil {
			resp, err = nil, errors.New("the connection was reset")
		}
	}()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	rec := httptest.NewRecorder()
	t.h.ServeHTTP(rec, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return rec.Result(), nil
}

// A localServer is a provider of one of the kinds that load by order.
type localServer interface {
	providers.Provider
	providers.Loader
}

func local(t *testing.T, kind string, h http.Handler) localServer {
	t.Helper()
	p, err := providers.New(providers.Config{Kind: kind, URL: "http://test.invalid", HTTP: &http.Client{Transport: handlerTransport{h}}})
	if err != nil {
		t.Fatal(err)
	}
	l, ok := p.(localServer)
	if !ok {
		t.Fatalf("%s loads nothing", kind)
	}
	return l
}

// wantRefusal checks that an error has a code and says what to do about it.
func wantRefusal(t *testing.T, err error, code schemas.Code, word string) {
	t.Helper()
	if err == nil || schemas.AsError(err).Code != code || !strings.Contains(err.Error(), word) {
		t.Errorf("%v, want %s with %q", err, code, word)
	}
}

func stateOf(t *testing.T, p providers.Provider, model string) schemas.ModelState {
	t.Helper()
	models, err := p.Models(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(models, func(m providers.Model) bool { return m.Name == model })
	if i < 0 {
		t.Fatalf("%s is not in %v", model, models)
	}
	return models[i].State
}

func TestVLLMUnload(t *testing.T) {
	const model, dev, flag = "sql-lora", "VLLM_SERVER_DEV_MODE=1", "--enable-sleep-mode"
	for name, c := range map[string]struct {
		server *vllmServer
		code   schemas.Code
		word   string
		orders []string
	}{
		"sleeps":                      {&vllmServer{dev: true, enabled: true}, "", "", []string{"/sleep?level=1&mode=wait"}},
		"tells nothing of its flags":  {&vllmServer{dev: true, silent: true}, "", "", []string{"/sleep?level=1&mode=wait"}},
		"sleeps already":              {&vllmServer{dev: true, enabled: true, level: 1}, "", "", nil},
		"sleeps already, and no more": {&vllmServer{level: 1}, "", "", nil},
		"was started without":         {&vllmServer{}, schemas.Unsupported, dev, []string{"/sleep?level=1&mode=wait"}},
		"would free nothing":          {&vllmServer{dev: true}, schemas.Unsupported, flag, nil},
		"stays awake":                 {&vllmServer{dev: true, enabled: true, stubborn: true}, schemas.Unsupported, flag, []string{"/sleep?level=1&mode=wait"}},
		"is busy":                     {&vllmServer{dev: true, enabled: true, busy: 1}, schemas.Overloaded, "runs 2", nil},
		"is busy, and old":            {&vllmServer{dev: true, enabled: true, busy: 1, old: true}, schemas.Overloaded, "runs 3", nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := c.server
				p := local(t, providers.KindVLLM, s)
				if err := p.Unload(t.Context(), model); c.code != "" {
					wantRefusal(t, err, c.code, c.word)
				} else if err != nil || stateOf(t, p, model) != schemas.Installed {
					t.Error(err)
				}
				if diff := cmp.Diff(c.orders, s.asked); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestVLLMLoad(t *testing.T) {
	for name, c := range map[string]struct {
		server *vllmServer
		code   schemas.Code
		word   string
		orders []string
	}{
		"awake":          {&vllmServer{dev: true}, "", "", nil},
		"asleep":         {&vllmServer{dev: true, level: 1}, "", "", []string{"/wake_up"}},
		"without orders": {&vllmServer{level: 1}, schemas.Unsupported, "VLLM_SERVER_DEV_MODE=1", []string{"/wake_up"}},
		"weights gone":   {&vllmServer{dev: true, level: 2}, schemas.Unsupported, "level 2", nil},
	} {
		s := c.server
		p := local(t, providers.KindVLLM, s)
		err := p.Load(t.Context(), "sql-lora")
		if c.code != "" {
			wantRefusal(t, err, c.code, c.word)
		} else if err != nil || stateOf(t, p, "sql-lora") != schemas.Resident {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.orders, s.asked); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		wantRefusal(t, p.Load(t.Context(), "nope"), schemas.ModelNotFound, "nope")
	}
}

// All models of a server sleep together: none is told to while any runs.
func TestUnloadUnderAnother(t *testing.T) {
	for kind, h := range map[string]http.Handler{
		providers.KindVLLM:   &vllmServer{dev: true, enabled: true},
		providers.KindSGLang: &sglangServer{saver: true, backup: true, metrics: true},
	} {
		asked := 0
		p := local(t, kind, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/completions" {
				_, _ = w.Write([]byte("data: {\"choices\":[{\"index\":0,\"text\":\"a\",\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"))
				return
			}
			h.ServeHTTP(w, r)
		}))
		model := map[string]string{providers.KindVLLM: "meta-llama/Llama-3.1-8B-Instruct", providers.KindSGLang: "qwen3-vl"}[kind]
		req := providers.Request{Kind: schemas.Completion, Model: "another", Body: []byte(`{"prompt":"hi"}`)}
		if _, err := p.Generate(t.Context(), req, func([]byte) error {
			asked++
			wantRefusal(t, p.Unload(t.Context(), model), schemas.Overloaded, "runs 1")
			return nil
		}); err != nil || asked != 1 {
			t.Errorf("%s: %v, %d chunks", kind, err, asked)
		}
		if err := p.Unload(t.Context(), model); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestVLLMPressure(t *testing.T) {
	for name, c := range map[string]struct {
		h    http.Handler
		want providers.Pressure
		code schemas.Code
	}{
		"engines": {&vllmServer{busy: 3}, providers.Pressure{Running: 3, Waiting: 3, KVUsed: 0.42}, ""},
		"old":     {&vllmServer{busy: 3, old: true}, providers.Pressure{Running: 3, Waiting: 2, KVUsed: 0.42}, ""},
		"none":    {http.NotFoundHandler(), providers.Pressure{}, schemas.Unsupported},
	} {
		p, ok := local(t, providers.KindVLLM, c.h).(providers.PressureReporter)
		if !ok {
			t.Fatal("it reports none")
		}
		got, err := p.Pressure(t.Context(), "m")
		if diff := cmp.Diff(c.want, got); diff != "" || (err == nil) != (c.code == "") || err != nil && schemas.AsError(err).Code != c.code {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}

// answered returns a provider whose server has answered a request.
func answered(t *testing.T, h http.Handler) localServer {
	t.Helper()
	p := local(t, providers.KindSGLang, h)
	if _, err := p.Generate(t.Context(), completion("qwen3-vl"), func([]byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return p
}

func completion(model string) providers.Request {
	return providers.Request{Kind: schemas.Completion, Model: model, Body: []byte(`{"prompt":"hi"}`)}
}

// Another process may have had a server release its memory: nothing tells.
func TestSGLangUnseen(t *testing.T) {
	s := &sglangServer{saver: true, backup: true, metrics: true}
	for _, released := range []bool{true, false} {
		s.released = released
		p := local(t, providers.KindSGLang, s)
		wantRefusal(t, p.Unload(t.Context(), "qwen3-vl"), schemas.Unsupported, "another process")
		if err := p.Load(t.Context(), "qwen3-vl"); err != nil || s.dead || s.orders != 0 {
			t.Errorf("%v, %d orders, and dead is %t", err, s.orders, s.dead)
		}
	}
	if err := answered(t, s).Unload(t.Context(), "qwen3-vl"); err != nil || !s.released || s.dead {
		t.Error(err)
	}
}

func TestSGLangUnload(t *testing.T) {
	for name, c := range map[string]struct {
		server *sglangServer
		code   schemas.Code
		word   string
	}{
		"releases":            {&sglangServer{saver: true, backup: true, metrics: true}, "", ""},
		"would free nothing":  {&sglangServer{backup: true, metrics: true}, schemas.Unsupported, "--enable-memory-saver"},
		"would lose weights":  {&sglangServer{saver: true, metrics: true}, schemas.Unsupported, "--enable-weights-cpu-backup"},
		"tells not if busy":   {&sglangServer{saver: true, backup: true}, schemas.Unsupported, "--enable-metrics"},
		"is busy with others": {&sglangServer{saver: true, backup: true, metrics: true, busy: 2}, schemas.Overloaded, "runs 8"},
	} {
		s := c.server
		p := answered(t, s)
		for range 2 { // a second release would be its end
			if err := p.Unload(t.Context(), "qwen3-vl"); c.code != "" {
				wantRefusal(t, err, c.code, c.word)
			} else if err != nil || stateOf(t, p, "qwen3-vl") != schemas.Installed {
				t.Errorf("%s: %v", name, err)
			}
		}
		for range 2 { // so would a second resume
			if err := p.Load(t.Context(), "qwen3-vl"); err != nil || stateOf(t, p, "qwen3-vl") != schemas.Resident {
				t.Errorf("%s: %v", name, err)
			}
		}
		if want := 2 * is(c.code == ""); s.dead || s.orders != want {
			t.Errorf("%s: %d orders, and dead is %t", name, s.orders, s.dead)
		}
	}
}

// A server that was started again since it released its memory has it.
func TestSGLangRestart(t *testing.T) {
	s := &sglangServer{saver: true, backup: true, metrics: true, seed: 1}
	p := answered(t, s)
	if err := p.Unload(t.Context(), "qwen3-vl"); err != nil {
		t.Fatal(err)
	}
	s.seed, s.released = 2, false
	if err := p.Load(t.Context(), "qwen3-vl"); err != nil || s.orders != 1 || stateOf(t, p, "qwen3-vl") != schemas.Resident {
		t.Errorf("%v, %d orders", err, s.orders)
	}
	if err := p.Unload(t.Context(), "qwen3-vl"); err != nil || !s.released {
		t.Error(err)
	}
}

// An order is carried out even where nobody waits for it any more, and no other
// begins before.
func TestSGLangOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sglangServer{saver: true, backup: true, metrics: true, block: make(chan struct{})}
		p := answered(t, s)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := p.Unload(ctx, "qwen3-vl"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an order without end: %v", err)
		}
		if err := p.Unload(ctx, "qwen3-vl"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("another beside it: %v", err)
		}
		var orders sync.WaitGroup
		for range 3 {
			orders.Go(func() {
				if err := p.Unload(t.Context(), "qwen3-vl"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(s.block)
		orders.Wait()
		if s.dead || s.orders != 1 || stateOf(t, p, "qwen3-vl") != schemas.Installed {
			t.Errorf("%d orders, and dead is %t", s.orders, s.dead)
		}
	})
}
