package providers

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// anthropicMaxTokens is how many tokens an answer may have where the request does
// not say, beside what it grants for thinking: OpenAI takes that for no limit, and
// Anthropic demands one. Every model since Claude 3.5 can write that much.
const anthropicMaxTokens = 8192

// anthropicWords say what becomes of OpenAI's members, and of Anthropic's own,
// which a caller may use who knows what it speaks to.
var anthropicWords = map[string]translator{
	"model": drop, "vramjet": drop, "stream": drop, "stream_options": drop, "prompt_cache_key": drop, "prompt_cache_retention": drop, "prediction": drop,

	"messages": anthropicBlocks.messages, "tools": anthropicTools, "tool_choice": pass, "parallel_tool_calls": pass,
	"max_tokens": maxTokens, "max_completion_tokens": maxTokens, "stop": stopSequences,
	"temperature": pass, "top_p": pass, "top_k": pass,
	"response_format": anthropicFormat, "reasoning_effort": anthropicEffort, "service_tier": serviceTier,
	"user": userID, "safety_identifier": userID, "metadata": anthropicMetadata,

	"n": only("1"), "logit_bias": only("{}"), "store": only("false"), "modalities": only(`["text"]`), "logprobs": only("false"), "top_logprobs": only("0"),
	"presence_penalty": only("0", "0.0"), "frequency_penalty": only("0", "0.0"), "functions": only("[]"), "function_call": only(`"none"`, `"auto"`),

	"thinking": pass, "output_config": outputConfig, "cache_control": pass, "container": pass,
}

// toAnthropic returns the body of the request in Anthropic's dialect. The options
// of the translation are its output_config: how the answer is to look.
func toAnthropic(req Request) ([]byte, error) {
	t, err := translate("Anthropic", req, anthropicWords)
	if err != nil {
		return nil, err
	}
	if t.out["messages"] == nil {
		return nil, wrong("messages", "must hold at least one message")
	}
	if err := t.choose(); err != nil {
		return nil, err
	}
	if t.out["max_tokens"] == nil {
		var thinking struct {
			Budget int `json:"budget_tokens"`
		}
		_ = json.Unmarshal(t.out["thinking"], &thinking) // a wrong one is for the API to refuse
		t.out["max_tokens"] = marshal(anthropicMaxTokens + max(0, thinking.Budget))
	}
	if len(t.options) > 0 {
		t.out["output_config"] = marshal(t.options)
	}
	t.out["model"] = quote(req.Model)
	t.out["stream"] = json.RawMessage("true")
	return marshal(t.out), nil
}

// maxTokens bounds the answer. Of its two names the newer one counts.
func maxTokens(t *translation, name string, raw json.RawMessage) error {
	if atoi(raw) < 1 {
		return wrong(name, "must be at least 1")
	}
	if name == "max_completion_tokens" || t.out["max_tokens"] == nil {
		t.out["max_tokens"] = raw
	}
	return nil
}

func stopSequences(t *translation, name string, raw json.RawMessage) error {
	texts, ok := stringOrStrings(raw)
	if !ok {
		return wrong(name, "must be a string, or a list of strings")
	}
	if len(texts) > 0 {
		t.out["stop_sequences"] = marshal(texts)
	}
	return nil
}

func serviceTier(t *translation, name string, raw json.RawMessage) error {
	switch string(raw) {
	case `"auto"`, `"standard_only"`:
		t.out[name] = raw
	case `"default"`:
		t.out[name] = json.RawMessage(`"standard_only"`)
	default:
		return t.unsupported(name, ": "+cut(string(raw), 40))
	}
	return nil
}

// userID says on whose behalf the request is, unless that was said before.
func userID(t *translation, _ string, raw json.RawMessage) error {
	if t.out["metadata"] == nil {
		t.out["metadata"] = slicesConcat(`{"user_id":`, raw, `}`)
	}
	return nil
}

// anthropicMetadata passes the one thing that Anthropic takes there. What else
// OpenAI's callers note there is for their own books, and changes no answer.
func anthropicMetadata(t *translation, name string, raw json.RawMessage) error {
	var given map[string]json.RawMessage
	if json.Unmarshal(raw, &given) != nil {
		return wrong(name, "must be an object")
	}
	if id := given["user_id"]; id != nil {
		t.out[name] = slicesConcat(`{"user_id":`, id, `}`)
	}
	return nil
}

func anthropicFormat(t *translation, name string, raw json.RawMessage) error {
	var f responseFormat
	if json.Unmarshal(raw, &f) != nil {
		return wrong(name, "must be an object")
	}
	switch {
	case f.Type == "text":
		return nil
	case f.Type == "json_schema" && f.Schema.Schema != nil:
		return option(t, "format", slicesConcat(`{"type":"json_schema","schema":`, f.Schema.Schema, `}`))
	case f.Type == "json_schema":
		return wrong(name, "has no schema")
	default:
		return t.unsupported(name, fmt.Sprintf(`: the type %q; it takes a "json_schema"`, f.Type))
	}
}

// anthropicEffort has the model think as much as it finds right at that effort,
// and show it. Models since Claude 4.6 do that; the newest do nothing else. Older
// ones refuse it: for them callers send Anthropic's own "thinking", with a budget,
// which wins over this.
func anthropicEffort(t *translation, name string, raw json.RawMessage) error {
	var level string
	if json.Unmarshal(raw, &level) != nil {
		return wrong(name, "must be a string")
	}
	thinking := `{"type":"adaptive","display":"summarized"}`
	if level == "none" {
		thinking = `{"type":"disabled"}`
	}
	if t.out["thinking"] == nil {
		t.out["thinking"] = json.RawMessage(thinking)
	}
	switch level {
	case "none":
		return nil
	case "minimal": // there is nothing below "low"
		raw = json.RawMessage(`"low"`)
	}
	return option(t, "effort", raw)
}

// outputConfig is Anthropic's own. Its members win over what they stand for in
// OpenAI's request.
func outputConfig(t *translation, name string, raw json.RawMessage) error {
	var given map[string]json.RawMessage
	if json.Unmarshal(raw, &given) != nil {
		return wrong(name, "must be an object")
	}
	maps.Copy(t.options, given)
	return nil
}

// An anthropicTool is a tool that a request offers.
type anthropicTool struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Schema      json.RawMessage `json:"input_schema"`
	Strict      *bool           `json:"strict,omitempty"`
	Cache       json.RawMessage `json:"cache_control,omitempty"`
}

func anthropicTools(t *translation, name string, raw json.RawMessage) error {
	given, err := t.functions(name, raw)
	if err != nil {
		return err
	}
	list := make([]anthropicTool, 0, len(given))
	for _, f := range given {
		list = append(list, anthropicTool{f.Name, f.Description, f.Parameters, f.Strict, f.cache})
	}
	if len(list) > 0 {
		t.out[name] = marshal(list)
	}
	return nil
}

// choose says what OpenAI says in two places: which tools must be called, and
// whether several may be at once.
func (t *translation) choose() error {
	raw, parallel := t.out["tool_choice"], string(t.out["parallel_tool_calls"])
	delete(t.out, "tool_choice")
	delete(t.out, "parallel_tool_calls")
	if !slices.Contains([]string{"", "true", "false"}, parallel) {
		return wrong("parallel_tool_calls", "must be true or false")
	}
	var choice struct {
		Type   string `json:"type"`
		Name   string `json:"name,omitempty"`
		Single bool   `json:"disable_parallel_tool_use,omitempty"`
	}
	var err error
	if choice.Type, choice.Name, err = t.chosen(raw); err != nil {
		return err
	}
	choice.Single = parallel == "false" && choice.Type != "none"
	switch {
	case raw == nil && !choice.Single:
	case t.out["tools"] == nil && (choice.Type == "auto" || choice.Type == "none"): // of nothing
	default:
		t.out["tool_choice"] = marshal(choice)
	}
	return nil
}

// An anthropicContent is a block of a message.
type anthropicContent struct {
	Type    string            `json:"type"`
	Text    string            `json:"text,omitempty"`
	Source  *anthropicSource  `json:"source,omitempty"`
	ID      string            `json:"id,omitempty"`
	Name    string            `json:"name,omitempty"`
	Input   json.RawMessage   `json:"input,omitempty"`
	Call    string            `json:"tool_use_id,omitempty"`
	Content []json.RawMessage `json:"content,omitempty"`
	Cache   json.RawMessage   `json:"cache_control,omitempty"`
}

// An anthropicSource is where an image is.
type anthropicSource struct {
	Type  string `json:"type"`
	URL   string `json:"url,omitempty"`
	Media string `json:"media_type,omitempty"`
	Data  []byte `json:"data,omitempty"`
}

// anthropicBlocks are the blocks of Anthropic's messages.
var anthropicBlocks = blocks{
	piece: func(t *translation, p part) ([]json.RawMessage, error) {
		b := anthropicContent{Type: "text", Text: p.text, Cache: p.cache}
		if p.url != "" {
			source, err := t.source(p.url)
			if err != nil {
				return nil, err
			}
			b.Type, b.Source = "image", source
		}
		return []json.RawMessage{marshal(b)}, nil
	},
	thought: func(_ *thought, raw json.RawMessage) json.RawMessage { return raw },
	call: func(id, name string, input json.RawMessage) any {
		return anthropicContent{Type: "tool_use", ID: id, Name: name, Input: input}
	},
	result: func(call string, content []json.RawMessage) []json.RawMessage {
		return []json.RawMessage{marshal(anthropicContent{Type: "tool_result", Call: call, Content: content})}
	},
}

// source returns an image as its bytes, or as where it is on the web.
func (t *translation) source(url string) (*anthropicSource, error) {
	if strings.HasPrefix(url, "https://") || strings.HasPrefix(url, "http://") {
		return &anthropicSource{Type: "url", URL: url}, nil
	}
	media, data, err := t.dataURL(url)
	if err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"image/jpeg", "image/png", "image/gif", "image/webp"}, media) {
		return nil, t.unsupported("messages", fmt.Sprintf(": an image of the type %q", media))
	}
	return &anthropicSource{Type: "base64", Media: media, Data: data}, nil
}
