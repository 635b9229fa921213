package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/schemas"
)

// A scaling is a dispatcher, in a process of its own, that follows a fleet.
type scaling struct {
	*site
	fleet      *playedFleet
	dispatcher *played
	waits      *waits // of jobs, from their submission until they are offered
	result     *Result
}

// scale measures a dispatcher that follows a large fleet of played nodes while jobs come
// for it.
func scale(ctx context.Context, s *site, r *Result) (err error) {
	c := &scaling{site: s, waits: newWaits(), result: r}
	nc, err := s.connect(ctx)
	if err != nil {
		return err
	}
	if c.fleet, err = newPlayedFleet(nc, s.Fleet, c.waits.over); err != nil {
		return err
	}
	defer c.fleet.jobs.Wait()
	if c.dispatcher, err = s.play(); err != nil {
		return err
	}
	defer c.dispatcher.end()
	s.Progress(fmt.Sprintf("scale: %d nodes of %d devices", s.Fleet.Nodes, s.Fleet.Devices))
	if err := c.reported(ctx, c.dispatch); err != nil {
		return err
	}
	return c.bounds(ctx)
}

// reported does something while the nodes report.
func (c *scaling) reported(ctx context.Context, do func(context.Context) error) error {
	reporting, stop := context.WithCancel(ctx)
	told := make(chan error, 1)
	go func() { told <- c.fleet.report(reporting) }()
	err := do(ctx)
	stop()
	return errors.Join(err, <-told)
}

// dispatch submits jobs, and measures the dispatcher.
func (c *scaling) dispatch(ctx context.Context) error {
	if err := pause(ctx, 2*reportEvery); err != nil { // all nodes have reported by then
		return err
	}
	next, err := c.steady(ctx, reportEvery, 0, c.submit)
	if err != nil {
		return err
	}
	if err := c.waits.none(ctx); err != nil {
		return err
	}
	before, err := c.dispatcher.usage()
	if err != nil {
		return err
	}
	c.waits.reset()
	began, bytes, states := time.Now(), c.fleet.bytes.Load(), c.fleet.states.Load()
	if _, err = c.steady(ctx, c.Time, next, c.submit); err != nil {
		return err
	}
	after, err := c.dispatcher.usage()
	if err != nil {
		return err
	}
	seconds := time.Since(began).Seconds()
	bytes, states = c.fleet.bytes.Load()-bytes, c.fleet.states.Load()-states
	offered := len(c.waits.all())
	if err := c.waits.none(ctx); err != nil {
		return err
	}
	r, waited := c.result, c.waits.all()
	r.add("jobs offered to nodes", 0, float64(offered)/seconds, PerSecond).beside("jobs to submit", float64(c.Fleet.Rate))
	r.add("states of nodes", 0, float64(states)/seconds, PerSecond).beside("nodes", float64(c.Fleet.Nodes))
	r.add(stateBytes, 0, float64(bytes)/seconds, BytesPerSecond)
	if after.CPU > 0 {
		r.add("processor of the dispatcher, of one core", 0, 100*(after.CPU-before.CPU).Seconds()/seconds, Percent)
	}
	r.add("memory of the dispatcher", 0, float64(after.Memory), Bytes)
	for _, p := range []float64{50, 99} {
		r.add(fmt.Sprintf("decision, p%.0f", p), 0, micros(percentile(after.Decided, p)), Microseconds)
	}
	for _, p := range []float64{50, 99} {
		r.add(fmt.Sprintf(toOffer, p), 0, millis(percentile(waited, p)), Milliseconds)
	}
	return nil
}

// The figures that NATS alone has something beside.
const (
	stateBytes = "bytes of states"
	toOffer    = "submission to offer, p%.0f"
)

// submit submits a job to a model of the fleet, without waiting for the queue.
func (c *scaling) submit(i int) error {
	subject, err := schemas.JobSubject(schemas.Flow{Tenant: Tenant, Class: schemas.Normal, Model: c.Fleet.model(i)})
	if err != nil {
		return err
	}
	m := nats.NewMsg(subject)
	id := strconv.Itoa(i)
	m.Header.Set(schemas.HeaderMsgID, id)
	m.Header.Set(schemas.HeaderReply, "_INBOX.vramjet-bench")
	m.Data = chat(answerTokens)
	c.waits.begin(id)
	_, err = c.js.PublishMsgAsync(m, jetstream.WithStallWait(answerWithin))
	return err
}

// bounds measures what NATS alone makes of the same, and says so beside the figures.
func (c *scaling) bounds(ctx context.Context) error {
	c.Progress("scale: NATS alone, messages of the size of a state")
	size := c.fleet.bytes.Load() / max(1, c.fleet.states.Load())
	states, err := c.pubSub(ctx, &nats.Msg{Data: make([]byte, size)}, c.Time/2)
	if err != nil {
		return err
	}
	c.Progress("scale: the minimal path")
	waited, err := c.minimalWaits(ctx)
	if err != nil {
		return err
	}
	for i := range c.result.Figures {
		f := &c.result.Figures[i]
		if f.Name == stateBytes {
			f.beside("messages of the same size", states*float64(size))
		}
		for _, p := range []float64{50, 99} {
			if f.Name == fmt.Sprintf(toOffer, p) {
				f.beside(fmt.Sprintf("the minimal path, p%.0f", p), millis(percentile(waited, p)))
			}
		}
	}
	return nil
}

// minimalWaits measures how long jobs of the minimal path take until they are offered,
// at the same rate.
func (c *scaling) minimalWaits(ctx context.Context) ([]time.Duration, error) {
	m, stop, err := c.minimal(ctx, Answered)
	if err != nil {
		return nil, err
	}
	defer stop()
	c.parts.Go(func() { drain(c.life, m.Events) })
	w := newWaits()
	if _, err := listen(c.nc, minimalRun, func(m *nats.Msg) { w.over(string(m.Data)) }); err != nil { // it hears each offer as well
		return nil, err
	}
	if _, err := c.steady(ctx, c.Time/2, 0, func(i int) error {
		id := strconv.Itoa(i)
		w.begin(id)
		return m.Submit([]byte(id))
	}); err != nil {
		return nil, err
	}
	err = w.none(ctx)
	return w.all(), err
}

// drain takes what comes until ctx ends.
func drain(ctx context.Context, events <-chan struct{}) {
	for {
		select {
		case <-events:
		case <-ctx.Done():
			return
		}
	}
}

// steady submits jobs at the rate of the fleet for a time, whatever becomes of them. It
// begins with a number and returns the next.
func (s *site) steady(ctx context.Context, d time.Duration, from int, submit func(i int) error) (next int, err error) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for next = from; ; {
		since := time.Since(began)
		if since >= d {
			return next, nil
		}
		for due := from + int(since.Seconds()*float64(s.Fleet.Rate)); next < due; next++ {
			if err := submit(next); err != nil {
				return next, fmt.Errorf("submit: %w", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return next, ctx.Err()
		}
	}
}

// waits are the times from the submission of jobs until something happens to them.
type waits struct {
	mu    sync.Mutex
	began map[string]time.Time // by id
	took  []time.Duration
}

func newWaits() *waits { return &waits{began: map[string]time.Time{}} }

func (w *waits) begin(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.began[id] = time.Now()
}

// over ends the wait of a job.
func (w *waits) over(id string) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if began, ok := w.began[id]; ok {
		delete(w.began, id)
		w.took = append(w.took, now.Sub(began))
	}
}

// reset forgets the waits that are over.
func (w *waits) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.took = nil
}

// all returns the waits that are over, the shortest first.
func (w *waits) all() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	took := slices.Clone(w.took)
	slices.Sort(took)
	return took
}

// none waits until no job waits any more.
func (w *waits) none(ctx context.Context) error {
	const look = 10 * time.Millisecond
	for late := time.Now().Add(drainWithin); time.Now().Before(late); {
		w.mu.Lock()
		left := len(w.began)
		w.mu.Unlock()
		if left == 0 {
			return nil
		}
		if err := pause(ctx, look); err != nil {
			return err
		}
	}
	return errStuck
}
