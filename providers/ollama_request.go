package providers

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/ollama/ollama/api"

	"github.com/vramjet/vramjet/schemas"
)

// ollamaWords say what becomes of OpenAI's members, and of Ollama's own, which a
// caller may use who knows what it speaks to.
var ollamaWords = map[string]translator{
	"model": drop, "vramjet": drop, "stream": drop, "stream_options": drop,
	"user": drop, "safety_identifier": drop, "metadata": drop, "prompt_cache_key": drop, "prediction": drop,

	"temperature": option, "top_p": option, "top_k": option, "min_p": option, "seed": option, "stop": option,
	"presence_penalty": option, "frequency_penalty": option,
	"max_tokens": limit, "max_completion_tokens": limit,
	"response_format": format, "reasoning_effort": effort, "reasoning": reasoning, "logprobs": logprobs, "top_logprobs": logprobs,
	"messages": messages, "prompt": prompt, "input": input, "tools": pass, "tool_choice": toolChoice, "suffix": pass, "dimensions": pass,

	"n": only("1"), "best_of": only("1"), "logit_bias": only("{}"), "echo": only("false"), "store": only("false"),
	"parallel_tool_calls": only("true"), "service_tier": only(`"auto"`, `"default"`), "modalities": only(`["text"]`),
	"functions": only("[]"), "function_call": only(`"none"`, `"auto"`), "encoding_format": only(`"float"`),

	"options": options, "keep_alive": drop, // how long a model stays is not for one job to say
	"think": pass, "format": pass, "truncate": pass, "shift": pass,
	"raw": pass, "system": pass, "template": pass, "context": pass, "images": pass,
}

// toOllama returns the body of the request in Ollama's dialect.
func toOllama(req Request) ([]byte, error) {
	t, err := translate("Ollama", req, ollamaWords)
	if err != nil {
		return nil, err
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
	if t.out["truncate"] == nil { // Ollama would cut off what is too long, and say nothing
		t.out["truncate"] = json.RawMessage("false")
	}
	if len(t.options) > 0 {
		t.out["options"] = marshal(t.options)
	}
	return marshal(t.out), nil
}

// check finds what Ollama would take for something else: a request without a
// prompt is an order to load.
func (t *translation) check() error {
	switch {
	case t.req.Kind == schemas.Chat && t.out["messages"] == nil:
		return wrong("messages", "must hold at least one message")
	case t.req.Kind == schemas.Completion && t.out["prompt"] == nil:
		return wrong("prompt", "must not be empty")
	case t.req.Kind == schemas.Embedding && t.out["input"] == nil:
		return wrong("input", "must not be empty")
	default:
		return nil
	}
}

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

// ofLoads are the options that say how a model is loaded. A job that brings others
// than the model has makes Ollama load it again, for all that run on it.
var ofLoads = []string{"num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "numa", "use_mmap", "use_mlock", "low_vram", "vocab_only", "f16_kv", "logits_all"}

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
		if slices.ContainsFunc(ofLoads, func(o string) bool { return strings.EqualFold(o, k) }) {
			return t.unsupported("options."+k, " for one job: the model would be loaded anew, with other memory")
		}
		t.options[k] = v
	}
	return nil
}

func format(t *translation, name string, raw json.RawMessage) error {
	var f responseFormat
	if json.Unmarshal(raw, &f) != nil {
		return wrong(name, "must be an object")
	}
	switch {
	case f.Type == "json_schema" && f.Schema.Schema != nil:
		t.out["format"] = f.Schema.Schema
	case f.Type == "json_object":
		t.out["format"] = json.RawMessage(`"json"`)
	case f.Type != "text":
		return t.unsupported(name, "")
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

// logprobs are asked for as in a chat of OpenAI's. For a completion OpenAI writes
// them another way, which Ollama's answer does not hold.
func logprobs(t *translation, name string, raw json.RawMessage) error {
	switch {
	case string(raw) == "false" || string(raw) == "0":
		return nil
	case t.req.Kind != schemas.Chat:
		return t.unsupported(name, " in a completion")
	default:
		return pass(t, name, raw)
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
		return t.unsupported(name, `: it takes "auto" and "none"`)
	}
}

func prompt(t *translation, name string, raw json.RawMessage) error {
	texts, ok := stringOrStrings(raw)
	switch {
	case !ok:
		return t.unsupported(name, " as anything but text")
	case len(texts) > 1:
		return t.unsupported(name, " as a list of more than one")
	case len(texts) == 1 && texts[0] != "":
		t.out["prompt"] = quote(texts[0])
	}
	return nil
}

func input(t *translation, name string, raw json.RawMessage) error {
	texts, ok := stringOrStrings(raw)
	if !ok {
		return t.unsupported(name, " as anything but text")
	}
	if len(texts) > 0 {
		t.out["input"] = raw
	}
	return nil
}

func messages(t *translation, name string, raw json.RawMessage) error {
	var given []openAIMessage
	if err := json.Unmarshal(raw, &given); err != nil {
		return wrong(name, "must be a list of messages: "+err.Error())
	}
	tools := map[string]string{} // id of a call → name of its tool
	list := make([]api.Message, 0, len(given))
	for i := range given {
		m, err := given[i].toOllama(t, tools)
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

func (m *openAIMessage) toOllama(t *translation, tools map[string]string) (api.Message, error) {
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
	parts, err := m.parts(t)
	for _, p := range parts {
		out.Content += p.text
		if p.url == "" {
			continue
		}
		_, image, err := t.dataURL(p.url)
		if err != nil {
			return out, err
		}
		out.Images = append(out.Images, image)
	}
	return out, err
}
