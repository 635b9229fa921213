package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// A target is a real server, and the provider that is tested with it.
type target struct {
	providers.Provider
	kind   string
	url    string
	model  string               // a model of it that writes stories
	proofs *providertest.Proofs // of what its tests proved
}

// aim returns the target at a URL. The model may be "" and be set later.
func aim(tb testing.TB, kind, url, model string, keys ...string) *target {
	tb.Helper()
	cfg := providers.Config{Kind: kind, URL: url}
	for _, k := range keys {
		cfg.Keys = append(cfg.Keys, providers.Key{Name: "K", Secret: func() string { return k }})
	}
	p, err := providers.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return &target{Provider: p, kind: kind, url: url, model: model, proofs: &proofs}
}

// prove runs a test and notes what it proved.
func (s *target) prove(t *testing.T, ability providertest.Ability, test func(*testing.T)) {
	t.Helper()
	if t.Run(string(ability), test) {
		s.proofs.Add(s.kind, ability, providertest.Real)
	}
}

// detected checks that the server is known without being told.
func (s *target) detected(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	if kind, err := providers.Detect(ctx, s.url, nil); err != nil || kind != s.kind {
		tb.Errorf("it is detected as %q, %v; want %q", kind, err, s.kind)
	}
}

// find returns what the server's list says of a model.
func (s *target) find(tb testing.TB, model string) providers.Model {
	tb.Helper()
	models, err := s.Models(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	i := slices.IndexFunc(models, func(m providers.Model) bool { return m.Name == model })
	if i < 0 {
		tb.Fatalf("%s is not in %v", model, models)
	}
	return models[i]
}

// lists checks where a model is by the server's list.
func (s *target) lists(tb testing.TB, model string, want schemas.ModelState) {
	tb.Helper()
	if m := s.find(tb, model); m.State != want {
		tb.Errorf("%s is %s, want %s", model, m.State, want)
	}
}

// notices waits until the server knows that a model is not in memory any more: for a
// moment after the model's process was killed, a router says that it is loaded.
func (s *target) notices(tb testing.TB, model string) {
	tb.Helper()
	for stop := time.Now().Add(10 * time.Second); s.find(tb, model).State != schemas.Installed; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(stop) {
			tb.Fatalf("the server does not notice that %s is gone", model)
		}
	}
}

// A run is a request that runs in the background.
type run struct {
	begun chan struct{} // closed with the first chunk that has text
	done  chan struct{} // closed with the end; what follows is set then
	stop  context.CancelCauseFunc

	text   string // of all chunks
	chunks int    // that have text
	answer providers.Answer
	err    error
}

// generate runs a chat, or a completion where the body has a prompt, until the
// test ends.
func (s *target) generate(tb testing.TB, model string, body map[string]any, lim providers.Limits) *run {
	tb.Helper()
	if s.kind == providers.KindOllama { // it refuses what it has no word for
		body = maps.Clone(body)
		delete(body, "cache_prompt")
	}
	data, err := json.Marshal(body)
	if err != nil {
		tb.Fatal(err)
	}
	req := providers.Request{Kind: schemas.Chat, Model: model, Body: data, Limits: lim}
	if body["prompt"] != nil {
		req.Kind = schemas.Completion
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	ctx, stop := context.WithCancelCause(ctx)
	r := &run{begun: make(chan struct{}), done: make(chan struct{}), stop: stop}
	go func() {
		defer cancel()
		defer close(r.done)
		r.answer, r.err = s.Generate(ctx, req, func(chunk []byte) error {
			var a answer
			if err := json.Unmarshal(chunk, &a); err != nil {
				return err
			}
			if text := a.text(); text != "" {
				if r.text += text; r.chunks == 0 {
					close(r.begun)
				}
				r.chunks++
			}
			return nil
		})
	}()
	tb.Cleanup(func() { stop(nil); <-r.done })
	return r
}

// begins waits for the first text of a run.
func (r *run) begins(tb testing.TB) *run {
	tb.Helper()
	select {
	case <-r.begun:
	case <-r.done:
		tb.Fatalf("it ended before its first text: %v", r.err)
	}
	return r
}

// ends waits for the end of a run.
func (r *run) ends() *run {
	<-r.done
	return r
}

// fails checks that a run ends with an error of one of the codes.
func (r *run) fails(tb testing.TB, codes ...schemas.Code) {
	tb.Helper()
	<-r.done
	wantCode(tb, r.err, codes...)
}

// wantCode checks that err is an error with one of the codes.
func wantCode(tb testing.TB, err error, codes ...schemas.Code) {
	tb.Helper()
	var e *schemas.Error
	if !errors.As(err, &e) || !slices.Contains(codes, e.Code) || e.Message == "" {
		tb.Errorf("the error is %v; want the code %v", err, codes)
	}
}

// chat is a chat that the tests' models answer with a story.
func chat() map[string]any {
	return greedy("messages", []map[string]string{{"role": "user", "content": "Once upon a time"}})
}

// long is a chat whose answer takes the slow model seconds.
func long() map[string]any {
	body := chat()
	body["max_tokens"] = 400
	return body
}

// answers checks that the server says through the provider what it says directly,
// at the path of OpenAI's API.
func (s *target) answers(t *testing.T, path string, body map[string]any) {
	t.Helper()
	r := s.generate(t, s.model, body, providers.Limits{}).ends()
	if r.err != nil {
		t.Fatal(r.err)
	}
	body = maps.Clone(body)
	body["model"] = s.model
	want := direct(t, s.url+path, body)
	if !strings.Contains(want.text(), story) {
		t.Fatalf("the model's answer is no story: %q", want.text())
	}
	if diff := cmp.Diff(want.text(), r.text); diff != "" {
		t.Errorf("chunks (-direct +provider):\n%s", diff)
	}
	if diff := cmp.Diff(want.text(), read(t, r.answer.Body).text()); diff != "" {
		t.Errorf("the answer (-direct +provider):\n%s", diff)
	}
	if u := read(t, r.answer.Body).Usage; r.answer.Usage != want.Usage || u != want.Usage || u.CompletionTokens < 50 {
		t.Errorf("usage: %+v, in the body %+v, directly %+v", r.answer.Usage, u, want.Usage)
	}
	if r.chunks < 50 {
		t.Errorf("%d tokens came in %d chunks", want.Usage.CompletionTokens, r.chunks)
	}
}

func (s *target) chats(t *testing.T) { s.answers(t, "/v1/chat/completions", chat()) }

func (s *target) completes(t *testing.T) {
	s.answers(t, "/v1/completions", greedy("prompt", "Once upon a time"))
}

// embed runs an embeddings request.
func (s *target) embed(tb testing.TB, model string, input ...string) (providers.Answer, error) {
	tb.Helper()
	e, ok := s.Provider.(providers.Embedder)
	if !ok {
		tb.Fatal("it computes no embeddings")
	}
	data, err := json.Marshal(map[string]any{"input": input})
	if err != nil {
		tb.Fatal(err)
	}
	return e.Embed(tb.Context(), providers.Request{Kind: schemas.Embedding, Model: model, Body: data})
}

// embeds checks that the vectors are those that the server gives directly, in the
// order of the input.
func (s *target) embeds(t *testing.T, model string) {
	t.Helper()
	texts := []string{"Once upon a time", "there was a fox", "Lily"}
	a, err := s.embed(t, model, texts...)
	if err != nil {
		t.Fatal(err)
	}
	got := read(t, a.Body)
	want := direct(t, s.url+"/v1/embeddings", map[string]any{"model": model, "input": texts})
	if diff := cmp.Diff(want, got); diff != "" || len(got.Data) != len(texts) {
		t.Errorf("%d embeddings (-direct +provider):\n%s", len(got.Data), diff)
	}
	for i, text := range texts { // each text alone, so that the order is none of the server's making
		alone, err := s.embed(t, model, text)
		if err != nil {
			t.Fatal(err)
		}
		if d := distance(got.Data[i].Embedding, read(t, alone.Body).Data[0].Embedding); d > 1e-3 {
			t.Errorf("the vector %d is not that of %q: it is %g away", i, text, d)
		}
	}
}

// distance is the greatest difference of two vectors' numbers. Batches of other
// sizes are rounded differently.
func distance(a, b []float64) (most float64) {
	if len(a) != len(b) || len(a) == 0 {
		return 1
	}
	for i := range a {
		most = max(most, a[i]-b[i], b[i]-a[i])
	}
	return most
}

// schema checks that an answer keeps to a schema.
func (s *target) schema(t *testing.T) {
	t.Helper()
	body := chat()
	body["response_format"] = json.RawMessage(`{"type":"json_schema","json_schema":{"name":"child","strict":true,"schema":{"type":"object",
		"properties":{"name":{"type":"string","enum":["Lily","Tom"]},"age":{"type":"integer","minimum":1,"maximum":9}},
		"required":["name","age"],"additionalProperties":false}}}`)
	r := s.generate(t, s.model, body, providers.Limits{}).ends()
	if r.err != nil {
		t.Fatal(r.err)
	}
	var child struct {
		Name string
		Age  int
	}
	d := json.NewDecoder(bytes.NewReader([]byte(read(t, r.answer.Body).text())))
	d.DisallowUnknownFields()
	if err := d.Decode(&child); err != nil || child.Name != "Lily" && child.Name != "Tom" || child.Age < 1 || child.Age > 9 {
		t.Errorf("it does not keep to the schema: %q, %v", r.text, err)
	}
}

// pressed waits until the server says that it is that busy.
func (s *target) pressed(t *testing.T, model string, want providers.Pressure) {
	t.Helper()
	p, ok := s.Provider.(providers.PressureReporter)
	if !ok {
		t.Fatal("it reports no pressure")
	}
	var got providers.Pressure
	defer func() {
		if t.Failed() {
			t.Logf("the pressure is %+v, want %+v", got, want)
		}
	}()
	within(t, 10*time.Second, "the pressure is as it must be", func() bool {
		var err error
		if got, err = p.Pressure(t.Context(), model); err != nil {
			t.Fatal(err)
		}
		return got == want
	})
}

var errEnough = errors.New("that is enough")

// cancels checks that a run ends at once where its context does, and with its
// cause; and that the server stops too, so that another is not kept waiting.
func (s *target) cancels(t *testing.T, model string) {
	t.Helper()
	r := s.generate(t, model, long(), providers.Limits{}).begins(t)
	p, tells := s.Provider.(providers.PressureReporter)
	idle := func() bool {
		if !tells {
			return true
		}
		now, err := p.Pressure(t.Context(), model)
		if err != nil {
			t.Fatal(err)
		}
		return now.Running == 0
	}
	if tells && idle() {
		t.Fatal("the server is idle while it generates")
	}
	r.stop(errEnough)
	within(t, time.Second, "the run ends", func() bool {
		select {
		case <-r.done:
			return true
		default:
			return false
		}
	})
	if !errors.Is(r.err, errEnough) {
		t.Errorf("it ended %v, want %v", r.err, errEnough)
	}
	t.Logf("the server stopped after %s", within(t, time.Second, "the server stops", idle).Round(time.Millisecond))
	body := chat()
	body["max_tokens"] = 1
	began := time.Now()
	if next := s.generate(t, model, body, providers.Limits{}).ends(); next.err != nil || time.Since(began) > 2*time.Second {
		t.Errorf("the next request took %s: %v", time.Since(began), next.err)
	}
}

// loads checks that a load returns once the model is there, also where it was.
func (s *target) loads(t *testing.T, model string) {
	t.Helper()
	for range 2 {
		if err := s.loader(t).Load(t.Context(), model); err != nil {
			t.Fatal(err)
		}
		s.lists(t, model, schemas.Resident)
	}
}

// unloads checks that an unload returns once the model is gone, also where it was.
func (s *target) unloads(t *testing.T, model string) {
	t.Helper()
	for range 2 {
		if err := s.loader(t).Unload(t.Context(), model); err != nil {
			t.Fatal(err)
		}
		s.lists(t, model, schemas.Installed)
	}
}

func (s *target) loader(tb testing.TB) providers.Loader {
	tb.Helper()
	l, ok := s.Provider.(providers.Loader)
	if !ok {
		tb.Fatal("it loads nothing")
	}
	return l
}

// overflow is a chat that is longer than any context of the tests.
func overflow() map[string]any {
	return greedy("messages", []map[string]string{{"role": "user", "content": strings.Repeat("once upon a time ", 1000)}})
}

// picture is a chat with an image of one pixel.
func picture() map[string]any {
	const png = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"
	return greedy("messages", []map[string]any{{"role": "user", "content": []map[string]any{
		{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": map[string]string{"url": png}},
	}}})
}
