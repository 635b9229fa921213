package providers

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

const (
	drainTime  = 50 * time.Millisecond // for the end of an answer, after its final marker
	drainBytes = 64 << 10
)

// An emitError is an error of the caller's emit, on its way back to the caller.
type emitError struct{ err error }

func (e *emitError) Error() string { return e.err.Error() }

// emitted marks what emit returned as the caller's.
func emitted(err error) error {
	if err == nil {
		return nil
	}
	return &emitError{err}
}

// A watch ends a run that takes longer than its limits. It belongs to the
// goroutine of the run.
type watch struct {
	cancel  context.CancelCauseFunc
	queue   *time.Timer // until the headers come; nil: no limit
	timer   *time.Timer // until the first chunk, then until the next; nil: no limit
	name    string
	between time.Duration
	begun   bool
	waits   bool   // for the next chunk, with the limit running
	began   func() // called with the first chunk; nil: nobody wants to know
}

// newWatch begins to watch a run and returns the run's context. stop must be
// called in the end.
func newWatch(ctx context.Context, name string, lim Limits) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{cancel: cancel, name: name, between: lim.BetweenChunks}
	if lim.Queue > 0 {
		w.queue = w.limit(lim.Queue, schemas.Errorf(schemas.Overloaded, "%s: no sign of an answer within the limit of %s (queue)", name, lim.Queue))
	}
	if lim.FirstToken > 0 {
		w.timer = w.limit(lim.FirstToken, schemas.Errorf(schemas.Overloaded, "%s: no first token within the limit of %s (first_token)", name, lim.FirstToken))
	}
	return ctx, w
}

func (w *watch) limit(d time.Duration, cause error) *time.Timer {
	cancel := w.cancel
	return time.AfterFunc(d, func() { cancel(cause) })
}

// headers says that the server began to answer.
func (w *watch) headers() {
	if w.queue != nil {
		w.queue.Stop()
	}
}

// chunk says that a chunk has come. The limit to the next one begins when somebody
// waits for it: what the caller does with this one takes its own time.
func (w *watch) chunk() {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.waits = false
	if !w.begun {
		w.begun, w.timer = true, nil
		if w.began != nil {
			w.began()
		}
	}
}

// wait says that the next chunk is waited for.
func (w *watch) wait() {
	switch {
	case !w.begun || w.waits || w.between == 0:
		return
	case w.timer == nil:
		w.timer = w.limit(w.between, schemas.Errorf(schemas.StreamBroken, "%s: no further chunk within the limit of %s (between_chunks)", w.name, w.between))
	default:
		w.timer.Reset(w.between)
	}
	w.waits = true
}

// A watched body says when it is waited for.
type watched struct {
	io.Reader
	w *watch
}

// Read implements io.Reader.
func (b *watched) Read(p []byte) (int, error) {
	b.w.wait()
	return b.Reader.Read(p)
}

func (w *watch) stop() {
	w.headers()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.cancel(nil)
}

// stream sends the body of a request to target and has read take the answer. read
// calls chunk for each chunk and returns nil once the final marker came; io.EOF
// before that is its error. Errors come out as Generate promises them.
func (s *server) stream(ctx context.Context, req Request, target string, body []byte, read func(r *bufio.Reader, chunk func()) error) error {
	defer s.flights.enter(req.Model)()
	runCtx, w := newWatch(ctx, s.name, req.Limits)
	defer w.stop()
	resp, use, err := s.ask(runCtx, req.Model, target, body)
	if err != nil {
		return verdict(ctx, runCtx, err)
	}
	defer resp.Body.Close()
	w.headers()
	w.began = use.began
	r, ok := s.readers.Get().(*bufio.Reader)
	if !ok {
		r = bufio.NewReaderSize(nil, readerSize)
	}
	r.Reset(&watched{resp.Body, w})
	defer func() {
		r.Reset(nil)
		s.readers.Put(r)
	}()
	if err := read(r, w.chunk); err != nil {
		return s.concluded(ctx, runCtx, use, err)
	}
	use.done(nil)
	w.drain(r)
	return nil
}

// concluded takes in that a run ended with an error, and returns the one to return.
// What the caller's emit said is nothing about the server.
func (b *backend) concluded(ctx, runCtx context.Context, use *use, err error) error {
	known := b.broken(ctx, runCtx, err)
	if _, mine := errors.AsType[*emitError](err); !mine {
		err = known
	}
	use.done(outcome(runCtx, err))
	return known
}

// once sends the body of a request to target and has read take the whole answer.
func (s *server) once(ctx context.Context, req Request, target string, body []byte, read func(raw []byte) (Answer, error)) (Answer, error) {
	defer s.flights.enter(req.Model)()
	runCtx, w := newWatch(ctx, s.name, req.Limits)
	defer w.stop()
	resp, use, err := s.ask(runCtx, req.Model, target, body)
	if err != nil {
		return Answer{}, verdict(ctx, runCtx, err)
	}
	w.headers()
	raw, err := s.readAll(runCtx, resp)
	if err != nil {
		use.done(outcome(runCtx, err))
		return Answer{}, verdict(ctx, runCtx, err)
	}
	a, err := read(raw)
	use.done(err)
	return a, err
}

// drain reads what follows the final marker, so that the connection can serve the
// next request. A server that does not end its answer loses the connection.
func (w *watch) drain(r io.Reader) {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.between = 0
	late := time.AfterFunc(drainTime, func() { w.cancel(nil) })
	defer late.Stop()
	_, _ = io.CopyN(io.Discard, r, drainBytes) // the answer is whole, whatever happens here
}

// verdict returns why a run ended: its caller's reason, its limits, or err.
func verdict(ctx, runCtx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if limit, ok := errors.AsType[*schemas.Error](context.Cause(runCtx)); ok {
		return limit
	}
	return err
}

// outcome returns what the end of a run says of its server: nothing, where its
// caller ended it, or its limits did.
func outcome(runCtx context.Context, err error) error {
	if err != nil && runCtx.Err() != nil {
		return context.Canceled
	}
	return err
}

// broken turns an error in the middle of a stream into the one to return.
func (b *backend) broken(ctx, runCtx context.Context, err error) error {
	if mine, ok := errors.AsType[*emitError](err); ok {
		return mine.err
	}
	var known *schemas.Error
	var stray *strayLine
	switch {
	case errors.As(err, &known):
	case errors.As(err, &stray):
		known = b.failure(http.StatusOK, nil, stray.text)
	case errors.Is(err, io.EOF):
		known = schemas.Errorf(schemas.StreamBroken, "%s: the answer ended without its final marker", b.name)
	case errors.Is(err, errNotChunk):
		known = schemas.Errorf(schemas.UpstreamError, "%s: %s", b.name, err)
	default:
		known = schemas.Errorf(schemas.StreamBroken, "%s: the answer broke off: %s", b.name, err)
	}
	return verdict(ctx, runCtx, known)
}
