package dispatcher

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// followLater reads what is in the stream of delayed jobs, and what comes, until the
// term ends.
func (t *term) followLater() {
	t.spawn(func() {
		r := &laterReader{t: t}
		for t.ctx.Err() == nil {
			err := r.read()
			if t.ctx.Err() != nil {
				return
			}
			t.cfg.Logger.Warn("delayed jobs are not followed for now", "err", err)
			r.all = true // those that are known must do
			r.pass()
			select {
			case <-t.ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
}

// A laterReader reads the stream of delayed jobs. It belongs to its own goroutine.
type laterReader struct {
	t     *term
	last  uint64    // sequence that was read
	batch []delayed // read, and not passed on
	all   bool      // what comes now was not there when the term began
}

// Jobs are passed on in batches: of so many, or of what came until nothing did for so
// long.
const (
	laterBatch = 1000
	laterPause = 20 * time.Millisecond
)

// read reads on until something fails or the term ends.
func (r *laterReader) read() error {
	if err := r.findPlace(); err != nil {
		return err
	}
	cfg := jetstream.OrderedConsumerConfig{
		HeadersOnly: true, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.last + 1,
		MaxResetAttempts:  1,           // we try again ourselves
		InactiveThreshold: time.Minute, // for a leader that is killed
	}
	c, err := r.t.js.OrderedConsumer(r.t.ctx, broker.StreamLater, cfg)
	if err != nil {
		return err //nolint:wrapcheck // the caller says what this is about
	}
	arrived, stop, err := listen(c)
	if err != nil {
		return err
	}
	defer stop()
	if r.all = r.all || r.readAll(c); r.all {
		r.pass()
	}
	pause := time.NewTimer(laterPause)
	for {
		pause.Reset(laterPause)
		if len(r.batch) == 0 {
			pause.Stop()
		}
		select {
		case a := <-arrived:
			if a.err != nil {
				r.pass()
				return a.err
			}
			r.take(a.msg)
		case <-pause.C: // no more for now
			r.all = r.all || r.readAll(c)
			r.pass()
		case <-r.t.ctx.Done():
			return context.Cause(r.t.ctx)
		}
	}
}

// findPlace begins anew where the stream was made anew, and counts from 1 again.
func (r *laterReader) findPlace() error {
	var s jetstream.Stream
	err := untilAnswered(r.t.ctx, func(ctx context.Context) (err error) {
		s, err = r.t.js.Stream(ctx, broker.StreamLater)
		return err //nolint:wrapcheck // as below
	})
	if err != nil {
		return err //nolint:wrapcheck // the caller says what this is about
	}
	if s.CachedInfo().State.LastSeq < r.last {
		r.last = 0
	}
	return nil
}

// An arrival is what a consumer has next.
type arrival struct {
	msg jetstream.Msg
	err error // the last one
}

// listen passes on what a consumer has. Where the server does not answer, nats.go waits
// for 10 s, whatever ends meanwhile: so its goroutine is not waited for.
func listen(c jetstream.Consumer) (arrived <-chan arrival, stop func(), err error) {
	msgs, err := c.Messages()
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // the caller says what this is about
	}
	out, stopped := make(chan arrival), make(chan struct{})
	go func() {
		for {
			m, err := msgs.Next()
			select {
			case out <- arrival{m, err}:
			case <-stopped:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return out, func() { close(stopped); msgs.Stop() }, nil
}

// readAll reports whether nothing is left to read. Mostly the last message says so; it
// may have been removed, though, as its predecessors were read.
func (r *laterReader) readAll(c jetstream.Consumer) bool {
	ctx, cancel := context.WithTimeout(r.t.ctx, apiTimeout)
	defer cancel()
	info, err := c.Info(ctx)
	return err == nil && info.NumPending == 0 && info.Delivered.Stream <= r.last
}

// take takes one job.
func (r *laterReader) take(m jetstream.Msg) {
	meta, err := m.Metadata()
	if err != nil {
		return // it's none of a consumer's
	}
	r.last = meta.Sequence.Stream
	j, bad := schemas.ReadLater(m.Headers().Get, m.Subject(), r.last, r.t.cfg.Replies)
	r.batch = append(r.batch, r.t.later.of(j, m.Subject(), r.last, bad))
	if r.all && bad == nil && j.At.After(time.Now()) {
		r.t.tell(j, schemas.JobEvent{Event: schemas.JobEventDelayed, Due: j.At})
	}
	r.all = r.all || meta.NumPending == 0
	if meta.NumPending == 0 || len(r.batch) == laterBatch {
		r.pass()
	}
}

// pass passes on what was read. It waits until that was taken: a million jobs are read
// beside the leader's other work, and not in front of it.
func (r *laterReader) pass() {
	batch, all := r.batch, r.all
	r.batch = nil
	r.t.do(func() { r.t.arrivedLater(batch, all, time.Now()) })
}

// arrivedLater takes in delayed jobs that were read. all says that those that were
// there are known now.
func (t *term) arrivedLater(jobs []delayed, all bool, now time.Time) { //nolint:revive // flag-parameter: a fact, not a mode
	for _, d := range jobs {
		t.later.read(d)
	}
	if all && !t.later.loaded {
		t.later.loaded = true
		for _, do := range t.later.asked {
			do()
		}
		t.later.asked = nil
	}
	t.moveDue(now)
}

// whenLaterKnown does what needs to know which jobs are delayed.
func (t *term) whenLaterKnown(do func()) {
	if t.later.loaded {
		do()
		return
	}
	t.later.asked = append(t.later.asked, do)
}
