package providers

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/vramjet/vramjet/schemas"
)

// Whatever a body is, it is refused, or what goes to the server is JSON.
func FuzzTranslate(f *testing.F) {
	for _, body := range []string{
		`{"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}],"max_tokens":3,"stop":["x"],"stream":true,"response_format":{"type":"json_object"}}`,
		`{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},{"role":"tool","tool_call_id":"1","content":"7"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"tool_choice":{"type":"function","function":{"name":"f"}},"reasoning_effort":"low"}`,
		`{"prompt":["a","b"],"logprobs":5,"top_p":1,"temperature":0,"seed":1,"Model":"x","stream_options":{"include_usage":true},"user":"u","service_tier":"flex"}`,
		`{"input":["a",[1,2]],"dimensions":3,"encoding_format":"base64"}`,
		`{"options":{"num_ctx":1},"think":true,"thinking":{"type":"enabled","budget_tokens":-1},"metadata":{"user_id":7},"n":1e999,"messages":{}}`,
	} {
		f.Add([]byte(body))
	}
	dialects := map[string]func(Request) ([]byte, error){
		"openai": patch, "ollama": toOllama, "anthropic": toAnthropic, "bedrock": toBedrock, "tgi chat": toTGIChat,
		"tgi": func(r Request) ([]byte, error) { body, _, err := toTGI(r); return body, err },
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var object map[string]json.RawMessage
		if json.Unmarshal(body, &object) != nil || object == nil {
			return // no job has such a body
		}
		for _, kind := range []schemas.Kind{schemas.Chat, schemas.Completion, schemas.Embedding} {
			for name, to := range dialects {
				got, err := to(Request{Kind: kind, Model: "m", Body: body, Class: schemas.Normal})
				if err == nil && !json.Valid(got) {
					t.Errorf("%s for %s: %q from %q", kind, name, got, body)
				}
			}
			inputs(body)
		}
	})
}

// Whatever a server says of itself, what is no metric is left out.
func FuzzReadMetrics(f *testing.F) {
	f.Add([]byte("# HELP a b\n# TYPE a gauge\na{b=\"c\",d=\"} \"} 1.5 1700000000\nc 7\n{} 1\nx NaN\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for name, samples := range readMetrics(text) {
			for _, s := range samples {
				if math.IsNaN(s.value) {
					t.Errorf("%q is not a number", name)
				}
				s.label("b")
			}
		}
	})
}
