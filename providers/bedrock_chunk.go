package providers

import (
	"encoding/base64"
	"slices"

	"github.com/vramjet/vramjet/schemas"
)

// A bedrockRun turns the events of one stream of Converse into OpenAI's chunks. It
// belongs to the goroutine of the run.
type bedrockRun struct {
	chunkMaker
	backend string        // for messages
	tools   []bedrockCall // one for each of the calls

	// Of the block of the message that the stream is in, what the model thought.
	text, signature []byte // without quotes
	redacted        []byte // encrypted; not as base64
}

// A bedrockCall is a tool call.
type bedrockCall struct {
	block     int  // the index of its block
	fragments bool // some of its arguments came
}

func newBedrockRun(backend string, req Request) *bedrockRun {
	r := &bedrockRun{backend: backend, chunkMaker: chunkMaker{retold: newRetold(req)}}
	r.begin(nil, quote(req.Model)) // the API does not say whose answer it is
	return r
}

// chunk returns an event as a chunk, which is valid until the next call. nil: it says
// nothing to OpenAI's readers. The counts are the last event.
func (r *bedrockRun) chunk(f *frame) ([]byte, error) {
	var index int
	var start, delta, usage, reason []byte
	ok := each(f.payload, func(k, v []byte) {
		switch string(k) {
		case "contentBlockIndex":
			index = atoi(v)
		case "start":
			start = v
		case "delta":
			delta = v
		case "usage":
			usage = v
		case "stopReason":
			reason = inside(v)
		}
	})
	if !ok {
		return nil, errNotChunk
	}
	switch string(f.name) {
	case "contentBlockStart":
		return r.enter(index, start), nil
	case "contentBlockDelta":
		return r.add(index, delta)
	case "contentBlockStop":
		return r.end(index), nil
	case "messageStop":
		return r.finish(reason)
	case "metadata":
		r.done = r.answer.finished()
		r.total(usage)
	}
	return nil, nil
}

// enter begins a block. Only those of tool calls say anything there. Tools that the
// server itself runs are not the caller's to run.
func (r *bedrockRun) enter(index int, start []byte) []byte {
	var id, name, kind []byte
	each(start, func(k, v []byte) {
		if string(k) != "toolUse" {
			return
		}
		each(v, func(k, v []byte) {
			switch string(k) {
			case "toolUseId":
				id = v
			case "name":
				name = v
			case "type":
				kind = inside(v)
			}
		})
	})
	if name == nil || string(kind) == "server_tool_use" {
		return nil
	}
	r.tools = append(r.tools, bedrockCall{block: index})
	return r.call(id, name)
}

// callAt returns the tool call that is the block with that index, -1 if none is.
func (r *bedrockRun) callAt(index int) int {
	return slices.IndexFunc(r.tools, func(c bedrockCall) bool { return c.block == index })
}

// add takes what a delta adds to a block.
func (r *bedrockRun) add(index int, delta []byte) (chunk []byte, err error) {
	each(delta, func(k, v []byte) {
		switch string(k) {
		case "text":
			chunk = r.chunkMaker.text("content", inside(v))
		case "toolUse":
			chunk = r.addInput(index, v)
		case "reasoningContent":
			chunk, err = r.think(v)
		}
	})
	return chunk, err
}

func (r *bedrockRun) addInput(index int, delta []byte) []byte {
	call := r.callAt(index)
	var input []byte
	each(delta, func(k, v []byte) {
		if string(k) == "input" {
			input = inside(v)
		}
	})
	if call < 0 || len(input) == 0 {
		return nil
	}
	r.tools[call].fragments = true
	return r.arguments(call, input)
}

func (r *bedrockRun) think(delta []byte) (chunk []byte, err error) {
	each(delta, func(k, v []byte) {
		v = inside(v)
		switch string(k) {
		case "text":
			r.text = append(r.text, v...)
			chunk = r.chunkMaker.text(thoughtsName, v)
		case "signature":
			r.signature = append(r.signature, v...)
		case "redactedContent":
			if r.redacted, err = base64.StdEncoding.AppendDecode(r.redacted, unescape(v)); err != nil {
				err = errNotChunk
			}
		}
	})
	return chunk, err
}

// end ends a block. What a model thought goes out once more then, in one piece and
// with its signature, in the shape in which it is taken back.
func (r *bedrockRun) end(index int) (chunk []byte) {
	call := r.callAt(index)
	switch {
	case call >= 0 && !r.tools[call].fragments:
		chunk = r.arguments(call, []byte("{}"))
	case len(r.signature) > 0:
		chunk = r.signed(r.text, r.signature)
	case len(r.redacted) > 0:
		r.open("thinking_blocks")
		r.out = append(r.out, `[{"type":"redacted_thinking","data":"`...)
		r.out = append(base64.StdEncoding.AppendEncode(r.out, r.redacted), `"}]`...)
		chunk = r.close("null")
	}
	r.text, r.signature, r.redacted = r.text[:0], r.signature[:0], r.redacted[:0]
	return chunk
}

// finish returns the chunk that says why the answer ends.
func (r *bedrockRun) finish(reason []byte) ([]byte, error) {
	why := `"stop"` // end_turn, stop_sequence, and reasons of tomorrow
	switch string(reason) {
	case "":
		return nil, errNotChunk
	case "max_tokens", "model_context_window_exceeded":
		why = `"length"`
	case "tool_use":
		why = `"tool_calls"`
	case "guardrail_intervened", "content_filtered":
		why = `"content_filter"`
	case "malformed_model_output", "malformed_tool_use":
		return nil, schemas.Errorf(schemas.UpstreamError, "%s: the model wrote what Bedrock could not read: %s", r.backend, reason)
	}
	r.open("")
	return r.close(why), nil
}

// total says what the answer took. Tokens that were read from a cache or written to
// one are none of inputTokens: for OpenAI they are part of the prompt.
func (r *bedrockRun) total(usage []byte) {
	input, output, read, written := -1, -1, -1, -1
	each(usage, func(k, v []byte) {
		switch n := atoi(v); string(k) {
		case "inputTokens":
			input = n
		case "outputTokens":
			output = n
		case "cacheReadInputTokens":
			read = n
		case "cacheWriteInputTokens":
			written = n
		}
	})
	if input >= 0 {
		input += max(0, read) + max(0, written)
	}
	r.count(input, output, read, -1)
}
