package providers

import (
	"bytes"
	"slices"
	"strconv"

	"github.com/vramjet/vramjet/schemas"
)

// addTools takes pieces of tool calls. The first piece of a call brings its id
// and name, and all bring pieces of its arguments.
func (a *answer) addTools(s *scanner, c *choice) {
	s.enter('[')
	for position := 0; s.element('[', ']'); position++ {
		if s.peek() != '{' {
			s.value()
			continue
		}
		t := c.tool(indexOr(*s, position)) // some servers send no index
		s.enter('{')
		for {
			k, ok := s.key()
			if !ok {
				break
			}
			switch {
			case string(k) == "index":
				s.value()
			case string(k) == "function" && s.peek() == '{':
				a.addFunction(s, t)
			case s.peek() == '"':
				t.set(k, s.str())
			default:
				t.others = keep(t.others, len(t.others), k, s.value())
			}
		}
	}
}

func (c *choice) tool(index int) *tool {
	i := 0
	for i < len(c.tools) && c.tools[i].index < index {
		i++
	}
	if i == len(c.tools) || c.tools[i].index != index {
		c.tools = slices.Insert(c.tools, i, tool{index: index})
	}
	return &c.tools[i]
}

// set takes a string of the call that is sent once, or again and again.
func (t *tool) set(key, value []byte) {
	switch {
	case len(value) == 0:
	case string(key) == "id":
		t.id = append(t.id[:0], value...)
	case string(key) == "type":
		t.kind = append(t.kind[:0], value...)
	default:
		t.others = keep(t.others, len(t.others), key, slicesConcat(`"`, value, `"`))
	}
}

func (a *answer) addFunction(s *scanner, t *tool) {
	s.enter('{')
	for {
		k, ok := s.key()
		if !ok {
			return
		}
		text := s.peek() == '"'
		switch {
		case text && string(k) == "name":
			if v := s.str(); len(v) > 0 {
				t.name = append(t.name[:0], v...)
				a.pieces++
			}
		case text && string(k) == "arguments":
			v := s.str()
			t.args = append(t.args, v...)
			a.pieces++
		default:
			t.inner = keep(t.inner, len(t.inner), k, s.value())
		}
	}
}

// appendRaw appends a member whose name is raw.
func appendRaw(out, key, value []byte) []byte {
	out = append(out, ',', '"')
	out = append(out, key...)
	out = append(out, `":`...)
	return append(out, value...)
}

func appendString(out, key, text []byte) []byte {
	out = append(out, ',', '"')
	out = append(out, key...)
	out = append(out, `":"`...)
	out = append(out, text...)
	return append(out, '"')
}

// append writes the choice as OpenAI's API does without "stream".
func (c *choice) append(out []byte, kind schemas.Kind) []byte {
	out = append(out, `{"index":`...)
	out = strconv.AppendInt(out, int64(c.index), 10)
	if kind == schemas.Completion && !c.chat {
		out = append(out, `,"text":"`...)
		out = append(append(out, c.text("text")...), '"')
	} else {
		out = append(out, `,"message":`...)
		out = c.appendMessage(out)
	}
	out = c.appendLogprobs(out)
	for _, m := range c.others {
		out = appendRaw(out, m.key, m.value)
	}
	finish := c.finish
	if finish == nil {
		finish = []byte(`"stop"`) // the server said the end of the stream and not why
	}
	return append(appendRaw(out, []byte("finish_reason"), finish), '}')
}

func (c *choice) text(key string) []byte {
	for _, t := range c.texts {
		if string(t.key) == key {
			return t.value
		}
	}
	return nil
}

func (c *choice) appendMessage(out []byte) []byte {
	role := c.role
	if role == nil {
		role = []byte(`"assistant"`)
	}
	out = append(append(out, `{"role":`...), role...)
	content, said := []byte(nil), false
	for _, t := range c.texts {
		if string(t.key) == "content" {
			content, said = t.value, true
		}
	}
	if said && (len(content) > 0 || len(c.tools) == 0) {
		out = appendString(out, []byte("content"), content)
	} else {
		out = append(out, `,"content":null`...)
	}
	for _, t := range c.texts {
		if string(t.key) != "content" && len(t.value) > 0 {
			out = appendString(out, t.key, t.value)
		}
	}
	out = c.appendTools(out)
	for _, m := range c.lists {
		out = appendRaw(out, m.key, slicesConcat("[", m.value, "]"))
	}
	for _, m := range c.extra {
		out = appendRaw(out, m.key, m.value)
	}
	return append(out, '}')
}

func (c *choice) appendTools(out []byte) []byte {
	if len(c.tools) == 0 {
		return out
	}
	out = append(out, `,"tool_calls":[`...)
	for i := range c.tools {
		if i > 0 {
			out = append(out, ',')
		}
		out = c.tools[i].append(out)
	}
	return append(out, ']')
}

func (t *tool) append(out []byte) []byte {
	kind := t.kind
	if kind == nil {
		kind = []byte("function")
	}
	out = append(out, `{"id":"`...)
	out = append(append(out, t.id...), '"')
	out = appendString(out, []byte("type"), kind)
	for _, m := range t.others {
		out = appendRaw(out, m.key, m.value)
	}
	out = append(out, `,"function":{"name":"`...)
	out = append(append(out, t.name...), '"')
	out = appendString(out, []byte("arguments"), t.args)
	for _, m := range t.inner {
		out = appendRaw(out, m.key, m.value)
	}
	return append(out, "}}"...)
}

func (c *choice) appendLogprobs(out []byte) []byte {
	if c.logprobs == nil {
		return append(out, `,"logprobs":null`...)
	}
	out = append(out, `,"logprobs":`...)
	for i, m := range c.logprobs {
		if i == 0 {
			out = append(out, '{')
		} else {
			out = append(out, ',')
		}
		out = append(append(append(out, '"'), m.key...), `":[`...)
		out = append(append(out, bytes.TrimSpace(m.value)...), ']')
	}
	return append(out, '}')
}
