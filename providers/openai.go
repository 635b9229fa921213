package providers

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// OpenAI is a server that speaks OpenAI's API. It cannot be told to load.
type OpenAI struct {
	server
	named []listed // what the configuration says that it serves
}

// NewOpenAI returns the provider for a server that speaks OpenAI's API.
func NewOpenAI(cfg Config) *OpenAI {
	p := &OpenAI{server: newServer(cfg)}
	for _, name := range cfg.Models {
		if !strings.ContainsAny(name, "*?[") {
			p.named = append(p.named, listed{ID: name})
		}
	}
	return p
}

// Generate implements Provider. The server is always asked to stream: an answer
// that is not streamed cannot be cancelled everywhere.
func (p *OpenAI) Generate(ctx context.Context, req Request, emit func([]byte) error) (Answer, error) {
	path := "/chat/completions"
	switch req.Kind {
	case schemas.Chat:
	case schemas.Completion:
		path = "/completions"
	default:
		return Answer{}, schemas.Errorf(schemas.InvalidRequest, "%s: a job of the kind %q generates nothing", p.name, req.Kind)
	}
	body, err := patch(req)
	if err != nil {
		return Answer{}, err
	}
	var a answer
	err = p.stream(ctx, req, p.at(req.Model, path), body, func(r *bufio.Reader, chunk func()) error {
		return p.relay(r, &a, chunk, emit)
	})
	if err != nil {
		return Answer{}, err
	}
	return a.whole(req.Kind, promptBytes(req.Body)), nil
}

// relay reads an event stream to its final marker: [DONE] after at least one
// choice, or the end of the stream once every choice has its finish reason.
func (p *OpenAI) relay(r *bufio.Reader, a *answer, chunk func(), emit func([]byte) error) error {
	events := sseReader{lines: lineReader{r: r}}
	for {
		data, err := events.next()
		switch {
		case errors.Is(err, io.EOF) && a.finished():
			return nil
		case err != nil:
			return err
		case len(data) == 0:
			continue
		case string(data) == "[DONE]":
			if len(a.choices) == 0 {
				return io.EOF
			}
			return nil
		}
		failure, err := a.add(data)
		switch {
		case err != nil:
			return err
		case failure != nil:
			return p.failure(http.StatusOK, nil, data)
		case a.failed():
			return schemas.Errorf(schemas.UpstreamError, "%s: the server gave up on the answer: %.200s", p.name, data)
		case a.repeats:
			continue
		}
		chunk()
		if err := emit(a.rewrite(data)); err != nil {
			return &emitError{err}
		}
	}
}

// Embed implements Embedder.
func (p *OpenAI) Embed(ctx context.Context, req Request) (Answer, error) {
	body, err := patch(req)
	if err != nil {
		return Answer{}, err
	}
	raw, err := p.once(ctx, req, p.at(req.Model, "/embeddings"), body)
	if err != nil {
		return Answer{}, err
	}
	return p.readEmbeddings(raw, promptBytes(req.Body))
}

// readEmbeddings reads a list of embeddings and adds the usage if it is missing.
func (p *OpenAI) readEmbeddings(raw []byte, prompt int) (Answer, error) {
	found, ok := members(raw)
	if !ok {
		return Answer{}, schemas.Errorf(schemas.UpstreamError, "%s: the answer is not a JSON object", p.name)
	}
	var a answer
	data := false
	out := append(make([]byte, 0, len(raw)+96), `{"object":"list"`...)
	for _, m := range found {
		switch string(m.key) {
		case "error":
			if !isNull(m.value) {
				return Answer{}, p.failure(http.StatusOK, nil, raw)
			}
		case "object":
		case "usage":
			a.usage = m.value
		case "data":
			data = true
			out = appendMember(out, m)
		default:
			out = appendMember(out, m)
			a.members = append(a.members, m)
		}
	}
	if !data {
		return Answer{}, schemas.Errorf(schemas.UpstreamError, "%s: the answer has no embeddings", p.name)
	}
	usage := embeddingUsage(&a, prompt)
	out = append(out, `,"usage":`...)
	out = appendUsage(out, usage)
	return Answer{Body: append(out, '}'), Usage: usage, Model: a.model()}, nil
}

// embeddingUsage counts only the prompt: nothing is generated. LM Studio says 0
// tokens, whatever it was asked.
func embeddingUsage(a *answer, prompt int) schemas.Usage {
	u, _ := a.readUsage(prompt)
	if u.PromptTokens == 0 {
		u.PromptTokens = max(1, prompt/4)
	}
	u.CompletionTokens = 0
	u.TotalTokens = u.PromptTokens
	return u
}
