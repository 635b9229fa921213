package providers

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
)

// An edit is a place in a chunk where a server writes something else than OpenAI
// does: drop bytes from at on give way to text.
type edit struct {
	at, drop int
	text     string
}

// What a model thought, as vLLM, OpenRouter, LM Studio and Ollama name it, and as
// we and the others do.
const (
	reasoningName = "reasoning"
	thoughtsName  = "reasoning_content"
)

// edit puts text in the place of old, which is a part of the scanner's text.
func (a *answer) edit(s *scanner, old []byte, text string) {
	a.edits = append(a.edits, edit{cap(s.b) - cap(old), len(old), text})
}

// rewrite returns the newest chunk as OpenAI would have written it: with one name
// for what the model thought, its finish reasons, a number for each tool call and
// its id once. It is valid until the next call.
func (a *answer) rewrite(chunk []byte) []byte {
	if len(a.edits) == 0 {
		return chunk
	}
	slices.SortFunc(a.edits, func(x, y edit) int { return cmp.Compare(x.at, y.at) })
	a.out = a.out[:0]
	last := 0
	for _, e := range a.edits {
		a.out = append(append(a.out, chunk[last:e.at]...), e.text...)
		last = e.at + e.drop
	}
	a.out = append(a.out, chunk[last:]...)
	return a.out
}

// addFinish takes the reason why a choice is finished. Azure may correct it, once
// its filter has seen the whole text.
func (a *answer) addFinish(s *scanner, c *choice) {
	said := s.value()
	if len(said) <= 2 || said[0] != '"' {
		return
	}
	if reason := a.reason(c, said); reason != "" {
		a.edit(s, said, reason)
		said = []byte(reason)
	}
	if bytes.Equal(c.finish, said) {
		a.repeats = true
		return
	}
	a.news, a.ended = true, true
	c.finish = append(c.finish[:0], said...)
}

// reason returns OpenAI's word for a finish reason, "" where it is that already.
func (a *answer) reason(c *choice, said []byte) string {
	switch string(said) {
	case `"eos"`, `"eos_token"`, `"stop_sequence"`: // Together's, and TGI's
		return `"stop"`
	case `"stop"`:
		if a.stopsAtTools && len(c.tools) > 0 {
			return `"tool_calls"`
		}
	}
	return ""
}

// closing returns the chunk that a server left out which ended its stream without
// a word on why. nil: it left none out.
func (a *answer) closing() []byte {
	if a.finished() {
		return nil
	}
	out := []byte(`{"choices":[`)
	for i := range a.choices {
		c := &a.choices[i]
		if c.finish != nil {
			continue
		}
		if out[len(out)-1] == '}' {
			out = append(out, ',')
		}
		out = append(out, `{"index":`...)
		out = strconv.AppendInt(out, int64(c.index), 10)
		if c.chat {
			out = append(out, `,"delta":{}`...)
		} else {
			out = append(out, `,"text":""`...)
		}
		out = append(appendRaw(out, []byte("finish_reason"), c.reason()), '}')
	}
	out = append(out, ']')
	for _, m := range a.members {
		switch string(m.key) {
		case "id", "object", "created", "model":
			out = appendRaw(out, m.key, m.value)
		}
	}
	return append(out, '}')
}
