package worker

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vramjet/vramjet/broker"
)

// A lease is the right to settle a delivered job. The queue does not fence: what
// a late holder says of a job is taken for the present one's word. So the lease
// counts for nothing once it may have run out.
//
// The clock is the monotonic one, which goes on while the process is stopped.
type lease struct {
	ack   string // the delivery's subject
	since time.Time
	until atomic.Int64 // ns after since; below 0: lost

	// wire is held while an extension is on its way: none may follow a nak, whose
	// delay it would undo.
	wire sync.Mutex
}

// newLease returns a lease that is surely ours for lasts, from since on.
func newLease(ack string, since time.Time, lasts time.Duration) *lease {
	l := &lease{ack: ack, since: since}
	l.until.Store(int64(lasts))
	return l
}

// left is how long the lease is surely ours; not above 0: it is not.
func (l *lease) left(now time.Time) time.Duration {
	return time.Duration(l.until.Load()) - now.Sub(l.since)
}

func (l *lease) held(now time.Time) bool { return l.left(now) > 0 }

// lose gives the lease up for good.
func (l *lease) lose() { l.until.Store(math.MinInt64 / 2) }

// prolong makes the lease last until then, unless it ran out in the meantime: a
// lease that was lost for a moment stays lost.
func (l *lease) prolong(now, then time.Time) {
	old := l.until.Load()
	if time.Duration(old) > now.Sub(l.since) {
		l.until.CompareAndSwap(old, max(old, int64(then.Sub(l.since))))
	}
}

// extendAtOnce bounds the requests of one round of extensions.
const extendAtOnce = 256

// extend asks the queue for more time for each of the leases. One that gets no
// answer is left as it is: the next sweep finds it again.
func (w *Worker) extend(ctx context.Context, leases []*lease) {
	var round errgroup.Group
	round.SetLimit(extendAtOnce)
	for _, l := range leases {
		round.Go(func() error {
			l.wire.Lock()
			defer l.wire.Unlock()
			asked := time.Now()
			if !l.held(asked) {
				return nil
			}
			outcome := "failed"
			if broker.Extend(ctx, w.nc, l.ack) == nil {
				outcome = "ok"
				l.prolong(time.Now(), asked.Add(w.pace.lease-w.pace.margin))
			}
			w.metrics.renewals.WithLabelValues(outcome).Inc()
			return nil
		})
	}
	_ = round.Wait() // no member returns an error
}
