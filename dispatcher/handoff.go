package dispatcher

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// offerTimeout is how long a node may take to answer an offer. It answers from
// memory; one that doesn't in that time is frozen or cut off. Since nothing runs
// without a go, the same delivery may then be offered elsewhere.
const offerTimeout = time.Second

// An offer is a job that was offered to a node and has no outcome yet.
type offer struct {
	j       *job
	sent    time.Time
	answer  *outcome // of the node; nil: none yet
	looking bool     // whether the job's end exists is being looked up
	ended   bool     // it does: the job is not to be run again
}

// An outcome is what a node said to an offer.
type outcome struct {
	schemas.OfferAnswer
	goTo string // where an accepted offer waits for its go
	err  error  // no answer
}

// hand offers a job to the node it was placed on. Whether its end exists already
// is looked up at the same time.
func (t *term) hand(j *job, now time.Time) {
	t.lastOffer++
	id := t.lastOffer
	o := &offer{j: j, sent: now, looking: j.mayExist()}
	t.offers[id] = o
	j.promise.offered = true
	m := j.offer(now)
	m.Reply = t.inbox + offerToken + strconv.FormatUint(id, 10)
	switch err := t.nc.PublishMsg(m); {
	case errors.Is(err, nats.ErrMaxPayload):
		delete(t.offers, id)
		t.finish(j, schemas.Errorf(schemas.InvalidRequest,
			"the job of %d bytes leaves no room for the headers of its way to a node under the server's max_payload: submit its body as an object (%s)", len(j.Body), schemas.HeaderBody), now)
		return
	case err != nil:
		o.answer = &outcome{err: err}
	}
	if o.looking {
		t.lookUp(id, o)
	}
	t.conclude(id, o, now)
}

// What arrives at the term's inbox is told apart by these.
const (
	offerToken = ".o."
	lookToken  = ".l."
	pullToken  = ".p."
)

// lookUp asks whether a job's end is stored.
func (t *term) lookUp(id uint64, o *offer) {
	reply := t.inbox + lookToken + strconv.FormatUint(id, 10)
	if err := broker.AskLast(t.nc, broker.StreamResults, o.j.EndSubject(), reply); err != nil {
		t.cfg.Logger.Warn("an end was not looked up", "job", o.j.ID, "err", err)
	}
}

// looked takes the answer. Where it says nothing, the next sweep asks again.
func (t *term) looked(m *nats.Msg, now time.Time) {
	id, o := t.offerOf(m)
	ended, err := broker.HasLast(m)
	if o == nil || !o.looking || err != nil {
		return
	}
	o.looking, o.ended = false, ended
	t.conclude(id, o, now)
}

// offerOf returns the offer that an answer is about; nil where it comes too late.
func (t *term) offerOf(m *nats.Msg) (id uint64, o *offer) {
	id, err := strconv.ParseUint(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 10, 64)
	if err != nil {
		return 0, nil
	}
	return id, t.offers[id]
}

// answered takes what a node said to an offer.
func (t *term) answered(m *nats.Msg, now time.Time) {
	id, o := t.offerOf(m)
	if o == nil || o.answer != nil {
		return
	}
	o.answer = &outcome{goTo: m.Reply}
	if m.Header.Get("Status") == "503" {
		o.answer.err = nats.ErrNoResponders
	} else {
		o.answer.err = json.Unmarshal(m.Data, &o.answer.OfferAnswer)
	}
	t.conclude(id, o, now)
}

// sweepOffers gives up on offers that a node leaves unanswered, and on ends that cannot
// be looked up: a job that ran already may then run again, but ends no second time.
func (t *term) sweepOffers(now time.Time) {
	for id, o := range t.offers {
		switch late := now.Sub(o.sent) > offerTimeout; {
		case o.looking && !late:
			t.lookUp(id, o)
		case late && o.answer == nil:
			o.looking, o.answer = false, &outcome{err: nats.ErrTimeout}
			t.conclude(id, o, now)
		case late:
			o.looking = false
			t.conclude(id, o, now)
		}
	}
}

// conclude takes the outcome of an offer, once all of it is known. This is where
// a job becomes the node's: the go is sent from here and nowhere else.
func (t *term) conclude(id uint64, o *offer, now time.Time) {
	if o.answer == nil || o.looking {
		return
	}
	delete(t.offers, id)
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
	case o.answer.err == nil && o.answer.Accepted && o.answer.goTo != "" && now.Before(j.lease):
		t.goAhead(j, o.answer, now)
	default:
		t.turnedAway(j, o.answer, now)
	}
}

func (t *term) goAhead(j *job, o *outcome, now time.Time) {
	if err := t.nc.PublishMsg(j.goMessage(o.goTo, now)); err != nil {
		t.turnedAway(j, &outcome{err: err}, now)
		return
	}
	t.fleet.prefixes.ran(j.promise.choice.Model, j.prefixes, j.promise.choice.Place())
	t.given(j, now)
	t.tellStarted(j)
	j.running, j.shown = true, o.Seq
	j.msg, j.Body = nil, nil // the node has them now
	node := j.promise.choice.Node
	if t.running[node] == nil {
		t.running[node] = map[jobKey]*job{}
	}
	t.running[node][j.key()] = j
}

// turnedAway looks for another place for a job whose node refused it, is gone or
// does not answer. None of that is an attempt.
func (t *term) turnedAway(j *job, o *outcome, now time.Time) {
	c := j.promise.choice
	switch {
	case errors.Is(o.err, nats.ErrNoResponders):
		t.fleet.forget(c.Node, now)
		t.nodeLost(c.Node, now)
	case o.err != nil:
		t.cfg.Logger.Warn("an offer was not answered", "job", j.ID, "node", c.Node, "err", o.err)
		t.fleet.rest(c, now)
	default:
		t.cfg.Logger.Debug("an offer was refused", "job", j.ID, "node", c.Node, "reason", o.Reason)
		if o.State != nil && o.State.Node == c.Node {
			t.observe(o.State, now)
		}
		t.fleet.rest(c, now)
	}
	t.park(j, now)
}

// release gives back the slot of a job that is not run there.
func (t *term) release(j *job, now time.Time) {
	if j.promise != nil {
		t.fleet.release(j.promise, now)
		j.flow.refund(j.cost)
	}
	j.promise, j.cost = nil, 0
}

// park keeps a job that was fetched until there's another place for it. Giving
// it back to the queue would count as a delivery, and so as an attempt.
func (t *term) park(j *job, now time.Time) {
	t.release(j, now)
	j.parked = now
	t.parked = append(t.parked, j)
	if j.Local {
		j.flow.local++
		j.flow.regard(now)
	}
}

func (t *term) unpark(j *job, now time.Time) {
	before := len(t.parked)
	t.parked = slices.DeleteFunc(t.parked, func(p *job) bool { return p == j })
	if len(t.parked) < before {
		j.leftParked(now)
	}
}

// leftParked notes that a job looks for a place no more.
func (j *job) leftParked(now time.Time) {
	if j.Local {
		j.flow.local--
		j.flow.regard(now)
	}
}

// placeParked offers parked jobs, the longest parked first, wherever they can run
// now.
func (t *term) placeParked(now time.Time) {
	if len(t.parked) == 0 {
		return
	}
	parked := t.parked
	t.parked = nil
	for _, j := range parked {
		if j.flow.pause != nil {
			t.parked = append(t.parked, j)
			continue
		}
		ask := j.ask()
		choice, ok := t.fleet.place.Choose(ask, t.fleet.ms(now))
		if !ok && len(j.avoid) > 0 && !t.fleet.place.Elsewhere(ask) { // better there than nowhere
			ask.Avoid = nil
			choice, ok = t.fleet.place.Choose(ask, t.fleet.ms(now))
		}
		if !ok {
			t.parked = append(t.parked, j)
			continue
		}
		j.leftParked(now)
		j.promise, j.cost = t.fleet.promise(choice, now), t.fleet.place.Charge(j.flow.Flow, choice)
		t.nearCache(j, now)
		t.hand(j, now)
	}
}
