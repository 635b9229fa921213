package providers

import (
	"math/rand/v2"
	"strconv"

	"github.com/vramjet/vramjet/schemas"
)

// chunkHead returns what all chunks of an answer begin with, up to their choices.
// id and model are JSON strings; what is none is made up, or "".
func chunkHead(kind schemas.Kind, created int64, id, model []byte) []byte {
	prefix, object := "chatcmpl-", "chat.completion.chunk"
	if kind == schemas.Completion {
		prefix, object = "cmpl-", "text_completion"
	}
	if len(inside(id)) == 0 {
		id = quote(prefix + strconv.FormatUint(rand.Uint64(), 36)) //nolint:gosec // an id, not a secret
	}
	if inside(model) == nil {
		model = []byte(`""`)
	}
	h := append([]byte(`{"id":`), id...)
	h = append(append(append(h, `,"object":"`...), object...), `","created":`...)
	h = strconv.AppendInt(h, created, 10)
	h = append(append(h, `,"model":`...), model...)
	return append(h, `,"choices":[`...)
}

// A chunkMaker writes what another dialect says in a chat as OpenAI's chunks. Each
// is valid until the next. Strings are given as they stand between quotes.
type chunkMaker struct {
	prompt  int   // bytes
	created int64 // Unix seconds

	head  []byte // what all chunks begin with, up to their choices
	out   []byte // the newest chunk; nil: there was none
	calls int    // tool calls so far
}

// open begins a chunk that adds a member to the message; "" adds none.
func (c *chunkMaker) open(name string) {
	if c.head == nil {
		c.head = chunkHead(schemas.Chat, c.created, nil, nil)
	}
	first := c.out == nil
	c.out = append(append(c.out[:0], c.head...), `{"index":0,"delta":{`...)
	if first {
		c.out = append(c.out, `"role":"assistant"`...)
	}
	if name == "" {
		return
	}
	if first {
		c.out = append(c.out, ',')
	}
	c.out = append(append(append(c.out, '"'), name...), `":`...)
}

// close ends the chunk. finish is JSON.
func (c *chunkMaker) close(finish string) []byte {
	c.out = append(append(c.out, `},"finish_reason":`...), finish...)
	c.out = append(c.out, "}]}"...)
	return c.out
}

// text returns a chunk with a piece of text, nil where there is none.
func (c *chunkMaker) text(name string, text []byte) []byte {
	if len(text) == 0 {
		return nil
	}
	c.open(name)
	c.out = append(append(append(c.out, '"'), text...), '"')
	return c.close("null")
}

// signed returns a chunk with what the model thought in one piece, in the shape in
// which it is taken back.
func (c *chunkMaker) signed(text, signature []byte) []byte {
	c.open("thinking_blocks")
	c.out = append(append(c.out, `[{"type":"thinking","thinking":"`...), text...)
	c.out = append(append(append(c.out, `","signature":"`...), signature...), `"}]`...)
	return c.close("null")
}

// call returns the chunk that begins a tool call. Calls are counted, whatever the
// index of their block is. id and name are JSON strings.
func (c *chunkMaker) call(id, name []byte) []byte {
	c.open("tool_calls")
	c.out = strconv.AppendInt(append(c.out, `[{"index":`...), int64(c.calls), 10)
	c.out = append(append(append(c.out, `,"id":"`...), inside(id)...), `","type":"function","function":{"name":"`...)
	c.out = append(append(c.out, inside(name)...), `","arguments":""}}]`...)
	c.calls++
	return c.close("null")
}

// arguments returns a chunk with a piece of the arguments of a call.
func (c *chunkMaker) arguments(call int, fragment []byte) []byte {
	c.open("tool_calls")
	c.out = strconv.AppendInt(append(c.out, `[{"index":`...), int64(call), 10)
	c.out = append(append(append(c.out, `,"function":{"arguments":"`...), fragment...), `"}}]`...)
	return c.close("null")
}

// counted returns the last chunk: no choices, but the counts. cached and thought are
// tokens among them; -1: the server didn't tell.
func (c *chunkMaker) counted(u schemas.Usage, cached, thought int) []byte {
	c.out = append(append(c.out[:0], c.head...), `],"usage":`...)
	c.out = appendUsage(c.out, u)
	c.out = c.out[:len(c.out)-1]
	if cached >= 0 {
		c.out = strconv.AppendInt(append(c.out, `,"prompt_tokens_details":{"cached_tokens":`...), int64(cached), 10)
		c.out = append(c.out, '}')
	}
	if thought >= 0 {
		c.out = strconv.AppendInt(append(c.out, `,"completion_tokens_details":{"reasoning_tokens":`...), int64(thought), 10)
		c.out = append(c.out, '}')
	}
	c.out = append(c.out, "}}"...)
	return c.out
}

// relay takes a chunk of our own making and passes it on.
func (a *answer) relay(chunk []byte, emit func([]byte) error) error {
	if _, err := a.add(chunk); err != nil {
		return err
	}
	if err := emit(chunk); err != nil {
		return &emitError{err}
	}
	return nil
}

// estimate fills in what the server did not count, which is -1 in counts. prompt
// is the length of the prompt in bytes.
func (a *answer) estimate(counts schemas.Usage, prompt int) schemas.Usage {
	a.usage = appendCounts(nil, counts)
	u, _ := a.readUsage(prompt)
	a.usage = nil
	return u
}

// appendCounts appends the counts that are known as usage.
func appendCounts(out []byte, u schemas.Usage) []byte {
	out = append(out, '{')
	if u.PromptTokens >= 0 {
		out = append(out, `"prompt_tokens":`...)
		out = strconv.AppendInt(out, int64(u.PromptTokens), 10)
	}
	if u.CompletionTokens >= 0 {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, `"completion_tokens":`...)
		out = strconv.AppendInt(out, int64(u.CompletionTokens), 10)
	}
	return append(out, '}')
}

// inside returns what stands between the quotes of a string, nil for no string.
func inside(v []byte) []byte {
	if len(v) < 2 || v[0] != '"' {
		return nil
	}
	return v[1 : len(v)-1]
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
