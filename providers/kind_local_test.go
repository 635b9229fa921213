package providers_test

import (
	"slices"
	"strings"

	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

func localKinds() []providertest.Kind {
	return slices.Concat(vllmKinds(), sglangKinds(), lmStudioKinds(), localAIKinds())
}

// A wire is how a vendor's server writes what OpenAI's API left open.
type wire struct {
	chunk      func(delta, finish string) string // finish is JSON
	text       func(text, finish string) string  // a chunk of a completion
	role       string                            // the first delta
	content    func(text string) string          // a delta that brings text, which is JSON
	last       string                            // the delta that comes with the finish reason
	thoughts   []string                          // deltas that bring "H" and "m"
	tools      []string                          // deltas that call get_weather for Paris
	end        string                            // usage of 13 and 7 tokens, and the final marker
	embeddings string                            // of two inputs
	used       int                               // tokens of embeddings: what the server says, or what we estimate
}

func (w *wire) done(finish string) string { return w.chunk(w.last, `"`+finish+`"`) + w.end }

func (w *wire) chunks(deltas ...string) string {
	all := w.chunk(w.role, "null")
	for _, d := range deltas {
		all += w.chunk(d, "null")
	}
	return all
}

// dialect is how the vendor streams, with an error as it writes one into a stream.
func (w *wire) dialect(failure string) providertest.Dialect {
	return providertest.Dialect{
		ContentType: "text/event-stream; charset=utf-8",
		Chunk:       func(text string) string { return w.chunk(w.content(quoted(text)), "null") },
		End:         w.done("stop"),
		Error:       failure,
		Comment:     ": ping\n\n",
	}
}

// exchanges are what all of them can do.
func (w *wire) exchanges() []providertest.Exchange {
	const hi = `{"messages":[{"role":"user","content":"hi"}]`
	usage := map[bool]string{true: `{"prompt_tokens":4,"total_tokens":4}`, false: `{"prompt_tokens":2,"total_tokens":2}`}[w.used == 4]
	return []providertest.Exchange{
		{
			Proves:  providertest.Chat,
			Request: hi + `,"max_tokens":9,"top_k":5,"vramjet":{"x":1}}`,
			Path:    "/v1/chat/completions",
			Sent:    `{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}],"max_tokens":9,"top_k":5}`,
			Absent:  []string{"vramjet"},
			Answer:  w.chunks(w.content(`"Hel"`), w.content(`"lo"`)) + w.done("stop"),
			Want:    `{"object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":13,"completion_tokens":7,"total_tokens":20}}`,
		},
		{
			Proves: providertest.Completion, Kind: schemas.Completion,
			Request: `{"prompt":"Once"}`,
			Path:    "/v1/completions",
			Sent:    `{"model":"m","stream":true,"prompt":"Once"}`,
			Answer:  w.text(`" upon"`, "null") + w.text(`""`, `"length"`) + strings.Replace(w.end, "chat.completion.chunk", "text_completion", 1),
			Want:    `{"object":"text_completion","choices":[{"text":" upon","finish_reason":"length"}],"usage":{"prompt_tokens":13,"completion_tokens":7,"total_tokens":20}}`,
		},
		{
			Proves: providertest.Embeddings, Kind: schemas.Embedding,
			Request: `{"input":["a","b"]}`,
			Path:    "/v1/embeddings",
			Sent:    `{"model":"m","input":["a","b"]}`,
			Answer:  w.embeddings,
			Want:    `{"object":"list","data":[{"index":0,"embedding":[0.5,-1]},{"index":1,"embedding":[2,3]}],"usage":` + usage + `}`,
		},
		{
			Proves:  providertest.Tools,
			Request: hi + `,"tools":[{"type":"function","function":{"name":"get_weather"}}]}`,
			Sent:    `{"tools":[{"type":"function","function":{"name":"get_weather"}}]}`,
			Answer:  w.chunks(w.tools...) + w.done("tool_calls"),
			Want:    `{"choices":[{"message":{"content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"get_weather","arguments":"{\"city\": \"Paris\"}"}}]},"finish_reason":"tool_calls"}]}`,
		},
		{
			Proves:  providertest.Vision,
			Request: `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC"}}]}]}`,
			Sent:    `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC"}}]}]}`,
			Answer:  w.chunks(w.content(`"A dot."`)) + w.done("stop"),
			Want:    `{"choices":[{"message":{"content":"A dot."}}]}`,
		},
		{
			Proves:  providertest.Reasoning,
			Request: hi + `}`,
			Answer:  w.chunks(append(slices.Clone(w.thoughts), w.content(`"Yes"`))...) + w.done("stop"),
			Want:    `{"choices":[{"message":{"content":"Yes","reasoning_content":"Hm"}}]}`,
		},
		{
			Proves:  providertest.Schema,
			Request: hi + `,"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}}`,
			Sent:    `{"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}}`,
			Answer:  w.chunks(w.content(`"{}"`)) + w.done("stop"),
			Want:    `{"choices":[{"message":{"content":"{}"}}]}`,
		},
	}
}
