package sim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const deadline = 20 * time.Second

var dialects = []string{providers.KindSim, providers.KindOllama}

func config() sim.Config {
	return sim.Config{
		Devices: []sim.Device{{ID: "sim-0", Memory: 4 * schemas.GiB}, {ID: "sim-1", Memory: 2 * schemas.GiB}},
		Models: []sim.Model{
			{Name: "fast", VRAM: schemas.GiB, Slots: 2, Tokens: 50, Context: 1 << 20},
			{Name: "slow", VRAM: 3 * schemas.GiB, Slots: 2, Tokens: 1000, TokenInterval: 5 * time.Millisecond, LoadTime: 20 * time.Millisecond},
			{Name: "two", VRAM: 2 * schemas.GiB},
			{Name: "embed", VRAM: schemas.GiB, Kinds: []schemas.Kind{schemas.Embedding}},
		},
	}
}

// A rig is a simulated server and a provider that speaks to it.
type rig struct {
	*sim.Server
	providers.Provider
}

func newRig(tb testing.TB, kind string, cfg sim.Config) rig {
	tb.Helper()
	s := sim.New(cfg)
	srv := httptest.NewServer(s)
	tb.Cleanup(srv.Close)
	tr := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	tb.Cleanup(tr.CloseIdleConnections)
	p, err := providers.New(providers.Config{Name: "test", Kind: kind, URL: srv.URL, HTTP: &http.Client{Transport: tr}})
	if err != nil {
		tb.Fatal(err)
	}
	return rig{s, p}
}

// within returns a context that ends with the test, and not much later than it
// should.
func within(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), deadline)
	tb.Cleanup(cancel)
	return ctx
}

func chat(model, prompt, more string) providers.Request {
	return providers.Request{Kind: schemas.Chat, Model: model, Body: fmt.Appendf(nil, `{"messages":[{"role":"user","content":%q}]%s}`, prompt, more)}
}

func ignore([]byte) error { return nil }

func text(tb testing.TB, body []byte) (said, finish string) {
	tb.Helper()
	var c struct {
		Choices []struct {
			Message      struct{ Content string }
			FinishReason string `json:"finish_reason"`
		}
	}
	if err := json.Unmarshal(body, &c); err != nil || len(c.Choices) != 1 {
		tb.Fatalf("%v in %s", err, body)
	}
	return c.Choices[0].Message.Content, c.Choices[0].FinishReason
}

// eventually waits until the server's counts say so.
func eventually(t *testing.T, r rig, model string, ok func(sim.Counts) bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	ctx := within(t)
	for !ok(r.Counts(model)) {
		select {
		case <-ctx.Done():
			t.Fatalf("never: %+v", r.Counts(model))
		case <-tick.C:
		}
	}
}

func each(t *testing.T, test func(t *testing.T, r rig)) {
	t.Helper()
	for _, kind := range dialects {
		t.Run(kind, func(t *testing.T) { test(t, newRig(t, kind, config())) })
	}
}

func TestAnswer(t *testing.T) {
	whole := sim.Text("hi", 50)
	stop := strings.Fields(whole)[5]
	for _, c := range []struct{ more, want, finish string }{
		{"", whole, "stop"},
		{`,"max_tokens":7`, sim.Text("hi", 7), "length"},
		{`,"max_tokens":70`, sim.Text("hi", 70), "length"},
		{fmt.Sprintf(`,"stop":%q`, stop), whole[:strings.Index(whole, stop)], "stop"},
		{fmt.Sprintf(`,"stop":["nowhere",%q]`, stop), whole[:strings.Index(whole, stop)], "stop"},
	} {
		each(t, func(t *testing.T, r rig) {
			a, err := r.Generate(within(t), chat("fast", "hi", c.more), ignore)
			if err != nil {
				t.Fatal(err)
			}
			if said, finish := text(t, a.Body); said != c.want || finish != c.finish {
				t.Errorf("%s: got %q (%s), want %q (%s)", c.more, said, finish, c.want, c.finish)
			}
		})
	}
	if sim.Text("hi", 50) == sim.Text("ho", 50) {
		t.Error("all prompts have the same answer")
	}
}

func TestNotStreamed(t *testing.T) {
	s := httptest.NewServer(sim.New(config()))
	defer s.Close()
	defer s.Client().CloseIdleConnections()
	for path, body := range map[string]string{
		"/v1/chat/completions": `{"model":"fast","messages":[{"role":"user","content":"hi"}],"max_tokens":5}`,
		"/v1/completions":      `{"model":"fast","prompt":"hi","max_tokens":5}`,
		"/api/chat":            `{"model":"fast","messages":[{"role":"user","content":"hi"}],"stream":false,"options":{"num_predict":5}}`,
		"/api/generate":        `{"model":"fast","prompt":"hi","stream":false,"options":{"num_predict":5}}`,
	} {
		resp, err := s.Client().Post(s.URL+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		want, _ := json.Marshal(sim.Text("hi", 5))
		if err != nil || resp.StatusCode != http.StatusOK || !json.Valid(raw) || !bytes.Contains(raw, want) {
			t.Errorf("%s: %d %s %v", path, resp.StatusCode, raw, err)
		}
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		failure sim.Failure
		want    schemas.Code
		tokens  int
	}{
		{sim.Failure{After: 3, End: sim.EndCut}, schemas.StreamBroken, 3},
		{sim.Failure{After: 3, End: sim.EndClean}, schemas.StreamBroken, 3},
		{sim.Failure{After: 3, End: sim.EndError}, schemas.UpstreamError, 3},
		{sim.Failure{After: 3, End: sim.EndGarbage}, schemas.UpstreamError, 3},
		{sim.Failure{After: 3, End: sim.EndStall}, schemas.StreamBroken, 3},
		{sim.Failure{After: 1000, End: sim.EndClean}, schemas.StreamBroken, 50},
		{sim.Failure{Status: 503, RetryAfter: "3"}, schemas.Overloaded, 0},
		{sim.Failure{Status: 500, Body: "CUDA error: out of memory"}, schemas.OutOfMemory, 0},
	} {
		each(t, func(t *testing.T, r rig) {
			c.failure.Times = 1
			r.Fail("fast", c.failure)
			req, got := chat("fast", "hi", ""), ""
			req.Limits.BetweenChunks = 300 * time.Millisecond
			_, err := r.Generate(within(t), req, func(chunk []byte) error {
				var d struct {
					Choices []struct{ Delta struct{ Content string } }
				}
				if err := json.Unmarshal(chunk, &d); err != nil {
					return err
				}
				if len(d.Choices) > 0 {
					got += d.Choices[0].Delta.Content
				}
				return nil
			})
			var e *schemas.Error
			if !errors.As(err, &e) || e.Code != c.want {
				t.Errorf("%+v: %v", c.failure, err)
			}
			if want := sim.Text("hi", c.tokens); got != want {
				t.Errorf("%+v: got %q, want %q", c.failure, got, want)
			}
			if c.failure.RetryAfter != "" && e.RetryAfter != 3*time.Second {
				t.Errorf("retry after %s", e.RetryAfter)
			}
			if _, err := r.Generate(within(t), chat("fast", "hi", ""), ignore); err != nil {
				t.Errorf("the failure was for one request: %v", err)
			}
		})
	}
}

func TestCancelFreesTheSlot(t *testing.T) {
	each(t, func(t *testing.T, r rig) {
		ctx, cancel := context.WithCancel(within(t))
		_, err := r.Generate(ctx, chat("slow", "hi", ""), func([]byte) error {
			cancel()
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		eventually(t, r, "slow", func(c sim.Counts) bool { return c.Cancelled == 1 })
	})
}

func TestQueue(t *testing.T) {
	each(t, func(t *testing.T, r rig) {
		var wg sync.WaitGroup
		errs := make([]error, 6)
		for i := range errs {
			wg.Go(func() {
				_, errs[i] = r.Generate(within(t), chat("slow", fmt.Sprint(i), `,"max_tokens":5`), ignore)
			})
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				t.Error(err)
			}
		}
		if c := r.Counts("slow"); c.Peak != 2 || c.Finished != 6 || c.Loads != 1 {
			t.Errorf("%+v", c)
		}
	})
}

// A waiting request shows no sign of life and can be cancelled.
func TestCancelInQueue(t *testing.T) {
	each(t, func(t *testing.T, r rig) {
		ctx, stop := context.WithCancel(within(t))
		var wg sync.WaitGroup
		started := make(chan struct{}, 2000)
		for range 2 {
			wg.Go(func() {
				_, _ = r.Generate(ctx, chat("slow", "hi", ""), func([]byte) error {
					started <- struct{}{}
					return nil
				})
			})
		}
		eventually(t, r, "slow", func(c sim.Counts) bool { return c.Started == 2 })
		<-started
		req := chat("slow", "hi", "")
		req.Limits.FirstToken = 50 * time.Millisecond
		_, err := r.Generate(within(t), req, ignore)
		if schemas.AsError(err).Code != schemas.Overloaded {
			t.Errorf("%v", err)
		}
		eventually(t, r, "slow", func(c sim.Counts) bool { return c.Cancelled == 1 })
		stop()
		wg.Wait()
		eventually(t, r, "slow", func(c sim.Counts) bool { return c.Cancelled == 3 })
		if _, err := r.Generate(within(t), chat("slow", "hi", `,"max_tokens":2`), ignore); err != nil {
			t.Errorf("the slots did not come back: %v", err)
		}
	})
}

// A model is not unloaded under a running request by who runs that. By others it
// is: that cuts the request in the router's dialect, and Ollama lets it finish
// first.
func TestUnloadBusy(t *testing.T) {
	each(t, func(t *testing.T, r rig) {
		first, done := make(chan struct{}), make(chan error, 1)
		var once sync.Once
		go func() {
			_, err := r.Generate(within(t), chat("slow", "hi", `,"max_tokens":40`), func([]byte) error {
				once.Do(func() { close(first) })
				return nil
			})
			done <- err
		}()
		<-first
		if err := r.Provider.(providers.Loader).Unload(within(t), "slow"); schemas.AsError(err).Code != schemas.Overloaded {
			t.Fatalf("unload by the one who runs it: %v", err)
		}
		_, isOllama := r.Provider.(*providers.Ollama)
		order, body := "/models/unload", `{"model":"slow"}`
		if isOllama {
			order, body = "/api/generate", `{"model":"slow","keep_alive":0}`
		}
		answer := httptest.NewRecorder()
		r.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, order, strings.NewReader(body)))
		if answer.Code != http.StatusOK {
			t.Fatalf("unload by others: %d %s", answer.Code, answer.Body)
		}
		if err := <-done; (err == nil) != isOllama {
			t.Errorf("the running request: %v", err)
		}
		models, err := r.Models(within(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range models {
			if m.State == schemas.Resident {
				t.Errorf("still there: %+v", m)
			}
		}
	})
}

// A sentEnd is an answer that notes whether its end was sent by the handler itself.
type sentEnd struct {
	*httptest.ResponseRecorder
	early bool
}

func (s *sentEnd) Flush() {
	body := s.Body.String()
	s.early = s.early || strings.Contains(body, "[DONE]") || strings.Contains(body, `"done":true`)
}

// TestSlotIsFreeAtTheEnd: who has read an answer finds its slot free, since the end is
// sent when the handler has returned.
func TestSlotIsFreeAtTheEnd(t *testing.T) {
	each(t, func(t *testing.T, r rig) {
		path := "/v1/chat/completions"
		if _, isOllama := r.Provider.(*providers.Ollama); isOllama {
			path = "/api/chat"
		}
		answer := &sentEnd{ResponseRecorder: httptest.NewRecorder()}
		r.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, path, strings.NewReader(`{"model":"slow","stream":true,"max_tokens":2,"options":{"num_predict":2},"messages":[{"role":"user","content":"hi"}]}`)))
		if answer.early || answer.Code != http.StatusOK || r.Counts("slow").Finished != 1 {
			t.Errorf("status %d, early: %v, finished: %d: %s", answer.Code, answer.early, r.Counts("slow").Finished, answer.Body)
		}
	})
}

func TestDevices(t *testing.T) {
	r := newRig(t, providers.KindSim, config())
	loader := r.Provider.(providers.Loader)
	for _, m := range []string{"slow", "two"} { // 3 of 4 GiB, then 2 of 2
		if err := loader.Load(within(t), m); err != nil {
			t.Fatal(err)
		}
	}
	devices, err := r.Provider.(providers.DeviceReporter).Devices(within(t))
	if err != nil || len(devices) != 2 {
		t.Fatalf("%v %v", devices, err)
	}
	for i, free := range []schemas.Bytes{schemas.GiB, 0} {
		if d := devices[i]; d.Free != schemas.Known(free) || d.ID != fmt.Sprintf("sim-%d", i) || d.Kind != "sim" {
			t.Errorf("%+v", d)
		}
	}
	if err := loader.Load(within(t), "fast"); err != nil {
		t.Fatal(err)
	}
	err = loader.Load(within(t), "embed")
	if schemas.AsError(err).Code != schemas.OutOfMemory {
		t.Errorf("%v", err)
	}
	_, err = r.Provider.(providers.Embedder).Embed(within(t), providers.Request{Kind: schemas.Embedding, Model: "embed", Body: []byte(`{"input":"x"}`)})
	if schemas.AsError(err).Code != schemas.OutOfMemory {
		t.Errorf("a request that needs a load: %v", err)
	}
}

// A load takes its memory when it begins, so two at a time can't take the same.
func TestTwoLoads(t *testing.T) {
	cfg := config()
	cfg.Devices = cfg.Devices[:1] // 4 GiB
	cfg.Models[2].LoadTime = cfg.Models[1].LoadTime
	r := newRig(t, providers.KindSim, cfg)
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for i, m := range []string{"slow", "two"} { // 3 and 2 GiB
		wg.Go(func() { errs[i] = r.Provider.(providers.Loader).Load(within(t), m) })
	}
	wg.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Errorf("%v", errs)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		req  providers.Request
		want schemas.Code
	}{
		{chat("nope", "hi", ""), schemas.ModelNotFound},
		{chat("embed", "hi", ""), schemas.Unsupported},
		{chat("two", strings.Repeat("x", 20000), ""), schemas.ContextOverflow},
	} {
		each(t, func(t *testing.T, r rig) {
			if _, err := r.Generate(within(t), c.req, ignore); err == nil || schemas.AsError(err).Code != c.want {
				t.Errorf("%s: %v, want %s", c.req.Model, err, c.want)
			}
		})
	}
}

func TestNoAutoload(t *testing.T) {
	cfg := config()
	cfg.NoAutoload = true
	r := newRig(t, providers.KindSim, cfg)
	if _, err := r.Generate(within(t), chat("fast", "hi", ""), ignore); schemas.AsError(err).Code != schemas.ModelLoading {
		t.Errorf("%v", err)
	}
}

func TestDetect(t *testing.T) {
	s := httptest.NewServer(sim.New(sim.Default()))
	defer s.Close()
	kind, err := providers.Detect(t.Context(), s.URL, s.Client())
	if err != nil || kind != providers.KindSim {
		t.Errorf("%q %v", kind, err)
	}
}

// Memory that others take is not there for models; what they take is free.
func TestForeignMemory(t *testing.T) {
	r := newRig(t, providers.KindSim, config())
	if got := r.Foreign("sim-0", 99*schemas.GiB); got != 4*schemas.GiB {
		t.Errorf("they took %s of 4 GiB", got)
	}
	l := r.Provider.(providers.Loader)
	if err := l.Load(t.Context(), "slow"); schemas.AsError(err).Code != schemas.OutOfMemory {
		t.Errorf("3 GiB were loaded into the 2 of the other device: %v", err)
	}
	if err := l.Load(t.Context(), "two"); err != nil {
		t.Error(err)
	}
	if c := r.Counts("slow"); c.Refused != 1 || c.Overcommitted != 0 {
		t.Errorf("%+v", c)
	}
	r.Foreign("sim-0", schemas.GiB)
	if err := l.Load(t.Context(), "slow"); err != nil {
		t.Errorf("3 GiB beside the one of others: %v", err)
	}
	if err := l.Load(t.Context(), "embed"); schemas.AsError(err).Code != schemas.OutOfMemory {
		t.Errorf("both are full: %v", err)
	}
	devices, err := r.Provider.(providers.DeviceReporter).Devices(t.Context())
	if err != nil || devices[0].Ours != schemas.Known(3*schemas.GiB) || devices[0].Others != schemas.Known(schemas.GiB) {
		t.Errorf("%+v, %v", devices, err)
	}
}

// A model that has not enough room on any device goes to several.
func TestSpreadsOverDevices(t *testing.T) {
	cfg := config()
	cfg.Models[0].VRAM = 5 * schemas.GiB
	r := newRig(t, providers.KindSim, cfg)
	if err := r.Provider.(providers.Loader).Load(t.Context(), "fast"); err != nil {
		t.Fatal(err)
	}
	devices, err := r.Provider.(providers.DeviceReporter).Devices(t.Context())
	if err != nil || devices[0].Ours != schemas.Known(4*schemas.GiB) || devices[1].Ours != schemas.Known(schemas.GiB) {
		t.Errorf("%+v, %v", devices, err)
	}
}

// Where idle models make room by themselves, the one that was used last stays, and a
// busy one does until its requests have ended.
func TestEvictsIdleModels(t *testing.T) {
	cfg := config()
	cfg.Devices, cfg.EvictIdle = []sim.Device{{ID: "sim-0", Memory: 3 * schemas.GiB}}, true
	cfg.Models[1].Tokens = 40
	r := newRig(t, providers.KindSim, cfg)
	ask := func(model string) error {
		body := []byte(`{"messages":[{"role":"user","content":"hi"}]}`)
		_, err := r.Generate(t.Context(), providers.Request{Kind: schemas.Chat, Model: model, Body: body}, func([]byte) error { return nil })
		return err
	}
	for _, model := range []string{"fast", "two", "fast", "slow", "two"} {
		if err := ask(model); err != nil {
			t.Fatalf("%s: %v", model, err)
		}
	}
	var both sync.WaitGroup
	for _, model := range []string{"slow", "two"} { // in any order: one waits for the other
		both.Go(func() {
			if err := ask(model); err != nil {
				t.Errorf("%s: %v", model, err)
			}
		})
	}
	both.Wait()
	for _, model := range []string{"fast", "two", "slow"} {
		if c := r.Counts(model); c.Cut != 0 || c.Cancelled != 0 || c.Refused != 0 {
			t.Errorf("%s: %+v", model, c)
		}
	}
	if c := r.Counts("fast"); c.Loads != 1 {
		t.Errorf("fast: %+v", c)
	}
}

// Of those that wait for a slot, the class says who is first, and then who came
// first. What a body says of its priority says nothing.
func TestPriority(t *testing.T) {
	cfg := config()
	cfg.Models[1].Slots = 1
	r := newRig(t, providers.KindSim, cfg)
	var running sync.WaitGroup
	defer running.Wait()
	type run struct {
		name string
		stop context.CancelFunc
	}
	began := make(chan run)
	ask := func(class schemas.Class, number int) {
		ctx, stop := context.WithCancel(within(t))
		req := chat("slow", "hi", `,"priority":-7`)
		req.Class = class
		running.Go(func() {
			defer stop()
			first := sync.OnceFunc(func() { began <- run{fmt.Sprint(class, number), stop} })
			_, err := r.Generate(ctx, req, func([]byte) error { first(); return nil })
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s %d: %v", class, number, err)
			}
		})
	}
	ask(schemas.Batch, 0)
	has := <-began
	for i, class := range []schemas.Class{schemas.Batch, schemas.Normal, schemas.Interactive, schemas.Batch, schemas.Normal, schemas.Interactive} {
		ask(class, i)
		eventually(t, r, "slow", func(c sim.Counts) bool { return c.Waiting == i+1 })
	}
	var order []string
	for range 6 {
		has.stop()
		has = <-began
		order = append(order, has.name)
	}
	has.stop()
	if want := []string{"interactive2", "interactive5", "normal1", "normal4", "batch0", "batch3"}; !slices.Equal(order, want) {
		t.Errorf("they ran in the order %v, want %v", order, want)
	}
}
