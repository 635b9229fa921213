package rpc_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

var update = flag.Bool("update", false, "write the row of the table of proofs in docs/providers.md")

// proofs is what the tests of this package proved.
var proofs = providertest.Proofs{Row: func(kind string) bool { return kind == providers.KindRPC }}

// TestMain holds the row of the table of proofs to what was proven, where all tests
// ran.
func TestMain(m *testing.M) {
	code := m.Run()
	if all := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.list").Value.String() == ""; code == 0 && all {
		if err := proofs.Check("../../docs/providers.md", *update, providertest.Scripted); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func TestContract(t *testing.T) {
	srv := brokertest.Start(t)
	providertest.Run(t, providertest.Kind{
		Name:    providers.KindRPC,
		Dialect: dialect,
		Serve: func(t *testing.T, h http.Handler) providers.Provider {
			if h == nil {
				return serve(t, srv)
			}
			return serve(t, srv, h)
		},
		Server: func() http.Handler { return &service{loaded: true} },
		Models: []providers.Model{
			{
				Name: "one", Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Resident, VRAM: schemas.Known(6 << 30), Need: schemas.Known(7 << 30),
				Slots: 4, Context: 8192, Digest: "sha256:46e0", Abilities: []providers.Ability{providers.Tools},
			},
			{Name: "two", Kinds: []schemas.Kind{schemas.Embedding}, State: schemas.Remote, Slots: 1, Abilities: []providers.Ability{}},
			{Name: "three", Kinds: []schemas.Kind{schemas.Chat, schemas.Completion}, State: schemas.Resident, Slots: 1},
		},
		Empty:     map[string]string{"POST /models": `{"models":[]}`},
		Exchanges: exchanges(),
		Failures:  failures(),
		Load:      "one",
		Pressure:  &providers.Pressure{Running: 0, Waiting: 0, Slots: 4, KVUsed: 0.25},
	}, &proofs, providertest.Scripted)
}

// dialect is a message a line.
var dialect = providertest.Dialect{
	Chunk: func(text string) string {
		quoted, err := json.Marshal(text)
		if err != nil {
			panic(err)
		}
		return delta(`{"content":` + string(quoted) + `}`)
	},
	End:     finish + done,
	Error:   `{"error":{"message":"it broke","type":"server_error"}}` + "\n",
	Comment: "\n",
}

const (
	finish = `{"object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}` + "\n"
	done   = schemas.RPCDone + "\n"
)

func delta(text string) string {
	return `{"object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":` + text + `,"finish_reason":null}]}` + "\n"
}

// A service lists, loads and unloads.
type service struct {
	mu     sync.Mutex // guards loaded
	loaded bool
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	verb := strings.TrimPrefix(r.URL.Path, "/")
	switch {
	case verb == schemas.RPCModels:
		state := `"installed"`
		if s.loaded {
			state = `"resident","vram":6442450944`
		}
		fmt.Fprintf(w, `{"models":[{"name":"one","kinds":["chat"],"state":%s,"need":7516192768,"slots":4,"context":8192,"digest":"sha256:46e0","abilities":["tools"]},`+
			`{"name":"two","kinds":["embedding"],"state":"remote","vram":null,"abilities":[]},{"name":"three"}]}`, state)
	case string(body) != `{"model":"one"}`:
		fmt.Fprint(w, `{"error":{"message":"no such model","code":"model_not_found"}}`)
	case verb == schemas.RPCLoad, verb == schemas.RPCUnload:
		s.loaded = verb == schemas.RPCLoad
		fmt.Fprint(w, `{}`)
	case verb == schemas.RPCPressure:
		fmt.Fprint(w, `{"running":0,"waiting":0,"slots":4,"kv_used":0.25}`)
	}
}

// exchanges are OpenAI's requests and chunks as they are.
func exchanges() []providertest.Exchange {
	const user = `"messages":[{"role":"user","content":"hi"}]`
	return []providertest.Exchange{
		{
			Proves:  providertest.Chat,
			Request: `{` + user + `,"max_tokens":9,"a_member_of_tomorrow":1,"vramjet":{"x":1},"stream":false}`,
			Path:    "/generate",
			Sent:    `{"model":"m","stream":true,"stream_options":{"include_usage":true},` + user + `,"max_tokens":9,"a_member_of_tomorrow":1}`,
			Absent:  []string{"vramjet"},
			Answer:  delta(`{"role":"assistant","content":"Hel"}`) + delta(`{"content":"lo"}`) + finish + done,
			Want:    `{"object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}`,
		},
		{
			Proves: providertest.Completion, Kind: schemas.Completion,
			Request: `{"prompt":"Once"}`,
			Path:    "/generate",
			Sent:    `{"model":"m","stream":true,"prompt":"Once"}`,
			Answer:  `{"object":"text_completion","choices":[{"text":" upon","index":0,"finish_reason":"length"}]}` + "\n" + done,
			Want:    `{"object":"text_completion","choices":[{"text":" upon","finish_reason":"length"}],"usage":{"completion_tokens":1}}`,
		},
		{
			Proves: providertest.Embeddings, Kind: schemas.Embedding,
			Request: `{"input":["a","b"]}`,
			Path:    "/embed",
			Sent:    `{"model":"m","input":["a","b"]}`,
			Answer:  `{"object":"list","model":"m","data":[{"embedding":[0.5,-1],"index":0,"object":"embedding"},{"embedding":[2,3],"index":1,"object":"embedding"}],"usage":{"prompt_tokens":4,"total_tokens":4}}`,
			Want:    `{"object":"list","data":[{"index":0,"embedding":[0.5,-1]},{"index":1,"embedding":[2,3]}],"usage":{"prompt_tokens":4,"total_tokens":4}}`,
		},
		{
			Proves:  providertest.Tools,
			Request: `{` + user + `,"tools":[{"type":"function","function":{"name":"get"}}]}`,
			Sent:    `{"tools":[{"type":"function","function":{"name":"get"}}]}`,
			Answer: delta(`{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"get","arguments":"{"}}]}`) +
				delta(`{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}`) + strings.Replace(finish, `"stop"`, `"tool_calls"`, 1) + done,
			Want: `{"choices":[{"message":{"content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"get","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`,
		},
		{
			Proves:  providertest.Vision,
			Request: `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC"}}]}]}`,
			Sent:    `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC"}}]}]}`,
			Answer:  delta(`{"content":"A dot."}`) + finish + done,
			Want:    `{"choices":[{"message":{"content":"A dot."}}]}`,
		},
		{
			Proves:  providertest.Reasoning,
			Request: `{` + user + `,"reasoning_effort":"low"}`,
			Sent:    `{"reasoning_effort":"low"}`,
			Answer:  delta(`{"reasoning_content":"H"}`) + delta(`{"reasoning":"m"}`) + delta(`{"content":"Yes"}`) + finish + done,
			Want:    `{"choices":[{"message":{"content":"Yes","reasoning_content":"Hm"}}]}`,
		},
		{
			Proves:  providertest.Schema,
			Request: `{` + user + `,"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}}`,
			Sent:    `{"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}}`,
			Answer:  delta(`{"content":"{}"}`) + finish + done,
			Want:    `{"choices":[{"message":{"content":"{}"}}]}`,
		},
	}
}

// failures are errors in the protocol's own words, and in those of others.
func failures() []providertest.Failure {
	list := []providertest.Failure{
		{Status: 200, Body: `{"error":{"message":"soon","code":"model_loading","retry_after_ms":1500}}` + "\n", Want: schemas.ModelLoading, Retry: 1500 * time.Millisecond},
		{Status: 200, Body: `{"error":{"message":"slow down","type":"rate_limit_error","code":"7","retry_after_ms":250}}` + "\n", Want: schemas.RateLimited, Retry: 250 * time.Millisecond},
		{Status: 200, Body: `{"error":{"message":"CUDA error: out of memory","code":500}}` + "\n", Want: schemas.OutOfMemory},
		{Status: 200, Body: `{"error":{"message":"out of memory","code":"auth"}}` + "\n", Want: schemas.Auth}, // the code, and not the text
		{Status: 200, Body: `{"error":"it broke"}` + "\n", Want: schemas.UpstreamError},
		{Status: 413, Body: `{"error":{"message":"too long a story","code":"context_overflow"}}`, Want: schemas.ContextOverflow},
		{Status: 404, Body: ``, Want: schemas.ModelNotFound},
		{Status: 500, Body: ``, Want: schemas.UpstreamError},
	}
	for _, code := range []schemas.Code{schemas.InvalidRequest, schemas.Unsupported, schemas.ContentFiltered, schemas.QuotaExhausted, schemas.Overloaded, schemas.Internal} {
		list = append(list, providertest.Failure{Status: 200, Body: `{"error":{"message":"no","code":"` + string(code) + `"}}` + "\n", Want: code})
	}
	return list
}
