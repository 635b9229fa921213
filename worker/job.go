package worker

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// An attempt runs one job and settles it. It belongs to its own goroutine.
type attempt struct {
	w       *Worker
	number  uint64
	offer   *offer
	backend Backend
	load    *load // to wait for; nil: none
	lease   *lease
	out     *outlet

	loading  time.Duration // spent waiting for the load
	began    time.Time     // when the backend was asked
	first    time.Time     // when the first chunk came
	chunks   int           // that came
	streamed bool          // whether chunks were published
}

func newAttempt(w *Worker, t *task) *attempt {
	a := &attempt{
		w: w, number: t.number, offer: t.offer, backend: t.backend.Backend,
		load: t.load, lease: t.lease, out: newOutlet(w.nc, w.cfg.Node, t.lease, t.offer),
	}
	if job := t.offer.Job; job.Abandon == schemas.AbandonCancel && schemas.IsInbox(job.Reply) {
		a.out.probe, a.out.every = w.probeSubject(t.number), w.pace.probe
	}
	return a
}

// run runs the job until work ends, and settles it until life does.
func (a *attempt) run(life, work context.Context) {
	work, span := a.traceRun(work)
	answer, err := a.work(work)
	defer endSpan(span, err)
	body, err := a.answerBody(answer, err)
	s := settle(outcome{err: err, attempt: a.offer.Attempt, attempts: a.offer.Job.Attempts, began: a.streamed, luck: rand.Float64()})
	a.count(answer.Usage, time.Now())
	a.w.send(freed{number: a.number, code: s.code(), usage: answer.Usage, retry: s.retry(), status: s.status})
	told := a.tell(life, s, body)
	if told == nil && s.event == schemas.EventEnd && !s.dead {
		a.deleteBody(life)
	}
	a.log(life, s, err, told)
	a.w.send(settled{a.number})
}

// work runs the job on the backend. Where work ended, its cause is the error.
func (a *attempt) work(work context.Context) (providers.Answer, error) {
	job := a.offer.Job
	if !job.Deadline.IsZero() {
		ctx, cancel := context.WithDeadlineCause(work, job.Deadline, errExpired)
		defer cancel()
		work = ctx
	}
	answer, err := a.generate(work)
	if err != nil && work.Err() != nil && !errors.Is(err, errTimeout) {
		err = context.Cause(work)
	}
	return answer, err
}

// generate says that the job is here, gets its body, waits for its model and runs it.
func (a *attempt) generate(ctx context.Context) (providers.Answer, error) {
	if ctx.Err() != nil {
		return providers.Answer{}, context.Cause(ctx)
	}
	if err := a.accepted(); err != nil {
		return providers.Answer{}, err
	}
	if err := a.fetchBody(ctx); err != nil { // while the model is loaded
		return providers.Answer{}, err
	}
	if a.load != nil {
		if err := a.awaitLoad(ctx); err != nil {
			return providers.Answer{}, err
		}
	}
	limit := a.backend.Run
	if a.offer.Job.Timeout > 0 {
		limit = a.offer.Job.Timeout
	}
	run, cancel := context.WithTimeoutCause(ctx, limit, errTimeout)
	defer cancel()
	a.began = time.Now()
	answer, err := a.call(run)
	if err != nil && run.Err() != nil {
		err = context.Cause(run)
	}
	return answer, err
}

// awaitLoad waits for the model.
func (a *attempt) awaitLoad(ctx context.Context) (err error) {
	span, started := a.traceLoad(ctx), time.Now()
	defer func() { endSpan(span, err) }()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.load.done:
	}
	a.loading = time.Since(started)
	return a.load.err
}

// call has the backend run the job.
func (a *attempt) call(ctx context.Context) (providers.Answer, error) {
	req := providers.Request{
		Kind:   a.offer.Job.Kind,
		Model:  a.backend.serverName(a.offer.Model),
		Body:   a.offer.Job.Body,
		Class:  a.offer.Job.Flow.Class,
		Limits: a.backend.Limits,
	}
	ctx, span := a.traceCall(ctx, req)
	answer, err := a.ask(ctx, req)
	a.endCall(span, answer, err)
	return answer, err
}

func (a *attempt) ask(ctx context.Context, req providers.Request) (providers.Answer, error) {
	if req.Kind != schemas.Embedding {
		return a.backend.Provider.Generate(ctx, req, a.emit)
	}
	e, ok := a.backend.Provider.(providers.Embedder)
	if !ok {
		return providers.Answer{}, schemas.Errorf(schemas.Unsupported, "backend %s computes no embeddings", a.backend.Name)
	}
	return e.Embed(ctx, req)
}

// accepted tells the client which node was chosen.
func (a *attempt) accepted() error {
	body, err := json.Marshal(schemas.Accepted{
		Node: a.w.cfg.Node, Backend: a.backend.Name,
		WaitedMS: a.offer.Waited.Milliseconds(), Load: a.load != nil,
	})
	if err != nil {
		return err
	}
	return a.out.publish(schemas.EventAccepted, body, time.Now())
}

// emit takes one chunk. It is the hot path: nothing is decoded or copied here.
func (a *attempt) emit(chunk []byte) error {
	now := time.Now()
	if a.first.IsZero() {
		a.first = now
	}
	a.chunks++
	if !a.offer.Job.Stream {
		if !a.lease.held(now) {
			return errLost
		}
		return nil
	}
	if err := a.out.publish(schemas.EventChunk, chunk, now); err != nil {
		if errors.Is(err, nats.ErrMaxPayload) {
			return schemas.Errorf(schemas.Refused, "a chunk of %d bytes is over the limit of the NATS server", len(chunk))
		}
		return err
	}
	a.streamed = true
	return nil
}

// headerRoom is what of a message's size is kept for its headers.
const headerRoom = 4 << 10

// answerBody is the body of an end that is ok, or the error that keeps it from
// being one.
func (a *attempt) answerBody(answer providers.Answer, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	run := a.stats(time.Now())
	if n := answer.Usage.CompletionTokens; n > 1 && !a.first.IsZero() {
		if took := time.Since(a.first).Seconds(); took > 0 {
			run.TokensPerSec = float64(n-1) / took
		}
	}
	body, err := schemas.AddRun(answer.Body, &run)
	switch {
	case err != nil:
		return nil, schemas.Errorf(schemas.UpstreamError, "%s", err)
	case int64(len(body)) > a.w.nc.MaxPayload()-headerRoom:
		return nil, schemas.Errorf(schemas.Refused, "the answer of %d bytes is over the limit of the NATS server", len(body))
	default:
		return body, nil
	}
}

// stats is how the job was run until now.
func (a *attempt) stats(now time.Time) schemas.Run {
	submitted := a.submitted()
	run := schemas.Run{
		Node: a.w.cfg.Node, Backend: a.backend.Name, Attempt: a.offer.Attempt,
		QueuedMS: a.offer.Waited.Milliseconds(), LoadMS: a.loading.Milliseconds(),
		TotalMS: now.Sub(submitted).Milliseconds(),
	}
	if !a.first.IsZero() {
		run.TTFTMS = a.first.Sub(submitted).Milliseconds()
	}
	return run
}

// submitted is when the queue took the job.
func (a *attempt) submitted() time.Time { return a.offer.received.Add(-a.offer.Waited) }

// log writes the one line about the attempt.
func (a *attempt) log(ctx context.Context, s settlement, err, told error) {
	if err == nil && told == nil && !a.w.cfg.Logger.Enabled(ctx, slog.LevelDebug) {
		return // most jobs
	}
	logger := a.w.cfg.Logger.With("job", a.offer.Job.ID, "model", a.offer.Model, "backend", a.backend.Name, "attempt", a.offer.Attempt)
	switch {
	case told != nil:
		logger.Warn("job was not settled", "err", told)
	case s.word == silence:
		logger.Warn("job was given up", "err", err)
	case err != nil && s.ours():
		logger.Warn("job failed", "err", err, "retry", s.word == nak)
	case err != nil:
		logger.Info("job ended without an answer", "err", err, "retry", s.word == nak)
	default:
		logger.Debug("job done", "took", time.Since(a.offer.received))
	}
}
