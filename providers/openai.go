package providers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

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
	for _, name := range cfg.named() {
		p.named = append(p.named, listed{ID: name})
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
	a := answer{stopsAtTools: p.quirk.stopsAtTools, saysNoReason: p.quirk.saysNoReason}
	err = p.stream(ctx, req, p.at(req.Model, path), body, func(r *bufio.Reader, chunk func()) error {
		events := sseReader{lines: lineReader{r: r}}
		return p.relay(events.next, &a, chunk, emit)
	})
	if err != nil {
		return Answer{}, err
	}
	return a.whole(req.Kind, promptBytes(req.Body)), nil
}

// relay reads chunks to the final marker: [DONE] after at least one choice, or the
// end of the stream once every choice has its finish reason.
func (b *backend) relay(next func() ([]byte, error), a *answer, chunk func(), emit func([]byte) error) error {
	for {
		data, err := next()
		switch {
		case errors.Is(err, io.EOF) && a.finished():
			return nil
		case err != nil:
			return err
		case len(data) == 0:
			continue
		case string(bytes.TrimRight(data, " ")) == "[DONE]":
			if len(a.choices) == 0 || !a.finished() && !a.saysNoReason {
				return io.EOF
			}
			if end := a.closing(); end != nil {
				return emitted(emit(end))
			}
			return nil
		}
		failure, err := a.add(data)
		switch {
		case err != nil:
			return err
		case failure != nil, a.failed() && bytes.Contains(data, []byte(`"error":`)): // in a choice: OpenRouter's
			return b.failure(http.StatusOK, nil, data)
		case a.failed():
			return schemas.Errorf(schemas.UpstreamError, "%s: the server gave up on the answer: %.200s", b.name, b.keys.redact(string(data)))
		case a.repeats:
			continue
		}
		chunk()
		if err := emitted(emit(a.rewrite(data))); err != nil {
			return err
		}
	}
}

// Embed implements Embedder.
func (p *OpenAI) Embed(ctx context.Context, req Request) (Answer, error) {
	body, err := patch(req)
	if err != nil {
		return Answer{}, err
	}
	return p.once(ctx, req, p.at(req.Model, "/embeddings"), body, func(raw []byte) (Answer, error) { return p.readEmbeddings(raw, req.Body) })
}
