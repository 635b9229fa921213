package providers

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// A backend is what providers have in common, whatever they reach their server by:
// its name, its keys with the breaker, and the requests that run.
type backend struct {
	name    string
	keys    *keyring
	flights *flights
	ours    bool // the server knows our codes: what it calls an error, that is it
}

func newBackend(name string, keys []Key, metered bool) backend {
	return backend{name: name, keys: newKeyring(name, keys, metered), flights: newFlights()}
}

// failure turns what a server said into an error that names the server and no
// key, nor a piece of one that is left where the text is cut.
func (b *backend) failure(status int, header http.Header, body []byte) *schemas.Error {
	e := classify(status, header, body, time.Now())
	if code := schemas.Code(firstText(errorFields(body, 3), "code")); b.ours && code.Valid() {
		e.Code, e.Type = code, code.Verdict().Type
	}
	e.Message = b.name + ": " + cut(b.keys.redact(e.Message), maxMessage)
	e.Param = cut(b.keys.redact(e.Param), maxMessage)
	return e
}

// Open implements Breaker.
func (b *backend) Open() error { return b.keys.open() }

// A Relay is what a provider stands on whose server takes OpenAI's requests and
// answers in OpenAI's chunks, but not over HTTP. It keeps a request's limits, reads
// the answer as any other provider does, and leaves a server alone that keeps
// failing.
type Relay struct{ backend }

// NewRelay returns the relay for a server with that name, which is for messages. The
// server may call its errors by our codes.
func NewRelay(name string) *Relay {
	r := &Relay{newBackend(name, nil, false)}
	r.ours = true
	return r
}

// An Ask sends a request's body to the server. It returns what waits for the next
// message of the answer, which is valid until the next call: a chunk, an error, the
// final marker [DONE], or nothing but a sign of life, which is empty. ctx ends with
// the request. An error that is none of ours means that the answer broke off.
type Ask func(ctx context.Context, body []byte) (next func() ([]byte, error), err error)

// Generate runs a chat or a completion as Provider says.
func (r *Relay) Generate(ctx context.Context, req Request, ask Ask, emit func(chunk []byte) error) (Answer, error) {
	if req.Kind != schemas.Chat && req.Kind != schemas.Completion {
		return Answer{}, schemas.Errorf(schemas.InvalidRequest, "%s: a job of the kind %q generates nothing", r.name, req.Kind)
	}
	var a answer
	err := r.run(ctx, req, ask, func(next func() ([]byte, error), chunk func()) error {
		return r.relay(next, &a, chunk, emit)
	})
	if err != nil {
		return Answer{}, err
	}
	return a.whole(req.Kind, promptBytes(req.Body)), nil
}

// Embed runs an embeddings request as Embedder says. The answer is one message.
func (r *Relay) Embed(ctx context.Context, req Request, ask Ask) (a Answer, err error) {
	err = r.run(ctx, req, ask, func(next func() ([]byte, error), _ func()) error {
		raw, err := next()
		for err == nil && len(raw) == 0 { // a sign of life
			raw, err = next()
		}
		if err == nil {
			a, err = r.readEmbeddings(raw, req.Body)
		}
		return err
	})
	return a, err
}

// run asks, and has read take the answer.
func (r *Relay) run(ctx context.Context, req Request, ask Ask, read func(next func() ([]byte, error), chunk func()) error) error {
	body, err := patch(req)
	if err != nil {
		return err
	}
	defer r.flights.enter(req.Model)()
	use, why := r.keys.take(req.Model, nil)
	if use == nil {
		return why
	}
	runCtx, w := newWatch(ctx, r.name, req.Limits)
	defer w.stop()
	w.began = use.began
	next, err := ask(runCtx, body)
	if err == nil {
		err = read(func() ([]byte, error) {
			w.wait()
			data, err := next()
			w.headers()
			return bytes.TrimSpace(validUTF8(data)), err
		}, w.chunk)
	}
	if err == nil {
		use.done(nil)
		return nil
	}
	return r.concluded(ctx, runCtx, use, err)
}

// Failure turns what the server said went wrong into an error. status is that of
// HTTP which would fit, 200 where none is known. Its code is the one that the body
// names, if that is one of ours.
func (r *Relay) Failure(status int, body []byte) *schemas.Error { return r.failure(status, nil, body) }

// Idle returns the error with which Unload refuses where requests for the model run:
// ours, or those of others where p tells.
func (r *Relay) Idle(ctx context.Context, p PressureReporter, model string) error {
	return r.idle(ctx, p, model)
}
