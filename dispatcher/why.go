package dispatcher

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// why says in words why a job waits.
func (t *term) why(k jobKey, r micro.Request) {
	if j := t.jobs[k]; j != nil {
		answer := schemas.Why{JobInfo: j.info(), Class: j.Flow.Class, Why: []string{}}
		if j.postponed {
			answer.Reason = notDue(j.At)
		} else if !j.running {
			now := time.Now()
			answer.WaitedMS = now.Sub(j.at).Milliseconds()
			t.explain(&answer, j.Flow, j.ask(), 0, now)
		}
		respond(r, answer)
		return
	}
	t.lookUpDelayed(k, func(ctx context.Context, d *delayedJob, err error) {
		if err == nil && d != nil {
			respond(r, d.why(time.Now()))
			return
		}
		q, found, err := t.findQueued(ctx, k)
		if err != nil || !found {
			t.post(func() { t.status(k, r) }) //nolint:contextcheck // it has its own time
			return
		}
		q.handedOut = t.handedOut(ctx, q)
		t.post(func() { respond(r, t.whyQueued(k, q, time.Now())) })
	})
}

// whyQueued says why a job waits in the queue.
func (t *term) whyQueued(k jobKey, q queuedJob, now time.Time) schemas.Why {
	w := schemas.Why{
		JobInfo: q.info(k, now),
		Class:   q.flow.Class, WaitedMS: max(0, now.Sub(q.at).Milliseconds()), Before: q.before, Why: []string{},
	}
	if w.State == schemas.JobDelayed {
		w.WaitedMS, w.Before, w.Reason = 0, 0, notDue(w.Due)
		return w
	}
	if info, runs := t.fleet.running(k); runs { // another leader gave it to a node
		return schemas.Why{JobInfo: info, Class: q.flow.Class, Why: []string{}}
	}
	if q.handedOut && t.jobs[k] == nil {
		w.Before = 0
		w.Reason = "an attempt at it failed, or who had it is gone"
		w.Next = fmt.Sprintf("it is delivered again once its pause or its lease is over; a lease takes %s at most", broker.AckWait)
		return w
	}
	ask := placement.Ask{Model: q.flow.Model}
	if f := t.byKey[q.flow]; f != nil { // those that run are in the queue as well, until they are over
		ask.Flow, w.Before = f.Flow, max(0, q.before-f.held)
	}
	t.explain(&w, q.flow, ask, w.Before, now)
	return w
}

// explain fills in why a job waits.
func (t *term) explain(w *schemas.Why, flow schemas.Flow, ask placement.Ask, before int, now time.Time) {
	if p := t.pauses.match(flow); p != nil {
		w.Reason, w.Next, w.Fix = pausedSince(p), "nothing, until that is resumed", []string{resumeCommand(flow.Tenant, p)}
		return
	}
	x := t.fleet.place.Explain(ask, before, func(model string) []int64 { return t.fleet.ran(model, now) }, t.fleet.ms(now))
	w.Reason, w.Next, w.Fix = x.Reason, x.Next, x.Fix
	w.Why = append(w.Why, x.Places...)
	if x.ETAMS >= 0 {
		w.ETAMS = &x.ETAMS
	}
	if !t.fleet.place.Serves(placement.Ask{Model: ask.Model}) {
		w.Why = []string{t.modelNotFound(ask.Model).Message}
	}
}

// handedOut reports whether a job in the queue was delivered, and so will be again: at the
// latest when the lease of that delivery is over.
func (t *term) handedOut(ctx context.Context, q queuedJob) bool {
	c, err := t.js.Consumer(ctx, broker.StreamJobs, broker.ConsumerName(q.msg.Subject))
	if err != nil {
		return false // it was not, or nobody can say
	}
	return c.CachedInfo().Delivered.Stream >= q.msg.Sequence
}
