package providers

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// addTools takes pieces of tool calls. The first piece of a call brings its id
// and name, and all bring pieces of its arguments.
func (a *answer) addTools(s *scanner, c *choice) {
	s.enter('[')
	for s.element('[', ']') {
		if s.peek() != '{' {
			s.value()
			continue
		}
		t := a.call(s, c)
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
				v := s.value()
				if string(k) == "id" && t.named(inside(v)) {
					a.edits = append(a.edits, edit{s.i - len(v), len(v), "null"}) // readers put the pieces of an id together
				}
				t.set(k, inside(v))
			default:
				t.others = keepSaid(t.others, k, s.value())
			}
		}
	}
}

// call returns the tool call that the piece belongs to which comes next.
func (a *answer) call(s *scanner, c *choice) *tool {
	p := peekPiece(*s)
	if p.index >= 0 {
		return c.tool(p.index)
	}
	t := c.unnumbered(&p)
	if p.number.text != "" {
		p.number.text = strings.Replace(p.number.text, "?", strconv.Itoa(t.index), 1)
		a.edits = append(a.edits, p.number)
	}
	return t
}

// A piece is what tells of a piece of a tool call which call it is of.
type piece struct {
	index    int // -1: it has none
	id, name []byte
	number   edit // gives it an index, in place of the "?"
}

// peekPiece looks at the piece that comes next.
func peekPiece(s scanner) piece {
	p := piece{index: -1}
	s.enter('{')
	start := s.i
	for {
		k, ok := s.key()
		if !ok {
			return p
		}
		if p.number.text == "" {
			p.number = edit{start, 0, `"index":?,`}
		}
		switch text := s.peek() == '"'; {
		case string(k) == "index":
			v := s.value()
			p.index = atoi(v)
			p.number = edit{s.i - len(v), len(v), "?"}
		case string(k) == "id" && text:
			p.id = s.str()
		case string(k) == "function" && s.peek() == '{':
			p.name = nameIn(s)
			s.value()
		default:
			s.value()
		}
	}
}

// nameIn returns the "name" of the object that comes next, "" without one.
func nameIn(s scanner) (name []byte) {
	s.enter('{')
	for {
		k, ok := s.key()
		if !ok {
			return name
		}
		if string(k) == "name" && s.peek() == '"' {
			name = s.str()
		} else {
			s.value()
		}
	}
}

// unnumbered returns the call that a piece without an index is of. Google sends
// whole calls one by one, and none of them has an index: an id that is new begins
// a call, and without ids a name does, unless the newest call is of that name and
// still lacks arguments. All else belongs to the newest call.
func (c *choice) unnumbered(p *piece) *tool {
	if len(c.tools) == 0 {
		return c.tool(0)
	}
	newest := &c.tools[len(c.tools)-1]
	begins := false
	switch {
	case len(p.id) > 0:
		for i := range c.tools {
			if bytes.Equal(c.tools[i].id, p.id) {
				return &c.tools[i]
			}
		}
		begins = true
	case len(p.name) > 0:
		begins = !bytes.Equal(newest.name, p.name) || json.Valid(unescape(newest.args))
	}
	if begins {
		return c.tool(newest.index + 1)
	}
	return newest
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

// named reports whether the call has that id already.
func (t *tool) named(id []byte) bool { return len(id) > 0 && bytes.Equal(t.id, id) }

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
			t.inner = keepSaid(t.inner, k, s.value())
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
	if kind == schemas.Completion && (c.text != nil || !c.chat) {
		out = append(out, `,"text":"`...)
		out = append(append(out, c.text...), '"')
	} else {
		out = append(out, `,"message":`...)
		out = c.appendMessage(out)
	}
	out = c.appendLogprobs(out)
	for _, m := range c.others {
		out = appendRaw(out, m.key, m.value)
	}
	return append(appendRaw(out, []byte("finish_reason"), c.reason()), '}')
}

// reason returns why the choice ended, also where the server said the end of the
// stream and not why.
func (c *choice) reason() []byte {
	switch {
	case c.finish != nil:
		return c.finish
	case len(c.tools) > 0:
		return []byte(`"tool_calls"`)
	default:
		return []byte(`"stop"`)
	}
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
