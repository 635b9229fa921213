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

// A localAIServer lists, loads and unloads as LocalAI 4.9 does.
type localAIServer struct {
	old    bool // it can neither be told to load, nor does it describe its models
	closed bool // who asks is no admin
	state  int  // of its backends
	hang   bool // the monitor never answers

	mu       sync.Mutex // guards what follows
	loaded   map[string]bool
	monitors int
}

func (s *localAIServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	var req struct{ Model string }
	_ = json.Unmarshal(body, &req)
	fail := func(status int, message string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":{"code":%d,"message":%q,"type":""}}`, status, message)
	}
	route := r.Method + " " + r.URL.Path
	if s.closed && (r.URL.Path == "/system" || strings.HasPrefix(r.URL.Path, "/backend/")) {
		fail(http.StatusForbidden, "Admin access required")
		return
	}
	switch {
	case route == "GET /v1/models":
		fmt.Fprint(w, `{"object":"list","data":[{"id":"qwen3-4b","object":"model"},{"id":"bge-m3","object":"model"},{"id":"loose.gguf","object":"model"},{"id":"kokoro","object":"model"}]}`)
	case route == "GET /v1/models/capabilities" && !s.old:
		fmt.Fprint(w, `{"object":"list","data":[{"id":"qwen3-4b","object":"model","capabilities":["chat","completion","tools","thinking"],"input_modalities":["text"],"output_modalities":["text"]},{"id":"bge-m3","object":"model","capabilities":["embeddings"],"input_modalities":["text"],"output_modalities":[]},{"id":"loose.gguf","object":"model","capabilities":null,"input_modalities":null,"output_modalities":null},{"id":"kokoro","object":"model","capabilities":["tts"],"input_modalities":["text"],"output_modalities":["audio"]}]}`)
	case route == "GET /system":
		var list []string
		for _, id := range []string{"qwen3-4b", "loose.gguf"} {
			if s.loaded[id] {
				list = append(list, fmt.Sprintf(`{"id":%q,"backend":"llama-cpp"}`, id))
			}
		}
		fmt.Fprintf(w, `{"backends":["llama-cpp","whisper"],"loaded_models":[%s]}`, strings.Join(list, ","))
	case route == "GET /backend/monitor":
		s.monitor(w, r, fail)
	case route == "POST /backend/load" && !s.old:
		if req.Model != "qwen3-4b" {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"loaded":null,"message":"failed to load model: could not load model: rpc error"}`)
			return
		}
		s.loaded[req.Model] = true
		fmt.Fprintf(w, `{"loaded":[%q],"message":"model loaded"}`, req.Model)
	case route == "POST /backend/shutdown" && !s.old && s.loaded[req.Model]:
		delete(s.loaded, req.Model)
		fmt.Fprint(w, `{"message":"model stopped"}`)
	default:
		fail(http.StatusNotFound, "Resource not found")
	}
}

func (s *localAIServer) monitor(w http.ResponseWriter, r *http.Request, fail func(int, string)) {
	s.monitors++
	model := r.URL.Query().Get("model")
	switch {
	case !s.loaded[model]:
		fail(http.StatusInternalServerError, "backend "+model+" is not currently loaded")
	case s.hang:
		s.mu.Unlock()
		defer s.mu.Lock()
		<-r.Context().Done()
	case model == "loose.gguf":
		fmt.Fprintf(w, `{"state":%d,"memory":{"total":5368709120,"breakdown":{"gopsutil-RSS":4294967296}}}`, s.state)
	default:
		fmt.Fprintf(w, `{"state":%d,"memory":{"total":1073741824,"breakdown":{"weights":536870912,"kv_cache":268435456}}}`, s.state)
	}
}

func localAIWire() *wire {
	return &wire{
		chunk: func(delta, finish string) string {
			return `data: {"created":1760000000,"object":"chat.completion.chunk","id":"8a1b","model":"m","choices":[{"index":0,"finish_reason":` + finish + `,"delta":` + delta + `}]}` + "\n\n"
		},
		text: func(text, finish string) string {
			return `data: {"created":1760000000,"object":"text_completion","id":"8a1b","model":"m","choices":[{"index":0,"finish_reason":` + finish + `,"text":` + text + `}]}` + "\n\n"
		},
		role:       `{"role":"assistant","content":null}`,
		content:    func(text string) string { return `{"content":` + text + `}` },
		last:       `{"content":""}`,
		thoughts:   []string{`{"reasoning":"H"}`, `{"reasoning":"m"}`},
		tools:      []string{`{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"get_weather","arguments":"{\"city\": \"Paris\"}"}}]}`},
		end:        `data: {"id":"8a1b","created":1760000000,"model":"m","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":13,"completion_tokens":7,"total_tokens":20}}` + "\n\ndata: [DONE]\n\n",
		embeddings: `{"created":1760000000,"object":"list","id":"8a1b","model":"m","data":[{"embedding":[0.5,-1],"index":0,"object":"embedding"},{"embedding":[2,3],"index":1,"object":"embedding"}],"usage":{"prompt_tokens":4,"completion_tokens":0,"total_tokens":4}}`,
		used:       4,
	}
}

func localAIKinds() []providertest.Kind {
	w := localAIWire()
	return []providertest.Kind{{
		Name:    providers.KindLocalAI,
		Dialect: w.dialect(`data: {"error":{"code":"server_error","message":"rpc error: code = Unavailable desc = error reading from server: EOF","type":"server_error"}}` + "\n\ndata: [DONE]\n\n"),
		Server: func() http.Handler {
			return &localAIServer{state: 2, loaded: map[string]bool{"qwen3-4b": true, "loose.gguf": true}}
		},
		Models: []providers.Model{
			{Name: "qwen3-4b", Kinds: text, State: schemas.Resident, VRAM: schemas.Known(1073741824), Abilities: []providers.Ability{providers.Tools, providers.Reasoning}},
			{Name: "bge-m3", Kinds: []schemas.Kind{schemas.Embedding}, State: schemas.Installed, Abilities: []providers.Ability{}},
			{Name: "loose.gguf", Kinds: text, State: schemas.Resident},
		},
		Empty:     map[string]string{"GET /v1/models": `{"object":"list","data":[]}`, "GET /system": `{"backends":["llama-cpp"],"loaded_models":[]}`},
		Exchanges: w.exchanges(),
		Failures:  localAIFailures(),
		Load:      "qwen3-4b",
	}}
}

func localAIFailures() []providertest.Failure {
	after := func(s string) map[string]string { return map[string]string{"Retry-After": s} }
	return []providertest.Failure{
		{Status: 401, Body: `{"error":{"code":401,"message":"An authentication key is required","type":"invalid_request_error"}}`, Want: schemas.Auth},
		{Status: 403, Body: `{"error":{"code":403,"message":"Admin access required","type":""}}`, Want: schemas.Permission},
		{Status: 404, Body: `{"error":{"code":404,"message":"model \"nope\" not found. To see available models, call GET /v1/models","type":"invalid_request_error"}}`, Want: schemas.ModelNotFound},
		{Status: 400, Body: `{"error":{"code":400,"message":"code=400, message=model is required","type":""}}`, Want: schemas.InvalidRequest},
		{Status: 503, Header: after("660"), Body: `{"error":{"message":"model Qwen3.6-27B-MTP-GGUF is staging on node nvidia-thor (41%, ETA ~11m)","type":"model_loading","code":"model_loading"},"loading":{"model":"Qwen3.6-27B-MTP-GGUF","state":"staging","node":"nvidia-thor","progress":41.2,"bytes_sent":14730000000,"total_bytes":35776484480,"file_index":1,"total_files":2,"eta_seconds":660}}`, Want: schemas.ModelLoading, Retry: 660e9},
		{Status: 503, Header: after("10"), Body: `{"error":{"code":503,"message":"model \"x\" load is in cooldown after a recent failure; retry after 10s","type":""}}`, Want: schemas.Overloaded, Retry: 10e9},
		{Status: 503, Header: after("5"), Body: `{"error":{"message":"model \"x\" is at capacity (max_concurrent=2); retry after 5s","type":"admission_rejected"}}`, Want: schemas.Overloaded, Retry: 5e9},
		{Status: 503, Body: ``, Want: schemas.Overloaded},
		{Status: 500, Body: `{"error":{"code":500,"message":"rpc error: code = Unknown desc = the request exceeds the available context size, try increasing it","type":""}}`, Want: schemas.ContextOverflow},
		{Status: 500, Body: `{"loaded":null,"message":"failed to load model: could not load model: rpc error: CUDA error: out of memory"}`, Want: schemas.OutOfMemory},
		{Status: 200, Body: `data: {"error":{"code":"server_error","message":"could not load model: rpc error: code = Unknown","type":"server_error"}}` + "\n\ndata: [DONE]\n\n", Want: schemas.UpstreamError},
	}
}
