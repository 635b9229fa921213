package providers

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/vramjet/vramjet/schemas"
)

// An ollamaRun turns the lines of one Ollama stream into OpenAI's chunks. It
// belongs to the goroutine of the run.
type ollamaRun struct {
	kind    schemas.Kind
	prompt  int   // bytes
	created int64 // Unix seconds

	answer  answer
	head    []byte // what all chunks begin with, up to their choices
	out     []byte // the newest chunk
	calls   int    // tool calls so far
	done    bool
	failure []byte
	counts  schemas.Usage // -1 for what the server didn't tell
}

// An ollamaLine is what a line holds, as text.
type ollamaLine struct {
	model    []byte
	text     []byte // inside of a string
	thinking []byte // inside of a string
	calls    []byte
	logprobs []byte // a list of what OpenAI lists, too
	reason   []byte // with quotes
	error    []byte
	done     bool
	prompt   int
	eval     int
}

func readLine(line []byte) (ollamaLine, error) {
	l := ollamaLine{prompt: -1, eval: -1}
	s := scanner{b: line}
	s.enter('{')
	for {
		k, ok := s.key()
		if !ok {
			break
		}
		if string(k) == "message" && s.peek() == '{' {
			l.message(&s)
			continue
		}
		v := s.value()
		switch string(k) {
		case "model":
			l.model = v
		case "response":
			l.text = inside(v)
		case "thinking":
			l.thinking = inside(v)
		case "done":
			l.done = string(v) == "true"
		case "done_reason":
			l.reason = v
		case "logprobs":
			l.logprobs = v
		case "error":
			if !isNull(v) {
				l.error = v
			}
		case "prompt_eval_count":
			l.prompt = atoi(v)
		case "eval_count":
			l.eval = atoi(v)
		}
	}
	if !s.end() {
		return l, errNotChunk
	}
	return l, nil
}

func (l *ollamaLine) message(s *scanner) {
	s.enter('{')
	for {
		k, ok := s.key()
		if !ok {
			return
		}
		v := s.value()
		switch string(k) {
		case "content":
			l.text = inside(v)
		case "thinking":
			l.thinking = inside(v)
		case "tool_calls":
			l.calls = v
		}
	}
}

// chunk turns a line into a chunk, which is valid until the next call.
func (o *ollamaRun) chunk(line []byte) ([]byte, error) {
	l, err := readLine(line)
	if err != nil {
		return nil, err
	}
	if l.error != nil {
		o.failure = l.error
		return nil, nil
	}
	role := ""
	if o.head == nil {
		o.head = chunkHead(o.kind, o.created, nil, l.model)
		o.out = make([]byte, 0, len(o.head)+256)
		role = `,"role":"assistant"` // of the first chunk only
	}
	o.out = append(append(o.out[:0], o.head...), `{"index":0,`...)
	if o.kind == schemas.Completion {
		o.out = append(append(append(o.out, `"text":"`...), l.text...), '"')
		if len(l.thinking) > 0 {
			o.out = appendString(o.out, []byte("reasoning_content"), l.thinking)
		}
	} else if err := o.delta(&l, role); err != nil {
		return nil, err
	}
	if len(l.logprobs) > 2 && l.logprobs[0] == '[' {
		o.out = append(append(append(o.out, `,"logprobs":{"content":`...), l.logprobs...), '}')
	}
	o.out = append(o.out, `,"finish_reason":`...)
	if l.done {
		o.done = true
		o.counts = schemas.Usage{PromptTokens: l.prompt, CompletionTokens: l.eval}
		o.out = append(o.out, o.finish(l.reason)...)
	} else {
		o.out = append(o.out, "null"...)
	}
	o.out = append(o.out, "}]}"...)
	return o.out, nil
}

// delta appends what the line adds to the message, after role.
func (o *ollamaRun) delta(l *ollamaLine, role string) error {
	o.out = append(o.out, `"delta":{`...)
	mark := len(o.out)
	o.out = append(o.out, role...)
	if len(l.thinking) > 0 {
		o.out = appendString(o.out, []byte("reasoning_content"), l.thinking)
	}
	if len(l.text) > 0 || len(o.out) == mark && l.calls == nil && !l.done {
		o.out = appendString(o.out, []byte("content"), l.text)
	}
	if l.calls != nil {
		if err := o.toolCalls(l.calls); err != nil {
			return err
		}
	}
	if len(o.out) > mark {
		o.out = slices.Delete(o.out, mark, mark+1) // the first comma
	}
	o.out = append(o.out, '}')
	return nil
}

// toolCalls appends whole calls: Ollama sends their arguments as an object and at
// once, OpenAI as a string.
func (o *ollamaRun) toolCalls(raw []byte) error {
	var calls []struct {
		ID       string `json:"id"`
		Function struct {
			Name      string          `json:"name"`
			Arguments json.RawMessage `json:"arguments"`
		} `json:"function"`
	}
	if err := json.Unmarshal(raw, &calls); err != nil {
		return errNotChunk
	}
	if len(calls) == 0 {
		return nil
	}
	o.out = append(o.out, `,"tool_calls":[`...)
	for i, c := range calls {
		if i > 0 {
			o.out = append(o.out, ',')
		}
		if c.ID == "" {
			c.ID = "call_" + strconv.FormatUint(rand.Uint64(), 36) //nolint:gosec // an id, not a secret
		}
		o.out = append(o.out, `{"index":`...)
		o.out = strconv.AppendInt(o.out, int64(o.calls), 10)
		o.out = append(append(o.out, `,"id":`...), quote(c.ID)...)
		o.out = append(append(o.out, `,"type":"function","function":{"name":`...), quote(c.Function.Name)...)
		o.out = append(append(o.out, `,"arguments":`...), quote(string(c.Function.Arguments))...)
		o.out = append(o.out, "}}"...)
		o.calls++
	}
	o.out = append(o.out, ']')
	return nil
}

// finish turns Ollama's reason into OpenAI's.
func (o *ollamaRun) finish(reason []byte) string {
	switch {
	case o.calls > 0:
		return `"tool_calls"`
	case string(reason) == `"length"`:
		return `"length"`
	default:
		return `"stop"`
	}
}

// usage returns the last chunk: no choices, but the counts.
func (o *ollamaRun) usage() []byte {
	o.out = append(append(o.out[:0], o.head...), `],"usage":`...)
	o.out = appendUsage(o.out, o.answer.estimate(o.counts, o.prompt))
	return append(o.out, '}')
}
