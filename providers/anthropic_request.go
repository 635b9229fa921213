package providers

import (
	"encoding/json"
	"fmt"
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

	"messages": anthropicMessages, "tools": anthropicTools, "tool_choice": pass, "parallel_tool_calls": pass,
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
	for k, v := range given {
		t.options[k] = v
	}
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
	var given []struct {
		Type     string `json:"type"`
		Function struct {
			Name        string          `json:"name"`
			Description string          `json:"description"`
			Parameters  json.RawMessage `json:"parameters"`
			Strict      *bool           `json:"strict"`
		} `json:"function"`
		Cache json.RawMessage `json:"cache_control"`
	}
	if err := json.Unmarshal(raw, &given); err != nil {
		return wrong(name, "must be a list of tools: "+err.Error())
	}
	list := make([]anthropicTool, 0, len(given))
	for _, g := range given {
		if g.Type != "function" {
			return t.unsupported(name, fmt.Sprintf(": a tool of the type %q", g.Type))
		}
		f := g.Function
		if len(f.Parameters) == 0 || isNull(f.Parameters) {
			f.Parameters = json.RawMessage(`{"type":"object","properties":{}}`)
		}
		list = append(list, anthropicTool{f.Name, f.Description, f.Parameters, f.Strict, g.Cache})
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
	switch string(raw) {
	case "", `"auto"`:
		choice.Type = "auto"
	case `"none"`:
		choice.Type = "none"
	case `"required"`:
		choice.Type = "any"
	default:
		var one struct {
			Function struct {
				Name string `json:"name"`
			} `json:"function"`
		}
		if json.Unmarshal(raw, &one) != nil || one.Function.Name == "" {
			return t.unsupported("tool_choice", ": "+cut(string(raw), 40))
		}
		choice.Type, choice.Name = "tool", one.Function.Name
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

// An anthropicMessage is a message as Anthropic has it: a list of blocks.
type anthropicMessage struct {
	Role    string            `json:"role"`
	Content []json.RawMessage `json:"content"`
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

// A turn is a message of OpenAI's, with what only Anthropic takes back.
type turn struct {
	openAIMessage
	Refusal string            `json:"refusal"`
	Thought []json.RawMessage `json:"thinking_blocks"`

	// What says something to a model and cannot be translated.
	Audio    json.RawMessage `json:"audio"`
	Function json.RawMessage `json:"function_call"`
	Cache    json.RawMessage `json:"cache_control"`
}

// anthropicMessages translates a conversation. Anthropic knows two roles that take
// turns: what one says in a row, and all results of a turn's tool calls, is one
// message. What the system says stands apart, before all: a system message in
// midst of a conversation is moved there too, as Anthropic's own translation of
// OpenAI's API does it.
func anthropicMessages(t *translation, name string, raw json.RawMessage) error {
	var given []turn
	if err := json.Unmarshal(raw, &given); err != nil {
		return wrong(name, "must be a list of messages: "+err.Error())
	}
	var system []json.RawMessage
	var list []anthropicMessage
	for i := range given {
		role, blocks, err := given[i].toAnthropic(t)
		if err != nil {
			return err
		}
		last := len(list) - 1
		switch {
		case role == "system":
			system = append(system, blocks...)
		case len(blocks) == 0: // it says nothing
		case last >= 0 && list[last].Role == role:
			list[last].Content = append(list[last].Content, blocks...)
		default:
			list = append(list, anthropicMessage{role, blocks})
		}
	}
	if len(system) > 0 {
		t.out["system"] = marshal(system)
	}
	if len(list) > 0 {
		t.out[name] = marshal(list)
	}
	return nil
}

// toAnthropic returns who says what in a message.
func (m *turn) toAnthropic(t *translation) (role string, blocks []json.RawMessage, err error) {
	for _, member := range []struct {
		name  string
		value json.RawMessage
	}{{"audio", m.Audio}, {"function_call", m.Function}, {"cache_control", m.Cache}} {
		if len(member.value) > 0 && !isNull(member.value) {
			return "", nil, t.unsupported("messages", fmt.Sprintf(": a message with %q", member.name))
		}
	}
	parts, err := m.parts(t)
	if err != nil {
		return "", nil, err
	}
	if blocks, err = t.blocks(parts); err != nil {
		return "", nil, err
	}
	switch m.Role {
	case "system", "developer":
		if slices.ContainsFunc(parts, func(p part) bool { return p.url != "" }) {
			return "", nil, t.unsupported("messages", ": an image in a system message")
		}
		return "system", blocks, nil
	case "user":
		return "user", blocks, nil
	case "tool":
		if m.ToolCallID == "" {
			return "", nil, wrong("messages", "have a tool's result without its tool_call_id")
		}
		return "user", []json.RawMessage{marshal(anthropicContent{Type: "tool_result", Call: m.ToolCallID, Content: blocks})}, nil
	case "assistant":
		blocks, err = m.said(t, blocks)
		return "assistant", blocks, err
	default:
		return "", nil, t.unsupported("messages", fmt.Sprintf(": a message of the role %q", m.Role))
	}
}

// said returns the blocks of what the model said: its thoughts, its text and its
// calls, in that order. Its thoughts go back as the thinking_blocks that came with
// them, which LiteLLM has, too. A reasoning_content alone is not sent: the API
// takes no thoughts back without the signature that it gave them.
func (m *turn) said(t *translation, text []json.RawMessage) ([]json.RawMessage, error) {
	for _, b := range m.Thought {
		if kind := string(readPart(b).kind); kind != "thinking" && kind != "redacted_thinking" {
			return nil, wrong("messages", "have thinking_blocks that are neither thinking nor redacted_thinking")
		}
	}
	blocks := slices.Concat(m.Thought, text)
	if len(text) == 0 && strings.TrimSpace(m.Refusal) != "" {
		blocks = append(blocks, marshal(anthropicContent{Type: "text", Text: m.Refusal}))
	}
	for _, c := range m.ToolCalls {
		if c.Function.Name == "" {
			return nil, t.unsupported("messages", ": a tool call that calls no function")
		}
		input := strings.TrimSpace(c.Function.Arguments)
		if input == "" {
			input = "{}"
		}
		if _, ok := members([]byte(input)); !ok {
			return nil, wrong("messages", "have a tool call whose arguments are not a JSON object")
		}
		blocks = append(blocks, marshal(anthropicContent{Type: "tool_use", ID: c.ID, Name: c.Function.Name, Input: json.RawMessage(input)}))
	}
	return blocks, nil
}

// blocks translates the parts of a message. The API takes no text that is nothing
// but white space.
func (t *translation) blocks(parts []part) ([]json.RawMessage, error) {
	var blocks []json.RawMessage
	for _, p := range parts {
		b := anthropicContent{Type: "text", Text: p.text, Cache: p.cache}
		switch {
		case p.url != "":
			source, err := t.source(p.url)
			if err != nil {
				return nil, err
			}
			b.Type, b.Source = "image", source
		case strings.TrimSpace(p.text) == "":
			continue
		}
		blocks = append(blocks, marshal(b))
	}
	return blocks, nil
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
