package dispatcher

import (
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// pullTimeout is how long a pull may stay unanswered. The answer comes in well
// under a millisecond, and not at all while the stream elects a leader.
const pullTimeout = 2 * time.Second

// pullOne asks for one job. It may wait 100 ms for it, in ns: a hint can be here
// before the consumer has the job that it is of.
var pullOne = []byte(`{"batch":1,"expires":100000000}`)

// pullsLost is when a pull that has no answer will hardly get one: a cluster leaves some
// unanswered under load.
const pullsLost = 300 * time.Millisecond

// pullsOver is when no pull waits any more that was sent before.
const pullsOver = 150 * time.Millisecond

// fetch sends a pull for each slot of the flow that waits for its job and has
// none on the way. Each pull asks for exactly one job, and is answered by it, or
// by a status where the flow is empty.
func (t *term) fetch(f *flow, now time.Time) {
	if f.consumer == nil || !f.consumer.ready {
		return // its pulls are sent when it is
	}
	f.consumer.used = now
	for i := len(f.awaiting) - 1; i >= 0 && f.awaiting[i].sent.IsZero(); i-- {
		w := &f.awaiting[i]
		w.sent, w.hints = now, f.hints
		m := &nats.Msg{
			Subject: "$JS.API.CONSUMER.MSG.NEXT." + broker.StreamJobs + "." + f.consumer.name,
			Reply:   t.inbox + pullToken + f.consumer.name,
			Data:    pullOne,
		}
		if err := t.nc.PublishMsg(m); err != nil {
			t.cfg.Logger.Warn("a job was not fetched", "flow", f.subject, "err", err)
		}
	}
}

// pulled takes what a pull was answered: a job, or why there is none.
func (t *term) pulled(m *nats.Msg, now time.Time) {
	if m.Reply != "" {
		t.delivered(m, now)
		return
	}
	k := t.consumers.live[m.Subject[len(t.inbox)+len(pullToken):]]
	if k == nil {
		return
	}
	f := k.flow
	status := m.Header.Get("Status")
	take := f.empty
	if status == "503" {
		take = f.unheard
	}
	if w, ok := take(now); ok {
		t.unwant(f, w, now)
	}
	switch status {
	case "404", "408": // empty
	case "503": // no consumer
		t.remake(k)
	default:
		t.cfg.Logger.Debug("a pull failed", "flow", f.subject, "status", m.Header.Get("Status"), "reason", m.Header.Get("Description"))
	}
}

// unwant gives back the slot of a want that got no job.
func (t *term) unwant(f *flow, w want, now time.Time) {
	t.fleet.release(w.promise, now)
	f.refund(w.cost)
	if w.promise != nil {
		f.tenant.requests.take(-1, now)
	}
	f.tenant.regard(now)
}

// delivered takes a job that the queue delivered.
func (t *term) delivered(m *nats.Msg, now time.Time) {
	f := t.flows[m.Subject]
	if f == nil {
		t.cfg.Logger.Error("a delivery of no flow", "subject", m.Subject)
		return
	}
	sent := now
	if len(f.awaiting) > 0 {
		sent = f.awaiting[0].sent
	}
	j, left, err := readDelivery(m, f, sent, t.cfg.Replies)
	if j == nil {
		t.cfg.Logger.Error("a delivery without metadata", "subject", m.Subject, "err", err)
		return
	}
	w, wanted := f.delivered(left, now)
	j.promise, j.cost = w.promise, w.cost
	f.held++
	if j.seq > f.fetched {
		f.fetched, f.next = j.seq, j.at
	}
	if !t.hold(j, now) {
		return
	}
	early := err == nil && t.early(j, now)
	if err == nil && !early {
		j.prefixes = prefixKeys(j.Job)
		err = t.mayRun(j, now)
	}
	switch {
	case !t.closing.IsZero(): // not at once: the next of our own pulls would have it, and so on
		t.release(j, now)
		t.giveBack(j, pullsOver)
	case t.claimed[j.key()]: // where it is: it's delivered again only if that fails
		t.release(j, now)
		t.giveBack(j, time.Second)
	case err != nil:
		t.finish(j, schemas.AsError(err), now)
	case early:
		t.postpone(j, now)
	case !wanted, j.promise == nil, !t.fleet.place.Takes(j.promise.choice, j.ask()), len(t.avoid) > 0 && t.mustAvoid(j):
		t.park(j, now)
	default:
		t.nearCache(j, now)
		t.hand(j, now)
	}
}

// hold notes a delivery. It reports false where another delivery of the same job
// is under way, and has dealt with that.
func (t *term) hold(j *job, now time.Time) bool {
	k := j.key()
	old := t.jobs[k]
	switch {
	case old == nil:
	case old.seq != j.seq: // the id was used again while its job is under way: it's the same job
		t.release(j, now)
		j.flow.held--
		if j.Object == old.Object {
			j.Object = "" // it is in use
		}
		t.drop(j)
		return false
	case old.running: // its node let the lease run out
		t.void(k, j.attempt-1)
		t.forgetJob(k, old, now)
	default: // it was too long under way here
		t.unpark(old, now)
		t.forgetJob(k, old, now)
	}
	t.jobs[k] = j
	return true
}

// maxLosses is how many nodes a job may take with it, however many attempts it has.
const maxLosses = 3

// isDead reports whether a job was tried for the last time.
func (t *term) isDead(j *job) bool {
	return j.attempt > uint64(j.Attempts) || t.losses[j.key()].n >= maxLosses
}

// mayRun returns why a sound job is not to be run any more, or nil.
func (t *term) mayRun(j *job, now time.Time) error {
	_, marked := t.marks[j.key()]
	switch {
	case marked:
		return schemas.Errorf(schemas.Cancelled, "cancelled while it waited")
	case !j.Deadline.IsZero() && now.After(j.Deadline):
		return schemas.Errorf(schemas.Deadline, "its deadline, %s, passed while it waited", j.Deadline.Format(time.RFC3339))
	case t.losses[j.key()].n >= maxLosses:
		return schemas.Errorf(schemas.UpstreamError, "its node was lost %d times while it ran the job: gave up, as the job may be why", maxLosses)
	case j.attempt > uint64(j.Attempts):
		return schemas.Errorf(schemas.UpstreamError, "given out %d times, and never ended: gave up", j.Attempts)
	case t.fleet.expects(j.Flow.Model, now):
		return nil
	case !t.fleet.place.Serves(placement.Ask{Model: j.Flow.Model}):
		return t.modelNotFound(j.Flow.Model)
	case !t.fleet.place.Serves(placement.Ask{Model: j.Flow.Model, Local: j.Local}):
		return schemas.Errorf(schemas.Refused, "only hosted APIs serve the model %s, and the job must not leave for one (%s)", j.Flow.Model, schemas.HeaderLocal)
	case !t.fleet.place.Serves(j.ask()):
		return schemas.Errorf(schemas.Unsupported, "no backend does %s with the model %s%s", j.Kind, j.Flow.Model, t.modelsFor(j))
	default:
		return nil
	}
}

// modelsFor names a few models that could do what a job asks of one that can't.
func (t *term) modelsFor(j *job) string {
	able := slices.DeleteFunc(t.fleet.place.Models(), func(model string) bool {
		return !t.fleet.place.Serves(placement.Ask{Model: model, Kind: j.Kind, Local: j.Local})
	})
	if len(able) == 0 {
		return ", nor with any other"
	}
	return "; some that could: " + strings.Join(nearest(j.Flow.Model, able, 3), ", ")
}

// mustAvoid reports whether the place of a job is one that failed it before.
func (t *term) mustAvoid(j *job) bool {
	a, ok := t.avoid[j.key()]
	if !ok {
		return false
	}
	j.avoid = a.places
	return true
}
