package schemas

import (
	"bytes"
	"encoding/json"
	"iter"
)

// A shape is what of a body decides how it is treated: its top level, read in
// one pass.
type shape struct {
	model  string // what the body says; good where named
	named  bool
	stream bool
	kinds  [3]bool // by kindMembers: the member is there, and not null
	seen   [len(knownMembers)]bool
	twice  string // a known member that stands twice: its readers may disagree

	// plain means that all known members have their usual form, so that the body
	// is known to be right without a look at its JSON Schema.
	plain bool
}

// kindMembers are the members that tell the kind of a body.
var kindMembers = [3]struct {
	kind   Kind
	member string
}{{Chat, "messages"}, {Completion, "prompt"}, {Embedding, "input"}}

// knownMembers are the members that the JSON Schemas of the requests name.
var knownMembers = [...]string{
	"messages", "prompt", "input", "model", "stream", "max_tokens", "temperature", "stop", "top_p",
	"max_completion_tokens", "n", "seed", "presence_penalty", "frequency_penalty",
	"stream_options", "tools", "response_format",
}

// readShape reads body, an object that json.Valid has accepted.
func readShape(body []byte) shape {
	s := shape{plain: true}
	for key, value := range members(bytes.TrimLeft(body, space)) {
		member := indexMember(key)
		if member < 0 {
			continue
		}
		if s.seen[member] {
			s.twice = knownMembers[member]
		}
		s.seen[member] = true
		s.plain = s.plain && plainMember(knownMembers[member], value)
		switch name := knownMembers[member]; {
		case member < len(kindMembers):
			s.kinds[member] = value[0] != 'n'
		case name == "model" && value[0] == '"':
			s.model, s.named = unquote(value), true
		case name == "stream":
			s.stream = value[0] == 't'
		}
	}
	return s
}

// indexMember returns where a quoted key stands in knownMembers, or -1.
func indexMember(quoted []byte) int {
	if bytes.IndexByte(quoted, '\\') >= 0 {
		quoted = []byte(`"` + unquote(quoted) + `"`)
	}
	for i, name := range knownMembers {
		if string(quoted[1:len(quoted)-1]) == name {
			return i
		}
	}
	return -1
}

// kind tells the kind of a body from the members it has. A member that is null
// counts as absent.
func (s *shape) kind() (Kind, error) {
	var found []Kind
	for i, has := range s.kinds {
		if has {
			found = append(found, kindMembers[i].kind)
		}
	}
	switch len(found) {
	case 0:
		return "", Errorf(InvalidRequest, `the body has none of "messages" (chat), "prompt" (completion) and "input" (embedding)`)
	case 1:
		return found[0], nil
	default:
		return "", Errorf(InvalidRequest, `the body has more than one of "messages", "prompt" and "input": say which by %s`, HeaderKind)
	}
}

// KindOf tells the kind of a body that does not come with it: of an OpenAI request by
// its members; a plain text is a chat. The error is an *Error.
func KindOf(body []byte) (Kind, error) {
	if trimmed := bytes.TrimLeft(body, space); len(trimmed) == 0 || trimmed[0] != '{' {
		return Chat, nil
	}
	if err := checkSyntax(body); err != nil {
		return "", err
	}
	s := readShape(body)
	return s.kind()
}

// has reports whether the member that kind needs is there.
func (s *shape) has(kind Kind) bool {
	for i, has := range s.kinds {
		if kindMembers[i].kind == kind {
			return has
		}
	}
	return false
}

// plainMember reports whether a known member has a form that its JSON Schema
// allows. It says no wherever it would have to look closer: then the JSON
// Schema decides.
func plainMember(name string, v []byte) bool {
	switch name {
	case "messages":
		return plainMessages(v)
	case "prompt", "input":
		return v[0] == '"' || v[0] == '[' && !empty(v)
	case "model":
		return v[0] == '"' || v[0] == 'n'
	case "stream":
		return v[0] == 't' || v[0] == 'f' || v[0] == 'n'
	case "max_tokens", "max_completion_tokens", "n":
		return v[0] != '0' && digits(v)
	case "temperature", "top_p", "presence_penalty", "frequency_penalty":
		return v[0] == '-' || v[0] >= '0' && v[0] <= '9' || v[0] == 'n'
	case "seed":
		return digits(v)
	case "stop":
		return v[0] == '"' || v[0] == '[' || v[0] == 'n'
	case "tools":
		return v[0] == '[' || v[0] == 'n'
	case "stream_options", "response_format":
		return v[0] == '{' || v[0] == 'n'
	default:
		return false
	}
}

func plainMessages(v []byte) bool {
	if v[0] != '[' || empty(v) {
		return false
	}
	for item := range items(v) {
		if item[0] != '{' || !plainMessage(item) {
			return false
		}
	}
	return true
}

func plainMessage(object []byte) bool {
	role := false
	for key, v := range members(object) {
		var plain bool
		switch string(key) {
		case `"role"`:
			role, plain = true, plainRole(v)
		case `"content"`:
			plain = v[0] == '"' || v[0] == 'n' || v[0] == '[' && allObjects(v)
		case `"name"`, `"tool_call_id"`:
			plain = v[0] == '"' || v[0] == 'n'
		case `"tool_calls"`:
			plain = v[0] == '[' || v[0] == 'n'
		default:
			plain = bytes.IndexByte(key, '\\') < 0 // it could be any of those, escaped
		}
		if !plain {
			return false
		}
	}
	return role
}

func plainRole(v []byte) bool {
	switch string(v) {
	case `"system"`, `"developer"`, `"user"`, `"assistant"`, `"tool"`, `"function"`:
		return true
	default:
		return false
	}
}

func allObjects(array []byte) bool {
	for item := range items(array) {
		if item[0] != '{' {
			return false
		}
	}
	return true
}

// digits reports whether a number is a short one without sign, point or exponent.
func digits(v []byte) bool {
	for _, c := range v {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(v) < 16
}

// empty reports whether an object or an array has nothing in it.
func empty(v []byte) bool { return len(bytes.TrimLeft(v[1:], space)) == 1 }

// unquote returns what a JSON string stands for.
func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	if json.Unmarshal(quoted, &s) != nil {
		return "" // not reached: json.Valid has accepted it
	}
	return s
}

const space = " \t\r\n"

// members yields the keys, with their quotes, and the values of an object. Like
// items it reads nothing but what json.Valid has accepted.
func members(object []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for i := next(object, 1); object[i] != '}'; i = next(object, i) {
			end := valueEnd(object, i)
			key := object[i:end]
			i = next(object, end) // skips the colon
			end = valueEnd(object, i)
			if !yield(key, object[i:end]) {
				return
			}
			i = end
		}
	}
}

// items yields the values of an array.
func items(array []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := next(array, 1); array[i] != ']'; i = next(array, i) {
			end := valueEnd(array, i)
			if !yield(array[i:end]) {
				return
			}
			i = end
		}
	}
}

// next returns the first index from i on that is neither white space, a comma
// nor a colon.
func next(b []byte, i int) int {
	for b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r' || b[i] == ',' || b[i] == ':' {
		i++
	}
	return i
}

// valueEnd returns the index after the value that begins at i.
func valueEnd(b []byte, i int) int {
	switch b[i] {
	case '"':
		return stringEnd(b, i)
	case '{', '[':
		depth := 1
		for i++; depth > 0; i++ {
			switch b[i] {
			case '"':
				i = stringEnd(b, i) - 1
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
		}
		return i
	default: // a number, true, false or null
		for i < len(b) && bytes.IndexByte([]byte(space+",]}"), b[i]) < 0 {
			i++
		}
		return i
	}
}

// stringEnd returns the index after the string that begins at i.
func stringEnd(b []byte, i int) int {
	for i++; ; i++ {
		i += bytes.IndexByte(b[i:], '"')
		escapes := 0
		for b[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
}
