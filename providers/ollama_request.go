package providers

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"github.com/ollama/ollama/api"

	"github.com/vramjet/vramjet/schemas"
)

// A translation turns an OpenAI request into Ollama's. What Ollama has no notion
// of passes through: it ignores what it does not know.
type translation struct {
	kind    schemas.Kind
	out     map[string]json.RawMessage
	options map[string]json.RawMessage
	noTools bool // the model must not be offered any
}

// translators say what becomes of OpenAI's members. A member that is not here
// passes through. null is nothing, for all of them.
var translators = map[string]func(t *translation, name string, raw json.RawMessage) error{
	"model": drop, "vramjet": drop, "stream": drop, "stream_options": drop,
	"user": drop, "store": drop, "metadata": drop, "service_tier": drop, "parallel_tool_calls": drop, "prediction": drop,

	"temperature": option, "top_p": option, "top_k": option, "min_p": option, "seed": option, "stop": option,
	"presence_penalty": option, "frequency_penalty": option,
	"max_tokens": limit, "max_completion_tokens": limit,
	"options": options, "response_format": format, "reasoning_effort": effort, "reasoning": reasoning,
	"messages": messages, "prompt": prompt, "input": input, "tool_choice": toolChoice,

	"n": only("1"), "best_of": only("1"), "logit_bias": only("{}"), "logprobs": only("false", "0"), "top_logprobs": only("0"), "echo": only("false"),
	"audio": only(), "modalities": only(`["text"]`), "functions": only("[]"), "function_call": only(`"none"`, `"auto"`), "web_search_options": only(),
	"encoding_format": only(`"float"`),
}

// toOllama returns the body of the request in Ollama's dialect.
func toOllama(req Request) ([]byte, error) {
	found, ok := members(req.Body)
	if !ok {
		return nil, schemas.Errorf(schemas.InvalidRequest, "the body is not a JSON object")
	}
	t := translation{kind: req.Kind, out: map[string]json.RawMessage{}, options: map[string]json.RawMessage{}}
	for _, m := range found {
		if isNull(m.value) {
			continue
		}
		name := string(m.key)
		translate, known := translators[name]
		if !known {
			t.out[name] = m.value
			continue
		}
		if err := translate(&t, name, m.value); err != nil {
			return nil, err
		}
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	if t.noTools {
		delete(t.out, "tools")
	}
	t.out["model"] = quote(req.Model)
	if req.Kind != schemas.Embedding {
		t.out["stream"] = json.RawMessage("true")
	}
	if len(t.options) > 0 {
		t.out["options"] = marshal(t.options)
	}
	return marshal(t.out), nil
}

// marshal encodes what cannot fail to be: maps of JSON, strings and the like.
func marshal(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage("null")
	}
	return b
}

// check finds what Ollama would take for something else: a request without a
// prompt is an order to load.
func (t *translation) check() error {
	switch {
	case t.kind == schemas.Chat && t.out["messages"] == nil:
		return wrong("messages", "must hold at least one message")
	case t.kind == schemas.Completion && t.out["prompt"] == nil:
		return wrong("prompt", "must not be empty")
	case t.kind == schemas.Embedding && t.out["input"] == nil:
		return wrong("input", "must not be empty")
	default:
		return nil
	}
}

func wrong(name, what string) error {
	e := schemas.Errorf(schemas.InvalidRequest, "%q %s", name, what)
	e.Param = name
	return e
}

func unsupported(name, what string) error {
	e := schemas.Errorf(schemas.Unsupported, "%q is something that Ollama cannot do%s", name, what)
	e.Param = name
	return e
}

func drop(*translation, string, json.RawMessage) error { return nil }

// option makes a member an option, unless the caller set the option itself.
func option(t *translation, name string, raw json.RawMessage) error {
	if _, set := t.options[name]; set {
		return nil
	}
	t.options[name] = raw
	if name == "stop" && len(raw) > 0 && raw[0] == '"' {
		t.options[name] = json.RawMessage(slicesConcat("[", raw, "]"))
	}
	return nil
}

// limit bounds the answer. Ollama takes 0 for no limit at all.
func limit(t *translation, name string, raw json.RawMessage) error {
	if atoi(raw) < 1 {
		return wrong(name, "must be at least 1")
	}
	return option(t, "num_predict", raw)
}

// options are Ollama's own, for callers that know what they speak to. They win
// over what they stand for in OpenAI's request.
func options(t *translation, name string, raw json.RawMessage) error {
	var given map[string]json.RawMessage
	if json.Unmarshal(raw, &given) != nil {
		return wrong(name, "must be an object")
	}
	for k, v := range given {
		if k == "num_predict" && string(v) == "0" {
			return wrong("options.num_predict", "must not be 0, which Ollama takes for no limit")
		}
		t.options[k] = v
	}
	return nil
}

func format(t *translation, name string, raw json.RawMessage) error {
	var f struct {
		Type   string `json:"type"`
		Schema struct {
			Schema json.RawMessage `json:"schema"`
		} `json:"json_schema"`
	}
	if json.Unmarshal(raw, &f) != nil {
		return wrong(name, "must be an object")
	}
	switch {
	case f.Type == "json_schema" && f.Schema.Schema != nil:
		t.out["format"] = f.Schema.Schema
	case f.Type == "json_object":
		t.out["format"] = json.RawMessage(`"json"`)
	case f.Type != "text":
		return unsupported(name, "")
	}
	return nil
}

func effort(t *translation, name string, raw json.RawMessage) error {
	var level string
	if json.Unmarshal(raw, &level) != nil {
		return wrong(name, "must be a string")
	}
	if t.out["think"] != nil {
		return nil
	}
	t.out["think"] = raw
	if level == "none" {
		t.out["think"] = json.RawMessage("false")
	}
	return nil
}

func reasoning(t *translation, name string, raw json.RawMessage) error {
	var r struct {
		Effort json.RawMessage `json:"effort"`
	}
	if json.Unmarshal(raw, &r) != nil {
		return wrong(name, "must be an object")
	}
	if r.Effort == nil {
		return nil
	}
	return effort(t, name+".effort", r.Effort)
}

// only lets nothing pass but values that ask for nothing.
func only(harmless ...string) func(*translation, string, json.RawMessage) error {
	return func(_ *translation, name string, raw json.RawMessage) error {
		if slices.Contains(harmless, string(raw)) {
			return nil
		}
		return unsupported(name, "")
	}
}

func toolChoice(t *translation, name string, raw json.RawMessage) error {
	switch string(raw) {
	case `"auto"`:
		return nil
	case `"none"`:
		t.noTools = true
		return nil
	default:
		return unsupported(name, `: it takes "auto" and "none"`)
	}
}

func prompt(t *translation, name string, raw json.RawMessage) error {
	texts, ok := stringOrStrings(raw)
	switch {
	case !ok:
		return unsupported(name, " as anything but text")
	case len(texts) > 1:
		return unsupported(name, " as a list of more than one")
	case len(texts) == 1 && texts[0] != "":
		t.out["prompt"] = quote(texts[0])
	}
	return nil
}

func input(t *translation, name string, raw json.RawMessage) error {
	texts, ok := stringOrStrings(raw)
	if !ok {
		return unsupported(name, " as anything but text")
	}
	if len(texts) > 0 {
		t.out["input"] = raw
	}
	return nil
}

func stringOrStrings(raw json.RawMessage) ([]string, bool) {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}, true
	}
	var many []string
	return many, json.Unmarshal(raw, &many) == nil
}

// An openAIMessage is a message of an OpenAI chat.
type openAIMessage struct {
	Role      string          `json:"role"`
	Content   json.RawMessage `json:"content"`
	Reasoning string          `json:"reasoning_content"`
	ToolCalls []struct {
		ID       string `json:"id"`
		Function struct {
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
	ToolCallID string `json:"tool_call_id"`
}

func messages(t *translation, name string, raw json.RawMessage) error {
	var given []openAIMessage
	if err := json.Unmarshal(raw, &given); err != nil {
		return wrong(name, "must be a list of messages: "+err.Error())
	}
	tools := map[string]string{} // id of a call → name of its tool
	list := make([]api.Message, 0, len(given))
	for i := range given {
		m, err := given[i].toOllama(tools)
		if err != nil {
			return err
		}
		list = append(list, m)
	}
	if len(list) > 0 {
		t.out[name] = marshal(list)
	}
	return nil
}

func (m *openAIMessage) toOllama(tools map[string]string) (api.Message, error) {
	out := api.Message{Role: m.Role, Thinking: m.Reasoning, ToolCallID: m.ToolCallID, ToolName: tools[m.ToolCallID]}
	if m.Role == "developer" {
		out.Role = "system" // what OpenAI called it before
	}
	for i, c := range m.ToolCalls {
		var args api.ToolCallFunctionArguments
		if text := strings.TrimSpace(c.Function.Arguments); text != "" {
			if err := json.Unmarshal([]byte(text), &args); err != nil {
				return out, wrong("messages", "have a tool call whose arguments are not a JSON object")
			}
		}
		tools[c.ID] = c.Function.Name
		out.ToolCalls = append(out.ToolCalls, api.ToolCall{
			ID: c.ID, Function: api.ToolCallFunction{Index: i, Name: c.Function.Name, Arguments: args},
		})
	}
	return out, m.content(&out)
}

// content reads a message's content: text, or parts of text and images.
func (m *openAIMessage) content(out *api.Message) error {
	if len(m.Content) == 0 || json.Unmarshal(m.Content, &out.Content) == nil {
		return nil
	}
	var parts []struct {
		Type  string `json:"type"`
		Text  string `json:"text"`
		Image struct {
			URL string `json:"url"`
		} `json:"image_url"`
	}
	if json.Unmarshal(m.Content, &parts) != nil {
		return wrong("messages", "have a content that is neither text nor a list of parts")
	}
	var text strings.Builder
	for _, p := range parts {
		switch p.Type {
		case "text":
			text.WriteString(p.Text)
		case "image_url":
			image, err := dataURL(p.Image.URL)
			if err != nil {
				return err
			}
			out.Images = append(out.Images, image)
		default:
			return unsupported("messages", ": a part of the type "+p.Type)
		}
	}
	out.Content = text.String()
	return nil
}

// dataURL returns the bytes of an image that is part of its URL.
func dataURL(url string) (api.ImageData, error) {
	head, data, ok := strings.Cut(url, ",")
	if !ok || !strings.HasPrefix(head, "data:") || !strings.HasSuffix(head, ";base64") {
		return nil, unsupported("messages", ": an image that is not a data URL with base64")
	}
	image, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		return nil, wrong("messages", "have an image that is not base64")
	}
	return image, nil
}
