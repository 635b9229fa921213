package providers

import (
	"strconv"

	"github.com/vramjet/vramjet/schemas"
)

// A chunkMaker writes what another dialect says in a chat as OpenAI's chunks. Each
// is valid until the next. Strings are given as they stand between quotes.
type chunkMaker struct {
	retold
	calls int // tool calls so far
}

// open begins a chunk that adds a member to the message; "" adds none.
func (c *chunkMaker) open(name string) {
	if c.head == nil {
		c.begin(nil, nil)
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

// count says what the answer took. cached and thought are tokens among them; -1: the
// server didn't tell.
func (c *chunkMaker) count(prompt, completion, cached, thought int) {
	c.counts = schemas.Usage{PromptTokens: prompt, CompletionTokens: completion}
	c.details = nil
	if cached >= 0 {
		c.details = strconv.AppendInt(append(c.details, `,"prompt_tokens_details":{"cached_tokens":`...), int64(cached), 10)
		c.details = append(c.details, '}')
	}
	if thought >= 0 {
		c.details = strconv.AppendInt(append(c.details, `,"completion_tokens_details":{"reasoning_tokens":`...), int64(thought), 10)
		c.details = append(c.details, '}')
	}
}
