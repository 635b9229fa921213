package dispatcher

import (
	"context"
	"errors"
	"time"

	"github.com/vramjet/vramjet/broker"
)

// A consumer is the JetStream consumer that one flow is fetched by. It exists
// while the flow is served: every acknowledgement costs the server a look at
// each live consumer.
type consumer struct {
	flow  *flow
	name  string
	ready bool
	used  time.Time // last pull
}

// consumers are those of a term, by name.
type consumers struct {
	limit   int
	live    map[string]*consumer
	closing map[string]bool // being deleted: not to be opened before that is over
}

// idleConsumer is how long a consumer may go unused before another flow may take
// its place.
const idleConsumer = 2 * time.Second

// open has the consumer of a flow made. It reports false where that can't be now:
// too many are in use.
func (c *consumers) open(t *term, f *flow, now time.Time) bool {
	name := broker.ConsumerName(f.subject)
	if c.closing[name] || len(c.live) >= c.limit && !c.closeIdle(t, now) {
		return false
	}
	f.consumer = &consumer{flow: f, name: name, used: now}
	c.live[f.consumer.name] = f.consumer
	t.makeConsumer(f)
	return true
}

// closeIdle closes the consumer that was not used for the longest time. One with
// jobs that are not settled stays: they would be delivered again.
func (c *consumers) closeIdle(t *term, now time.Time) bool {
	var oldest *consumer
	for _, k := range c.live {
		f := k.flow
		idle := len(f.awaiting) == 0 && f.held == 0 && now.Sub(k.used) > idleConsumer
		if idle && (oldest == nil || k.used.Before(oldest.used)) {
			oldest = k
		}
	}
	if oldest == nil {
		return false
	}
	c.drop(oldest)
	c.closing[oldest.name] = true
	t.spawn(func() {
		defer t.post(func() { delete(c.closing, oldest.name) })
		ctx, cancel := context.WithTimeout(t.ctx, 5*time.Second)
		defer cancel()
		// The server checks nothing on a delete, so it's asked first whether all is
		// settled: a job that waits for its retry counts as not settled.
		k, err := t.js.Consumer(ctx, broker.StreamJobs, oldest.name)
		if err != nil || k.CachedInfo().NumAckPending > 0 {
			return
		}
		_ = t.js.DeleteConsumer(ctx, broker.StreamJobs, oldest.name) // else it dies of inactivity
	})
	return true
}

// drop forgets a consumer, so that the next job of its flow makes it anew.
func (c *consumers) drop(k *consumer) {
	delete(c.live, k.name)
	k.flow.consumer = nil
}

// maxUnacked bounds the jobs of a flow that run at once. The slots of the fleet
// bound them first: it's only far over those.
const maxUnacked = 50_000

// makeConsumer makes or finds the consumer of a flow, and then sends the pulls
// that wait for it.
func (t *term) makeConsumer(f *flow) {
	k := f.consumer
	cfg := broker.ConsumerConfig(f.subject, maxUnacked, 0)
	t.spawn(func() {
		err := untilAnswered(t.ctx, func(ctx context.Context) error {
			_, err := t.js.CreateOrUpdateConsumer(ctx, broker.StreamJobs, cfg)
			return err //nolint:wrapcheck // for the log alone
		})
		t.post(func() { t.consumerMade(k, err, time.Now()) })
	})
}

// remake makes a consumer anew that the server does not have: it was not used for too
// long, or somebody deleted it, or the servers that have it elect.
func (t *term) remake(k *consumer) {
	if k.ready {
		k.ready = false
		t.makeConsumer(k.flow)
	}
}

func (t *term) consumerMade(k *consumer, err error, now time.Time) {
	f := k.flow
	if f.consumer != k {
		return // dropped in the meantime
	}
	if err != nil {
		if !errors.Is(err, context.Canceled) { // else the term is over
			t.cfg.Logger.Warn("a flow cannot be fetched from", "flow", f.subject, "err", err)
		}
		for w, ok := f.delivered(0, now); ok; w, ok = f.delivered(0, now) {
			t.unwant(f, w, now)
		}
		t.consumers.drop(k)
		f.wait(0, now) // the next count of the stream tries again
		return
	}
	k.ready = true
	t.fetch(f, now)
}
