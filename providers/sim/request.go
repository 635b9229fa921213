package sim

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// A request is what both dialects ask.
type request struct {
	kind   schemas.Kind
	model  string
	prompt string // what the answer depends on
	text   string // all of it, for counting
	tokens int    // most to generate; 0: as many as the model likes
	stops  []string
	stream bool
	usage  bool     // a chunk with usage is wanted
	inputs []string // of an embedding

	priority int // of those that wait for a slot, the lowest is first
}

// body is a request of either dialect.
type body struct {
	Model    string          `json:"model"`
	Messages []message       `json:"messages"`
	Prompt   json.RawMessage `json:"prompt"`
	Input    json.RawMessage `json:"input"`
	Stream   *bool           `json:"stream"`
	Options  struct {
		NumPredict int             `json:"num_predict"`
		Stop       json.RawMessage `json:"stop"`
	} `json:"options"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	MaxTokens           int             `json:"max_tokens"`
	MaxCompletionTokens int             `json:"max_completion_tokens"`
	Stop                json.RawMessage `json:"stop"`
	KeepAlive           json.RawMessage `json:"keep_alive"`
	Priority            int             `json:"priority"`
}

type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

func invalid(format string, args ...any) *problem {
	return &problem{status: http.StatusBadRequest, text: fmt.Sprintf(format, args...), kind: "invalid_request_error"}
}

func readBody(r *http.Request) (*body, error) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var b body
	if err := json.Unmarshal(raw, &b); err != nil {
		return nil, invalid("%s", err)
	}
	if b.Model == "" {
		return nil, invalid("model name is missing from the request")
	}
	return &b, nil
}

// request reads what is asked. streams is the dialect's default for stream.
func (b *body) request(kind schemas.Kind, streams bool) (*request, error) {
	q := &request{kind: kind, model: b.Model, stream: streams, usage: b.StreamOptions.IncludeUsage, priority: b.Priority}
	if b.Stream != nil {
		q.stream = *b.Stream
	}
	q.tokens = max(b.MaxTokens, b.MaxCompletionTokens, b.Options.NumPredict)
	q.stops = append(texts(b.Stop), texts(b.Options.Stop)...)
	switch kind {
	case schemas.Chat:
		if len(b.Messages) == 0 {
			return nil, invalid("'messages' is required")
		}
		for _, m := range b.Messages {
			q.prompt = content(m.Content)
			q.text += q.prompt
		}
	case schemas.Completion:
		if b.Prompt == nil {
			return nil, invalid("key 'prompt' not found")
		}
		q.prompt = strings.Join(texts(b.Prompt), "")
		q.text = q.prompt
	case schemas.Embedding:
		q.inputs = texts(b.Input)
		if len(q.inputs) == 0 {
			return nil, invalid(`"input" must not be empty`)
		}
		q.text = strings.Join(q.inputs, "")
	}
	return q, nil
}

// texts reads a string or a list of strings. An item that is neither counts as
// its own JSON.
func texts(raw json.RawMessage) []string {
	var one string
	var many []json.RawMessage
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return nil
	case json.Unmarshal(raw, &one) == nil:
		return []string{one}
	case json.Unmarshal(raw, &many) != nil:
		return []string{string(raw)}
	}
	var found []string
	for _, item := range many {
		if json.Unmarshal(item, &one) != nil {
			one = string(item)
		}
		found = append(found, one)
	}
	return found
}

// content reads the text of a message: a string, or parts of it.
func content(raw json.RawMessage) string {
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(raw, &parts) != nil {
		return strings.Join(texts(raw), "")
	}
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.Text)
	}
	return b.String()
}

// check returns why a model cannot do what is asked.
func (q *request) check(m *Model) error {
	if !slices.Contains(m.Kinds, q.kind) {
		return &problem{status: http.StatusNotImplemented, text: fmt.Sprintf("%q does not support %s", m.Name, q.kind), kind: "not_supported_error"}
	}
	if n := count(q.text); n >= m.Context {
		return &problem{
			status: http.StatusBadRequest, kind: "exceed_context_size_error",
			text: fmt.Sprintf("request (%d tokens) exceeds the available context size (%d tokens), try increasing it", n, m.Context),
		}
	}
	return nil
}

// plan returns the tokens of the answer and why it ends.
func (q *request) plan(m *Model) (tokens []string, finish string) {
	n, finish := m.Tokens, "stop"
	if q.tokens > 0 && q.tokens < n || q.tokens > n {
		n, finish = q.tokens, "length"
	}
	if room := m.Context - count(q.text); n > room {
		n, finish = room, "length"
	}
	at := start(q.prompt)
	var text strings.Builder
	tokens = make([]string, 0, n)
	for i := range n {
		w := word(at, i)
		before := text.Len()
		if len(q.stops) > 0 {
			text.WriteString(w)
			if end := firstStop(text.String(), q.stops); end >= 0 {
				if end > before {
					tokens = append(tokens, w[:end-before])
				}
				return tokens, "stop"
			}
		}
		tokens = append(tokens, w)
	}
	return tokens, finish
}

// firstStop returns where the first of the stops is in text, -1 if nowhere.
func firstStop(text string, stops []string) int {
	first := -1
	for _, s := range stops {
		if i := strings.Index(text, s); s != "" && i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	return first
}
