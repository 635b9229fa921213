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
