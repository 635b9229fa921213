package providers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// bedrockWords say what becomes of OpenAI's members, and of Converse's own, which a
// caller may use who knows what it speaks to.
var bedrockWords = map[string]translator{
	"model": drop, "vramjet": drop, "stream": drop, "stream_options": drop, "prompt_cache_key": drop, "prompt_cache_retention": drop, "prediction": drop,
	"user": drop, "safety_identifier": drop, "metadata": drop,

	"messages": bedrockBlocks.messages, "tools": bedrockTools, "tool_choice": bedrockChoice, "parallel_tool_calls": only("true"),
	"max_tokens": bedrockLimit, "max_completion_tokens": bedrockLimit, "stop": bedrockStop,
	"temperature": optionAs("temperature"), "top_p": optionAs("topP"),
	"response_format": bedrockFormat, "reasoning_effort": bedrockEffort, "service_tier": bedrockTier,

	"n": only("1"), "logit_bias": only("{}"), "store": only("false"), "modalities": only(`["text"]`), "logprobs": only("false"), "top_logprobs": only("0"),
	"presence_penalty": only("0", "0.0"), "frequency_penalty": only("0", "0.0"), "functions": only("[]"), "function_call": only(`"none"`, `"auto"`),

	"additionalModelRequestFields": pass, "guardrailConfig": pass, "performanceConfig": pass, "requestMetadata": pass,
}

// toBedrock returns the body of the request in Converse's dialect. The options of
// the translation are its inferenceConfig.
func toBedrock(req Request) ([]byte, error) {
	t, err := translate("Bedrock's Converse", req, bedrockWords)
	if err != nil {
		return nil, err
	}
	if t.out["messages"] == nil {
		return nil, wrong("messages", "must hold at least one message")
	}
	if t.noTools { // there is no word for it, but to offer none
		delete(t.out, "tools")
	}
	t.gather("toolConfig", "tools", "toolChoice")
	t.gather("outputConfig", "textFormat", "effort")
	if len(t.options) > 0 {
		t.out["inferenceConfig"] = marshal(t.options)
	}
	return marshal(t.out), nil
}

// gather makes members of the request the members of one, if there are any.
func (t *translation) gather(into string, names ...string) {
	found := map[string]json.RawMessage{}
	for _, name := range names {
		if v := t.out[name]; v != nil {
			found[name] = v
			delete(t.out, name)
		}
	}
	if len(found) > 0 {
		t.out[into] = marshal(found)
	}
}

// bedrockLimit bounds the answer. Of its two names the newer one counts.
func bedrockLimit(t *translation, name string, raw json.RawMessage) error {
	if atoi(raw) < 1 {
		return wrong(name, "must be at least 1")
	}
	if name == "max_completion_tokens" || t.options["maxTokens"] == nil {
		t.options["maxTokens"] = raw
	}
	return nil
}

func bedrockStop(t *translation, name string, raw json.RawMessage) error {
	texts, ok := stringOrStrings(raw)
	if !ok {
		return wrong(name, "must be a string, or a list of strings")
	}
	if len(texts) > 0 {
		t.options["stopSequences"] = marshal(texts)
	}
	return nil
}

// bedrockFormat takes a schema, which Converse wants as text.
func bedrockFormat(t *translation, name string, raw json.RawMessage) error {
	var f responseFormat
	if json.Unmarshal(raw, &f) != nil {
		return wrong(name, "must be an object")
	}
	switch {
	case f.Type == "text":
		return nil
	case f.Type == "json_schema" && f.Schema.Schema != nil:
	case f.Type == "json_schema":
		return wrong(name, "has no schema")
	default:
		return t.unsupported(name, fmt.Sprintf(`: the type %q; it takes a "json_schema"`, f.Type))
	}
	schema := map[string]string{"schema": string(f.Schema.Schema)}
	if f.Schema.Name != "" {
		schema["name"] = f.Schema.Name
	}
	if f.Schema.Description != "" {
		schema["description"] = f.Schema.Description
	}
	t.out["textFormat"] = marshal(map[string]any{"type": "json_schema", "structure": map[string]any{"jsonSchema": schema}})
	return nil
}

// bedrockEffort passes the effort on, which Converse has a word for. Whether and
// how a model shows what it thought, each model has words of its own for: callers
// send them as additionalModelRequestFields.
func bedrockEffort(t *translation, name string, raw json.RawMessage) error {
	switch string(raw) {
	case `"minimal"`: // there is nothing below "low"
		raw = json.RawMessage(`"low"`)
	case `"low"`, `"medium"`, `"high"`, `"xhigh"`, `"max"`:
	default:
		return t.unsupported(name, ": "+cut(string(raw), 40))
	}
	t.out["effort"] = raw
	return nil
}

func bedrockTier(t *translation, name string, raw json.RawMessage) error {
	switch string(raw) {
	case `"auto"`:
	case `"default"`, `"flex"`, `"priority"`, `"reserved"`:
		t.out["serviceTier"] = slicesConcat(`{"type":`, raw, `}`)
	default:
		return t.unsupported(name, ": "+cut(string(raw), 40))
	}
	return nil
}

// A toolSpec is a tool that a request offers.
type toolSpec struct {
	Name        string                     `json:"name"`
	Description string                     `json:"description,omitempty"`
	Schema      map[string]json.RawMessage `json:"inputSchema"` // as "json"
	Strict      *bool                      `json:"strict,omitempty"`
}

func bedrockTools(t *translation, name string, raw json.RawMessage) error {
	given, err := t.functions(name, raw)
	if err != nil {
		return err
	}
	var list []any
	for _, f := range given {
		spec := toolSpec{f.Name, f.Description, map[string]json.RawMessage{"json": f.Parameters}, f.Strict}
		list = append(list, map[string]any{"toolSpec": spec})
		if point, err := t.cachePoint(name, f.cache); err != nil {
			return err
		} else if point != nil {
			list = append(list, point)
		}
	}
	if len(list) > 0 {
		t.out[name] = marshal(list)
	}
	return nil
}

func bedrockChoice(t *translation, _ string, raw json.RawMessage) error {
	which, tool, err := t.chosen(raw)
	switch {
	case err != nil:
		return err
	case which == "none":
		t.noTools = true
	case which == "tool":
		t.out["toolChoice"] = slicesConcat(`{"tool":{"name":`, quote(tool), `}}`)
	case which == "any":
		t.out["toolChoice"] = json.RawMessage(`{"any":{}}`)
	}
	return nil
}

// cachePoint turns Anthropic's cache_control into the block that stands behind what
// is to be kept; nil: nothing is.
func (t *translation) cachePoint(name string, control json.RawMessage) (json.RawMessage, error) {
	if len(control) == 0 || isNull(control) {
		return nil, nil
	}
	var c struct {
		Type string `json:"type"`
		TTL  string `json:"ttl"`
	}
	switch {
	case json.Unmarshal(control, &c) != nil || c.Type != "ephemeral":
		return nil, t.unsupported(name, ": the cache_control "+cut(string(control), 40))
	case c.TTL == "":
		return json.RawMessage(`{"cachePoint":{"type":"default"}}`), nil
	default:
		return slicesConcat(`{"cachePoint":{"type":"default","ttl":`, quote(c.TTL), `}}`), nil
	}
}

// bedrockBlocks are the blocks of Converse's messages.
var bedrockBlocks = blocks{
	piece:   bedrockPiece,
	thought: bedrockThought,
	call: func(id, name string, input json.RawMessage) any {
		return map[string]any{"toolUse": map[string]any{"toolUseId": id, "name": name, "input": input}}
	},
	result: bedrockResult,
}

func bedrockPiece(t *translation, p part) ([]json.RawMessage, error) {
	said := []json.RawMessage{slicesConcat(`{"text":`, quote(p.text), `}`)}
	if p.url != "" {
		media, data, err := t.dataURL(p.url)
		if err != nil {
			return nil, err
		}
		kind := strings.TrimPrefix(media, "image/")
		if !slices.Contains([]string{"png", "jpeg", "gif", "webp"}, kind) {
			return nil, t.unsupported("messages", fmt.Sprintf(": an image of the type %q", media))
		}
		image := map[string]any{"format": kind, "source": map[string][]byte{"bytes": data}}
		said[0] = marshal(map[string]any{"image": image})
	}
	point, err := t.cachePoint("messages", p.cache)
	if point != nil {
		said = append(said, point)
	}
	return said, err
}

func bedrockThought(b *thought, _ json.RawMessage) json.RawMessage {
	type text struct {
		Text      string `json:"text"`
		Signature string `json:"signature,omitempty"`
	}
	content := map[string]any{"reasoningText": text{b.Text, b.Signature}}
	if b.Type == "redacted_thinking" {
		content = map[string]any{"redactedContent": b.Data}
	}
	return marshal(map[string]any{"reasoningContent": content})
}

// bedrockResult returns what came of a tool call. A cache point in it stands behind
// it: a result holds none.
func bedrockResult(call string, content []json.RawMessage) []json.RawMessage {
	inner, points := []json.RawMessage{}, []json.RawMessage(nil)
	for _, b := range content {
		if bytes.HasPrefix(b, []byte(`{"cachePoint"`)) {
			points = append(points, b)
		} else {
			inner = append(inner, b)
		}
	}
	result := marshal(map[string]any{"toolResult": map[string]any{"toolUseId": call, "content": inner}})
	return append([]json.RawMessage{result}, points...)
}
