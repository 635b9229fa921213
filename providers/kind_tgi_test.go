package providers_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

const (
	tgiInfo = `{"model_id":"meta-llama/Llama-3.1-8B-Instruct","model_sha":"0e9e39f249a16976918f6564b8830bc894c89659","model_pipeline_tag":"text-generation","max_concurrent_requests":128,"max_best_of":2,"max_stop_sequences":4,` +
		`"max_input_tokens":4095,"max_total_tokens":4096,"validation_workers":2,"max_client_batch_size":4,"router":"text-generation-router","version":"3.3.7","sha":"db931fcf42da018a3657580c64bf2720f167f9ab","docker_label":"sha-db931fc"}`

	tgiGauges = "# HELP tgi_queue_size Current queue size\n# TYPE tgi_queue_size gauge\ntgi_queue_size 3\n# TYPE tgi_batch_current_size gauge\ntgi_batch_current_size 2\n# TYPE tgi_batch_current_max_tokens gauge\ntgi_batch_current_max_tokens 2048\n"
	tgiSize   = "# TYPE tgi_batch_max_total_tokens gauge\ntgi_batch_max_total_tokens 8192\n# TYPE tgi_request_failure counter\ntgi_request_failure{err=\"overloaded\"} 1\n"
)

// tgiChunk is a chunk of a chat, in which every delta has a role and usage is
// null.
func tgiChunk(delta, finish string) string {
	return `data:{"object":"chat.completion.chunk","id":"","created":1741265133,"model":"m","system_fingerprint":"3.3.7-native","choices":[{"index":0,"delta":` + delta + `,"logprobs":null,"finish_reason":` + finish + `}],"usage":null}` + "\n\n"
}

const tgiDone = `data:{"object":"chat.completion.chunk","id":"","created":1741265133,"model":"m","system_fingerprint":"3.3.7-native","choices":[],"usage":{"prompt_tokens":39,"completion_tokens":3,"total_tokens":42}}` + "\n\ndata:[DONE]\n\n"

func tgiSays(text string) string {
	return tgiChunk(`{"role":"assistant","content":`+quoted(text)+`}`, "null")
}

func tgiKinds() []providertest.Kind {
	return []providertest.Kind{{
		Name: providers.KindTGI,
		Dialect: providertest.Dialect{
			ContentType: "text/event-stream",
			Chunk:       tgiSays,
			End:         tgiChunk(`{"role":"assistant","content":""}`, `"stop"`) + tgiDone,
			Error:       `data:{"error":{"message":"Request failed during generation: it broke","http_status_code":422}}` + "\n\ndata:[DONE]\n\n",
			Comment:     ":\n\n",
		},
		Server: func() http.Handler {
			return providertest.Routes(map[string]string{"GET /info": tgiInfo, "GET /health": "", "GET /metrics": tgiGauges + tgiSize})
		},
		Models: []providers.Model{{
			Name: "meta-llama/Llama-3.1-8B-Instruct", Kinds: text, State: schemas.Resident, Context: 4096, Digest: "0e9e39f249a16976918f6564b8830bc894c89659",
		}},
		Exchanges: append(tgiChats(), tgiCompletions()...),
		Failures:  tgiFailures(),
		Pressure:  &providers.Pressure{Running: 2, Waiting: 3, KVUsed: 0.25},
	}}
}

func tgiChats() []providertest.Exchange {
	call := func(name, arguments string) string {
		return tgiChunk(`{"role":"assistant","tool_calls":[{"index":0,"id":"0","type":"function","function":{"name":`+name+`,"arguments":`+quoted(arguments)+`}}]}`, "null")
	}
	refused := func(member, value string) providertest.Exchange {
		return providertest.Exchange{
			Request: `{"messages":[{"role":"user","content":"hi"}],"` + member + `":` + value + `}`,
			Code:    schemas.Unsupported, Param: member,
		}
	}
	return []providertest.Exchange{
		{
			Proves: providertest.Chat,
			Request: `{"messages":[{"role":"user","content":"hi"}],"max_tokens":9,"stop":"x","temperature":0.5,"top_p":1,"presence_penalty":0,"n":1,` +
				`"frequency_penalty":null,"a_member_of_tomorrow":1,"vramjet":{"x":1},"response_format":{"type":"text"}}`,
			Path:   "/v1/chat/completions",
			Sent:   `{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}],"max_tokens":9,"stop":["x"],"temperature":0.5,"a_member_of_tomorrow":1}`,
			Absent: []string{"top_p", "presence_penalty", "n", "vramjet", "response_format", "frequency_penalty"},
			Answer: tgiSays("Hel") + tgiSays("lo") + tgiChunk(`{"role":"assistant","content":"x"}`, `"stop_sequence"`) + tgiDone,
			Want:   `{"object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hellox"},"finish_reason":"stop"}],"usage":{"prompt_tokens":39,"completion_tokens":3,"total_tokens":42}}`,
		},
		{
			// the likeliest token, which a top_p would make it miss
			Request: `{"messages":[{"role":"user","content":"hi"}],"temperature":0,"top_p":0.9,"stop":["x","y"]}`,
			Sent:    `{"temperature":0,"stop":["x","y"]}`,
			Absent:  []string{"top_p"},
			Answer:  tgiSays("Yes") + tgiChunk(`{"role":"assistant","content":""}`, `"eos_token"`) + tgiDone,
			Want:    `{"choices":[{"message":{"content":"Yes"},"finish_reason":"stop"}]}`,
		},
		{
			// a tool call ends without a reason, and has its id in every piece
			Proves:  providertest.Tools,
			Request: `{"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"get","parameters":{"type":"object"}}}],"tool_choice":"required"}`,
			Sent:    `{"tools":[{"type":"function","function":{"name":"get","parameters":{"type":"object"}}}],"tool_choice":"required"}`,
			Answer:  call(`"get"`, "{") + call("null", ` "city": `) + call("null", `"Oslo"}`) + tgiDone,
			Want:    `{"choices":[{"message":{"content":null,"tool_calls":[{"id":"0","type":"function","function":{"name":"get","arguments":"{ \"city\": \"Oslo\"}"}}]},"finish_reason":"tool_calls"}]}`,
		},
		{
			Proves:  providertest.Vision,
			Request: `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC"}}]}]}`,
			Sent:    `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC"}}]}]}`,
			Answer:  tgiSays("A dot.") + tgiChunk(`{"role":"assistant","content":""}`, `"length"`) + tgiDone,
			Want:    `{"choices":[{"message":{"content":"A dot."},"finish_reason":"length"}]}`,
		},
		{
			Proves:  providertest.Schema,
			Request: `{"messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"properties":{}}}}}`,
			Sent:    `{"response_format":{"type":"json","value":{"properties":{}}}}`,
			Answer:  tgiSays("{}") + tgiChunk(`{"role":"assistant","content":""}`, `"stop"`) + tgiDone,
			Want:    `{"choices":[{"message":{"content":"{}"}}]}`,
		},
		refused("n", "2"),
		refused("logit_bias", `{"1":2}`),
		refused("presence_penalty", "0.5"),
		refused("response_format", `{"type":"json_object"}`),
	}
}

// The last event of a completion in TGI's own dialect.
const tgiEnd = `data:{"index":4,"token":{"id":128009,"text":"<|eot_id|>","logprob":-0.2,"special":true},"generated_text":" é \"answer","details":{"finish_reason":"eos_token","generated_tokens":4,"seed":42,"input_length":7}}` + "\n\n"

func tgiCompletions() []providertest.Exchange {
	const stream = `data:{"index":1,"token":{"id":578,"text":" é","logprob":-0.5,"special":false},"top_tokens":[{"id":578,"text":" é","logprob":-0.5,"special":false},{"id":220,"text":" ","logprob":-1.5,"special":false},{"id":221,"text":" ","logprob":-2,"special":false}],"generated_text":null,"details":null}` + "\n\n:\n\n" +
		`data: {"index":2,"token":{"id":4320,"text":" \"answer","logprob":-0.25,"special":false},"generated_text":null,"details":null}` + "\n\n" +
		`data: {"index":3,"token":{"id":1,"text":"<s>","logprob":-3,"special":true},"generated_text":null,"details":null}` + "\n\n" + tgiEnd
	refused := func(member, value string) providertest.Exchange {
		return providertest.Exchange{
			Kind:    schemas.Completion,
			Request: `{"prompt":"Once","` + member + `":` + value + `}`,
			Code:    schemas.Unsupported, Param: member,
		}
	}
	wrong := func(member, value string) providertest.Exchange {
		x := refused(member, value)
		x.Code = schemas.InvalidRequest
		return x
	}
	return []providertest.Exchange{
		{
			Proves: providertest.Completion, Kind: schemas.Completion,
			Request: `{"prompt":["Once"],"max_tokens":20,"temperature":0.7,"top_p":0.95,"top_k":5,"seed":42,"stop":"\n\n","frequency_penalty":0.1,"repetition_penalty":1.1,"best_of":1,"n":1,"user":"u","stream":true}`,
			Path:    "/generate_stream",
			Sent:    `{"inputs":"Once","parameters":{"max_new_tokens":20,"temperature":0.7,"top_p":0.95,"top_k":5,"do_sample":true,"stop":["\n\n"],"seed":42,"frequency_penalty":0.1,"repetition_penalty":1.1,"details":true,"adapter_id":"m"}}`,
			Absent:  []string{"user", "stream", "model", "prompt"},
			Answer:  stream,
			Want:    `{"object":"text_completion","model":"m","choices":[{"index":0,"text":" é \"answer","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":4,"total_tokens":11}}`,
		},
		{
			Kind:    schemas.Completion,
			Request: `{"prompt":"Once","temperature":0,"top_p":0.9,"top_k":3,"max_completion_tokens":2,"adapter_id":"lora"}`,
			Sent:    `{"parameters":{"do_sample":false,"max_new_tokens":2,"temperature":null,"top_p":null,"top_k":null,"adapter_id":"lora"}}`,
			Answer: `data:{"index":1,"token":{"id":578,"text":" a","logprob":-0.5,"special":false},"generated_text":null,"details":null}` + "\n\n" +
				`data:{"index":2,"token":{"id":4320,"text":" b","logprob":-0.25,"special":false},"generated_text":" a b","details":{"finish_reason":"length","generated_tokens":2,"seed":null,"input_length":1}}` + "\n\n",
			Want: `{"choices":[{"text":" a b","finish_reason":"length"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`,
		},
		{
			Kind:    schemas.Completion,
			Request: `{"prompt":"Once","logprobs":3}`,
			Sent:    `{"parameters":{"top_n_tokens":3,"do_sample":true}}`,
			Answer:  stream,
			Want:    `{"choices":[{"logprobs":{"tokens":[" é"," \"answer"],"token_logprobs":[-0.5,-0.25],"top_logprobs":[{" é":-0.5," ":-1.5},{}],"text_offset":[0,2]}}]}`,
		},
		{
			Proves: providertest.Schema, Kind: schemas.Completion,
			Request: `{"prompt":"Once","response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"properties":{}}}}}`,
			Sent:    `{"parameters":{"grammar":{"type":"json","value":{"properties":{}}}}}`,
			Answer:  stream,
		},
		{
			Kind:    schemas.Completion,
			Request: `{"prompt":"Once","response_format":{"type":"regex","value":"[0-9]"},"logprobs":0}`,
			Sent:    `{"parameters":{"grammar":{"type":"regex","value":"[0-9]"},"top_n_tokens":null}}`,
			Answer:  stream,
			Want:    `{"choices":[{"logprobs":{"tokens":[" é"," \"answer"],"token_logprobs":[-0.5,-0.25]}}]}`,
		},
		refused("n", "2"),
		refused("best_of", "2"),
		refused("suffix", `"end"`),
		refused("echo", "true"),
		refused("logit_bias", `{"1":2}`),
		refused("presence_penalty", "1"),
		refused("response_format", `{"type":"json_object"}`),
		refused("a_member_of_tomorrow", "1"),
		wrong("logprobs", "true"),
		{Kind: schemas.Completion, Request: `{"prompt":["a","b"]}`, Code: schemas.Unsupported, Param: "prompt"},
		{Kind: schemas.Completion, Request: `{"prompt":[1,2]}`, Code: schemas.Unsupported, Param: "prompt"},
		{Kind: schemas.Completion, Request: `{"prompt":""}`, Code: schemas.InvalidRequest, Param: "prompt"},
	}
}

// tgiErrors are errors as TGI words and types them, with what they are.
var tgiErrors = []struct {
	status        int
	text, errType string
	want          schemas.Code
}{
	{429, "Model is overloaded", "overloaded", schemas.Overloaded},
	{422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 200 `max_new_tokens`", "validation", schemas.ContextOverflow},
	{422, "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000", "validation", schemas.ContextOverflow},
	{422, "Input validation error: `max_new_tokens` must be strictly positive", "validation", schemas.InvalidRequest},
	{422, "Input validation error: `stop` supports up to 4 stop sequences. Given: 5", "validation", schemas.InvalidRequest},
	{422, "Input validation error: grammar is not supported", "validation", schemas.Unsupported},
	{424, "Request failed during generation: Server error: it broke", "generation", schemas.UpstreamError},
	{424, "Request failed during generation: CUDA out of memory. Tried to allocate 2.00 GiB", "generation", schemas.OutOfMemory},
	{500, "Incomplete generation", "incomplete_generation", schemas.StreamBroken},
	{500, "Incomplete generation stream", "incomplete_generation_stream", schemas.StreamBroken},
}

func tgiFailures() []providertest.Failure {
	failures := []providertest.Failure{
		{Status: 503, Body: `{"error":"unhealthy","error_type":"healthcheck"}`, Want: schemas.UpstreamError},
		{Status: 422, Body: `{"error":"Template error: unknown method: string has no method named strip","error_type":"template_error"}`, Want: schemas.InvalidRequest},
		{Status: 422, Body: "Failed to deserialize the JSON body into the target type: stop: invalid type: string", Want: schemas.InvalidRequest},
		{Status: 401, Want: schemas.Auth},
	}
	for _, e := range tgiErrors {
		failures = append(failures,
			providertest.Failure{Status: e.status, Body: `{"error":` + quoted(e.text) + `,"error_type":"` + e.errType + `"}`, Want: e.want},
			// in a chat's stream it says 422, whatever it is
			providertest.Failure{Status: 200, Body: `data:{"error":{"message":` + quoted(e.text) + `,"http_status_code":422}}` + "\n\ndata:[DONE]\n\n", Want: e.want})
	}
	return failures
}

// A completion is whole once the event came that holds its text: the server sends
// no [DONE], and all its errors under 200.
func TestTGICompletionStreams(t *testing.T) {
	const token = `data:{"index":1,"token":{"id":1,"text":"a","logprob":-1,"special":false},"generated_text":null,"details":null}` + "\n\n"
	type stream struct {
		body string
		want schemas.Code // "" is none
	}
	streams := []stream{
		{token + tgiEnd, ""},
		{token + strings.TrimRight(tgiEnd, "\n"), ""},
		{strings.ReplaceAll(token+tgiEnd, "\n", "\r\n"), ""},
		{token, schemas.StreamBroken},
		{token + "data: [DONE]\n\n", schemas.UpstreamError},
		{"", schemas.StreamBroken},
		{token + tgiEnd[:len(tgiEnd)/2], schemas.UpstreamError},
		{token + "data:{}\n\n", schemas.UpstreamError},
		{"<html>hello</html>", schemas.UpstreamError},
	}
	for _, e := range tgiErrors {
		failure := `data:{"error":` + quoted(e.text) + `,"error_type":"` + e.errType + `"}` + "\n\n"
		streams = append(streams, stream{failure, e.want}, stream{token + failure, e.want})
	}
	for _, s := range streams {
		p := newProvider(t, providers.KindTGI, fixed(t, map[string]string{"POST /generate_stream": s.body}))
		_, err := p.Generate(testContext(t), providers.Request{Kind: schemas.Completion, Model: "m", Body: []byte(`{"prompt":"hi"}`)}, func([]byte) error { return nil })
		if s.want == "" && err != nil || s.want != "" && (err == nil || schemas.AsError(err).Code != s.want) {
			t.Errorf("%q: %v, want %q", s.body, err, s.want)
		}
	}
}

// serve runs a server with that handler until the test ends, and returns its URL.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// What a server is that answers, but is not well; and a model that sees.
func TestTGIModels(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers map[string]string
		want    schemas.Code
		can     []providers.Ability
	}{
		{"sees", map[string]string{"GET /info": strings.Replace(tgiInfo, "text-generation", "image-text-to-text", 1), "GET /health": ""}, "", []providers.Ability{providers.Vision}},
		{"dead", map[string]string{"GET /info": tgiInfo, "GET /health": `503 {"error":"unhealthy","error_type":"healthcheck"}`}, schemas.UpstreamError, nil},
		{"embeds", map[string]string{"GET /info": `{"model_id":"BAAI/bge-m3","max_input_length":8192}`, "GET /health": ""}, schemas.UpstreamError, nil},
	} {
		srv := serve(t, providertest.Routes(c.answers))
		models, err := newProvider(t, providers.KindTGI, srv).Models(testContext(t))
		if c.want != "" {
			if err == nil || models != nil || schemas.AsError(err).Code != c.want {
				t.Errorf("%s: %v, %v", c.name, models, err)
			}
			continue
		}
		if err != nil || len(models) != 1 || !cmp.Equal(models[0].Abilities, c.can) {
			t.Errorf("%s: %+v, %v", c.name, models, err)
		}
	}
}

// A gauge that was never set is missing. It is 0 where the engine would set it,
// and unknown elsewhere.
func TestTGIPressure(t *testing.T) {
	for page, want := range map[string]providers.Pressure{
		tgiSize:                  {Running: 0, Waiting: 0, KVUsed: 0},
		tgiGauges:                {Running: 2, Waiting: 3, KVUsed: -1},
		"tgi_request_count 17\n": {Running: -1, Waiting: -1, KVUsed: -1},
	} {
		srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, page) }))
		got, err := newProvider(t, providers.KindTGI, srv).(providers.PressureReporter).Pressure(testContext(t), "m")
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", page, got, err)
		}
	}
}
