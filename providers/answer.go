package providers

import (
	"bytes"
	"errors"
	"slices"
	"strconv"

	"github.com/vramjet/vramjet/schemas"
)

// errNotChunk means that an event is not a JSON object.
var errNotChunk = errors.New("an event of the stream is not a JSON object")

// An answer puts the chunks of a stream together to what the server would have
// answered without "stream". Everything is kept as the text it came as: strings
// that are continued are joined with their escapes, so nothing is decoded.
type answer struct {
	members []member // of the chunks themselves
	choices []choice // in order of their index
	usage   []byte
	pieces  int // chunks that brought text

	ended bool // some choice is finished

	stopsAtTools, saysNoReason bool // as the quirks say

	// Of the newest chunk.
	edits   []edit // what OpenAI would have written
	told    bool   // it brought usage
	news    bool   // it says that a choice is finished which was not, or for another reason
	repeats bool   // it only says once more that a choice is finished
	out     []byte
}

// A choice is one of the answers that were asked for.
type choice struct {
	index    int
	chat     bool // has a message, rather than a text
	role     []byte
	text     []byte   // of a completion, without quotes; nil: none
	texts    []member // strings of its message that grow, without quotes: content, reasoning_content…
	tools    []tool
	lists    []member // arrays of its message that grow, without brackets: thinking_blocks…
	logprobs []member // arrays that grow, without brackets
	finish   []byte   // nil: not finished
	others   []member // of the choice
	extra    []member // of its message
}

// A tool is a tool call. Its strings grow, and are kept without quotes.
type tool struct {
	index         int
	id, kind      []byte
	name, args    []byte
	others, inner []member // of the call, and of its function
}

// add takes one chunk. It returns the value of "error" where the chunk has one, and
// "error" where that is what the chunk says it is: old versions of vLLM do.
func (a *answer) add(chunk []byte) (failure []byte, err error) {
	s := scanner{b: chunk}
	before, parts := a.pieces, 0
	a.edits, a.repeats, a.told, a.news = a.edits[:0], false, false, false
	if a.ended {
		parts = a.parts()
	}
	s.enter('{')
	for slot := 0; ; slot++ {
		k, ok := s.key()
		if !ok {
			break
		}
		switch string(k) {
		case "choices":
			a.addChoices(&s)
		case "usage":
			if v := s.value(); !isNull(v) {
				a.usage = append(a.usage[:0], v...)
				a.told = true
			}
		case "error":
			if v := s.value(); !isNull(v) {
				failure = v
			}
		default:
			v := s.value()
			if string(k) == "object" && string(v) == `"error"` {
				failure = v
			}
			a.members = keep(a.members, slot, k, v)
		}
	}
	if !s.end() {
		return nil, errNotChunk
	}
	if a.pieces > before {
		a.pieces = before + 1
	}
	a.repeats = a.repeats && !a.news && a.pieces == before && !a.told && a.parts() == parts
	return failure, nil
}

// parts counts what came beside text and usage.
func (a *answer) parts() int {
	n := len(a.members)
	for i := range a.choices {
		c := &a.choices[i]
		n += len(c.others) + len(c.extra) + len(c.tools)
		for _, list := range [][]member{c.lists, c.logprobs} {
			for _, m := range list {
				n += len(m.value)
			}
		}
	}
	return n
}

func isNull(v []byte) bool { return len(v) == 4 && v[0] == 'n' }

// keep sets a member to its newest value, unless that says nothing: Azure sends
// chunks between the others with "" and 0. slot is where the member probably is:
// chunks of a stream look alike.
func keep(list []member, slot int, key, value []byte) []member {
	if slot >= len(list) || !bytes.Equal(list[slot].key, key) {
		slot = slices.IndexFunc(list, func(m member) bool { return bytes.Equal(m.key, key) })
	}
	switch {
	case slot < 0:
		return append(list, member{bytes.Clone(key), bytes.Clone(value)})
	case bytes.Equal(list[slot].value, value), isNull(value), string(value) == `""`, string(value) == "0":
	default:
		list[slot].value = append(list[slot].value[:0], value...)
	}
	return list
}

// keepSaid keeps a member that says something.
func keepSaid(list []member, key, value []byte) []member {
	if isNull(value) {
		return list
	}
	return keep(list, len(list), key, value)
}

// grow appends to the string, or array, of that name.
func grow(list []member, key, more, between []byte) []member {
	for i := range list {
		if bytes.Equal(list[i].key, key) {
			if len(list[i].value) > 0 && len(more) > 0 {
				list[i].value = append(list[i].value, between...)
			}
			list[i].value = append(list[i].value, more...)
			return list
		}
	}
	return append(list, member{bytes.Clone(key), bytes.Clone(more)})
}

func (a *answer) addChoices(s *scanner) {
	if s.peek() != '[' {
		s.value()
		return
	}
	s.enter('[')
	for s.element('[', ']') {
		if s.peek() != '{' {
			s.value()
			continue
		}
		a.addChoice(s)
	}
}

func (a *answer) addChoice(s *scanner) {
	c := a.choice(indexOr(*s, 0))
	s.enter('{')
	for slot := 0; ; slot++ {
		k, ok := s.key()
		if !ok {
			return
		}
		switch string(k) {
		case "index":
			s.value()
		case "delta", "message":
			c.chat = true
			a.addDelta(s, c)
		case "text":
			a.addPlain(s, c)
		case "finish_reason":
			a.addFinish(s, c)
		case "logprobs":
			c.logprobs = addArrays(s, c.logprobs)
		default:
			c.others = keep(c.others, slot, k, s.value())
		}
	}
}

// indexOr returns the "index" of the object that comes next, or none without one.
func indexOr(s scanner, none int) int {
	s.enter('{')
	for {
		k, ok := s.key()
		if !ok {
			return none
		}
		if v := s.value(); string(k) == "index" && atoi(v) >= 0 {
			return atoi(v)
		}
	}
}

// choice returns the choice with that index.
func (a *answer) choice(index int) *choice {
	i := 0
	for i < len(a.choices) && a.choices[i].index < index {
		i++
	}
	if i == len(a.choices) || a.choices[i].index != index {
		a.choices = slices.Insert(a.choices, i, choice{index: index})
	}
	return &a.choices[i]
}

// addPlain takes a piece of a completion's text.
func (a *answer) addPlain(s *scanner, c *choice) {
	if s.peek() != '"' {
		s.value()
		return
	}
	text := s.str()
	if len(text) > 0 {
		a.pieces++
	}
	if c.text == nil {
		c.text = []byte{}
	}
	c.text = append(c.text, text...)
}

// addText takes a piece of a string that grows. What is no string is skipped.
func (a *answer) addText(s *scanner, c *choice, key []byte) {
	if s.peek() != '"' {
		s.value()
		return
	}
	text := s.str()
	if len(text) > 0 {
		a.pieces++
	}
	c.texts = grow(c.texts, key, text, nil)
}

func (a *answer) addDelta(s *scanner, c *choice) {
	if s.peek() != '{' {
		s.value()
		return
	}
	whole := *s
	s.enter('{')
	for {
		k, ok := s.key()
		if !ok {
			return
		}
		next := s.peek()
		switch {
		case string(k) == "role":
			if v := s.value(); len(c.role) == 0 && len(v) > 2 && v[0] == '"' {
				c.role = bytes.Clone(v)
			}
		case string(k) == "tool_calls" && next == '[':
			a.addTools(s, c)
		case string(k) == reasoningName && next == '"' && !named(whole, thoughtsName):
			a.edits = append(a.edits, edit{cap(s.b) - cap(k), len(reasoningName), thoughtsName})
			a.addText(s, c, []byte(thoughtsName))
		case next == '"':
			a.addText(s, c, k)
		case next == '[':
			c.lists = addArray(c.lists, k, s.value())
		default:
			c.extra = keepSaid(c.extra, k, s.value())
		}
	}
}

// named reports whether the object that comes next has a member of that name.
func named(s scanner, name string) bool {
	s.enter('{')
	for {
		k, ok := s.key()
		if !ok {
			return false
		}
		if string(k) == name {
			return true
		}
		s.value()
	}
}

// addArrays joins an object of arrays with those that came before.
func addArrays(s *scanner, list []member) []member {
	if s.peek() != '{' {
		s.value()
		return list
	}
	s.enter('{')
	for {
		k, ok := s.key()
		if !ok {
			return list
		}
		list = addArray(list, k, s.value())
	}
}

// addArray joins an array with those of its name that came before. What is no
// array is skipped.
func addArray(list []member, key, array []byte) []member {
	if len(array) < 2 || array[0] != '[' {
		return list
	}
	return grow(list, key, bytes.TrimSpace(array[1:len(array)-1]), []byte{','})
}

// finished reports whether there is a choice and each has its finish reason.
func (a *answer) finished() bool {
	for i := range a.choices {
		if a.choices[i].finish == nil {
			return false
		}
	}
	return len(a.choices) > 0
}

// failed reports whether a choice says that the server gave up on it: vLLM and
// SGLang abort what runs when they are told to sleep, say.
func (a *answer) failed() bool {
	return slices.ContainsFunc(a.choices, func(c choice) bool {
		return string(c.finish) == `"error"` || string(c.finish) == `"abort"`
	})
}

// model returns the name that the server gave its model.
func (a *answer) model() string {
	for _, m := range a.members {
		if string(m.key) == "model" && len(m.value) > 2 && m.value[0] == '"' {
			return string(unescape(m.value[1 : len(m.value)-1]))
		}
	}
	return ""
}

// readUsage reads the server's count of tokens. Not every server counts, or
// counts everything: what is missing is estimated, the completion by the chunks
// that brought text and the prompt as a token for every 4 of its bytes.
func (a *answer) readUsage(prompt int) (u schemas.Usage, told bool) {
	u.PromptTokens, u.CompletionTokens, u.TotalTokens = -1, -1, -1
	found, _ := members(a.usage)
	for _, m := range found {
		switch n := atoi(m.value); string(m.key) {
		case "prompt_tokens", "input_tokens":
			u.PromptTokens = max(u.PromptTokens, n)
		case "completion_tokens", "output_tokens":
			u.CompletionTokens = max(u.CompletionTokens, n)
		case "total_tokens":
			u.TotalTokens = n
		}
	}
	told = u.PromptTokens >= 0 && u.CompletionTokens >= 0 && u.TotalTokens >= 0
	if told { // what Google's models think is in no number but the total
		u.CompletionTokens = max(u.CompletionTokens, u.TotalTokens-u.PromptTokens)
	}
	if u.PromptTokens < 0 {
		u.PromptTokens = max(1, prompt/4)
	}
	if u.CompletionTokens < 0 {
		u.CompletionTokens = a.pieces
	}
	if u.TotalTokens < 0 {
		u.TotalTokens = u.PromptTokens + u.CompletionTokens
	}
	return u, told
}

// whole returns the answer. prompt is the length of the prompt in bytes.
func (a *answer) whole(kind schemas.Kind, prompt int) Answer {
	usage, told := a.readUsage(prompt)
	size := 256
	for i := range a.choices {
		for _, t := range a.choices[i].texts {
			size += len(t.value) + 64
		}
	}
	object := `"chat.completion"`
	if kind == schemas.Completion {
		object = `"text_completion"`
	}
	out := append(make([]byte, 0, size), `{"object":`...)
	out = append(out, object...)
	for _, m := range a.members {
		if string(m.key) != "object" {
			out = appendRaw(out, m.key, m.value)
		}
	}
	out = append(out, `,"choices":[`...)
	for i := range a.choices {
		if i > 0 {
			out = append(out, ',')
		}
		out = a.choices[i].append(out, kind)
	}
	out = append(out, `],"usage":`...)
	if told {
		out = append(out, a.usage...)
	} else {
		out = appendUsage(out, usage)
	}
	return Answer{Body: append(out, '}'), Usage: usage, Model: a.model()}
}

// appendUsage appends what was counted, where the server did not say it all.
func appendUsage(out []byte, u schemas.Usage) []byte {
	out = append(out, `{"prompt_tokens":`...)
	out = strconv.AppendInt(out, int64(u.PromptTokens), 10)
	out = append(out, `,"completion_tokens":`...)
	out = strconv.AppendInt(out, int64(u.CompletionTokens), 10)
	out = append(out, `,"total_tokens":`...)
	out = strconv.AppendInt(out, int64(u.TotalTokens), 10)
	return append(out, '}')
}
