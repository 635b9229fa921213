package providers_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

func ollamaStream() providertest.Dialect {
	return providertest.Dialect{
		ContentType: "application/x-ndjson",
		Chunk: func(text string) string {
			return fmt.Sprintf("{\"model\":\"m\",\"created_at\":\"2026-11-23T05:10:20Z\",\"message\":{\"role\":\"assistant\",\"content\":%s},\"done\":false}\n", quoted(text))
		},
		End:     "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":5,\"eval_count\":3}\n",
		Error:   "{\"error\":\"an error was encountered while running the model: unexpected EOF\"}\n",
		Comment: "\n",
	}
}

// An ollamaServer lists, loads and unloads as Ollama does. modern adds what
// versions since 0.32 tell in their list.
type ollamaServer struct {
	modern bool
	mu     sync.Mutex // guards loaded
	loaded map[string]bool
}

func (s *ollamaServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	var req struct {
		Model     string
		KeepAlive json.Number `json:"keep_alive"`
	}
	_ = json.Unmarshal(body, &req)
	model := strings.TrimSuffix(req.Model, ":latest")
	switch r.Method + " " + r.URL.Path {
	case "GET /api/tags":
		fmt.Fprint(w, s.tags())
	case "GET /api/ps":
		list := []string{}
		if s.loaded["qwen3"] {
			list = append(list, `{"name":"qwen3:latest","model":"qwen3:latest","size":6654289920,"digest":"500a1f067a9f","details":{"format":"gguf","family":"qwen3","parameter_size":"8.2B","quantization_level":"Q4_K_M"},"expires_at":"2319-03-05T00:00:00Z","size_vram":6654289920,"context_length":8192}`)
		}
		fmt.Fprintf(w, `{"models":[%s]}`, strings.Join(list, ","))
	case "POST /api/show":
		capabilities := map[string]string{"qwen3": `["completion","tools","thinking"]`, "llava:7b": `["completion","vision"]`, "nomic": `["embedding"]`}[model]
		fmt.Fprintf(w, `{"details":{"format":"gguf"},"model_info":{"general.architecture":"x","x.context_length":40960},"capabilities":%s}`, capabilities)
	case "POST /api/generate":
		if model == "nomic" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"\"nomic\" does not support generate"}`)
			return
		}
		s.loaded[model] = req.KeepAlive != "0"
		fmt.Fprintf(w, `{"model":%q,"created_at":"2026-11-23T05:10:20Z","response":"","done":true,"done_reason":"load"}`, req.Model)
	default:
		http.NotFound(w, r)
	}
}

func (s *ollamaServer) tags() string {
	more := map[string]string{}
	if s.modern {
		more = map[string]string{"qwen3": `,"capabilities":["completion","tools","thinking"]`, "llava": `,"capabilities":["completion","vision"]`, "nomic": `,"capabilities":["embedding"]`}
	}
	return fmt.Sprintf(`{"models":[
{"name":"qwen3:latest","model":"qwen3:latest","modified_at":"2026-11-23T05:10:17Z","size":5225388164,"digest":"500a1f067a9f","details":{"format":"gguf","family":"qwen3","parameter_size":"8.2B","quantization_level":"Q4_K_M"}%s},
{"name":"llava:7b","model":"llava:7b","modified_at":"2026-11-23T05:10:17Z","size":4733363377,"digest":"8dd30f6b0cb1","details":{"format":"gguf","family":"llama"}%s},
{"name":"nomic:latest","model":"nomic:latest","modified_at":"2026-11-23T05:10:17Z","size":274302450,"digest":"0a109f422b47","details":{"format":"gguf","family":"nomic-bert"}%s},
{"name":"gpt-oss:120b-cloud","model":"gpt-oss:120b-cloud","remote_model":"gpt-oss:120b","remote_host":"https://ollama.com:443","size":384,"digest":"569662207105","details":{},"capabilities":["completion","tools","thinking"]}
]}`, more["qwen3"], more["llava"], more["nomic"])
}

func ollamaKinds() []providertest.Kind {
	old := providertest.Kind{
		Name:    providers.KindOllama,
		Dialect: ollamaStream(),
		Server:  func() http.Handler { return &ollamaServer{loaded: map[string]bool{"qwen3": true}} },
		Models: []providers.Model{
			{
				Name: "qwen3", Kinds: text, State: schemas.Resident, VRAM: schemas.Known(6654289920), Need: schemas.Known(5225388164),
				Context: 8192, Digest: "500a1f067a9f", Abilities: []providers.Ability{providers.Tools, providers.Reasoning},
			},
			{Name: "llava:7b", Kinds: text, State: schemas.Installed, Need: schemas.Known(4733363377), Digest: "8dd30f6b0cb1", Abilities: []providers.Ability{providers.Vision}},
			{Name: "nomic", Kinds: []schemas.Kind{schemas.Embedding}, State: schemas.Installed, Need: schemas.Known(274302450), Digest: "0a109f422b47", Abilities: []providers.Ability{}},
			{Name: "gpt-oss:120b-cloud", Kinds: text, State: schemas.Remote, Digest: "569662207105", Abilities: []providers.Ability{providers.Tools, providers.Reasoning}},
		},
		Empty:     map[string]string{"GET /api/tags": `{"models":[]}`, "GET /api/ps": `{"models":[]}`},
		Exchanges: ollamaExchanges(),
		Failures:  ollamaFailures(),
		Load:      "qwen3",
	}
	modern := old
	modern.Server = func() http.Handler { return &ollamaServer{modern: true, loaded: map[string]bool{"qwen3": true}} }
	return []providertest.Kind{old, modern}
}

func ollamaExchanges() []providertest.Exchange {
	const done = `{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":6217816,"load_duration":2262110,"prompt_eval_count":12,"eval_count":4}` + "\n"
	refused := func(member, value string) providertest.Exchange {
		return providertest.Exchange{
			Request: `{"messages":[{"role":"user","content":"hi"}],"` + member + `":` + value + `}`,
			Code:    schemas.Unsupported, Param: member,
		}
	}
	return []providertest.Exchange{
		{
			Proves:  providertest.Chat,
			Request: `{"messages":[{"role":"developer","content":"Be brief."},{"role":"user","content":"hi"}],"max_tokens":9,"temperature":0,"seed":1,"stop":"x","user":"u","stream":false}`,
			Path:    "/api/chat",
			Sent:    `{"model":"m","stream":true,"truncate":false,"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"hi"}],"options":{"num_predict":9,"temperature":0,"seed":1,"stop":["x"]}}`,
			Absent:  []string{"user", "max_tokens"},
			Answer:  `{"model":"m","message":{"role":"assistant","content":"Hel"},"done":false}` + "\n" + `{"model":"m","message":{"role":"assistant","content":"lo"},"done":false}` + "\n" + done,
			Want:    `{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":4,"total_tokens":16}}`,
		},
		{
			Proves: providertest.Completion, Kind: schemas.Completion,
			Request: `{"prompt":"Once","suffix":"end","max_completion_tokens":3}`,
			Path:    "/api/generate",
			Sent:    `{"model":"m","prompt":"Once","suffix":"end","options":{"num_predict":3}}`,
			Answer:  `{"model":"m","response":" upon","done":false}` + "\n" + `{"model":"m","response":"","done":true,"done_reason":"length","prompt_eval_count":2,"eval_count":1}` + "\n",
			Want:    `{"object":"text_completion","choices":[{"text":" upon","finish_reason":"length"}],"usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3}}`,
		},
		{
			Proves: providertest.Embeddings, Kind: schemas.Embedding,
			Request: `{"input":["a","b"],"dimensions":2}`,
			Path:    "/api/embed",
			Sent:    `{"model":"m","input":["a","b"],"dimensions":2}`,
			Answer:  `{"model":"m","embeddings":[[0.5,-1],[2,3]],"total_duration":14143917,"load_duration":1019500,"prompt_eval_count":8}`,
			Want:    `{"object":"list","model":"m","data":[{"object":"embedding","index":0,"embedding":[0.5,-1]},{"object":"embedding","index":1,"embedding":[2,3]}],"usage":{"prompt_tokens":8,"total_tokens":8}}`,
		},
		{
			Proves: providertest.Tools,
			Request: `{"messages":[{"role":"user","content":"weather?"},{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"get","arguments":"{\"city\":\"Oslo\"}"}}]},` +
				`{"role":"tool","tool_call_id":"c1","content":"rain"}],"tools":[{"type":"function","function":{"name":"get","parameters":{"type":"object"}}}],"tool_choice":"auto"}`,
			Sent: `{"messages":[{"role":"user","content":"weather?"},{"role":"assistant","tool_calls":[{"id":"c1","function":{"name":"get","arguments":{"city":"Oslo"}}}]},{"role":"tool","tool_name":"get","content":"rain"}],` +
				`"tools":[{"type":"function","function":{"name":"get","parameters":{"type":"object"}}}]}`,
			Answer: `{"model":"m","message":{"role":"assistant","content":"","tool_calls":[{"id":"call_a","function":{"index":0,"name":"get","arguments":{"city":"Bergen"}}}]},"done":false}` + "\n" +
				`{"model":"m","message":{"role":"assistant","content":"","tool_calls":[{"id":"call_b","function":{"index":1,"name":"get","arguments":{}}}]},"done":false}` + "\n" + done,
			Want: `{"choices":[{"message":{"content":null,"tool_calls":[{"id":"call_a","type":"function","function":{"name":"get","arguments":"{\"city\":\"Bergen\"}"}},{"id":"call_b","type":"function","function":{"name":"get","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`,
		},
		{
			Proves:  providertest.Vision,
			Request: `{"messages":[{"role":"user","content":[{"type":"text","text":"what?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC"}}]}]}`,
			Sent:    `{"messages":[{"role":"user","content":"what?","images":["AAEC"]}]}`,
			Answer:  `{"model":"m","message":{"role":"assistant","content":"A dot."},"done":false}` + "\n" + done,
			Want:    `{"choices":[{"message":{"content":"A dot."}}]}`,
		},
		{
			Proves:  providertest.Reasoning,
			Request: `{"messages":[{"role":"user","content":"hi"}],"reasoning_effort":"low"}`,
			Sent:    `{"think":"low"}`,
			Answer:  `{"model":"m","message":{"role":"assistant","content":"","thinking":"Hm"},"done":false}` + "\n" + `{"model":"m","message":{"role":"assistant","content":"Yes"},"done":false}` + "\n" + done,
			Want:    `{"choices":[{"message":{"content":"Yes","reasoning_content":"Hm"}}]}`,
		},
		{
			Proves:  providertest.Schema,
			Request: `{"messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}}`,
			Sent:    `{"format":{"type":"object"}}`,
			Absent:  []string{"response_format"},
			Answer:  `{"model":"m","message":{"role":"assistant","content":"{}"},"done":false}` + "\n" + done,
			Want:    `{"choices":[{"message":{"content":"{}"}}]}`,
		},
		{
			Request: `{"messages":[{"role":"user","content":"hi"}],"logprobs":true,"top_logprobs":1}`,
			Sent:    `{"logprobs":true,"top_logprobs":1}`,
			Answer: `{"model":"m","message":{"role":"assistant","content":","},"done":false,"logprobs":[{"token":",","logprob":-0.03,"bytes":[44],"top_logprobs":[{"token":",","logprob":-0.03,"bytes":[44]}]}]}` + "\n" +
				`{"model":"m","message":{"role":"assistant","content":"a"},"done":false,"logprobs":[{"token":"a","logprob":-1,"bytes":[97],"top_logprobs":[]}]}` + "\n" + done,
			Want: `{"choices":[{"logprobs":{"content":[{"token":",","logprob":-0.03,"bytes":[44],"top_logprobs":[{"token":",","logprob":-0.03,"bytes":[44]}]},{"token":"a","logprob":-1,"bytes":[97],"top_logprobs":[]}]}}]}`,
		},
		refused("n", "2"),
		refused("logit_bias", `{"1":2}`),
		refused("tool_choice", `"required"`),
		refused("audio", `{"voice":"x"}`),
		refused("parallel_tool_calls", `false`),
		refused("a_member_of_tomorrow", `1`),
	}
}

func ollamaFailures() []providertest.Failure {
	return []providertest.Failure{
		{Status: 404, Body: `{"error":"model 'x' not found"}`, Want: schemas.ModelNotFound},
		{Status: 503, Body: `{"error":"server busy, please try again.  maximum pending requests exceeded"}`, Want: schemas.Overloaded},
		{Status: 400, Body: `{"error":"the input length exceeds the context length"}`, Want: schemas.ContextOverflow},
		{Status: 400, Body: `{"error":"{\"error\":{\"code\":400,\"message\":\"request (9 tokens) exceeds the available context size\",\"type\":\"exceed_context_size_error\"}}"}`, Want: schemas.ContextOverflow},
		{Status: 400, Body: `{"error":"registry.ollama.ai/library/m:latest does not support tools"}`, Want: schemas.Unsupported},
		{Status: 500, Body: `{"error":"model requires more system memory (238.4 GiB) than is available (22.1 GiB)"}`, Want: schemas.OutOfMemory},
		{Status: 500, Body: `{"error":"llama-server process has terminated: signal: killed"}`, Want: schemas.OutOfMemory},
		{Status: 401, Body: `{"error":"unauthorized","signin_url":"https://ollama.com/connect"}`, Want: schemas.Auth},
		{Status: 200, Body: `{"error":"an error was encountered while running the model: CUDA error: out of memory"}` + "\n", Want: schemas.OutOfMemory},
	}
}
