package providers

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// A translation turns an OpenAI request into another dialect's, member by member.
// What the dialect has no word for is refused by name, and never dropped unsaid.
type translation struct {
	dialect string // for messages: "Ollama"
	req     Request
	out     map[string]json.RawMessage // the request in that dialect
	options map[string]json.RawMessage // what it keeps apart: how to sample, mostly
	noTools bool                       // the model must not be offered any
}

// A translator takes one member of an OpenAI request.
type translator func(t *translation, name string, raw json.RawMessage) error

// anyOther stands in a table for the members that it does not name, of a dialect
// that speaks OpenAI's API but for some of them.
const anyOther = ""

// translate takes all members of a request's body, in the order they stand there.
// A member that is null asks for nothing, in every dialect.
func translate(dialect string, req Request, table map[string]translator) (*translation, error) {
	found, ok := members(req.Body)
	if !ok {
		return nil, schemas.Errorf(schemas.InvalidRequest, "the body is not a JSON object")
	}
	t := &translation{dialect: dialect, req: req, out: map[string]json.RawMessage{}, options: map[string]json.RawMessage{}}
	for _, m := range found {
		if isNull(m.value) {
			continue
		}
		name := string(m.key)
		take, known := table[name]
		if !known {
			take, known = table[anyOther]
		}
		if !known {
			return nil, t.unsupported(name, "")
		}
		if err := take(t, name, m.value); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// marshal encodes what cannot fail to be: maps of JSON, strings and the like.
func marshal(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage("null")
	}
	return b
}

func wrong(name, what string) error {
	e := schemas.Errorf(schemas.InvalidRequest, "%q %s", name, what)
	e.Param = name
	return e
}

// unsupported says that the dialect has nothing like a member, or like a value of
// it.
func (t *translation) unsupported(name, what string) error {
	e := schemas.Errorf(schemas.Unsupported, "%q is something that %s cannot do%s", name, t.dialect, what)
	e.Param = name
	return e
}

// drop takes a member that changes nothing about an answer: who asks, and how the
// answer is to be sent.
func drop(*translation, string, json.RawMessage) error { return nil }

// pass takes a member that has the same name and meaning in the dialect.
func pass(t *translation, name string, raw json.RawMessage) error {
	t.out[name] = raw
	return nil
}

// only lets nothing pass but values that ask for nothing.
func only(harmless ...string) translator {
	return func(t *translation, name string, raw json.RawMessage) error {
		if slices.Contains(harmless, string(raw)) {
			return nil
		}
		return t.unsupported(name, ": "+cut(string(raw), 40))
	}
}

func stringOrStrings(raw json.RawMessage) ([]string, bool) {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}, true
	}
	var many []string
	return many, json.Unmarshal(raw, &many) == nil
}

// A responseFormat is how an answer is to look.
type responseFormat struct {
	Type   string `json:"type"`
	Schema struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Schema      json.RawMessage `json:"schema"`
	} `json:"json_schema"`
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

// A part is a piece of a message: text, or the URL of an image.
type part struct {
	text, url string
	cache     json.RawMessage // Anthropic's cache_control: the prompt up to here is kept; nil: none
}

// parts reads a message's content: text, or a list of texts and images.
func (m *openAIMessage) parts(t *translation) ([]part, error) {
	var text string
	if len(m.Content) == 0 || json.Unmarshal(m.Content, &text) == nil {
		return []part{{text: text}}, nil
	}
	var given []struct {
		Type  string `json:"type"`
		Text  string `json:"text"`
		Image struct {
			URL string `json:"url"`
		} `json:"image_url"`
		Cache json.RawMessage `json:"cache_control"`
	}
	if json.Unmarshal(m.Content, &given) != nil {
		return nil, wrong("messages", "have a content that is neither text nor a list of parts")
	}
	parts := make([]part, 0, len(given))
	for _, p := range given {
		switch {
		case p.Type == "text":
			parts = append(parts, part{text: p.Text, cache: p.Cache})
		case p.Type == "image_url" && p.Image.URL != "":
			parts = append(parts, part{url: p.Image.URL, cache: p.Cache})
		default:
			return nil, t.unsupported("messages", fmt.Sprintf(": a part of the type %q", p.Type))
		}
	}
	return parts, nil
}

// dataURL returns the media type and the bytes of an image that stands in its URL.
func (t *translation) dataURL(url string) (media string, data []byte, err error) {
	head, text, ok := strings.Cut(url, ",")
	media, isData := strings.CutPrefix(head, "data:")
	media, isBase64 := strings.CutSuffix(media, ";base64")
	if !ok || !isData || !isBase64 {
		return "", nil, t.unsupported("messages", ": an image that is not a data URL with base64")
	}
	if data, err = base64.StdEncoding.DecodeString(text); err != nil {
		return "", nil, wrong("messages", "have an image that is not base64")
	}
	return media, data, nil
}
