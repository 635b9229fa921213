package providers

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// A retold is the state of a stream of another dialect that is told as OpenAI's
// chunks. It belongs to the goroutine of the run.
type retold struct {
	kind    schemas.Kind
	prompt  int   // bytes
	created int64 // Unix seconds

	answer answer
	head   []byte        // what all chunks begin with, up to their choices
	out    []byte        // the newest chunk
	done   bool          // the final marker came
	failed bool          // the newest event says that the server gave up
	counts schemas.Usage // -1 for what the server didn't tell

	// details are further members of the usage, each with a comma in front.
	details []byte
}

func newRetold(req Request) retold {
	return retold{kind: req.Kind, prompt: promptBytes(req.Body), created: time.Now().Unix()}
}

func (o *retold) state() *retold { return o }

// A reteller turns the events of another dialect into chunks.
type reteller interface {
	// chunk returns an event as a chunk, which is valid until the next call. nil: the
	// event says nothing to OpenAI's readers, or is a failure.
	chunk(event []byte) ([]byte, error)
	state() *retold
}

// retell reads a stream of another dialect to its final marker. next returns its
// next event; empty ones are skipped.
func (s *server) retell(next func() ([]byte, error), to reteller, chunk func(), emit func([]byte) error) error {
	o := to.state()
	for {
		event, err := next()
		if err != nil {
			return err
		}
		if len(event) == 0 {
			continue
		}
		data, err := to.chunk(event)
		if err != nil {
			return err
		}
		if o.failed {
			return s.failure(http.StatusOK, nil, event)
		}
		if data != nil {
			chunk()
			if err := o.send(data, emit); err != nil {
				return err
			}
		}
		if o.done {
			return o.send(o.usage(), emit)
		}
	}
}

// send takes a chunk of our own making and passes it on.
func (o *retold) send(chunk []byte, emit func([]byte) error) error {
	if _, err := o.answer.add(chunk); err != nil {
		return err
	}
	return emitted(emit(chunk))
}

// begin makes the head of the chunks. id and model are JSON strings; what is none
// is made up, or "".
func (o *retold) begin(id, model []byte) {
	prefix, object := "chatcmpl-", "chat.completion.chunk"
	if o.kind == schemas.Completion {
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
	h = strconv.AppendInt(h, o.created, 10)
	h = append(append(h, `,"model":`...), model...)
	o.head = append(h, `,"choices":[`...)
}

// usage returns the last chunk: no choices, but the counts.
func (o *retold) usage() []byte {
	o.answer.usage = appendCounts(nil, o.counts)
	u, _ := o.answer.readUsage(o.prompt)
	o.answer.usage = nil
	o.out = append(append(o.out[:0], o.head...), `],"usage":`...)
	o.out = appendUsage(o.out, u)
	o.out = append(o.out[:len(o.out)-1], o.details...)
	return append(o.out, "}}"...)
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
