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

// A sglangServer releases and resumes its memory as SGLang does, and dies as that
// does when it is told so at the wrong time.
type sglangServer struct {
	saver, backup, metrics bool   // how it was started
	old                    bool   // has the paths of older versions
	priorities             string // what it says of them

	mu       sync.Mutex // guards what follows
	seed     int
	busy     int
	released bool
	dead     bool
	orders   int
	block    chan struct{} // an order waits for it; nil: it doesn't
}

func (s *sglangServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	if s.dead {
		panic(http.ErrAbortHandler)
	}
	path := r.URL.Path
	if s.old {
		path = strings.Replace(path, "/get_", "/", 1)
		if path == r.URL.Path && strings.HasSuffix(path, "_info") {
			path = "/nowhere"
		}
	}
	switch route := r.Method + " " + path; {
	case route == "GET /v1/models":
		fmt.Fprint(w, `{"object":"list","data":[{"id":"qwen3-vl","object":"model","created":1786898113,"owned_by":"sglang","root":"qwen3-vl","parent":null,"max_model_len":131072}]}`)
	case route == "GET /model_info":
		fmt.Fprint(w, `{"model_path":"qwen/qwen3-vl","tokenizer_path":"qwen/qwen3-vl","is_generation":true,"preferred_sampling_params":null,"weight_version":"default","has_image_understanding":true,"has_audio_understanding":false}`)
	case route == "GET /server_info":
		fmt.Fprintf(w, `{"model_path":"qwen/qwen3-vl","host":"127.0.0.1","port":30000,"api_key":"secret","context_length":null,"mem_fraction_static":0.88,"max_running_requests":48,"max_total_tokens":null,%s"tp_size":2,"random_seed":%d,"enable_memory_saver":%t,"enable_weights_cpu_backup":%t,"enable_metrics":%t,"served_model_name":"qwen3-vl","reasoning_parser":"qwen3","tool_call_parser":"qwen","status":"ready","max_total_num_tokens":414382,"max_req_input_len":131066,"internal_states":[{"last_gen_throughput":123.4}],"version":"0.5.9"}`,
			s.priorities, s.seed, s.saver, s.backup, s.metrics)
	case route == "GET /metrics" && s.metrics:
		fmt.Fprint(w, s.gauges())
	case path == "/release_memory_occupation" || path == "/resume_memory_occupation":
		s.order(w, path, string(body))
	case route == "POST /v1/completions":
		fmt.Fprint(w, "data: {\"choices\":[{\"index\":0,\"text\":\"a\",\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
		s.dead = s.dead || s.released
	case path == "/health":
		panic("it would generate")
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"detail":"Not Found"}`)
	}
}

func (s *sglangServer) order(w http.ResponseWriter, path, body string) {
	release := path == "/release_memory_occupation"
	s.orders++
	if s.block != nil {
		block := s.block
		s.mu.Unlock()
		<-block
		s.mu.Lock()
	}
	if body != "{}" {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"object":"error","message":"body: Field required","type":"Bad Request","param":null,"code":400}`)
		return
	}
	if s.busy > 0 || release == s.released {
		s.dead = true
		panic(http.ErrAbortHandler)
	}
	s.released = release
	fmt.Fprint(w, "null")
}

func (s *sglangServer) gauges() string {
	text := "# HELP sglang:num_running_reqs The number of running requests\n# TYPE sglang:num_running_reqs gauge\n"
	for _, dp := range []string{"0", "1"} {
		for _, tp := range []string{"0", "1"} { // tensor parallel: each rank tells the same
			for _, priority := range []string{"", "0"} {
				labels := fmt.Sprintf(`{dp_rank=%q,engine_type="unified",model_name="qwen3-vl",moe_ep_rank="0",pp_rank="0",priority=%q,tp_rank=%q}`, dp, priority, tp)
				text += fmt.Sprintf("sglang:token_usage%s 0.28\nsglang:num_running_reqs%[1]s %d.0\nsglang:num_queue_reqs%[1]s %d.0\n", labels, s.busy, s.busy)
			}
		}
	}
	return text
}

func sglangWire() *wire {
	delta := func(role, content, reasoning, tools string) string {
		return `{"role":` + role + `,"content":` + content + `,"reasoning_content":` + reasoning + `,"tool_calls":` + tools + `}`
	}
	return &wire{
		chunk: func(d, finish string) string {
			matched := "null"
			if finish != "null" {
				matched = "151645"
			}
			return `data: {"id":"5f1c0c2e9d","object":"chat.completion.chunk","created":1760000000,"model":"m","choices":[{"index":0,"delta":` + d + `,"logprobs":null,"finish_reason":` + finish + `,"matched_stop":` + matched + `}],"usage":null}` + "\n\n"
		},
		text: func(text, finish string) string {
			return `data: {"id":"5f1c0c2e9d","object":"text_completion","created":1760000000,"model":"m","choices":[{"index":0,"text":` + text + `,"logprobs":null,"finish_reason":` + finish + `,"matched_stop":null}],"usage":null}` + "\n\n"
		},
		role:     delta(`"assistant"`, `""`, "null", "null"),
		content:  func(text string) string { return delta("null", text, "null", "null") },
		last:     delta("null", "null", "null", "null"),
		thoughts: []string{delta("null", "null", `"H"`, "null"), delta("null", "null", `"m"`, "null")},
		tools: []string{
			delta("null", "null", "null", `[{"id":"call_1","index":0,"type":"function","function":{"name":"get_weather","arguments":""}}]`),
			delta("null", "null", "null", `[{"id":null,"index":0,"type":"function","function":{"name":null,"arguments":"{\"city\": \"Paris\"}"}}]`),
		},
		end:        `data: {"id":"5f1c0c2e9d","object":"chat.completion.chunk","created":1760000002,"model":"m","choices":[],"usage":{"prompt_tokens":13,"total_tokens":20,"completion_tokens":7,"prompt_tokens_details":null,"reasoning_tokens":0}}` + "\n\ndata: [DONE]\n\n",
		embeddings: `{"data":[{"embedding":[0.5,-1],"index":0,"object":"embedding"},{"embedding":[2,3],"index":1,"object":"embedding"}],"model":"m","object":"list","usage":{"prompt_tokens":4,"total_tokens":4,"completion_tokens":0,"prompt_tokens_details":null}}`,
		used:       4,
	}
}

func sglangKinds() []providertest.Kind {
	w := sglangWire()
	modern := providertest.Kind{
		Name:    providers.KindSGLang,
		Dialect: w.dialect(`data: {"error":{"object":"error","message":"Internal server error: it broke","type":"InternalServerError","param":null,"code":500}}` + "\n\ndata: [DONE]\n\n"),
		Models: []providers.Model{{
			Name: "qwen3-vl", Kinds: text, State: schemas.Resident, Slots: 48, Context: 131072,
			Abilities: []providers.Ability{providers.Tools, providers.Vision, providers.Reasoning},
		}},
		Empty:     map[string]string{"GET /v1/models": `{"object":"list","data":[]}`},
		Exchanges: w.exchanges(),
		Failures:  sglangFailures(),
		Load:      "qwen3-vl",
		Pressure:  &providers.Pressure{KVUsed: 0.28},
	}
	old := modern // it knows no priorities
	old.Server = func() http.Handler {
		return &sglangServer{saver: true, backup: true, metrics: true, seed: 1, old: true}
	}
	modern.Server = func() http.Handler {
		return &sglangServer{saver: true, backup: true, metrics: true, seed: 314159, priorities: `"enable_priority_scheduling":true,"schedule_low_priority_values_first":false,`}
	}
	modern.Priorities = map[schemas.Class]string{schemas.Interactive: "3", schemas.Normal: "2", "": "2", schemas.Batch: "1"}
	lowFirst := modern
	lowFirst.Server = func() http.Handler {
		return &sglangServer{saver: true, backup: true, metrics: true, seed: 1, priorities: `"enable_priority_scheduling":true,"schedule_low_priority_values_first":true,`}
	}
	lowFirst.Priorities = map[schemas.Class]string{schemas.Interactive: "-3", schemas.Normal: "-2", "": "-2", schemas.Batch: "-1"}
	without := modern
	without.Server = func() http.Handler {
		return &sglangServer{saver: true, backup: true, metrics: true, seed: 1, priorities: `"enable_priority_scheduling":false,`}
	}
	without.Priorities = map[schemas.Class]string{schemas.Interactive: "", schemas.Normal: "", "": "", schemas.Batch: ""}
	old.Priorities = without.Priorities
	return []providertest.Kind{modern, lowFirst, without, old}
}

func sglangFailures() []providertest.Failure {
	event := func(message, kind string, code int) string {
		return fmt.Sprintf("data: {\"error\":{\"object\":\"error\",\"message\":%q,\"type\":%q,\"param\":null,\"code\":%d}}\n\ndata: [DONE]\n\n", message, kind, code)
	}
	return []providertest.Failure{
		{Status: 401, Body: `{"error":"Unauthorized"}`, Want: schemas.Auth},
		{Status: 404, Body: `{"error":{"message":"The model 'x' does not exist","type":"invalid_request_error","param":"model","code":"model_not_found"}}`, Want: schemas.ModelNotFound},
		{Status: 400, Body: `{"object":"error","message":"Requested token count exceeds the model's maximum context length of 16384 tokens. You requested a total of 16397 tokens: 13 tokens from the input messages and 16384 tokens for the completion. Please reduce the number of tokens in the input messages or the completion to fit within the limit.","type":"BadRequestError","param":null,"code":400}`, Want: schemas.ContextOverflow},
		{Status: 400, Body: `{"object":"error","message":"The input (18010 tokens) is longer than the model's context length (16384 tokens).","type":"BadRequestError","param":null,"code":400}`, Want: schemas.ContextOverflow},
		{Status: 400, Body: `{"object":"error","message":"messages: Field required","type":"Bad Request","param":null,"code":400}`, Want: schemas.InvalidRequest},
		{Status: 400, Body: `{"error":{"message":"text: Field required"}}`, Want: schemas.InvalidRequest},
		{Status: 503, Body: `{"object":"error","message":"Request waiting timeout reached.","type":"503","param":null,"code":503}`, Want: schemas.Overloaded},
		{Status: 500, Body: `{"object":"error","message":"Internal server error: CUDA out of memory. Tried to allocate 2.00 GiB","type":"InternalServerError","param":null,"code":500}`, Want: schemas.OutOfMemory},
		{Status: 200, Body: event("The input (18010 tokens) is longer than the model's context length (16384 tokens).", "BadRequestError", 400), Want: schemas.ContextOverflow},
		{Status: 200, Body: event("Request waiting timeout reached.", "SERVICE_UNAVAILABLE", 503), Want: schemas.Overloaded},
		{Status: 200, Body: sglangWire().done("abort"), Want: schemas.UpstreamError},
	}
}
