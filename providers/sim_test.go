package providers_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// serveSim runs a simulated server for the time of a test.
func serveSim(tb testing.TB, cfg sim.Config) (*sim.Server, string) {
	tb.Helper()
	s := sim.New(cfg)
	srv := httptest.NewServer(s)
	tb.Cleanup(srv.Close)
	return s, srv.URL
}

func newProvider(tb testing.TB, kind, url string) providers.Provider {
	tb.Helper()
	client, done := providers.ClientForTest()
	tb.Cleanup(done)
	p, err := providers.New(providers.Config{Name: "test", Kind: kind, URL: url, HTTP: client})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func quick() sim.Config {
	return sim.Config{
		Devices: []sim.Device{{ID: "sim-0", Memory: 10 * schemas.GiB}},
		Models: []sim.Model{
			{Name: "m", VRAM: 6 * schemas.GiB, Slots: 4, Tokens: 100, Context: 100000},
			{Name: "big", VRAM: 8 * schemas.GiB},
			{Name: "e", VRAM: schemas.GiB, Kinds: []schemas.Kind{schemas.Embedding}},
			{Name: "huge", VRAM: 80 * schemas.GiB},
		},
	}
}

func testContext(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 20*time.Second)
	tb.Cleanup(cancel)
	return ctx
}

func content(tb testing.TB, body []byte) string {
	tb.Helper()
	var c struct {
		Choices []struct {
			Text    string `json:"text"`
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if err := json.Unmarshal(body, &c); err != nil {
		tb.Fatalf("%s in %s", err, body)
	}
	if len(c.Choices) == 0 {
		tb.Fatalf("no choices in %s", body)
	}
	return c.Choices[0].Text + c.Choices[0].Message.Content
}

// Both dialects tell and do the same with the same simulated server.
func TestLoadUnload(t *testing.T) {
	for _, kind := range []string{providers.KindSim, providers.KindOllama, providers.KindLlamaRouter} {
		t.Run(kind, func(t *testing.T) {
			ctx := testContext(t)
			s, url := serveSim(t, quick())
			p := newProvider(t, kind, url)
			loader := p.(providers.Loader)
			want := func(model string, state schemas.ModelState) {
				t.Helper()
				models, err := p.Models(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range models {
					if m.Name == model && m.State != state {
						t.Fatalf("%s is %s, want %s", model, m.State, state)
					}
				}
			}
			want("m", schemas.Installed)
			if err := loader.Load(ctx, "m"); err != nil {
				t.Fatal(err)
			}
			if err := loader.Load(ctx, "m"); err != nil {
				t.Fatalf("load again: %v", err)
			}
			want("m", schemas.Resident)
			for _, m := range []string{"big", "huge"} {
				if err := loader.Load(ctx, m); schemas.AsError(err).Code != schemas.OutOfMemory {
					t.Fatalf("load %s: %v", m, err)
				}
			}
			if err := loader.Load(ctx, "nope"); err == nil || schemas.AsError(err).Code != schemas.ModelNotFound {
				t.Fatalf("load nope: %v", err)
			}
			if err := loader.Unload(ctx, "m"); err != nil {
				t.Fatal(err)
			}
			if err := loader.Unload(ctx, "m"); err != nil {
				t.Fatalf("unload again: %v", err)
			}
			want("m", schemas.Installed)
			s.Fail("big", sim.Failure{Load: true, Times: 1})
			if err := loader.Load(ctx, "big"); schemas.AsError(err).Code != schemas.OutOfMemory {
				t.Fatalf("load big: %v", err)
			}
			if err := loader.Load(ctx, "big"); err != nil {
				t.Fatal(err)
			}
			want("big", schemas.Resident)
		})
	}
}

func TestGenerate(t *testing.T) {
	for _, kind := range []string{providers.KindSim, providers.KindOllama, providers.KindOpenAI} {
		t.Run(kind, func(t *testing.T) {
			ctx := testContext(t)
			_, url := serveSim(t, quick())
			p := newProvider(t, kind, url)
			for _, c := range []struct {
				kind schemas.Kind
				body string
			}{
				{schemas.Chat, `{"messages":[{"role":"user","content":"hi"}],"max_tokens":40,"vramjet":{"x":1}}`},
				{schemas.Completion, `{"prompt":"hi","max_tokens":40}`},
			} {
				chunks := 0
				a, err := p.Generate(ctx, providers.Request{Kind: c.kind, Model: "m", Body: []byte(c.body)}, func(b []byte) error {
					chunks++
					if !json.Valid(b) {
						t.Errorf("chunk %s", b)
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if got, want := content(t, a.Body), sim.Text("hi", 40); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				if chunks < 40 || a.Usage.CompletionTokens != 40 || a.Usage.PromptTokens < 1 || a.Model != "m" {
					t.Errorf("%d chunks, %+v", chunks, a)
				}
			}
			e, err := p.(providers.Embedder).Embed(ctx, providers.Request{Kind: schemas.Embedding, Model: "e", Body: []byte(`{"input":["a","b"]}`)})
			if err != nil {
				t.Fatal(err)
			}
			var list struct {
				Object string
				Data   []struct {
					Index     int
					Embedding []float64
				}
			}
			if err := json.Unmarshal(e.Body, &list); err != nil || list.Object != "list" || len(list.Data) != 2 || len(list.Data[1].Embedding) == 0 || list.Data[1].Index != 1 {
				t.Errorf("%v in %s", err, e.Body)
			}
		})
	}
}
