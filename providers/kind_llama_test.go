package providers_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

const (
	llamaUsage = `data: {"choices":[],"created":1,"id":"c","model":"m","object":"chat.completion.chunk","usage":{"completion_tokens":2,"prompt_tokens":5,"total_tokens":7},"timings":{"predicted_n":2}}` + "\n\n"
	llamaDone  = `data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],"created":1,"id":"c","model":"m","object":"chat.completion.chunk"}` + "\n\n" + llamaUsage + "data: [DONE]\n\n"
)

// llamaExchanges are what all servers speak that stand on llama-server.
func llamaExchanges() []providertest.Exchange {
	delta := func(d string) string {
		return `data: {"choices":[{"finish_reason":null,"index":0,"delta":` + d + `}],"created":1,"id":"c","model":"m","object":"chat.completion.chunk"}` + "\n\n"
	}
	return []providertest.Exchange{
		{
			Proves:  providertest.Chat,
			Request: `{"messages":[{"role":"user","content":"hi"}],"max_tokens":9,"cache_prompt":false,"vramjet":{"x":1},"stream_options":{"x":2}}`,
			Path:    "/v1/chat/completions",
			Sent:    `{"model":"m","stream":true,"stream_options":{"include_usage":true,"x":2},"messages":[{"role":"user","content":"hi"}],"max_tokens":9,"cache_prompt":false}`,
			Absent:  []string{"vramjet"},
			Answer:  delta(`{"role":"assistant","content":null}`) + delta(`{"content":"Hel"}`) + delta(`{"content":"lo"}`) + llamaDone,
			Want:    `{"object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}`,
		},
		{
			Proves: providertest.Completion, Kind: schemas.Completion,
			Request: `{"prompt":"Once"}`,
			Path:    "/v1/completions",
			Sent:    `{"model":"m","stream":true,"prompt":"Once"}`,
			Answer: `data: {"choices":[{"text":" upon","index":0,"logprobs":null,"finish_reason":null}],"created":1,"model":"m","object":"text_completion","id":"c"}` + "\n\n" +
				`data: {"choices":[{"text":"","index":0,"logprobs":null,"finish_reason":"length"}],"created":1,"model":"m","object":"text_completion","usage":{"completion_tokens":1,"prompt_tokens":2,"total_tokens":3},"id":"c"}` + "\n\ndata: [DONE]\n\n",
			Want: `{"object":"text_completion","choices":[{"text":" upon","finish_reason":"length"}],"usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3}}`,
		},
		{
			Proves: providertest.Embeddings, Kind: schemas.Embedding,
			Request: `{"input":["a","b"]}`,
			Path:    "/v1/embeddings",
			Sent:    `{"model":"m","input":["a","b"]}`,
			Answer:  `{"model":"m","object":"list","usage":{"prompt_tokens":4,"total_tokens":4},"data":[{"embedding":[0.5,-1],"index":0,"object":"embedding"},{"embedding":[2,3],"index":1,"object":"embedding"}]}`,
			Want:    `{"object":"list","data":[{"index":0,"embedding":[0.5,-1]},{"index":1,"embedding":[2,3]}],"usage":{"prompt_tokens":4,"total_tokens":4}}`,
		},
		{
			Proves:  providertest.Tools,
			Request: `{"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"get"}}]}`,
			Sent:    `{"tools":[{"type":"function","function":{"name":"get"}}]}`,
			Answer: delta(`{"role":"assistant","content":null}`) + delta(`{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"get","arguments":"{"}}]}`) +
				delta(`{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}`) + strings.Replace(llamaDone, `"stop"`, `"tool_calls"`, 1),
			Want: `{"choices":[{"message":{"content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"get","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`,
		},
		{
			Proves:  providertest.Vision,
			Request: `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC"}}]}]}`,
			Sent:    `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC"}}]}]}`,
			Answer:  delta(`{"content":"A dot."}`) + llamaDone,
			Want:    `{"choices":[{"message":{"content":"A dot."}}]}`,
		},
		{
			Proves:  providertest.Reasoning,
			Request: `{"messages":[{"role":"user","content":"hi"}],"chat_template_kwargs":{"enable_thinking":true}}`,
			Sent:    `{"chat_template_kwargs":{"enable_thinking":true}}`,
			Answer:  delta(`{"role":"assistant","reasoning_content":"H"}`) + delta(`{"reasoning_content":"m"}`) + delta(`{"content":"Yes"}`) + llamaDone,
			Want:    `{"choices":[{"message":{"content":"Yes","reasoning_content":"Hm"}}]}`,
		},
		{
			Proves:  providertest.Schema,
			Request: `{"messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}}`,
			Sent:    `{"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}}`,
			Answer:  delta(`{"content":"{}"}`) + llamaDone,
			Want:    `{"choices":[{"message":{"content":"{}"}}]}`,
		},
	}
}

func llamaFailures() []providertest.Failure {
	return []providertest.Failure{
		{Status: 503, Body: `{"error":{"message":"Loading model","type":"unavailable_error","code":503}}`, Want: schemas.ModelLoading},
		{Status: 400, Body: `{"error":{"code":400,"message":"request (514 tokens) exceeds the available context size (512 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":514,"n_ctx":512}}`, Want: schemas.ContextOverflow},
		{Status: 401, Body: `{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}`, Want: schemas.Auth},
		{Status: 501, Body: `{"error":{"code":501,"message":"This server does not support embeddings. Start it with ` + "`--embeddings`" + `","type":"not_supported_error"}}`, Want: schemas.Unsupported},
		{Status: 500, Body: `{"error":{"code":500,"message":"image input is not supported - hint: if this is unexpected, you may need to provide the mmproj","type":"server_error"}}`, Want: schemas.Unsupported},
		{Status: 400, Body: `{"error":{"code":400,"message":"\"messages\" is required","type":"invalid_request_error"}}`, Want: schemas.InvalidRequest},
		{Status: 200, Body: "proxy error: Failed to read connection", Want: schemas.UpstreamError},
		{Status: 200, Body: `data: {"error":{"code":500,"message":"the request exceeds the available context size","type":"server_error"}}` + "\n\n", Want: schemas.ContextOverflow},
	}
}

func llamaKinds() []providertest.Kind {
	return []providertest.Kind{llamaServerKind(), llamaRouterKind(), llamaSwapKind()}
}

const llamaSlots = `[{"id":0,"n_ctx":512,"speculative":false,"is_processing":true},{"id":1,"n_ctx":512,"speculative":false,"is_processing":false}]`

func llamaServerKind() providertest.Kind {
	return providertest.Kind{
		Name:    providers.KindLlamaCpp,
		Dialect: openAIStream(),
		Server: func() http.Handler {
			return providertest.Routes(map[string]string{
				"GET /v1/models": `{"object":"list","data":[{"id":"qwen3-vl","object":"model","created":1763875820,"owned_by":"llamacpp","meta":{"vocab_type":1,"n_vocab":512,"n_ctx":1024,"n_ctx_train":512,"n_embd":64,"n_params":292800,"size":1171200}}]}`,
				"GET /props":     `{"default_generation_settings":{"n_ctx":512},"total_slots":2,"model_alias":"qwen3-vl","modalities":{"vision":true,"audio":false},"chat_template_caps":{"supports_tools":true,"supports_tool_calls":true},"build_info":"b11669","is_sleeping":false}`,
				"GET /slots":     llamaSlots,
				"GET /metrics":   "# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 1\n# TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred 3\n",
			})
		},
		Models: []providers.Model{{
			Name: "qwen3-vl", Kinds: text, State: schemas.Resident, Slots: 2, Context: 512, Abilities: []providers.Ability{providers.Tools, providers.Vision},
		}},
		Empty:     map[string]string{"GET /v1/models": `{"object":"list","data":[]}`, "GET /props": `{"total_slots":1}`},
		Exchanges: llamaExchanges(),
		Failures:  llamaFailures(),
		Pressure:  &providers.Pressure{Running: 1, Waiting: 3, Slots: 2, KVUsed: -1},
	}
}

// A llamaRouterServer loads and unloads as llama-server's router does: it answers
// at once, and is done when it is asked for the third time.
type llamaRouterServer struct {
	metered bool // has /metrics

	mu     sync.Mutex // guards what follows
	state  string
	next   string
	asked  int
	orders []string
}

func (s *llamaRouterServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	order := func(from []string, now, next, complaint string) {
		s.orders = append(s.orders, r.URL.Path)
		if !slices.Contains(from, s.state) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error":{"code":400,"message":%q,"type":"invalid_request_error"}}`, complaint)
			return
		}
		s.state, s.next, s.asked = now, next, 0
		fmt.Fprint(w, `{"success":true}`)
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /v1/models", "GET /models":
		if s.asked++; s.asked == 3 && s.next != "" {
			s.state, s.next = s.next, ""
		}
		fmt.Fprintf(w, `{"data":[{"id":"one","object":"model","owned_by":"llamacpp","created":1763875930,"status":{"value":%q,"args":["llama-server","--host","127.0.0.1","--ctx-size","1024","--parallel","2","--alias","one"]},"architecture":{"input_modalities":["text","image"],"output_modalities":["text"]}}],"object":"list"}`, s.state)
	case "POST /models/load":
		order([]string{"unloaded"}, "loading", "loaded", "model is already running")
	case "POST /models/unload":
		order([]string{"loaded", "sleeping"}, s.state, "unloaded", "model is not running")
	case "GET /metrics":
		if !s.metered {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, "llamacpp:requests_processing 1\nllamacpp:requests_deferred 3\n")
	case "GET /slots":
		if s.state != "loaded" || r.URL.Query().Get("model") != "one" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":{"code":400,"message":"model is not loaded","type":"invalid_request_error"}}`)
			return
		}
		fmt.Fprint(w, strings.ReplaceAll(llamaSlots, "true", "false"))
	default:
		if !json.Valid(body) {
			http.Error(w, "what is this?", http.StatusBadRequest)
			return
		}
		http.NotFound(w, r)
	}
}

// routerExchanges: a request must not make the router load anything.
func routerExchanges() []providertest.Exchange {
	list := llamaExchanges()
	for i := range list {
		if list[i].Path != "" {
			list[i].Path += "?autoload=false"
		}
	}
	return list
}

func llamaRouterKind() providertest.Kind {
	return providertest.Kind{
		Name:    providers.KindLlamaRouter,
		Dialect: openAIStream(),
		Server:  func() http.Handler { return &llamaRouterServer{state: "loaded"} },
		Models: []providers.Model{{
			Name: "one", Kinds: text, State: schemas.Resident, Slots: 2, Context: 512, Abilities: []providers.Ability{providers.Vision},
		}},
		Empty:     map[string]string{"GET /v1/models": `{"data":[],"object":"list"}`},
		Exchanges: routerExchanges(),
		Failures: append(llamaFailures(),
			providertest.Failure{Status: 400, Body: `{"error":{"code":400,"message":"model 'nope' not found","type":"invalid_request_error"}}`, Want: schemas.ModelNotFound},
			providertest.Failure{Status: 400, Body: `{"error":{"code":400,"message":"model is not loaded","type":"invalid_request_error"}}`, Want: schemas.ModelLoading},
			providertest.Failure{Status: 500, Body: "proxy error: Could not establish connection", Want: schemas.UpstreamError}),
		Load: "one",
		Events: `data: {"model":"one","event":"model_status","data":{"status":"loading"}}

data: {"model":"one","event":"status_change","data":{"status":"loading","progress":{"stages":["text_model"],"current":"text_model","value":0.0}}}

data: {"model":"one","event":"status_change","data":{"status":"loaded","info":{"id":"one"}}}

data: {"model":"one","event":"status_change","data":{"status":"unloaded","exit_code":0}}

`,
		Changes:  3,
		Pressure: &providers.Pressure{Running: 0, Waiting: -1, Slots: 2, KVUsed: -1},
	}
}

// A llamaSwapServer starts and stops servers as llama-swap does: it answers when
// that is done.
type llamaSwapServer struct {
	mu      sync.Mutex // guards running
	running bool
}

func (s *llamaSwapServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = io.Copy(io.Discard, r.Body)
	switch r.Method + " " + r.URL.Path {
	case "GET /v1/models":
		fmt.Fprint(w, `{"data":[{"created":1763875950,"id":"org/one","object":"model","owned_by":"llama-swap","status":{"value":"loaded"}}],"object":"list"}`)
	case "GET /running":
		list := ""
		if s.running {
			list = `{"model":"org/one","state":"ready","cmd":"llama-server -m one.gguf -c 1024 -np 2 --port 5801","proxy":"http://127.0.0.1:5801","ttl":0,"name":"","description":""}`
		}
		fmt.Fprintf(w, `{"running":[%s]}`, list)
	case "GET /upstream/org/one/health":
		s.running = true
		fmt.Fprint(w, `{"status":"ok"}`)
	case "GET /upstream/org/one/slots":
		fmt.Fprint(w, strings.ReplaceAll(llamaSlots, "true", "false"))
	case "POST /api/models/unload/org/one":
		s.running = false
		fmt.Fprint(w, "OK")
	default:
		http.NotFound(w, r)
	}
}

func llamaSwapKind() providertest.Kind {
	return providertest.Kind{
		Name:    providers.KindLlamaSwap,
		Dialect: openAIStream(),
		Server:  func() http.Handler { return &llamaSwapServer{running: true} },
		Models:  []providers.Model{{Name: "org/one", Kinds: text, State: schemas.Resident, Slots: 2, Context: 512}},
		Empty:   map[string]string{"GET /v1/models": `{"data":[],"object":"list"}`, "GET /running": `{"running":[]}`},

		Exchanges: llamaExchanges(),
		Failures: append(llamaFailures(),
			providertest.Failure{Status: 429, Header: map[string]string{"Retry-After": "1"}, Body: `{"error":"Too many requests"}`, Want: schemas.RateLimited, Retry: 1e9},
			providertest.Failure{Status: 429, Body: `{"src":"llama-swap","error":{"message":"Too many requests","type":"rate_limit_error","param":null,"code":"concurrency_limit"}}`, Want: schemas.RateLimited},
			providertest.Failure{Status: 404, Body: `{"error":"no router for requested model","src":"llama-swap"}`, Want: schemas.ModelNotFound},
			providertest.Failure{Status: 404, Body: `{"src":"llama-swap","error":{"message":"no router for requested model","type":"invalid_request_error","param":null,"code":"not_found"}}`, Want: schemas.ModelNotFound},
			providertest.Failure{Status: 503, Body: `{"error":"process is not ready","src":"llama-swap"}`, Want: schemas.ModelLoading},
			providertest.Failure{Status: 502, Body: ``, Want: schemas.UpstreamError},
			providertest.Failure{Status: 500, Body: `{"error":"unspecific error: upstream command exited prematurely","src":"llama-swap"}`, Want: schemas.UpstreamError}),
		Load: "org/one",
		Events: `event:message
data:{"type":"logData","data":"{\"data\":\"[INFO] modelStatus\",\"source\":\"proxy\"}"}

event:message
data:{"type":"modelStatus","data":"[{\"id\":\"org/one\",\"state\":\"starting\"}]"}

event:message
data:{"type":"inflight","data":"{\"operation\":\"snapshot\"}"}

event:message
data:{"type":"modelStatus","data":"[{\"id\":\"org/one\",\"state\":\"ready\"}]"}

`,
		Changes:  2,
		Pressure: &providers.Pressure{Running: 0, Waiting: -1, Slots: 2, KVUsed: -1},
	}
}
