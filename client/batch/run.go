package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

const (
	tick        = 250 * time.Millisecond
	heartbeat   = 5 * time.Second  // between updates of the record
	ackWait     = 10 * time.Second // for the queue to take a job
	quietAtMost = 2 * time.Second  // without a result before the store is looked at
	maxQuiet    = 30 * time.Second // the same, when that was of no use before
	patience    = 5 * time.Minute  // for a server that takes and tells nothing
	maxBytes    = 64 << 20         // of jobs in flight
	maxHeaders  = 4 << 10          // more than a job's are
	againAtOnce = 32               // lines that are offered to a queue again which took none
)

// A runner runs a batch. It belongs to the goroutine of run.
type runner struct {
	*conn
	ctx   context.Context //nolint:containedctx // of run
	large *client.Client  // for what is too large for a message
	cfg   *Config
	m     *manifest
	store *store
	out   *outputs

	pending map[string]*flight // by the id of the job
	bytes   int                // of these
	again   []*flight          // of these, the ones that are to be submitted again
	failed  chan failedSubmit

	trouble error     // why lines were not taken; nil: they were
	since   time.Time // when one was taken or answered last

	news    time.Time     // when a result came last, or the store was looked at
	quiet   time.Duration // how long to wait for the next
	beat    time.Time
	stopped bool // somebody cancelled it
}

// A flight is a job that has no result yet.
type flight struct {
	name jobName
	msg  *nats.Msg
}

type failedSubmit struct {
	job string
	err error
}

func newRunner(ctx context.Context, nc *nats.Conn, m *manifest, cfg *Config) (*runner, error) {
	r := &runner{cfg: cfg, m: m, pending: map[string]*flight{}, failed: make(chan failedSubmit, cfg.InFlight+1), quiet: quietAtMost}
	failed := func(_ jetstream.JetStream, msg *nats.Msg, err error) {
		r.failed <- failedSubmit{msg.Header.Get(schemas.HeaderMsgID), err} // has room for all that are pending
	}
	var err error
	r.conn, err = open(nc, cfg.Tenant, jetstream.WithPublishAsyncErrHandler(failed),
		jetstream.WithPublishAsyncMaxPending(cfg.InFlight+1), jetstream.WithPublishAsyncTimeout(ackWait))
	if err != nil {
		return nil, err
	}
	if r.large, err = client.New(nc, client.Options{Tenant: cfg.Tenant}); err != nil {
		return nil, err //nolint:wrapcheck // the client says what is wrong
	}
	r.store, r.ctx = &store{r.conn}, ctx
	return r, nil
}

// run runs what has no result yet.
func (r *runner) run(ctx context.Context, fresh bool) error { //nolint:revive // flag-parameter: as above
	ends, deaf, err := r.listen(ctx)
	if err != nil {
		return err
	}
	defer deaf()
	status := r.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer r.nc.RemoveStatusListener(status)

	r.since = time.Now()
	if err := r.announce(ctx); err != nil {
		return err
	}
	if !fresh {
		if err := r.takeUp(ctx); err != nil {
			return err
		}
	}
	requests, closeFile, err := read(r.m.Path)
	if err != nil {
		return err
	}
	defer closeFile()
	every := time.NewTicker(tick)
	defer every.Stop()
	for more := true; more || len(r.pending) > 0; {
		intake := requests
		if !more || !r.takes() {
			intake = nil
		}
		select {
		case q, ok := <-intake:
			more = ok
			switch {
			case !ok:
			case q.err != nil:
				err = q.err
			default:
				err = r.submit(q.request)
			}
		case m := <-ends:
			err = r.ended(m)
		case f := <-r.failed:
			err = r.notSubmitted(f, time.Now())
		case s := <-status:
			err = r.changed(s)
		case now := <-every.C:
			err = r.sweep(ctx, now)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), r.out.flush(time.Now()))
		}
		if err != nil {
			return err
		}
	}
	return r.complete(ctx)
}

// takes reports whether another line may be submitted. While the queue does not take
// those that it was offered, no more are read.
func (r *runner) takes() bool {
	return len(r.pending) < r.cfg.InFlight && r.bytes < maxBytes && len(r.again) == 0
}

// submit has a line run, unless it has its result.
func (r *runner) submit(q *request) error {
	name := jobName{r.m.Batch, q.line, r.m.Round}
	id := name.String()
	switch {
	case r.out.done.has(q.line), r.pending[id] != nil:
		return nil
	case r.stopped:
		return r.out.add(cancelledEnd(name, q.CustomID))
	}
	msg, err := r.message(q, id)
	if err != nil {
		return fmt.Errorf("line %d: %w", q.line, err)
	}
	f := &flight{name, msg}
	r.pending[id] = f
	r.bytes += len(msg.Data)
	return r.publish(f)
}

func (r *runner) publish(f *flight) error {
	if r.isLarge(f) {
		if err := r.publishLarge(f); err != nil {
			return r.notSubmitted(failedSubmit{f.name.String(), err}, time.Now())
		}
		return nil
	}
	if _, err := r.js.PublishMsgAsync(f.msg); err != nil {
		return r.notSubmitted(failedSubmit{f.name.String(), err}, time.Now())
	}
	return nil
}

// isLarge reports whether a line is too large for a message.
func (r *runner) isLarge(f *flight) bool {
	return int64(len(f.msg.Data)) > r.nc.MaxPayload()-maxHeaders
}

// publishLarge submits a line whose body goes into the store of bodies.
func (r *runner) publishLarge(f *flight) error {
	flow, err := schemas.ParseJobSubject(f.msg.Subject)
	if err != nil {
		return err //nolint:wrapcheck // it is one that we made
	}
	keep, err := time.ParseDuration(r.m.Keep)
	if err != nil {
		return fmt.Errorf("read the manifest: %w", err)
	}
	_, err = r.large.Submit(r.ctx, client.Job{
		Model: flow.Model, Class: flow.Class, ID: f.name.String(), Body: f.msg.Data, Kind: schemas.Kind(f.msg.Header.Get(schemas.HeaderKind)),
		CustomID: f.msg.Header.Get(schemas.HeaderCustomID), Keep: keep, Deadline: r.cfg.Deadline,
	})
	return err //nolint:wrapcheck // the client says what it did
}

// message is a line as a job.
func (r *runner) message(q *request, id string) (*nats.Msg, error) {
	var body struct {
		Model string `json:"model"`
	}
	if err := json.Unmarshal(q.Body, &body); err != nil {
		return nil, err //nolint:wrapcheck // the caller says of which line
	}
	subject, err := schemas.JobSubject(schemas.Flow{Tenant: r.tenant, Class: r.cfg.Class, Model: body.Model})
	if err != nil {
		return nil, err //nolint:wrapcheck // as above
	}
	msg := &nats.Msg{Subject: subject, Data: q.Body, Header: nats.Header{
		schemas.HeaderMsgID:    {id},
		schemas.HeaderKind:     {string(kinds[q.URL])},
		schemas.HeaderCustomID: {q.CustomID},
		schemas.HeaderKeep:     {r.m.Keep},
	}}
	if !r.cfg.Deadline.IsZero() {
		msg.Header.Set(schemas.HeaderDeadline, r.cfg.Deadline.UTC().Format(time.RFC3339Nano))
	}
	return msg, nil
}

// listen has the results sent that are stored from now on. What is only published, and
// not stored, is none: the job may run again, and then have another one.
func (r *runner) listen(ctx context.Context) (ends <-chan jetstream.Msg, deaf func(), err error) {
	cons, err := r.js.OrderedConsumer(ctx, resultsStream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{schemas.EndSubject(r.tenant, "*")}, DeliverPolicy: jetstream.DeliverNewPolicy, InactiveThreshold: time.Minute,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("listen to results: %w", err)
	}
	out, stop := make(chan jetstream.Msg), make(chan struct{})
	consuming, err := cons.Consume(func(m jetstream.Msg) {
		select {
		case out <- m:
		case <-stop:
		}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("listen to results: %w", err)
	}
	return out, func() { close(stop); consuming.Stop(); <-consuming.Closed() }, nil
}

// ended takes a result that was just stored.
func (r *runner) ended(m jetstream.Msg) error {
	e, ok := readEnd(m.Subject(), m.Headers(), m.Data(), r.m.Batch)
	if !ok {
		return nil
	}
	r.news, r.quiet = time.Now(), quietAtMost
	return r.take(e)
}

// take writes a result.
func (r *runner) take(e *ended) error {
	if e.name.round != r.m.Round {
		return nil
	}
	if f := r.pending[e.job]; f != nil {
		delete(r.pending, e.job)
		r.bytes -= len(f.msg.Data)
		e.customID = f.msg.Header.Get(schemas.HeaderCustomID)
		r.since = time.Now()
		if err := r.submitAgain(1); err != nil { // there may be room for it now
			return err
		}
	}
	return r.out.add(e)
}

// submitAgain submits some of the lines again that the queue did not take.
func (r *runner) submitAgain(n int) error {
	for ; n > 0 && len(r.again) > 0; n-- {
		f := r.again[0]
		if r.again = r.again[1:]; r.pending[f.name.String()] != f {
			continue
		}
		if err := r.publish(f); err != nil {
			return err
		}
	}
	if len(r.again) == 0 {
		r.trouble = nil
	}
	return nil
}

// notSubmitted has a line that the queue did not take submitted again.
func (r *runner) notSubmitted(f failedSubmit, now time.Time) error {
	flight := r.pending[f.job]
	if flight == nil {
		return nil // it was taken all the same
	}
	err := f.err
	r.trouble = err
	switch full := isFull(err); {
	case errors.Is(err, client.ErrTooLarge), isTooLarge(err):
		delete(r.pending, f.job)
		r.bytes -= len(flight.msg.Data)
		return r.out.add(refusedEnd(flight, err))
	case full:
		r.since = now
	case now.Sub(r.since) > patience:
		return fmt.Errorf("nothing could be submitted for %s, run it again to go on: %w", patience, err)
	}
	r.again = append(r.again, flight)
	return nil
}

// changed takes a change of the connection.
func (r *runner) changed(s nats.Status) error {
	if s == nats.CLOSED {
		return fmt.Errorf("run it again to go on: %w", nats.ErrConnectionClosed)
	}
	r.news = time.Time{} // results may have passed meanwhile
	return nil
}

// sweep looks at what only time changes.
func (r *runner) sweep(ctx context.Context, now time.Time) error {
	if err := r.submitAgain(againAtOnce); err != nil {
		return err
	}
	if len(r.pending) > 0 && now.Sub(r.news) > r.quiet && r.nc.IsConnected() {
		r.lookUp(ctx, now)
	}
	if err := r.out.flush(now); err != nil {
		return err
	}
	if now.Sub(r.beat) > heartbeat {
		r.beat = now
		r.tell(ctx)
	}
	if r.cfg.Progress != nil {
		r.cfg.Progress(r.progress())
	}
	return nil
}

// lookUp takes the results of what is pending from the store, in case that they were
// missed.
func (r *runner) lookUp(ctx context.Context, now time.Time) {
	jobs := make([]jobName, 0, len(r.pending))
	for _, f := range r.pending {
		jobs = append(jobs, f.name)
	}
	before := len(r.pending)
	if err := r.stored(ctx, jobs, r.take); err != nil {
		r.trouble = err
	}
	r.news, r.quiet = now, min(2*r.quiet, maxQuiet)
	if len(r.pending) < before {
		r.quiet = quietAtMost
	}
}

// takeUp takes the results that are stored of lines without one: another run of the
// batch submitted them.
func (r *runner) takeUp(ctx context.Context) error {
	var jobs []jobName
	for line := 1; line <= r.m.Lines; line++ {
		if !r.out.done.has(line) {
			jobs = append(jobs, jobName{r.m.Batch, line, r.m.Round})
		}
		if len(jobs) == page || line == r.m.Lines {
			if err := patiently(ctx, func() error { return r.stored(ctx, jobs, r.take) }, func(err error) { r.trouble = err }); err != nil {
				return err
			}
			jobs = jobs[:0]
		}
	}
	return r.out.flush(time.Now())
}

// patiently asks a server again that does not answer, and tells of it: it may be on its
// way back.
func patiently(ctx context.Context, ask func() error, tell func(error)) error {
	for began := time.Now(); ; {
		err := ask()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > patience {
			return err
		}
		tell(err)
	}
}

// progress is how far the batch is.
func (r *runner) progress() Progress {
	p := Progress{
		Batch: r.m.Batch, Jobs: r.m.Jobs, OK: r.out.answered, Failed: r.out.failed,
		InFlight: len(r.pending), Codes: maps.Clone(r.out.codes), Examples: maps.Clone(r.out.examples),
	}
	if r.trouble != nil {
		p.Trouble = r.trouble.Error()
	}
	return p
}
