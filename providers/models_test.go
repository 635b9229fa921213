package providers_test

import (
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// A fixed server answers each "METHOD path" with a body, and 404 else, unless there
// is an answer for "*". It fails the test for a request that would load a model, or
// have one generate.
func fixed(t *testing.T, answers map[string]string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/upstream") || slices.Contains([]string{"/slots", "/health", "/backend/monitor"}, r.URL.Path) {
			t.Errorf("%s may load a model, or have one generate", r.URL.Path)
		}
		if body, ok := answers[r.Method+" "+r.URL.Path]; ok {
			status := http.StatusOK
			if strings.Contains(body, "Loading model") {
				status = http.StatusServiceUnavailable
			}
			if strings.Contains(body, "Unauthorized") {
				status = http.StatusUnauthorized
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
			return
		}
		if body, ok := answers["*"]; ok { // LM Studio has an answer to everything
			_, _ = w.Write([]byte(body))
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// recordedAnswers returns what the cases answered to each path, the last where one
// was asked more than once.
func recordedAnswers(t *testing.T, cases ...string) map[string]string {
	t.Helper()
	answers := map[string]string{}
	for _, c := range cases {
		tr := readTrace(t, c)
		for _, x := range tr.Exchanges {
			if x.Response != nil && x.Response.Status == http.StatusOK {
				answers[strings.Fields(x.Request.Line)[0]+" "+x.path()] = x.Response.text()
			}
		}
	}
	return answers
}

const unexpected = `{"error":"Unexpected endpoint or method. (GET /)"}`

// localAIProbes are the answers of a LocalAI, which has Ollama's paths too, and one of
// its own.
func localAIProbes(own string) map[string]string {
	answers := map[string]string{
		"GET /v1/models":   `{"object":"list","data":[{"id":"qwen3-4b","object":"model"}]}`,
		"GET /api/version": `{"version":"0.9.0"}`,
		"GET /api/tags":    `{"models":[{"name":"qwen3-4b"}]}`,
	}
	switch own {
	case "GET /.well-known/localai.json":
		answers[own] = `{"version":"v4.9.0","endpoints":{"chat_completions":"/v1/chat/completions","models":"/v1/models"},"capabilities":{}}`
	case "GET /v1/models/capabilities":
		answers[own] = `{"object":"list","data":[{"id":"qwen3-4b","object":"model","capabilities":["chat"]}]}`
	}
	return answers
}

const loadingModel = `{"error":{"message":"Loading model","type":"unavailable_error","code":503}}`

func TestDetect(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers map[string]string
		want    string
	}{
		{"openai", map[string]string{"GET /v1/models": `{"data":[{"id":"gpt","owned_by":"openai"}]}`}, providers.KindOpenAI},
		{"vllm", map[string]string{"GET /v1/models": `{"data":[{"id":"q","owned_by":"vllm","max_model_len":4096}]}`}, providers.KindVLLM},
		{"llama-server without props", map[string]string{"GET /v1/models": `{"data":[{"id":"q","owned_by":"llamacpp"}]}`}, providers.KindLlamaCpp},
		{"llama-server while it loads", map[string]string{"GET /props": loadingModel, "GET /v1/models": loadingModel}, providers.KindLlamaCpp},
		{"tgi", map[string]string{"GET /info": tgiInfo, "GET /v1/models": `{"object":"list","data":[{"id":"a/b","object":"model","created":0,"owned_by":"a/b"}]}`}, providers.KindTGI},
		{"tei, which embeds", map[string]string{"GET /info": `{"model_id":"BAAI/bge-m3","model_type":{"embedding":{"pooling":"cls"}},"max_concurrent_requests":512,"max_input_length":8192}`}, ""},
		{"vllm that wants a key", map[string]string{"GET /v1/models": `{"error":"Unauthorized"}`, "GET /metrics": "vllm:num_requests_running{engine=\"0\"} 0.0\n"}, providers.KindVLLM},
		{"sglang", map[string]string{"GET /v1/models": `{"data":[{"id":"q","owned_by":"sglang","max_model_len":4096}]}`, "GET /api/version": `{"version":"0.9.0"}`, "GET /api/tags": `{"models":[]}`}, providers.KindSGLang},
		{"sglang that wants a key", map[string]string{"GET /v1/models": `{"error":"Unauthorized"}`, "GET /metrics": "sglang:token_usage{tp_rank=\"0\"} 0.0\n"}, providers.KindSGLang},
		{"openai that wants a key", map[string]string{"GET /v1/models": `{"error":"Unauthorized"}`, "GET /metrics": "go_goroutines 9\n"}, providers.KindOpenAI},
		{"lmstudio", map[string]string{"GET /api/v1/models": `{"models":[{"type":"llm","key":"k","loaded_instances":[]}]}`, "*": unexpected}, providers.KindLMStudio},
		{"lmstudio without models", map[string]string{"GET /api/v1/models": `{"models":[]}`, "*": unexpected}, providers.KindLMStudio},
		{"lmstudio that wants a key", map[string]string{"*": `{"error":{"message":"An LM Studio API token is required to make requests to this server","code":"invalid_api_key"}}`}, providers.KindLMStudio},
		{"lmstudio 0.3", map[string]string{"GET /api/v0/models": studioOldList, "*": unexpected}, providers.KindLMStudio},
		{"lmstudio of old", map[string]string{"GET /v1/models": `{"data":[{"id":"q","object":"model","owned_by":"organization_owner"}],"object":"list"}`, "*": unexpected}, providers.KindLMStudio},
		{"all answers are the same error", map[string]string{"*": unexpected}, ""},
		{"models of another list", map[string]string{"GET /api/v1/models": `{"models":[{"name":"q"}]}`}, ""},
		{"localai", localAIProbes("GET /.well-known/localai.json"), providers.KindLocalAI},
		{"localai without its page", localAIProbes("GET /v1/models/capabilities"), providers.KindLocalAI},
		{"a page for everything", map[string]string{"*": `<html>hello</html>`}, ""},
		{"nothing", map[string]string{}, ""},
	} {
		kind, err := providers.Detect(testContext(t), fixed(t, c.answers), nil)
		if kind != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q %v", c.name, kind, err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if _, err := providers.Detect(testContext(t), "http://"+l.Addr().String(), nil); schemas.AsError(err).Code != schemas.Unreachable {
		t.Error(err)
	}
	secure := strings.Replace(fixed(t, nil), "http:", "https:", 1)
	if _, err := providers.Detect(testContext(t), secure, nil); schemas.AsError(err).Code != schemas.Unreachable {
		t.Errorf("a server that speaks no TLS: %v", err)
	}
}

func TestDetectRecorded(t *testing.T) {
	for want, cases := range map[string][]string{
		providers.KindLlamaCpp:    {"llama-server-b11669/props.json", "llama-server-b11669/models.json"},
		providers.KindLlamaRouter: {"llama-server-router-b11669/router_idle.json"},
		providers.KindLlamaSwap:   {"llama-swap-v250/swap_idle.json"},
		providers.KindOllama:      {"ollama-0.17.4/root_version.json", "ollama-0.17.4/tags.json", "ollama-0.17.4/v1_other.json"},
	} {
		kind, err := providers.Detect(testContext(t), fixed(t, recordedAnswers(t, cases...)), nil)
		if kind != want || err != nil {
			t.Errorf("%q %v, want %s", kind, err, want)
		}
	}
}

func TestModelsRecorded(t *testing.T) {
	text := []schemas.Kind{schemas.Chat, schemas.Completion}
	for _, c := range []struct {
		kind  string
		cases []string
		more  map[string]string
		want  providers.Model
	}{
		{
			providers.KindLlamaCpp,
			[]string{"llama-server-b11669/props.json", "llama-server-b11669/models.json"},
			nil,
			providers.Model{Name: "stories260K", Kinds: text, State: schemas.Resident, Slots: 2, Context: 512, Abilities: []providers.Ability{}},
		},
		{
			providers.KindLlamaRouter,
			[]string{"llama-server-router-b11669/router_idle.json"},
			nil,
			providers.Model{Name: "stories-slow", Kinds: text, State: schemas.Installed, Slots: 2, Context: 512},
		},
		{
			providers.KindLlamaSwap,
			[]string{"llama-swap-v250/swap_idle.json"},
			map[string]string{"GET /running": `{"running":[{"model":"slow","state":"starting","cmd":"llama-server -c 1024 -np 2"}]}`},
			providers.Model{Name: "slow", Kinds: text, State: schemas.Loading, Slots: 2, Context: 512},
		},
		{
			providers.KindOllama,
			[]string{"ollama-0.17.4/tags.json", "ollama-0.17.4/ps_two_models.json", "ollama-0.17.4/show.json"},
			nil,
			providers.Model{
				Name: "stories-slow", Kinds: text, State: schemas.Resident, Context: 1024,
				Digest: "69f4bfbd246101bd132578595d4d4c3d60b0bf9f007e44f9f14eeac4bd44be05", Need: schemas.Known(204769135), Abilities: []providers.Ability{},
			},
		},
	} {
		answers := recordedAnswers(t, c.cases...)
		maps.Copy(answers, c.more)
		models, err := newProvider(t, c.kind, fixed(t, answers)).Models(testContext(t))
		if err != nil {
			t.Errorf("%s: %v", c.kind, err)
			continue
		}
		i := slices.IndexFunc(models, func(m providers.Model) bool { return m.Name == c.want.Name })
		if i < 0 {
			t.Errorf("%s: %s is not in %+v", c.kind, c.want.Name, models)
			continue
		}
		if c.kind == providers.KindOllama && models[i].Need.Known {
			c.want.Need = models[i].Need // a file's size: any will do
		}
		if d := cmp.Diff(c.want, models[i]); d != "" {
			t.Errorf("%s: %s", c.kind, d)
			continue
		}
		proofs.Add(c.kind, providertest.Discovery, providertest.Recorded)
	}
}

func TestModels(t *testing.T) {
	for _, c := range []struct {
		kind, list string
		want       []providers.Model
	}{
		{"openrouter", `{"data":[{"id":"a/b","context_length":9}]}`, []providers.Model{{Name: "a/b", Kinds: []schemas.Kind{schemas.Chat, schemas.Completion}, State: schemas.Remote, Context: 9}}},
		{"together", `[{"id":"bge-large"}]`, []providers.Model{{Name: "bge-large", Kinds: []schemas.Kind{schemas.Embedding}, State: schemas.Remote}}},
		{"vllm", `{"data":[{"id":"q","max_model_len":4096}]}`, []providers.Model{{Name: "q", Kinds: []schemas.Kind{schemas.Chat, schemas.Completion}, State: schemas.Resident, Context: 4096}}},
		{"openai", `{"data":[]}`, []providers.Model{}},
		{"openai", `{"ok":true}`, nil},
		{"openai", `<html>`, nil},
		{"llamacpp", loadingModel, nil},
	} {
		url := fixed(t, map[string]string{"GET /v1/models": c.list})
		for _, suffix := range []string{"", "/", "/v1", "/v1/"} {
			models, err := newProvider(t, c.kind, url+suffix).Models(testContext(t))
			if d := cmp.Diff(c.want, models); d != "" || (err == nil) != (c.want != nil) {
				t.Errorf("%s at %q: %v %s", c.kind, suffix, err, d)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []providers.Config{{Kind: "nope", URL: "http://x"}, {Kind: "openai", URL: "x"}, {Kind: "openai", URL: "ftp://x"}} {
		if p, err := providers.New(cfg); err == nil || p != nil {
			t.Errorf("%+v: %v %v", cfg, p, err)
		}
	}
}

// One connection serves request after request, also where the server ends its
// answer some time after the final marker.
func TestConnectionsAreReused(t *testing.T) {
	for kind, stream := range map[string]string{
		providers.KindOpenAI: "data: {\"choices\":[{\"index\":0,\"text\":\"a\",\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
		providers.KindOllama: "{\"response\":\"a\",\"done\":true}\n",
	} {
		var opened atomic.Int32
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(stream))
			_ = http.NewResponseController(w).Flush()
			<-time.After(5 * time.Millisecond)
		}))
		srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				opened.Add(1)
			}
		}
		srv.Start()
		p := newProvider(t, kind, srv.URL)
		for range 10 {
			if _, err := p.Generate(testContext(t), providers.Request{Kind: schemas.Completion, Model: "m", Body: []byte(`{"prompt":"hi"}`)}, func([]byte) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		srv.Close()
		if n := opened.Load(); n > 3 {
			t.Errorf("%s: %d connections for 10 requests", kind, n)
		}
	}
}

func TestKeys(t *testing.T) {
	for kind, header := range map[string]string{"openai": "Authorization", "azure": "Api-Key"} {
		var got string
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = r.Header.Get(header)
			http.Error(w, `{"error":{"message":"wrong key: secret"}}`, http.StatusUnauthorized)
		}))
		client, done := providers.ClientForTest()
		p, err := providers.New(providers.Config{Kind: kind, URL: srv.URL, Keys: []providers.Key{{Name: "K", Secret: func() string { return "secret" }}}, HTTP: client})
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Models(testContext(t))
		if schemas.AsError(err).Code != schemas.Auth || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", kind, err)
		}
		if strings.TrimPrefix(got, "Bearer ") != "secret" {
			t.Errorf("%s: the header is %q", kind, got)
		}
		done()
		srv.Close()
	}
}

// What the router says of a load that failed becomes the load's error.
func TestRouterFailedLoad(t *testing.T) {
	for code, want := range map[string]schemas.Code{"1": schemas.UpstreamError, "137": schemas.OutOfMemory} {
		url := fixed(t, map[string]string{
			"POST /models/load": `{"success":true}`,
			"GET /v1/models":    `{"data":[{"id":"m","status":{"value":"unloaded","failed":true,"exit_code":` + code + `}}]}`,
		})
		err := newProvider(t, providers.KindLlamaRouter, url).(providers.Loader).Load(testContext(t), "m")
		if err == nil || schemas.AsError(err).Code != want {
			t.Errorf("%s: %v", code, err)
		}
	}
}

// Unload returns only once the list says so: the router answers before.
func TestRouterUnloadWaits(t *testing.T) {
	polls := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value := "loaded"
		if r.URL.Path == "/v1/models" {
			if polls++; polls == 4 { // the first asks whether it is idle
				value = "unloaded"
			}
		}
		_, _ = w.Write([]byte(`{"data":[{"id":"m","status":{"value":"` + value + `"}}]}`))
	}))
	defer srv.Close()
	if err := newProvider(t, providers.KindLlamaRouter, srv.URL).(providers.Loader).Unload(testContext(t), "m"); err != nil || polls != 4 {
		t.Errorf("%v after %d polls", err, polls)
	}
}

func TestSwapLoader(t *testing.T) {
	running := `{"running":[{"model":"a/b c","state":"ready"}]}`
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.EscapedPath())
		if r.URL.Path == "/running" {
			_, _ = w.Write([]byte(running))
			running = `{"running":[]}`
		}
	}))
	defer srv.Close()
	l := newProvider(t, providers.KindLlamaSwap, srv.URL).(providers.Loader)
	if err := l.Load(testContext(t), "a/b c"); err != nil {
		t.Fatal(err)
	}
	if err := l.Unload(testContext(t), "a/b c"); err != nil {
		t.Fatal(err)
	}
	want := []string{"GET /upstream/a/b%20c/health", "GET /running", "GET /upstream/a/b%20c/slots", "POST /api/models/unload/a/b%20c", "GET /running"}
	if d := cmp.Diff(want, asked); d != "" {
		t.Error(d)
	}
}

func TestNotAStream(t *testing.T) {
	for body, want := range map[string]schemas.Code{
		`{"error":{"code":400,"type":"exceed_context_size_error","message":"too long"}}`: schemas.ContextOverflow,
		`<html>hello</html>`: schemas.UpstreamError,
		`data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":null}],"model":""}` + "\n\n": schemas.StreamBroken,
		"data: [DONE]\n\n":  schemas.StreamBroken,
		"data: {\"a\":\n\n": schemas.UpstreamError,
		"data: {\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"},{\"index\":1,\"finish_reason\":null}]}\n\n": schemas.StreamBroken,
	} {
		p := newProvider(t, providers.KindOpenAI, fixed(t, map[string]string{"POST /v1/completions": body}))
		_, err := p.Generate(testContext(t), providers.Request{Kind: schemas.Completion, Model: "m", Body: []byte(`{"prompt":"hi"}`)}, func(b []byte) error {
			if !json.Valid(b) {
				t.Errorf("%s", b)
			}
			return nil
		})
		if err == nil || schemas.AsError(err).Code != want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
}
