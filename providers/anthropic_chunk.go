package providers

import (
	"bytes"
	"io"
)

// An anthropicRun turns the events of one of Anthropic's streams into OpenAI's
// chunks. It belongs to the goroutine of the run.
type anthropicRun struct {
	chunkMaker
	block  anthropicBlock
	tokens anthropicCounts
}

// An anthropicBlock is the block of the message that the stream is in: a message
// is a list of them, and one ends before the next begins.
type anthropicBlock struct {
	kind            string // "": none is open
	text, signature []byte // of thinking, without quotes
	input           []byte // of a tool call that comes without fragments
	fragments       bool   // some came
}

// anthropicCounts are tokens; -1 for what the server didn't tell.
type anthropicCounts struct{ input, written, read, output, thought int }

func newAnthropicRun(req Request) *anthropicRun {
	return &anthropicRun{chunkMaker: chunkMaker{retold: newRetold(req)}, tokens: anthropicCounts{-1, -1, -1, -1, -1}}
}

// An anthropicEvent is an event as text. An event adds something to the message,
// or to a block of it.
type anthropicEvent struct {
	kind                  []byte // without quotes
	message, block, delta []byte
	usage                 []byte
	failed                bool
}

func readEvent(data []byte) (anthropicEvent, error) {
	var e anthropicEvent
	ok := each(data, func(k, v []byte) {
		switch string(k) {
		case "type":
			e.kind = inside(v)
		case "message":
			e.message = v
		case "content_block":
			e.block = v
		case "delta":
			e.delta = v
		case "usage":
			e.usage = v
		case "error":
			e.failed = !isNull(v)
		}
	})
	if !ok {
		return e, errNotChunk
	}
	return e, nil
}

// An anthropicPart is what an object in an event holds: a message, a block, or
// what is added to them. Strings are without quotes but for id, name and model.
type anthropicPart struct {
	kind, text, thinking, signature, fragment, reason []byte
	id, name, model                                   []byte
	input, usage, details                             []byte
}

func readPart(object []byte) (p anthropicPart) {
	each(object, func(k, v []byte) {
		switch string(k) {
		case "type":
			p.kind = inside(v)
		case "text":
			p.text = inside(v)
		case "thinking":
			p.thinking = inside(v)
		case "signature":
			p.signature = inside(v)
		case "partial_json":
			p.fragment = inside(v)
		case "stop_reason":
			p.reason = inside(v)
		case "id":
			p.id = v
		case "name":
			p.name = v
		case "model":
			p.model = v
		case "input":
			p.input = v
		case "usage":
			p.usage = v
		case "stop_details":
			p.details = v
		}
	})
	return p
}

// chunk implements reteller. A ping says nothing, and neither does an event of
// tomorrow.
//
// The beginning of the message and of its blocks make no chunks of their own.
// Newer models think for long and show nothing of it: that is time to the first
// token, and not a stall between chunks.
func (r *anthropicRun) chunk(data []byte) ([]byte, error) {
	e, err := readEvent(data)
	if err != nil {
		return nil, err
	}
	if e.failed {
		r.failed = true
		return nil, nil
	}
	switch string(e.kind) {
	case "message_start":
		m := readPart(e.message)
		r.begin(m.id, m.model)
		r.tokens.take(m.usage)
		r.tokens.output = -1 // of the first token: all are counted at the end
	case "content_block_start":
		return r.enter(e.block), nil
	case "content_block_delta":
		return r.add(e.delta), nil
	case "content_block_stop":
		return r.end(), nil
	case "message_delta":
		r.tokens.take(e.usage)
		return r.finish(e.delta), nil
	case "message_stop":
		if !r.answer.finished() {
			return nil, io.EOF // an answer says at least why it ends
		}
		r.done = true
		r.total()
	}
	return nil, nil
}

// enter begins a block.
func (r *anthropicRun) enter(block []byte) []byte {
	p := readPart(block)
	b := &r.block
	*b = anthropicBlock{text: b.text[:0], signature: b.signature[:0], kind: string(p.kind)}
	switch b.kind {
	case "text":
		return r.text("content", p.text)
	case "thinking":
		return r.think(&p)
	case "redacted_thinking": // it comes at once
		r.open("thinking_blocks")
		r.out = append(append(append(r.out, '['), block...), ']')
		return r.close("null")
	case "tool_use":
		b.input = bytes.Clone(p.input)
		return r.call(p.id, p.name)
	default:
		return nil
	}
}

// add takes what a delta adds to a block. The type of the delta says what that
// is; what is added to a call is the call's where a call is open.
func (r *anthropicRun) add(delta []byte) []byte {
	p := readPart(delta)
	switch string(p.kind) {
	case "text_delta":
		return r.text("content", p.text)
	case "thinking_delta", "signature_delta":
		return r.think(&p)
	case "input_json_delta":
		if r.block.kind == "tool_use" && len(p.fragment) > 0 {
			r.block.fragments = true
			return r.arguments(r.calls-1, p.fragment)
		}
	}
	return nil
}

// end ends a block. What a model thought goes out once more then, in one piece and
// with its signature, in the shape in which it is taken back. Without a signature
// the API does not take it.
func (r *anthropicRun) end() []byte {
	b := &r.block
	kind := b.kind
	b.kind = ""
	switch {
	case kind == "thinking" && len(b.signature) > 0:
		return r.signed(b.text, b.signature)
	case kind == "tool_use" && !b.fragments: // it has no arguments, or all came at once
		if len(b.input) == 0 || b.input[0] != '{' {
			b.input = []byte("{}")
		}
		return r.arguments(r.calls-1, inside(quote(string(b.input))))
	default:
		return nil
	}
}

func (r *anthropicRun) think(p *anthropicPart) []byte {
	r.block.text = append(r.block.text, p.thinking...)
	r.block.signature = append(r.block.signature, p.signature...)
	return r.text("reasoning_content", p.thinking)
}

// finish returns the chunk that says why the answer ends, and, where the model
// refused, in what words.
func (r *anthropicRun) finish(delta []byte) []byte {
	p := readPart(delta)
	if len(p.reason) == 0 || r.answer.finished() {
		return nil
	}
	var words []byte
	each(p.details, func(k, v []byte) {
		if string(k) == "explanation" {
			words = inside(v)
		}
	})
	if len(words) == 0 {
		r.open("")
	} else {
		r.open("refusal")
		r.out = append(append(append(r.out, '"'), words...), '"')
	}
	return r.close(finishOf(p.reason))
}

// finishOf turns Anthropic's reason into OpenAI's.
func finishOf(reason []byte) string {
	switch string(reason) {
	case "max_tokens", "model_context_window_exceeded":
		return `"length"`
	case "tool_use":
		return `"tool_calls"`
	case "refusal":
		return `"content_filter"`
	default: // end_turn, stop_sequence, pause_turn, and reasons of tomorrow
		return `"stop"`
	}
}

// take takes in the server's counts. They are of all that came so far: newer ones
// replace older ones.
func (c *anthropicCounts) take(usage []byte) {
	set := func(n *int, raw []byte) {
		if told := atoi(raw); told >= 0 {
			*n = told
		}
	}
	each(usage, func(k, v []byte) {
		switch string(k) {
		case "input_tokens":
			set(&c.input, v)
		case "cache_creation_input_tokens":
			set(&c.written, v)
		case "cache_read_input_tokens":
			set(&c.read, v)
		case "output_tokens":
			set(&c.output, v)
		case "output_tokens_details":
			each(v, func(k, v []byte) {
				if string(k) == "thinking_tokens" {
					set(&c.thought, v)
				}
			})
		}
	})
}

// total says what the answer took. OpenAI counts a prompt's cached tokens as tokens
// of the prompt, Anthropic counts them apart.
func (r *anthropicRun) total() {
	c := &r.tokens
	prompt := c.input
	if prompt >= 0 {
		prompt += max(0, c.written) + max(0, c.read)
	}
	r.count(prompt, c.output, c.read, c.thought)
}
