package providertest

import (
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

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

func discovery(t *testing.T, r *rig) {
	got, err := r.serve(r.Server()).Models(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.Models, got); diff != "" {
		t.Errorf("models (-want +got):\n%s", diff)
	}
}

// Routes returns a server that answers each "METHOD /path" with a body, as JSON
// where it begins like it, and 404 else. A body that begins with a status and a
// space, such as "503 …", has that status.
func Routes(answers map[string]string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		body, ok := answers[r.Method+" "+r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		status := http.StatusOK
		if n, rest, cut := strings.Cut(body, " "); cut && len(n) == 3 {
			if _, err := fmt.Sscan(n, &status); err == nil {
				body = rest
			}
		}
		if strings.HasPrefix(body, "{") || strings.HasPrefix(body, "[") {
			w.Header().Set("Content-Type", "application/json")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// reachable: a server without models has none; one that is not there, that breaks
// off, or that says something else, is an error.
func reachable(t *testing.T, r *rig) {
	if r.Empty != nil {
		got, err := r.serve(Routes(r.Empty)).Models(t.Context())
		if err != nil || len(got) != 0 || got == nil {
			t.Errorf("a server without models: %v, %v", got, err)
		}
	}
	answers := map[string]http.Handler{
		"breaks off":  http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
		"an error":    answer(http.StatusInternalServerError, "application/json", `{"error":"it broke"}`),
		"a page":      answer(http.StatusOK, "text/html", "<html></html>"),
		"other JSON":  answer(http.StatusOK, "application/json", `{}`),
		"a bad token": answer(http.StatusUnauthorized, "application/json", `{"error":"no"}`),
	}
	if r.Serve != nil {
		delete(answers, "breaks off") // only the caller's patience tells
	}
	for name, h := range answers {
		if got, err := r.serve(h).Models(t.Context()); err == nil || got != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func (k *Kind) remembersMemory() bool {
	return slices.ContainsFunc(k.Models, func(m providers.Model) bool { return m.VRAM.Known })
}

// memory: what a model takes is what the server says, and unknown where it says
// nothing.
func memory(t *testing.T, r *rig) {
	got, err := r.serve(r.Server()).Models(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known := 0
	for i := range got {
		if got[i].VRAM.Known {
			known++
		}
		if got[i].VRAM != r.Models[i].VRAM || got[i].State == schemas.Installed && got[i].VRAM.Known {
			t.Errorf("%s takes %v in the state %s", got[i].Name, got[i].VRAM, got[i].State)
		}
	}
	if known == 0 {
		t.Error("no model's memory is known")
	}
}

func (x *Exchange) name(i int) string {
	name := string(x.Proves)
	switch {
	case x.Code != "":
		name = "refused " + x.Param
	case name == "":
		name = "exchange"
	}
	return fmt.Sprintf("%d %s", i, name)
}

// exchange runs one exchange.
func exchange(t *testing.T, r *rig, x *Exchange) {
	var path string
	var sent []byte
	p := r.serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		path = req.URL.RequestURI()
		sent, _ = io.ReadAll(req.Body)
		w.Header().Set("Content-Type", r.Dialect.ContentType)
		_, _ = io.WriteString(w, x.Answer)
	}))
	kind := x.Kind
	if kind == "" {
		kind = schemas.Chat
	}
	req := providers.Request{Kind: kind, Model: "m", Body: []byte(x.Request)}
	got, chunks, err := run(t, p, req)
	if x.Code != "" {
		wantCode(t, err, x.Code)
		if e := schemas.AsError(err); err != nil && (e.Param != x.Param || !strings.Contains(e.Message, x.Param)) {
			t.Errorf("the error names %q: %s", e.Param, e.Message)
		}
		if sent != nil {
			t.Errorf("it was sent: %s", sent)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if x.Path != "" && path != x.Path {
		t.Errorf("it went to %s, want %s", path, x.Path)
	}
	holds(t, "what arrived", x.Sent, sent)
	holds(t, "the answer", x.Want, got.Body)
	for _, name := range x.Absent {
		var members map[string]any
		if err := json.Unmarshal(sent, &members); err != nil || members[name] != nil {
			t.Errorf("%q arrived: %v", name, members[name])
		}
	}
	if kind != schemas.Embedding {
		sameAsChunks(t, kind, chunks, got.Body)
	}
	if u := got.Usage; u.PromptTokens < 1 || u.TotalTokens != u.PromptTokens+u.CompletionTokens {
		t.Errorf("the usage is %+v", u)
	}
}

// run runs a request of any kind.
func run(t *testing.T, p providers.Provider, req providers.Request) (a providers.Answer, chunks []string, err error) {
	if req.Kind == schemas.Embedding {
		e, ok := p.(providers.Embedder)
		if !ok {
			t.Fatal("it computes no embeddings")
		}
		a, err = e.Embed(t.Context(), req)
		return a, nil, err
	}
	a, err = p.Generate(t.Context(), req, func(chunk []byte) error {
		chunks = append(chunks, string(chunk))
		return nil
	})
	return a, chunks, err
}

// holds checks that JSON holds all that want holds.
func holds(t *testing.T, what, want string, got []byte) {
	t.Helper()
	if want == "" {
		return
	}
	var w, g any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("%v in %s", err, want)
	}
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatalf("%s is not JSON: %v in %s", what, err, got)
	}
	if where := lacks(w, g, ""); where != "" {
		t.Errorf("%s lacks %s:\n got %s\nwant %s", what, where, got, want)
	}
}

// lacks returns where got differs from what want says; "" if it does not.
func lacks(want, got any, at string) string {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return at + ", an object"
		}
		for k, v := range w {
			if where := lacks(v, g[k], at+"."+k); where != "" {
				return where
			}
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return fmt.Sprintf("%s, a list of %d", at, len(w))
		}
		for i := range w {
			if where := lacks(w[i], g[i], fmt.Sprintf("%s[%d]", at, i)); where != "" {
				return where
			}
		}
	default:
		if want != got {
			return fmt.Sprintf("%s: %v", at, want)
		}
	}
	return ""
}

// sameAsChunks checks that the chunks, put together, say what the answer says, and
// that they are what OpenAI's readers take.
func sameAsChunks(t *testing.T, kind schemas.Kind, chunks []string, body []byte) {
	t.Helper()
	type call struct {
		Index    int
		ID       string
		Function struct{ Name, Arguments string }
	}
	type message struct {
		Content   string
		Reasoning string `json:"reasoning_content"`
		Calls     []call `json:"tool_calls"`
	}
	type choice struct {
		Index   int
		Text    string
		Delta   message
		Message message
		Finish  *string `json:"finish_reason"`
	}
	var whole, all struct{ Choices []choice }
	if err := json.Unmarshal(body, &whole); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	all.Choices = make([]choice, len(whole.Choices))
	for _, text := range chunks {
		var c struct {
			Object  string
			Choices []choice
		}
		if err := json.Unmarshal([]byte(text), &c); err != nil || c.Choices == nil {
			t.Fatalf("a chunk is none of OpenAI's: %v in %s", err, text)
		}
		if want := map[schemas.Kind]string{schemas.Chat: "chat.completion.chunk", schemas.Completion: "text_completion"}[kind]; c.Object != want && !strings.Contains(text, "content_filter") { // those of Azure's filter are no object
			t.Errorf("a chunk is a %q, want %q", c.Object, want)
		}
		for _, d := range c.Choices {
			if d.Index >= len(all.Choices) {
				t.Fatalf("a chunk of choice %d, of %d", d.Index, len(all.Choices))
			}
			sum := &all.Choices[d.Index]
			sum.Text += d.Text
			sum.Message.Content += d.Delta.Content
			sum.Message.Reasoning += d.Delta.Reasoning
			for _, piece := range d.Delta.Calls {
				for len(sum.Message.Calls) <= piece.Index {
					sum.Message.Calls = append(sum.Message.Calls, call{})
				}
				to := &sum.Message.Calls[piece.Index]
				to.ID += piece.ID
				to.Function.Name += piece.Function.Name
				to.Function.Arguments += piece.Function.Arguments
			}
			if d.Finish != nil {
				sum.Finish = d.Finish
			}
		}
	}
	for i := range all.Choices {
		all.Choices[i].Index = whole.Choices[i].Index
		for j := range all.Choices[i].Message.Calls {
			all.Choices[i].Message.Calls[j].Index = 0
		}
	}
	if diff := cmp.Diff(whole.Choices, all.Choices, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("chunks (-answer +chunks):\n%s", diff)
	}
}

// failures: each error as the server words it has its code.
func failures(t *testing.T, r *rig) {
	for _, f := range r.Failures {
		h := answer(f.Status, "application/json", f.Body)
		if f.Status == http.StatusOK {
			h = r.Dialect.send(r.Dialect.Chunk("a"), f.Body)
		}
		_, _, err := r.ask(providers.Limits{}, func(w http.ResponseWriter, req *http.Request) {
			for k, v := range f.Header {
				w.Header().Set(k, v)
			}
			h(w, req)
		})
		wantCode(t, err, f.Want)
		if e := schemas.AsError(err); f.Retry != 0 && e.RetryAfter != f.Retry {
			t.Errorf("%s: retry after %s, want %s", f.Body, e.RetryAfter, f.Retry)
		}
	}
}

// claims: what a provider says that it can do is tested.
func claims(t *testing.T, r *rig, k *Kind) {
	p := r.serve(r.Server())
	_, loads := p.(providers.Loader)
	_, presses := p.(providers.PressureReporter)
	_, embeds := p.(providers.Embedder)
	proven := func(a Ability) bool {
		return slices.ContainsFunc(k.Exchanges, func(x Exchange) bool { return x.Proves == a })
	}
	if loads != (k.Load != "") {
		t.Errorf("it loads: %t, and the test says %q", loads, k.Load)
	}
	if presses != (k.Pressure != nil) {
		t.Errorf("it reports pressure: %t, and the test says %v", presses, k.Pressure)
	}
	if embeds && !proven(Embeddings) && k.lists(schemas.Embedding) {
		t.Error("it embeds, and no exchange proves it")
	}
	if !proven(Chat) {
		t.Error("no exchange proves that it chats")
	}
	if _, ok := p.(providers.Breaker); !ok {
		t.Error("it has no breaker")
	}
}

func (k *Kind) lists(kind schemas.Kind) bool {
	return slices.ContainsFunc(k.Models, func(m providers.Model) bool { return slices.Contains(m.Kinds, kind) })
}

// stateOf returns where the server's list says that a model is.
func (r *rig) stateOf(p providers.Provider, model string) schemas.ModelState {
	r.Helper()
	models, err := p.Models(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	for _, m := range models {
		if m.Name == model {
			return m.State
		}
	}
	r.Fatalf("%s is not in %v", model, models)
	return ""
}

// loader returns a provider that has seen the server answer a request: some tell a
// server to unload only then.
func (r *rig) loader(h http.Handler) (providers.Provider, providers.Loader) {
	r.Helper()
	p := r.serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		if strings.Contains(string(body), "are you there") {
			r.Dialect.send(r.Dialect.Chunk("a"), r.Dialect.End)(w, httptest.NewRequestWithContext(req.Context(), http.MethodPost, "/", nil))
			return
		}
		req.Body = io.NopCloser(strings.NewReader(string(body)))
		h.ServeHTTP(w, req)
	}))
	l, ok := p.(providers.Loader)
	if !ok {
		r.Fatal("it loads nothing")
	}
	req := providers.Request{Kind: schemas.Chat, Model: r.Load, Body: []byte(`{"messages":[{"role":"user","content":"are you there"}]}`)}
	if _, _, err := run(r.T, p, req); err != nil {
		r.Fatal(err)
	}
	return p, l
}

// unload: it returns once the model is gone, also where it was gone before.
func unload(t *testing.T, r *rig) {
	p, l := r.loader(r.Server())
	if r.stateOf(p, r.Load) != schemas.Resident {
		if err := l.Load(t.Context(), r.Load); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := l.Unload(t.Context(), r.Load); err != nil {
			t.Fatal(err)
		}
		if s := r.stateOf(p, r.Load); s != schemas.Installed {
			t.Errorf("it is %s", s)
		}
	}
}

// load: it returns once the model is there, also where it was there before.
func load(t *testing.T, r *rig) {
	p, l := r.loader(r.Server())
	if err := l.Unload(t.Context(), r.Load); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Load(t.Context(), r.Load); err != nil {
			t.Fatal(err)
		}
		if s := r.stateOf(p, r.Load); s != schemas.Resident {
			t.Errorf("it is %s", s)
		}
	}
}

// unloadBusy: a model that runs a request is not unloaded, and is afterwards.
func unloadBusy(t *testing.T, r *rig) {
	began, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	server := r.Server()
	p, l := r.loader(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		if !strings.Contains(string(body), "hold on") {
			req.Body = io.NopCloser(strings.NewReader(string(body)))
			server.ServeHTTP(w, req)
			return
		}
		r.Dialect.send(r.Dialect.Chunk("a"))(w, httptest.NewRequestWithContext(req.Context(), http.MethodPost, "/", nil))
		once.Do(func() { close(began) })
		<-goOn
		r.Dialect.send(r.Dialect.End)(w, httptest.NewRequestWithContext(req.Context(), http.MethodPost, "/", nil))
	}))
	if err := l.Load(t.Context(), r.Load); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		req := providers.Request{Kind: schemas.Chat, Model: r.Load, Body: []byte(`{"messages":[{"role":"user","content":"hold on"}]}`)}
		if _, _, err := run(t, p, req); err != nil {
			t.Errorf("the request under which it was to be unloaded: %v", err)
		}
	})
	select {
	case <-began:
	case <-time.After(deadline):
		t.Fatal("the request did not begin")
	}
	wantCode(t, l.Unload(t.Context(), r.Load), schemas.Overloaded)
	if s := r.stateOf(p, r.Load); s != schemas.Resident {
		t.Errorf("it is %s", s)
	}
	close(goOn)
	running.Wait()
	if err := l.Unload(t.Context(), r.Load); err != nil {
		t.Errorf("when it is idle: %v", err)
	}
}

// events: changes are told while the events last, and their end is an error.
func events(t *testing.T, r *rig) {
	end := make(chan struct{})
	w, ok := r.serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		(&Dialect{ContentType: "text/event-stream"}).send(r.Events)(w, req)
		select {
		case <-end:
		case <-req.Context().Done():
		}
	})).(providers.Watcher)
	if !ok {
		t.Fatal("it tells nothing")
	}
	changes := 0
	err := w.Watch(t.Context(), func() {
		if changes++; changes == r.Changes {
			close(end)
		}
	})
	wantCode(t, err, schemas.StreamBroken)
	if changes != r.Changes {
		t.Errorf("%d changes, want %d", changes, r.Changes)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	end = make(chan struct{})
	if err := w.Watch(ctx, stop); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context: %v", err)
	}
}

func pressure(t *testing.T, r *rig) {
	p, ok := r.serve(r.Server()).(providers.PressureReporter)
	if !ok {
		t.Fatal("it reports none")
	}
	got, err := p.Pressure(t.Context(), r.Models[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*r.Pressure, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// priorities: a request's class reaches the server, and nothing that the request says
// of its priority.
func priorities(t *testing.T, r *rig) {
	var sent []byte
	server := r.Server()
	p := r.serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodPost {
			server.ServeHTTP(w, req)
			return
		}
		sent, _ = io.ReadAll(req.Body)
		req.Body = io.NopCloser(strings.NewReader(string(sent)))
		r.Dialect.send(r.Dialect.Chunk("a"), r.Dialect.End)(w, req)
	}))
	if _, err := p.Models(t.Context()); err != nil { // some say there whether they know priorities
		t.Fatal(err)
	}
	for class, want := range r.Priorities {
		for _, own := range []string{"", `,"priority":-99`, `,"priority":99,"Priority":-99`} {
			body := `{"messages":[{"role":"user","content":"hi"}]` + own + `}`
			if _, _, err := run(t, p, providers.Request{Kind: schemas.Chat, Model: "m", Class: class, Body: []byte(body)}); err != nil {
				t.Fatal(err)
			}
			var got struct {
				Priority json.RawMessage `json:"priority"` // takes any case
			}
			if err := json.Unmarshal(sent, &got); err != nil || string(got.Priority) != want {
				t.Errorf("%s%s: the priority %q arrived, want %q: %s", class, own, got.Priority, want, sent)
			}
		}
	}
}
