package providers

import (
	"bytes"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/vramjet/vramjet/schemas"
)

// A tgiRun turns the events of one stream of TGI's into OpenAI's chunks.
type tgiRun struct {
	retold
	model    []byte // with quotes: the events don't say
	logprobs bool   // are asked for
	length   int    // of the text so far, in characters
}

// A tgiEvent is what an event holds, as text.
type tgiEvent struct {
	token  tgiToken
	top    []tgiToken // the likeliest in its place
	failed bool
	done   bool
	reason []byte // with quotes
	prompt int
	count  int
}

// A tgiToken is a token of the answer.
type tgiToken struct {
	text    []byte // inside of a string; nil: there is none
	logprob []byte
	special bool // it stands for the end, say, and is no text
}

func readTGIEvent(event []byte) (tgiEvent, error) {
	e := tgiEvent{prompt: -1, count: -1}
	s := scanner{b: event}
	s.enter('{')
	for {
		k, ok := s.key()
		if !ok {
			break
		}
		next := s.peek()
		switch {
		case string(k) == "token" && next == '{':
			e.token = readTGIToken(&s)
		case string(k) == "top_tokens" && next == '[':
			e.likeliest(&s)
		case string(k) == "details" && next == '{':
			e.details(&s)
		default:
			switch v := s.value(); string(k) {
			case "error":
				e.failed = !isNull(v)
			case "generated_text":
				e.done = next == '"'
			}
		}
	}
	if !s.end() || !e.failed && e.token.text == nil && !e.done {
		return e, errNotChunk
	}
	return e, nil
}

func (e *tgiEvent) likeliest(s *scanner) {
	s.enter('[')
	for s.element('[', ']') {
		if s.peek() == '{' {
			e.top = append(e.top, readTGIToken(s))
		} else {
			s.value()
		}
	}
}

func readTGIToken(s *scanner) (t tgiToken) {
	s.enter('{')
	for {
		k, ok := s.key()
		if !ok {
			return t
		}
		switch v := s.value(); string(k) {
		case "text":
			t.text = inside(v)
		case "logprob":
			t.logprob = v
		case "special":
			t.special = string(v) == "true"
		}
	}
}

func (e *tgiEvent) details(s *scanner) {
	s.enter('{')
	for {
		k, ok := s.key()
		if !ok {
			return
		}
		switch v := s.value(); string(k) {
		case "finish_reason":
			e.reason = v
		case "generated_tokens":
			e.count = atoi(v)
		case "input_length":
			e.prompt = atoi(v)
		}
	}
}

// chunk implements reteller.
func (o *tgiRun) chunk(event []byte) ([]byte, error) {
	e, err := readTGIEvent(event)
	if err != nil {
		return nil, err
	}
	if o.failed = e.failed; o.failed {
		return nil, nil
	}
	if o.head == nil {
		o.begin(nil, o.model)
	}
	o.out = append(append(o.out[:0], o.head...), `{"index":0,"text":"`...)
	if !e.token.special {
		o.out = append(o.out, e.token.text...)
	}
	o.out = append(o.out, '"')
	if o.logprobs && !e.token.special && e.token.text != nil {
		o.appendLogprobs(&e)
	}
	o.out = append(o.out, `,"finish_reason":`...)
	switch o.done = e.done; {
	case !e.done:
		o.out = append(o.out, "null"...)
	case string(e.reason) == `"length"`:
		o.out = append(o.out, e.reason...)
	default:
		o.out = append(o.out, `"stop"`...)
	}
	o.counts = schemas.Usage{PromptTokens: e.prompt, CompletionTokens: e.count}
	o.out = append(o.out, "}]}"...)
	return o.out, nil
}

// appendLogprobs appends a token's logprobs as OpenAI's completions have them:
// lists that run beside the text.
func (o *tgiRun) appendLogprobs(e *tgiEvent) {
	o.out = append(append(append(o.out, `,"logprobs":{"tokens":["`...), e.token.text...), `"],"token_logprobs":[`...)
	o.out = append(o.out, orNull(e.token.logprob)...)
	o.out = append(o.out, `],"top_logprobs":[{`...)
	for i, t := range e.top {
		if slices.ContainsFunc(e.top[:i], func(before tgiToken) bool { return bytes.Equal(before.text, t.text) }) {
			continue // a member can be there once: the likelier one, as they come in order
		}
		if i > 0 {
			o.out = append(o.out, ',')
		}
		o.out = append(append(append(o.out, '"'), t.text...), `":`...)
		o.out = append(o.out, orNull(t.logprob)...)
	}
	o.out = append(o.out, `}],"text_offset":[`...)
	o.out = strconv.AppendInt(o.out, int64(o.length), 10)
	o.out = append(o.out, "]}"...)
	o.length += utf8.RuneCount(unescape(e.token.text))
}

func orNull(v []byte) []byte {
	if v == nil {
		return []byte("null")
	}
	return v
}
