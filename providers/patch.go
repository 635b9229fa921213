package providers

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// A member is a member of a JSON object: its name and its value's text.
type member struct{ key, value []byte }

// is reports whether the member has that name, in any case.
func (m member) is(name string) bool { return strings.EqualFold(name, string(m.key)) }

// members returns the members of a JSON object as they stand, names unescaped.
func members(object []byte) ([]member, bool) {
	var found []member
	s := scanner{b: object}
	s.enter('{')
	for {
		k, ok := s.key()
		if !ok {
			break
		}
		found = append(found, member{unescape(k), s.value()})
	}
	return found, s.end()
}

// each calls take with the members of a JSON object as they stand there, and
// reports whether it is one.
func each(object []byte, take func(key, value []byte)) bool {
	s := scanner{b: object}
	s.enter('{')
	for {
		k, ok := s.key()
		if !ok {
			return s.end()
		}
		take(k, s.value())
	}
}

// inside returns what stands between the quotes of a string, nil for no string.
func inside(v []byte) []byte {
	if len(v) < 2 || v[0] != '"' {
		return nil
	}
	return v[1 : len(v)-1]
}

// unescape returns the text of a raw string.
func unescape(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	var text string
	if json.Unmarshal(slicesConcat(`"`, raw, `"`), &text) != nil {
		return raw
	}
	return []byte(text)
}

func slicesConcat(before string, b []byte, after string) []byte {
	out := make([]byte, 0, len(before)+len(b)+len(after))
	return append(append(append(out, before...), b...), after...)
}

// quote returns text as a JSON string.
func quote(text string) []byte {
	b, err := json.Marshal(text)
	if err != nil {
		return strconv.AppendQuote(nil, text) // encoding/json marshals every string
	}
	return b
}

// ours are the members that patch sets or takes out, in any case: servers in Go read
// "Model" as "model".
var ours = []string{"model", "stream", "stream_options", "vramjet"}

// patch returns the request's body as it goes to a server that speaks OpenAI:
// with the server's name of the model, and streamed with usage at the end unless
// it asks for embeddings. All else passes through, but for "vramjet", which is
// ours, and "priority" where it is.
func patch(req Request) ([]byte, error) {
	found, ok := members(req.Body)
	if !ok {
		return nil, schemas.Errorf(schemas.InvalidRequest, "the body is not a JSON object")
	}
	out := make([]byte, 0, len(req.Body)+len(req.Model)+96)
	out = append(out, `{"model":`...)
	out = append(out, quote(req.Model)...)
	if req.Kind != schemas.Embedding {
		out = append(out, `,"stream":true,"stream_options":{"include_usage":true`...)
		for _, m := range streamOptions(found) {
			out = appendMember(out, m)
		}
		out = append(out, '}')
	}
	if req.priority.value != 0 {
		out = strconv.AppendInt(append(out, `,"priority":`...), int64(req.priority.value), 10)
	}
	for _, m := range found {
		if !slices.ContainsFunc(ours, m.is) && (!req.priority.ours || !m.is("priority")) {
			out = appendMember(out, m)
		}
	}
	return append(out, '}'), nil
}

// streamOptions returns the stream options that the caller set beside usage.
func streamOptions(body []member) []member {
	var kept []member
	for _, m := range body {
		if string(m.key) != "stream_options" {
			continue
		}
		options, ok := members(m.value)
		if !ok {
			continue
		}
		for _, o := range options {
			if !strings.EqualFold(string(o.key), "include_usage") {
				kept = append(kept, o)
			}
		}
	}
	return kept
}

func appendMember(out []byte, m member) []byte {
	out = append(out, ',')
	out = append(out, quote(string(m.key))...)
	out = append(out, ':')
	return append(out, m.value...)
}

// promptBytes returns how long the text is that a body asks about, in bytes of
// JSON.
func promptBytes(body []byte) int {
	found, _ := members(body)
	for _, m := range found {
		switch string(m.key) {
		case "messages", "prompt", "input":
			return len(m.value)
		}
	}
	return len(body)
}
