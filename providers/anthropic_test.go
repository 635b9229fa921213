package providers

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/schemas"
)

// relayAnthropic runs a stream through the provider and returns its chunks.
func relayAnthropic(stream string) (chunks []string, a Answer, err error) {
	p := &Anthropic{newServer(Config{Kind: KindAnthropic})}
	run := newAnthropicRun(40, time.Unix(7, 0))
	err = p.relay(bufio.NewReader(strings.NewReader(stream)), run, func() {}, func(chunk []byte) error {
		chunks = append(chunks, string(chunk))
		return nil
	})
	if err != nil {
		return chunks, Answer{}, err
	}
	return chunks, run.answer.whole(schemas.Chat, 40), nil
}

// dataOf writes events without their names, which nobody needs.
func dataOf(events ...string) string {
	var b strings.Builder
	for _, e := range events {
		b.WriteString("data: " + e + "\n\n")
	}
	return b.String()
}

func TestAnthropicChunks(t *testing.T) {
	got, _, err := relayAnthropic(dataOf(
		`{"type":"message_start","message":{"id":"msg_1","model":"c","usage":{"input_tokens":12,"cache_read_input_tokens":4,"output_tokens":1}}}`,
		`{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"h\"m"}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"Eq"}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"QB"}}`,
		`{"type":"content_block_stop","index":0}`,
		`{"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"Em"}}`,
		`{"type":"content_block_stop","index":1}`,
		`{"type":"ping"}`,
		`{"type":"content_block_start","index":2,"content_block":{"type":"text","text":""}}`,
		`{"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"a"}}`,
		`{"type":"content_block_stop","index":2}`,
		`{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"t1","name":"f","input":{}}}`,
		`{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{\"b\":1}"}}`,
		`{"type":"content_block_stop","index":3}`,
		`{"type":"content_block_start","index":4,"content_block":{"type":"tool_use","id":"t2","name":"g","input":{}}}`,
		`{"type":"content_block_stop","index":4}`,
		`{"type":"content_block_stop","index":4}`, // once more: it ends once
		`{"type":"content_block_start","index":5,"content_block":{"type":"tool_use","id":"t3","name":"h","input":{"at":"once"}}}`,
		`{"type":"content_block_stop","index":5}`,
		`{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":9}}`,
		`{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":10}}`,
		`{"type":"message_stop"}`,
	))
	if err != nil {
		t.Fatal(err)
	}
	const head = `{"id":"msg_1","object":"chat.completion.chunk","created":7,"model":"c","choices":[`
	delta := func(delta, finish string) string {
		return head + `{"index":0,"delta":{` + delta + `},"finish_reason":` + finish + `}]}`
	}
	want := []string{
		delta(`"role":"assistant","reasoning_content":"h\"m"`, "null"),
		delta(`"thinking_blocks":[{"type":"thinking","thinking":"h\"m","signature":"EqQB"}]`, "null"),
		delta(`"thinking_blocks":[{"type":"redacted_thinking","data":"Em"}]`, "null"),
		delta(`"content":"a"`, "null"),
		delta(`"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"f","arguments":""}}]`, "null"),
		delta(`"tool_calls":[{"index":0,"function":{"arguments":"{\"b\":1}"}}]`, "null"),
		delta(`"tool_calls":[{"index":1,"id":"t2","type":"function","function":{"name":"g","arguments":""}}]`, "null"),
		delta(`"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]`, "null"),
		delta(`"tool_calls":[{"index":2,"id":"t3","type":"function","function":{"name":"h","arguments":""}}]`, "null"),
		delta(`"tool_calls":[{"index":2,"function":{"arguments":"{\"at\":\"once\"}"}}]`, "null"),
		delta(``, `"tool_calls"`),
		head + `],"usage":{"prompt_tokens":16,"completion_tokens":10,"total_tokens":26,"prompt_tokens_details":{"cached_tokens":4}}}`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

const anthropicText = `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}`

func TestAnthropicFinish(t *testing.T) {
	for reason, want := range map[string]string{
		"end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "a_reason_of_tomorrow": "stop",
		"max_tokens": "length", "model_context_window_exceeded": "length", "tool_use": "tool_calls", "refusal": "content_filter",
	} {
		_, a, err := relayAnthropic(dataOf(anthropicText, `{"type":"message_delta","delta":{"stop_reason":"`+reason+`"}}`, `{"type":"message_stop"}`))
		if err != nil || !strings.Contains(string(a.Body), `"finish_reason":"`+want+`"`) {
			t.Errorf("%s: %v in %s", reason, err, a.Body)
		}
	}
}

// What the server counted before it was done is not what it counted.
func TestAnthropicUsageUntold(t *testing.T) {
	_, a, err := relayAnthropic(dataOf(`{"type":"message_start","message":{"usage":{"output_tokens":1}}}`, anthropicText, anthropicText, anthropicText,
		`{"type":"message_delta","delta":{"stop_reason":"end_turn"}}`, `{"type":"message_stop"}`))
	if want := (schemas.Usage{PromptTokens: 10, CompletionTokens: 3, TotalTokens: 13}); err != nil || a.Usage != want {
		t.Errorf("%+v %v, want %+v", a.Usage, err, want)
	}
}

func TestAnthropicEnd(t *testing.T) {
	const finish = `{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}`
	for name, stream := range map[string]string{
		"a reason is no end":     dataOf(anthropicText, finish),
		"OpenAI's marker is not": dataOf(anthropicText, finish, "[DONE]"),
		"nothing was said":       dataOf(`{"type":"message_start","message":{}}`, `{"type":"message_stop"}`),
	} {
		if _, _, err := relayAnthropic(stream); !errors.Is(err, io.EOF) && !errors.Is(err, errNotChunk) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Thoughts without a signature cannot go back.
	_, a, err := relayAnthropic(dataOf(`{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"h"}}`,
		`{"type":"content_block_stop","index":0}`, anthropicText, finish, `{"type":"message_stop"}`))
	if err != nil || strings.Contains(string(a.Body), "thinking_blocks") || !strings.Contains(string(a.Body), `"reasoning_content":"h"`) {
		t.Errorf("%v in %s", err, a.Body)
	}
}

// Any text makes chunks that are JSON objects, and an answer that is one, or an
// error.
func FuzzAnthropicStream(f *testing.F) {
	f.Add([]byte(dataOf(`{"type":"message_start","message":{"id":"msg_1","model":"c","usage":{"input_tokens":12}}}`,
		`{"type":"content_block_start","content_block":{"type":"thinking","signature":"x"}}`, `{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"\ud83d"}}`, `{"type":"content_block_stop"}`,
		`{"type":"content_block_start","content_block":{"type":"redacted_thinking","data":[1 ]}}`, anthropicText,
		`{"type":"content_block_start","content_block":{"type":"tool_use","id":7,"name":"f","input":{"a":"\""}}}`, `{"type":"content_block_stop"}`,
		`{"type":"message_delta","delta":{"stop_reason":"refusal","stop_details":{"explanation":"x"}},"usage":{"output_tokens":1,"output_tokens_details":{"thinking_tokens":1}}}`, `{"type":"message_stop"}`)))
	f.Add([]byte("event: x\ndata: {\"type\":\"content_block_delta\",\ndata: \"delta\":{\"type\":\"text_delta\",\"text\":\"\xff\"}}\n\ndata: {\"type\":\"message_stop\"}\n\n"))
	f.Add([]byte(dataOf(`{"type":"content_block_delta","delta":[]}`, `{"type":"message_start","message":"x"}`, `{"type":"message_delta","delta":{"stop_reason":""},"usage":7}`, `{"error":{}}`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		chunks, a, err := relayAnthropic(string(b))
		for _, c := range chunks {
			if !json.Valid([]byte(c)) || c[0] != '{' {
				t.Errorf("%s from %s", c, b)
			}
		}
		if err == nil && (!json.Valid(a.Body) || a.Body[0] != '{') {
			t.Errorf("%s from %s", a.Body, b)
		}
	})
}

func TestToAnthropic(t *testing.T) {
	const hi = `"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]`
	const tools = `"tools":[{"type":"function","function":{"name":"f","parameters":null}}]`
	const theirs = `"tools":[{"name":"f","input_schema":{"type":"object","properties":{}}}]`
	for _, c := range []struct{ body, want string }{ // want without model and stream
		{hi, hi + `,"max_tokens":8192`},
		{hi + `,"max_tokens":7,"max_completion_tokens":9`, hi + `,"max_tokens":9`},
		{hi + `,"max_completion_tokens":9,"max_tokens":7`, hi + `,"max_tokens":9`},
		{hi + `,"thinking":{"type":"enabled","budget_tokens":10000}`, hi + `,"max_tokens":18192,"thinking":{"type":"enabled","budget_tokens":10000}`},
		{hi + `,"stop":["x","y"],"temperature":null`, hi + `,"max_tokens":8192,"stop_sequences":["x","y"]`},
		{hi + `,"stop":[]`, hi + `,"max_tokens":8192`},
		// who asks
		{hi + `,"user":"u","metadata":{"run":"1"}`, hi + `,"max_tokens":8192,"metadata":{"user_id":"u"}`},
		{hi + `,"safety_identifier":"s","metadata":{"user_id":"m","run":"1"},"user":"u"`, hi + `,"max_tokens":8192,"metadata":{"user_id":"m"}`},
		// tools
		{hi + `,"tools":[],"tool_choice":"auto","parallel_tool_calls":false`, hi + `,"max_tokens":8192`},
		{hi + `,` + tools, hi + `,"max_tokens":8192,` + theirs},
		{hi + `,` + tools + `,"parallel_tool_calls":true`, hi + `,"max_tokens":8192,` + theirs},
		{hi + `,"parallel_tool_calls":false,` + tools, hi + `,"max_tokens":8192,` + theirs + `,"tool_choice":{"type":"auto","disable_parallel_tool_use":true}`},
		{hi + `,"parallel_tool_calls":false,"tool_choice":"none",` + tools, hi + `,"max_tokens":8192,` + theirs + `,"tool_choice":{"type":"none"}`},
		{hi + `,"tool_choice":{"type":"function","function":{"name":"f"}},` + tools, hi + `,"max_tokens":8192,` + theirs + `,"tool_choice":{"type":"tool","name":"f"}`},
		// how hard to think, and how the answer looks: Anthropic's own words win
		{hi + `,"reasoning_effort":"minimal"`, hi + `,"max_tokens":8192,"thinking":{"type":"adaptive","display":"summarized"},"output_config":{"effort":"low"}`},
		{hi + `,"thinking":{"type":"adaptive"},"reasoning_effort":"none"`, hi + `,"max_tokens":8192,"thinking":{"type":"adaptive"}`},
		{
			hi + `,"reasoning_effort":"low","thinking":{"type":"adaptive"},"output_config":{"effort":"max"},"response_format":{"type":"json_schema","json_schema":{"schema":{}}}`,
			hi + `,"max_tokens":8192,"thinking":{"type":"adaptive"},"output_config":{"effort":"max","format":{"type":"json_schema","schema":{}}}`,
		},
		{hi + `,"cache_control":{"type":"ephemeral"},"container":"c","service_tier":"auto"`, hi + `,"max_tokens":8192,"cache_control":{"type":"ephemeral"},"container":"c","service_tier":"auto"`},
		// messages that say nothing, and a refusal, which says something
		{
			`"messages":[{"role":"user","content":"a"},{"role":"assistant","content":" \n","audio":null},{"role":"user","content":"b"},{"role":"assistant","content":null,"refusal":"No."},{"role":"user","content":"c"}]`,
			`"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},{"role":"assistant","content":[{"type":"text","text":"No."}]},{"role":"user","content":[{"type":"text","text":"c"}]}],"max_tokens":8192`,
		},
		{
			`"messages":[{"role":"user","content":"a"},{"role":"assistant","reasoning_content":"h","content":"b"},{"role":"tool","tool_call_id":"c","content":""}]`,
			`"messages":[{"role":"user","content":[{"type":"text","text":"a"}]},{"role":"assistant","content":[{"type":"text","text":"b"}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"c"}]}],"max_tokens":8192`,
		},
	} {
		got, err := toAnthropic(Request{Kind: schemas.Chat, Model: "m", Body: []byte("{" + c.body + "}")})
		if err != nil {
			t.Errorf("%s: %v", c.body, err)
			continue
		}
		var g, w any
		if err := json.Unmarshal(got, &g); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte("{"+c.want+`,"model":"m","stream":true}`), &w); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(w, g); d != "" {
			t.Errorf("%s: %s", c.body, d)
		}
	}
}

func TestAnthropicRefuses(t *testing.T) {
	const hi = `"messages":[{"role":"user","content":"hi"}]`
	for body, param := range map[string]string{
		`{"messages":[]}`:                        "messages",
		`{"messages":[{"role":"user"}]}`:         "messages",
		`{"messages":{}}`:                        "messages",
		`{` + hi + `,"stop":1}`:                  "stop",
		`{` + hi + `,"tools":{}}`:                "tools",
		`{` + hi + `,"metadata":1}`:              "metadata",
		`{` + hi + `,"output_config":1}`:         "output_config",
		`{` + hi + `,"reasoning_effort":1}`:      "reasoning_effort",
		`{` + hi + `,"parallel_tool_calls":1}`:   "parallel_tool_calls",
		`{` + hi + `,"max_completion_tokens":0}`: "max_completion_tokens",
		`{` + hi + `,"response_format":{"type":"json_schema","json_schema":{}}}`:                                 "response_format",
		`{"messages":[{"role":"tool","content":"x"}]}`:                                                           "messages",
		`{"messages":[{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":"[]"}}]}]}`: "messages",
		`{"messages":[{"role":"assistant","thinking_blocks":[{"type":"text"}]}]}`:                                "messages",
		`[`: "",
	} {
		_, err := toAnthropic(Request{Kind: schemas.Chat, Model: "m", Body: []byte(body)})
		if e := schemas.AsError(err); err == nil || e.Code != schemas.InvalidRequest || e.Param != param {
			t.Errorf("%s: %v (%s)", body, err, e.Param)
		}
	}
}

// A list that goes on for ever is an error, and what stands in the query of the
// URL stays there.
func TestAnthropicEndlessList(t *testing.T) {
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; r.URL.Query().Get("tenant") != "t" {
			t.Errorf("asked for %s", r.URL)
		}
		_, _ = io.Copy(w, bytes.NewReader([]byte(`{"data":[{"id":"c"}],"has_more":true,"last_id":"c"}`)))
	}))
	defer srv.Close()
	p, err := New(Config{Kind: KindAnthropic, URL: srv.URL + "/v1?tenant=t", HTTP: srv.Client()})
	if err != nil {
		t.Fatal(err)
	}
	models, err := p.Models(t.Context())
	if schemas.AsError(err).Code != schemas.UpstreamError || models != nil || asked != maxPages {
		t.Errorf("%v %v after %d pages", models, err, asked)
	}
}

func BenchmarkAnthropic(b *testing.B) {
	event := `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" there"}}`
	events := sseReader{lines: lineReader{r: bufio.NewReaderSize(&endless{line: []byte("event: content_block_delta\ndata: " + event + "\n\n")}, readerSize)}}
	run := newAnthropicRun(0, time.Now())
	b.ReportAllocs()
	for b.Loop() {
		data, err := events.next()
		if err != nil {
			b.Fatal(err)
		}
		chunk, err := run.chunk(data)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := run.answer.add(chunk); err != nil {
			b.Fatal(err)
		}
	}
}
