package providers

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// blocks are how a dialect writes a conversation in which two take turns, and what
// each says is a list of blocks: Anthropic's, and Bedrock's.
type blocks struct {
	piece   func(t *translation, p part) ([]json.RawMessage, error)        // text that says something, or an image
	thought func(b *thought, raw json.RawMessage) json.RawMessage          // one of thinking_blocks
	call    func(id, name string, input json.RawMessage) any               // a tool call; input is an object
	result  func(call string, content []json.RawMessage) []json.RawMessage // what came of a tool call
}

// chats refuses what is no chat: such a dialect has nothing else.
func (s *server) chats(kind schemas.Kind, dialect string) error {
	switch kind {
	case schemas.Chat:
		return nil
	case schemas.Completion:
		e := schemas.Errorf(schemas.Unsupported, `%s: %s completes no "prompt": send "messages"`, s.name, dialect)
		e.Param = "prompt"
		return e
	default:
		return schemas.Errorf(schemas.InvalidRequest, "%s: a job of the kind %q generates nothing", s.name, kind)
	}
}

// A turn is a message of OpenAI's, with what only such dialects take back.
type turn struct {
	openAIMessage
	Refusal string            `json:"refusal"`
	Thought []json.RawMessage `json:"thinking_blocks"`

	// What says something to a model and cannot be translated.
	Audio    json.RawMessage `json:"audio"`
	Function json.RawMessage `json:"function_call"`
	Cache    json.RawMessage `json:"cache_control"`
}

// A thought is what a model thought, as LiteLLM passes it on and takes it back:
// with the signature that the model's API gave it, or encrypted.
type thought struct {
	Type      string `json:"type"`
	Text      string `json:"thinking"`
	Signature string `json:"signature"`
	Data      string `json:"data"` // of redacted_thinking
}

// messages translates a conversation. What one says in a row, and all results of a
// turn's tool calls, is one message. What the system says stands apart, before all:
// a system message in midst of a conversation is moved there too, as Anthropic's
// own translation of OpenAI's API does it.
func (b *blocks) messages(t *translation, name string, raw json.RawMessage) error {
	var given []turn
	if err := json.Unmarshal(raw, &given); err != nil {
		return wrong(name, "must be a list of messages: "+err.Error())
	}
	type message struct {
		Role    string            `json:"role"`
		Content []json.RawMessage `json:"content"`
	}
	var system []json.RawMessage
	var list []message
	for i := range given {
		role, said, err := b.turn(t, &given[i])
		if err != nil {
			return err
		}
		last := len(list) - 1
		switch {
		case role == "system":
			system = append(system, said...)
		case len(said) == 0: // it says nothing
		case last >= 0 && list[last].Role == role:
			list[last].Content = append(list[last].Content, said...)
		default:
			list = append(list, message{role, said})
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

// turn returns who says what in a message.
func (b *blocks) turn(t *translation, m *turn) (role string, said []json.RawMessage, err error) {
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
	if said, err = b.pieces(t, parts); err != nil {
		return "", nil, err
	}
	switch m.Role {
	case "system", "developer":
		if slices.ContainsFunc(parts, func(p part) bool { return p.url != "" }) {
			return "", nil, t.unsupported("messages", ": an image in a system message")
		}
		return "system", said, nil
	case "user":
		return "user", said, nil
	case "tool":
		if m.ToolCallID == "" {
			return "", nil, wrong("messages", "have a tool's result without its tool_call_id")
		}
		return "user", b.result(m.ToolCallID, said), nil
	case "assistant":
		said, err = b.answer(t, m, said)
		return "assistant", said, err
	default:
		return "", nil, t.unsupported("messages", fmt.Sprintf(": a message of the role %q", m.Role))
	}
}

// pieces translates the parts of a message. The APIs take no text that is nothing
// but white space.
func (b *blocks) pieces(t *translation, parts []part) ([]json.RawMessage, error) {
	var said []json.RawMessage
	for _, p := range parts {
		if p.url == "" && strings.TrimSpace(p.text) == "" {
			continue
		}
		more, err := b.piece(t, p)
		if err != nil {
			return nil, err
		}
		said = append(said, more...)
	}
	return said, nil
}

// answer returns the blocks of what the model said: its thoughts, its text and its
// calls, in that order. Its thoughts go back as the thinking_blocks that came with
// them, which LiteLLM has, too. A reasoning_content alone is not sent: the APIs
// take no thoughts back without the signature that they gave them.
func (b *blocks) answer(t *translation, m *turn, text []json.RawMessage) ([]json.RawMessage, error) {
	var said []json.RawMessage
	for _, raw := range m.Thought {
		var th thought
		if json.Unmarshal(raw, &th) != nil || th.Type != "thinking" && th.Type != "redacted_thinking" {
			return nil, wrong("messages", "have thinking_blocks that are neither thinking nor redacted_thinking")
		}
		said = append(said, b.thought(&th, raw))
	}
	if len(text) == 0 {
		var err error
		if text, err = b.pieces(t, []part{{text: m.Refusal}}); err != nil {
			return nil, err
		}
	}
	said = append(said, text...)
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
		said = append(said, marshal(b.call(c.ID, c.Function.Name, json.RawMessage(input))))
	}
	return said, nil
}

// A function is a tool that a request offers.
type function struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Parameters  json.RawMessage `json:"parameters"` // a schema, {} where none was given
	Strict      *bool           `json:"strict"`
	cache       json.RawMessage // Anthropic's cache_control; nil: none
}

// functions reads the tools that a request offers.
func (t *translation) functions(name string, raw json.RawMessage) ([]function, error) {
	var given []struct {
		Type     string          `json:"type"`
		Function function        `json:"function"`
		Cache    json.RawMessage `json:"cache_control"`
	}
	if err := json.Unmarshal(raw, &given); err != nil {
		return nil, wrong(name, "must be a list of tools: "+err.Error())
	}
	list := make([]function, 0, len(given))
	for _, g := range given {
		if g.Type != "function" {
			return nil, t.unsupported(name, fmt.Sprintf(": a tool of the type %q", g.Type))
		}
		f := g.Function
		f.cache = g.Cache
		if len(f.Parameters) == 0 || isNull(f.Parameters) {
			f.Parameters = json.RawMessage(`{"type":"object","properties":{}}`)
		}
		list = append(list, f)
	}
	return list, nil
}

// chosen reads which tools the model must call: "auto", "none", "any", or "tool"
// and the name of one. Without a choice it is "auto".
func (t *translation) chosen(raw json.RawMessage) (which, tool string, err error) {
	switch string(raw) {
	case "", `"auto"`:
		return "auto", "", nil
	case `"none"`:
		return "none", "", nil
	case `"required"`:
		return "any", "", nil
	}
	var one struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	if json.Unmarshal(raw, &one) != nil || one.Function.Name == "" {
		return "", "", t.unsupported("tool_choice", ": "+cut(string(raw), 40))
	}
	return "tool", one.Function.Name, nil
}
