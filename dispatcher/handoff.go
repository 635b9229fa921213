package dispatcher

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// offerTimeout is how long a node may take to answer an offer. It answers from
// memory; one that doesn't in that time is frozen or cut off. Since nothing runs
// without a go, the same delivery may then be offered elsewhere.
const offerTimeout = time.Second

// An outcome is how an offer ended.
type outcome struct {
	j      *job
	answer schemas.OfferAnswer
	goTo   string // where an accepted offer waits for its go
	ended  bool   // the job's end exists: it's not to be run again
	err    error  // no answer
}

// hand offers a job to the node it was placed on. Whether its end exists already
// is looked up at the same time.
func (t *term) hand(j *job, now time.Time) {
	t.offering++
	j.promise.offered = true
	offer := j.offer(now)
	lookUp := j.mayExist()
	t.spawn(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), offerTimeout)
		defer cancel()
		o := outcome{j: j}
		looked := make(chan bool, 1)
		if lookUp {
			t.spawn(func() {
				ended, err := broker.Has(ctx, t.nc, broker.StreamResults, j.EndSubject())
				looked <- ended && err == nil
			})
		} else {
			looked <- false
		}
		o.ask(ctx, t.nc, offer)
		o.ended = <-looked
		t.post(func() { t.concluded(o, time.Now()) })
	})
}

// ask sends the offer and reads the answer.
func (o *outcome) ask(ctx context.Context, nc *nats.Conn, offer *nats.Msg) {
	m, err := nc.RequestMsgWithContext(ctx, offer)
	if err != nil {
		o.err = err
		return
	}
	o.goTo = m.Reply
	o.err = json.Unmarshal(m.Data, &o.answer)
}

// concluded takes the outcome of an offer. This is where a job becomes the
// node's: the go is sent from here and nowhere else.
func (t *term) concluded(o outcome, now time.Time) {
	t.offering--
	j := o.j
	if t.jobs[j.key()] != j {
		return // another delivery of it came; without a go nothing runs
	}
	switch {
	case o.ended:
		t.release(j, now)
		t.drop(j)
	case j.cancelled:
		t.finish(j, schemas.Errorf(schemas.Cancelled, "cancelled before it began"), now)
	case o.err == nil && o.answer.Accepted && o.goTo != "" && now.Before(j.lease):
		t.goAhead(j, o, now)
	default:
		t.turnedAway(j, o, now)
	}
}

func (t *term) goAhead(j *job, o outcome, now time.Time) {
	if err := t.nc.PublishMsg(j.goMessage(o.goTo, now)); err != nil {
		t.turnedAway(j, outcome{j: j, err: err}, now)
		return
	}
	j.running, j.shown = true, o.answer.Seq
	j.msg, j.Body = nil, nil // the node has them now
	node := j.promise.choice.Node
	if t.running[node] == nil {
		t.running[node] = map[jobKey]*job{}
	}
	t.running[node][j.key()] = j
}

// turnedAway looks for another place for a job whose node refused it, is gone or
// does not answer. None of that is an attempt.
func (t *term) turnedAway(j *job, o outcome, now time.Time) {
	c := j.promise.choice
	switch {
	case errors.Is(o.err, nats.ErrNoResponders):
		t.fleet.forget(c.Node)
		t.nodeLost(c.Node, now)
	case o.err != nil:
		t.cfg.Logger.Warn("an offer was not answered", "job", j.ID, "node", c.Node, "err", o.err)
		t.fleet.rest(c, now.Add(time.Second), now)
	default:
		t.cfg.Logger.Debug("an offer was refused", "job", j.ID, "node", c.Node, "reason", o.answer.Reason)
		t.fleet.rest(c, now.Add(100*time.Millisecond), now)
		if o.answer.State != nil {
			t.observe(o.answer.State, now)
		}
	}
	t.park(j, now)
}

// release gives back the slot of a job that is not run there.
func (t *term) release(j *job, now time.Time) {
	if j.promise != nil {
		t.fleet.release(j.promise, now)
		t.refund(j.flow, j.cost)
	}
	j.promise, j.cost = nil, 0
}

// park keeps a job that was fetched until there's another place for it. Giving
// it back to the queue would count as a delivery, and so as an attempt.
func (t *term) park(j *job, now time.Time) {
	t.release(j, now)
	j.parked = now
	t.parked = append(t.parked, j)
}

func (t *term) unpark(j *job) {
	t.parked = slices.DeleteFunc(t.parked, func(p *job) bool { return p == j })
}

// placeParked offers parked jobs, the longest parked first, wherever they can run
// now.
func (t *term) placeParked(now time.Time) {
	if len(t.parked) == 0 {
		return
	}
	still := t.parked[:0]
	for _, j := range t.parked {
		ask := placement.Ask{Model: j.Flow.Model, Kind: j.Kind, Avoid: j.avoid}
		choice, ok := t.fleet.place.Choose(ask)
		if !ok && len(j.avoid) > 0 { // better there than nowhere
			ask.Avoid = nil
			choice, ok = t.fleet.place.Choose(ask)
		}
		if !ok {
			still = append(still, j)
			continue
		}
		j.promise, j.cost = t.fleet.promise(choice, now), j.flow.cost()
		t.clocks[j.Flow.Class].Serve(j.flow.share, j.cost, j.flow.weight)
		t.hand(j, now)
	}
	clear(t.parked[len(still):])
	t.parked = still
}
