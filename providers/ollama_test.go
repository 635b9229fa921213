package providers

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/schemas"
)

func TestToOllama(t *testing.T) {
	for _, c := range []struct {
		kind       schemas.Kind
		body, want string // want without model and stream
	}{
		{
			schemas.Chat, `{"messages":[{"role":"user","content":"hi"}],"temperature":0.5,"max_tokens":7,"stop":"x","seed":1,"top_p":null,"user":"u","vramjet":1}`,
			`{"messages":[{"role":"user","content":"hi"}],"options":{"temperature":0.5,"num_predict":7,"stop":["x"],"seed":1}}`,
		},
		{
			schemas.Chat, `{"messages":[{"role":"developer","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC"}}]}],"keep_alive":"1h"}`,
			`{"messages":[{"role":"system","content":"a","images":["AAEC"]}]}`,
		},
		{
			schemas.Chat, `{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"c","function":{"name":"f","arguments":"{\"b\":1,\"a\":2}"}}]},{"role":"tool","tool_call_id":"c","content":"3"}],"tools":[1],"tool_choice":"auto"}`,
			`{"messages":[{"role":"assistant","content":"","tool_calls":[{"id":"c","function":{"index":0,"name":"f","arguments":{"b":1,"a":2}}}]},{"role":"tool","content":"3","tool_name":"f","tool_call_id":"c"}],"tools":[1]}`,
		},
		{
			schemas.Chat, `{"messages":[{"role":"user","content":"hi"}],"tool_choice":"none","tools":[1],"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object"}}},"reasoning_effort":"low"}`,
			`{"messages":[{"role":"user","content":"hi"}],"format":{"type":"object"},"think":"low"}`,
		},
		{
			schemas.Chat, `{"messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_object"},"reasoning":{"effort":"none"},"n":1,"logprobs":false,"options":{"top_k":9,"temperature":1},"temperature":0}`,
			`{"messages":[{"role":"user","content":"hi"}],"format":"json","think":false,"options":{"top_k":9,"temperature":1}}`,
		},
		{schemas.Completion, `{"prompt":["hi"],"suffix":"s"}`, `{"prompt":"hi","suffix":"s"}`},
		{schemas.Embedding, `{"input":["a","b"],"dimensions":3,"encoding_format":"float"}`, `{"input":["a","b"],"dimensions":3}`},
	} {
		got, err := toOllama(Request{Kind: c.kind, Model: "m", Body: []byte(c.body)})
		if err != nil {
			t.Errorf("%s: %v", c.body, err)
			continue
		}
		var g, w map[string]any
		if err := json.Unmarshal(got, &g); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(c.want), &w); err != nil {
			t.Fatal(err)
		}
		w["model"], w["truncate"] = "m", false
		if c.kind != schemas.Embedding {
			w["stream"] = true
		}
		if d := cmp.Diff(w, g); d != "" {
			t.Errorf("%s: %s", c.body, d)
		}
	}
}

func TestOllamaRefuses(t *testing.T) {
	const messages = `"messages":[{"role":"user","content":"hi"}]`
	for _, c := range []struct {
		kind  schemas.Kind
		body  string
		want  schemas.Code
		param string
	}{
		{schemas.Chat, `{` + messages + `,"max_tokens":0}`, schemas.InvalidRequest, "max_tokens"},
		{schemas.Chat, `{` + messages + `,"max_completion_tokens":"x"}`, schemas.InvalidRequest, "max_completion_tokens"},
		{schemas.Chat, `{` + messages + `,"options":{"num_predict":0}}`, schemas.InvalidRequest, "options.num_predict"},
		{schemas.Chat, `{` + messages + `,"options":{"NUM_CTX":9}}`, schemas.Unsupported, "options.NUM_CTX"},
		{schemas.Chat, `{` + messages + `,"n":2}`, schemas.Unsupported, "n"},
		{schemas.Chat, `{` + messages + `,"x":[1]}`, schemas.Unsupported, "x"},
		{schemas.Chat, `{` + messages + `,"parallel_tool_calls":false}`, schemas.Unsupported, "parallel_tool_calls"},
		{schemas.Completion, `{"prompt":"a","logprobs":3}`, schemas.Unsupported, "logprobs"},
		{schemas.Chat, `{` + messages + `,"logit_bias":{"1":2}}`, schemas.Unsupported, "logit_bias"},
		{schemas.Chat, `{` + messages + `,"audio":{}}`, schemas.Unsupported, "audio"},
		{schemas.Chat, `{` + messages + `,"tool_choice":"required"}`, schemas.Unsupported, "tool_choice"},
		{schemas.Chat, `{"messages":[]}`, schemas.InvalidRequest, "messages"},
		{schemas.Chat, `{"messages":[{"content":[{"type":"image_url","image_url":{"url":"http://x/y.png"}}]}]}`, schemas.Unsupported, "messages"},
		{schemas.Chat, `{"messages":[{"tool_calls":[{"function":{"arguments":"[]"}}]}]}`, schemas.InvalidRequest, "messages"},
		{schemas.Completion, `{"prompt":""}`, schemas.InvalidRequest, "prompt"},
		{schemas.Completion, `{"prompt":[1,2]}`, schemas.Unsupported, "prompt"},
		{schemas.Completion, `{"prompt":["a","b"]}`, schemas.Unsupported, "prompt"},
		{schemas.Embedding, `{"input":[]}`, schemas.InvalidRequest, "input"},
		{schemas.Embedding, `{"input":"a","encoding_format":"base64"}`, schemas.Unsupported, "encoding_format"},
		{schemas.Chat, `[`, schemas.InvalidRequest, ""},
	} {
		_, err := toOllama(Request{Kind: c.kind, Model: "m", Body: []byte(c.body)})
		e := schemas.AsError(err)
		if err == nil || e.Code != c.want || e.Param != c.param {
			t.Errorf("%s: %v (%s), want %s", c.body, err, e.Param, c.want)
		}
	}
}

func TestOllamaChunks(t *testing.T) {
	run := ollamaRun{retold: retold{kind: schemas.Chat, created: 7, prompt: 40}}
	var got []string
	for _, line := range []string{
		`{"model":"m","message":{"role":"assistant","content":"","thinking":"h\"m"},"done":false}`,
		`{"model":"m","message":{"role":"assistant","content":"a"},"done":false}`,
		`{"model":"m","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"b":"\n","a":1}},"id":"c1"}]},"done":false}`,
		`{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","eval_count":3}`,
	} {
		chunk, err := run.chunk([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(chunk[len(run.head):]))
		if _, err := run.answer.add(chunk); err != nil {
			t.Fatal(err)
		}
	}
	got = append(got, string(run.usage()[len(run.head):]))
	want := []string{
		`{"index":0,"delta":{"role":"assistant","reasoning_content":"h\"m"},"finish_reason":null}]}`,
		`{"index":0,"delta":{"content":"a"},"finish_reason":null}]}`,
		`{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{\"b\":\"\\n\",\"a\":1}"}}]},"finish_reason":null}]}`,
		`{"index":0,"delta":{},"finish_reason":"tool_calls"}]}`,
		`],"usage":{"prompt_tokens":10,"completion_tokens":3,"total_tokens":13}}`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !run.done {
		t.Error("not done")
	}
}
