package providers_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// A vllmServer lists, sleeps and wakes up as vLLM does. The zero one was started
// without anything.
type vllmServer struct {
	dev      bool // VLLM_SERVER_DEV_MODE
	enabled  bool // --enable-sleep-mode
	silent   bool // is of a version that tells nothing of its configuration
	stubborn bool // takes the order to sleep and stays awake
	old      bool // names its metrics as versions before 0.10 did
	busy     int

	mu    sync.Mutex // guards what follows
	level int        // of its sleep; 0: awake
	asked []string   // the orders that came
}

const vllmPermission = `"permission":[{"id":"modelperm-6d3f","object":"model_permission","created":1760000000,"allow_create_engine":false,"allow_sampling":true,"allow_logprobs":true,"allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,"organization":"*","group":null,"is_blocking":false}]`

func (s *vllmServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = io.Copy(io.Discard, r.Body)
	route := r.Method + " " + r.URL.Path
	if r.Method == http.MethodPost {
		s.asked = append(s.asked, r.URL.RequestURI())
	}
	switch {
	case route == "GET /v1/models":
		fmt.Fprintf(w, `{"object":"list","data":[
{"id":"meta-llama/Llama-3.1-8B-Instruct","object":"model","created":1760000000,"owned_by":"vllm","root":"meta-llama/Llama-3.1-8B-Instruct","parent":null,"max_model_len":8192,%s},
{"id":"sql-lora","object":"model","created":1760000000,"owned_by":"vllm","root":"/adapters/sql-lora","parent":"meta-llama/Llama-3.1-8B-Instruct","max_model_len":null,%[1]s}]}`, vllmPermission)
	case route == "GET /metrics":
		fmt.Fprint(w, s.metrics())
	case route == "GET /is_sleeping" && s.dev:
		fmt.Fprintf(w, `{"is_sleeping":%t}`, s.level > 0)
	case route == "GET /server_info" && s.dev && s.silent:
		fmt.Fprint(w, `{"vllm_config":"model='meta-llama/Llama-3.1-8B-Instruct', speculative_config=None, tokenizer='…'"}`)
	case route == "GET /server_info" && s.dev && r.URL.Query().Get("config_format") == "json":
		fmt.Fprintf(w, `{"vllm_config":{"model_config":{"model":"meta-llama/Llama-3.1-8B-Instruct","enable_sleep_mode":%t},"cache_config":{"block_size":16}},"vllm_env":{},"system_env":{}}`, s.enabled)
	case route == "POST /sleep" && s.dev:
		if !s.stubborn && s.level == 0 {
			_, _ = fmt.Sscan(r.URL.Query().Get("level"), &s.level)
		}
	case route == "POST /wake_up" && s.dev:
		s.level = 0
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"detail":"Not Found"}`)
	}
}

func (s *vllmServer) metrics() string {
	if s.old {
		return fmt.Sprintf("# HELP vllm:num_requests_running Number of requests currently running on GPU.\n# TYPE vllm:num_requests_running gauge\n"+
			"vllm:num_requests_running{model_name=\"m\"} %d.0\nvllm:num_requests_waiting{model_name=\"m\"} 2.0\n"+
			"vllm:gpu_cache_usage_perc{model_name=\"m\"} 0.42\nvllm:cpu_cache_usage_perc{model_name=\"m\"} 0.0\n", s.busy)
	}
	text := "# HELP vllm:num_requests_running Number of requests in model execution batches.\n# TYPE vllm:num_requests_running gauge\n"
	for engine, running := range []int{s.busy, 0} { // data parallel
		text += strings.ReplaceAll(fmt.Sprintf(`vllm:num_requests_running{engine="#",model_name="m"} %d.0
vllm:num_requests_waiting{engine="#",model_name="m"} %d.0
vllm:num_requests_waiting_by_reason{engine="#",model_name="m",reason="capacity"} 7.0
vllm:kv_cache_usage_perc{engine="#",model_name="m"} 0.%d2
vllm:engine_sleep_state{engine="#",model_name="m",sleep_state="awake"} %d.0
vllm:engine_sleep_state{engine="#",model_name="m",sleep_state="weights_offloaded"} %d.0
vllm:engine_sleep_state{engine="#",model_name="m",sleep_state="discard_all"} %d.0
`, running, running, 4-engine, is(s.level == 0), is(s.level == 1), is(s.level == 2)), "#", string(rune('0'+engine)))
	}
	return text + "vllm:cache_config_info{block_size=\"16\",num_cpu_blocks=\"None\",engine=\"0\"} 1.0\n"
}

func is(so bool) int { return map[bool]int{true: 1}[so] }

func vllmWire(reasoning string) *wire {
	return &wire{
		chunk: func(delta, finish string) string {
			more := ""
			if finish != "null" {
				more = `,"stop_reason":null`
			}
			return `data: {"id":"chatcmpl-8a1b","object":"chat.completion.chunk","created":1760000000,"model":"m","choices":[{"index":0,"delta":` + delta + `,"logprobs":null,"finish_reason":` + finish + more + `,"token_ids":null}]}` + "\n\n"
		},
		text: func(text, finish string) string {
			return `data: {"id":"cmpl-8a1b","object":"text_completion","created":1760000000,"model":"m","choices":[{"index":0,"text":` + text + `,"logprobs":null,"finish_reason":` + finish + `,"stop_reason":null}],"usage":null}` + "\n\n"
		},
		role:     `{"role":"assistant","content":""}`,
		content:  func(text string) string { return `{"content":` + text + `}` },
		last:     `{"content":""}`,
		thoughts: []string{strings.ReplaceAll(reasoning, "#", "H"), strings.ReplaceAll(reasoning, "#", "m")},
		tools: []string{
			`{"tool_calls":[{"id":"call_1","type":"function","index":0,"function":{"name":"get_weather"}}]}`,
			`{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\": "}}]}`,
			`{"tool_calls":[{"index":0,"function":{"arguments":"\"Paris\"}"}}]}`,
		},
		end:        `data: {"id":"chatcmpl-8a1b","object":"chat.completion.chunk","created":1760000000,"model":"m","choices":[],"usage":{"prompt_tokens":13,"total_tokens":20,"completion_tokens":7}}` + "\n\ndata: [DONE]\n\n",
		embeddings: `{"id":"embd-8a1b","object":"list","created":1760000000,"model":"m","data":[{"index":0,"object":"embedding","embedding":[0.5,-1]},{"index":1,"object":"embedding","embedding":[2,3]}],"usage":{"prompt_tokens":4,"total_tokens":4,"completion_tokens":0,"prompt_tokens_details":null}}`,
		used:       4,
	}
}

func vllmKinds() []providertest.Kind {
	newest := vllmWire(`{"reasoning":"#"}`)
	modern := providertest.Kind{
		Name:    providers.KindVLLM,
		Dialect: newest.dialect(`data: {"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root cause.","type":"InternalServerError","param":null,"code":500}}` + "\n\ndata: [DONE]\n\n"),
		Server:  func() http.Handler { return &vllmServer{dev: true, enabled: true} },
		Models: []providers.Model{
			{Name: "meta-llama/Llama-3.1-8B-Instruct", Kinds: text, State: schemas.Resident, Context: 8192},
			{Name: "sql-lora", Kinds: text, State: schemas.Resident, Context: 8192},
		},
		Empty:     map[string]string{"GET /v1/models": `{"object":"list","data":[]}`},
		Exchanges: newest.exchanges(),
		Failures:  vllmFailures(),
		Load:      "sql-lora",
		Pressure:  &providers.Pressure{KVUsed: 0.42},

		Priorities: map[schemas.Class]string{schemas.Interactive: "-1", schemas.Normal: "", "": "", schemas.Batch: "1"},
	}
	old := modern
	old.Server = func() http.Handler { return &vllmServer{dev: true, enabled: true, silent: true} }
	old.Exchanges = vllmWire(`{"reasoning_content":"#"}`).exchanges()
	between := modern // it says the same under both names
	between.Exchanges = vllmWire(`{"reasoning":"#","reasoning_content":"#"}`).exchanges()
	return []providertest.Kind{modern, old, between}
}

func vllmFailures() []providertest.Failure {
	const tooLong = "This model's maximum context length is 8192 tokens. However, you requested 9300 tokens (300 in the messages, 9000 in the completion). Please reduce the length of the messages or completion."
	return []providertest.Failure{
		{Status: 401, Body: `{"error":"Unauthorized"}`, Want: schemas.Auth},
		{Status: 404, Body: "{\"error\":{\"message\":\"The model `nope` does not exist.\",\"type\":\"NotFoundError\",\"param\":\"model\",\"code\":404}}", Want: schemas.ModelNotFound},
		{Status: 404, Body: "{\"object\":\"error\",\"message\":\"The model `nope` does not exist.\",\"type\":\"NotFoundError\",\"param\":null,\"code\":404}", Want: schemas.ModelNotFound},
		{Status: 400, Body: `{"error":{"message":"This model's maximum context length is 48000 tokens. However, you requested 16384 output tokens and your prompt contains at least 31617 input tokens, for a total of at least 48001 tokens. Please reduce the length of the input prompt or the number of requested output tokens. (parameter=input_tokens, value=31617)","type":"BadRequestError","param":"input_tokens","code":400}}`, Want: schemas.ContextOverflow},
		{Status: 400, Body: `{"error":{"message":"'max_tokens' or 'max_completion_tokens' is too large: 9000. This model's maximum context length is 8192 tokens and your request has 300 input tokens (9000 > 8192 - 300).","type":"BadRequestError","param":null,"code":400}}`, Want: schemas.ContextOverflow},
		{Status: 400, Body: `{"object":"error","message":"` + tooLong + `","type":"BadRequestError","param":null,"code":400}`, Want: schemas.ContextOverflow},
		{Status: 400, Body: `{"error":{"message":"1 validation error: messages: Field required","type":"Bad Request","param":null,"code":400}}`, Want: schemas.InvalidRequest},
		{Status: 400, Body: `{"error":{"message":"The model does not support Embeddings API","type":"BadRequestError","param":null,"code":400}}`, Want: schemas.Unsupported},
		{Status: 501, Body: `{"error":{"message":"beam search is not implemented","type":"NotImplementedError","param":null,"code":501}}`, Want: schemas.Unsupported},
		{Status: 503, Body: `{"error":{"message":"Request rejected: queue is full","type":"ServiceUnavailableError","param":null,"code":503}}`, Want: schemas.Overloaded},
		{Status: 500, Body: `{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root cause.","type":"InternalServerError","param":null,"code":500}}`, Want: schemas.UpstreamError},
		{Status: 500, Body: `Internal Server Error`, Want: schemas.UpstreamError},
		{Status: 200, Body: `data: {"object":"error","message":"` + tooLong + `","type":"BadRequestError","param":null,"code":400}` + "\n\ndata: [DONE]\n\n", Want: schemas.ContextOverflow},
		{Status: 200, Body: vllmWire("").chunk(`{"content":""}`, `"abort"`) + vllmWire("").end, Want: schemas.UpstreamError},
	}
}
