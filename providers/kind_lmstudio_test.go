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

const gemma = "google/gemma-4-26b-a4b"

// A studioServer lists, loads and unloads as LM Studio 0.4 does. old is one of 0.3,
// and ancient one that has only OpenAI's list. What it is told shows in its list one
// look later.
type studioServer struct {
	old, ancient bool

	mu     sync.Mutex // guards what follows
	loaded []string   // the ids of gemma's instances
	next   []string
	orders []string
}

func (s *studioServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	var req struct {
		Model    string
		Instance string `json:"instance_id"`
	}
	_ = json.Unmarshal(body, &req)
	if r.Method == http.MethodPost {
		s.orders = append(s.orders, r.URL.Path+" "+string(body))
	}
	switch route := r.Method + " " + r.URL.Path; {
	case route == "GET /v1/models":
		fmt.Fprint(w, `{"data":[{"id":"text-embedding-nomic-embed-text-v1.5","object":"model","owned_by":"organization_owner"}],"object":"list"}`)
	case route == "GET /api/v0/models" && !s.ancient:
		fmt.Fprint(w, studioOldList)
	case route == "GET /api/v1/models" && !s.old && !s.ancient:
		fmt.Fprint(w, s.list())
		s.loaded = slices.Clone(s.next)
	case route == "POST /api/v1/models/load" && !s.old && !s.ancient:
		if req.Model != gemma {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error":{"type":"model_not_found","message":"Model not found"}}`)
			return
		}
		id := gemma
		if n := len(s.next); n > 0 {
			id = fmt.Sprintf("%s:%d", gemma, n+1)
		}
		s.next = append(s.next, id)
		fmt.Fprintf(w, `{"type":"llm","instance_id":%q,"load_time_seconds":9.099,"status":"loaded"}`, id)
	case route == "POST /api/v1/models/unload" && !s.old && !s.ancient:
		if !slices.Contains(s.next, req.Instance) {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error":{"type":"model_not_found","message":"No instance of that id"}}`)
			return
		}
		s.next = slices.DeleteFunc(s.next, func(id string) bool { return id == req.Instance })
		fmt.Fprintf(w, `{"instance_id":%q}`, req.Instance)
	default:
		fmt.Fprintf(w, `{"error":"Unexpected endpoint or method. (%s %s)"}`, r.Method, r.URL.Path)
	}
}

func (s *studioServer) list() string {
	var instances []string
	for _, id := range s.loaded {
		instances = append(instances, fmt.Sprintf(`{"id":%q,"config":{"context_length":4096,"eval_batch_size":512,"parallel":4,"flash_attention":true,"num_experts":8,"offload_kv_cache_to_gpu":true}}`, id))
	}
	return `{"models":[
{"type":"llm","publisher":"google","key":"google/gemma-4-26b-a4b","display_name":"Gemma 4 26B A4B","architecture":"gemma4","quantization":{"name":"Q4_K_M","bits_per_weight":4},"size_bytes":17990911801,"params_string":"26B-A4B","loaded_instances":[` + strings.Join(instances, ",") + `],"max_context_length":262144,"format":"gguf","capabilities":{"vision":true,"trained_for_tool_use":true,"reasoning":{"allowed_options":["off","on"],"default":"on"}},"description":null,"variants":["google/gemma-4-26b-a4b@q4_k_m"],"selected_variant":"google/gemma-4-26b-a4b@q4_k_m"},
{"type":"llm","publisher":"lmstudio-community","key":"llama-3.2-1b","display_name":"Llama 3.2 1B","architecture":"llama","quantization":null,"size_bytes":1321082688,"params_string":null,"loaded_instances":[],"max_context_length":131072,"format":null,"capabilities":{"vision":false,"trained_for_tool_use":false},"description":null},
{"type":"embedding","publisher":"gaianet","key":"text-embedding-nomic-embed-text-v1.5-embedding","display_name":"Nomic Embed Text v1.5","quantization":{"name":"F16","bits_per_weight":16},"size_bytes":274290560,"params_string":null,"loaded_instances":[],"max_context_length":2048,"format":"gguf"}]}`
}

const studioOldList = `{"object":"list","data":[
{"id":"qwen2-vl-7b-instruct","object":"model","type":"vlm","publisher":"mlx-community","arch":"qwen2_vl","compatibility_type":"mlx","quantization":"4bit","state":"not-loaded","max_context_length":32768},
{"id":"meta-llama-3.1-8b-instruct","object":"model","type":"llm","publisher":"lmstudio-community","arch":"llama","compatibility_type":"gguf","quantization":"Q4_K_M","state":"loaded","max_context_length":131072,"loaded_context_length":4096,"capabilities":["tool_use"]},
{"id":"text-embedding-nomic-embed-text-v1.5","object":"model","type":"embeddings","publisher":"nomic-ai","arch":"nomic-bert","compatibility_type":"gguf","quantization":"Q4_0","state":"not-loaded","max_context_length":2048}]}`

func studioWire(reasoning string) *wire {
	return &wire{
		chunk: func(delta, finish string) string {
			return `data: {"id":"chatcmpl-t4cmz","object":"chat.completion.chunk","created":1760000000,"model":"m","system_fingerprint":"m","choices":[{"index":0,"delta":` + delta + `,"logprobs":null,"finish_reason":` + finish + `}]}` + "\n\n"
		},
		text: func(text, finish string) string {
			return `data: {"id":"cmpl-t4cmz","object":"text_completion","created":1760000000,"model":"m","system_fingerprint":"m","choices":[{"index":0,"text":` + text + `,"logprobs":null,"finish_reason":` + finish + `}]}` + "\n\n"
		},
		role:     `{"role":"assistant","content":""}`,
		content:  func(text string) string { return `{"role":"assistant","content":` + text + `}` },
		last:     `{}`,
		thoughts: []string{`{"role":"assistant","` + reasoning + `":"H"}`, `{"role":"assistant","` + reasoning + `":"m"}`},
		tools: []string{
			`{"role":"assistant","tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"get_weather","arguments":""}}]}`,
			`{"tool_calls":[{"index":0,"function":{"arguments":"{\""}}]}`,
			`{"tool_calls":[{"index":0,"function":{"arguments":"city\": \"Paris\"}"}}]}`,
		},
		end:        `data: {"id":"chatcmpl-t4cmz","object":"chat.completion.chunk","created":1760000000,"model":"m","system_fingerprint":"m","choices":[],"usage":{"prompt_tokens":13,"completion_tokens":7,"total_tokens":20}}` + "\n\ndata: [DONE]\n\n",
		embeddings: `{"object":"list","data":[{"object":"embedding","embedding":[0.5,-1],"index":0},{"object":"embedding","embedding":[2,3],"index":1}],"model":"m@q4_k_m","usage":{"prompt_tokens":0,"total_tokens":0}}`,
		used:       2,
	}
}

func lmStudioKinds() []providertest.Kind {
	w := studioWire("reasoning")
	modern := providertest.Kind{
		Name:    providers.KindLMStudio,
		Dialect: w.dialect("event: error\ndata: {\"error\":{\"message\":\"The model has crashed without additional information.\"}}\n\n"),
		Server:  func() http.Handler { return &studioServer{loaded: []string{gemma}, next: []string{gemma}} },
		Models: []providers.Model{
			{Name: gemma, Kinds: text, State: schemas.Resident, Need: schemas.Known(17990911801), Slots: 4, Context: 4096, Abilities: []providers.Ability{providers.Tools, providers.Vision, providers.Reasoning}},
			{Name: "llama-3.2-1b", Kinds: text, State: schemas.Installed, Need: schemas.Known(1321082688), Context: 131072, Abilities: []providers.Ability{}},
			{Name: "text-embedding-nomic-embed-text-v1.5-embedding", Kinds: []schemas.Kind{schemas.Embedding}, State: schemas.Installed, Need: schemas.Known(274290560), Context: 2048, Abilities: []providers.Ability{}},
		},
		Empty:     map[string]string{"GET /api/v1/models": `{"models":[]}`},
		Exchanges: w.exchanges(),
		Failures:  studioFailures(),
		Load:      gemma,
	}
	other := modern // a model that thinks under the other name
	other.Exchanges = studioWire("reasoning_content").exchanges()
	other.Empty = map[string]string{"GET /api/v0/models": `{"object":"list","data":[]}`}
	return []providertest.Kind{modern, other}
}

func studioFailures() []providertest.Failure {
	return []providertest.Failure{
		{Status: 401, Body: `{"error":{"message":"An LM Studio API token is required to make requests to this server, but none was provided using the Authorization header using the 'Bearer' scheme ...","code":"invalid_api_key"}}`, Want: schemas.Auth},
		{Status: 401, Body: `{"error":{"type":"invalid_request","code":"invalid_api_key","message":"Malformed LM Studio API token provided: 22aac52a71... Ensure you are using a valid token."}}`, Want: schemas.Auth},
		{Status: 404, Body: `{"error":{"message":"No models loaded. Please load a model in the developer page or use the 'lms load' command.","type":"invalid_request_error","param":"model","code":null}}`, Want: schemas.ModelNotFound},
		{Status: 400, Body: `{"error":{"message":"No models loaded. Please load a model in the developer page or use the 'lms load' command.","type":"invalid_request_error","param":"model","code":null}}`, Want: schemas.ModelNotFound},
		{Status: 400, Body: `{"error":"Cannot truncate prompt with n_keep (12378) >= n_ctx (4096)"}`, Want: schemas.ContextOverflow},
		{Status: 400, Body: `{"error":"Trying to keep the first 111490 tokens when context the overflows. However, the model is loaded with context length of only 32768 tokens, which is not enough."}`, Want: schemas.ContextOverflow},
		{Status: 400, Body: `{"error":"Context size has been exceeded."}`, Want: schemas.ContextOverflow},
		{Status: 400, Body: `{"error":{"type":"invalid_request","message":"\"model\" is required","code":"missing_required_parameter","param":"model"}}`, Want: schemas.InvalidRequest},
		{Status: 500, Body: `{"error":{"type":"internal_error","message":"Failed to load model"}}`, Want: schemas.UpstreamError},
		{Status: 200, Body: "event: error\ndata: {\"error\":{\"message\":\"The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 8485 >= n_ctx: 8192). Try to load the model with a larger context length, or provide a shorter input.\"}}\n\n", Want: schemas.ContextOverflow},
		{Status: 200, Body: `data: {"error":"Cannot truncate prompt with n_keep (15028) >= n_ctx (7424)"}` + "\n\n", Want: schemas.ContextOverflow},
		{Status: 200, Body: `{"error":"Unexpected endpoint or method. (POST /v1/chat/completions)"}`, Want: schemas.Unsupported},
	}
}
