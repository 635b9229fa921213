package dispatcher

import (
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// What becomes of jobs is told to anyone who listens, at most once: the leader
// publishes what it knows anyway, and asks nobody.

// tell publishes an event of a job.
func (d *Dispatcher) tell(j *schemas.Job, e schemas.JobEvent) {
	e.Job, e.Model, e.Class, e.CustomID, e.At = j.ID, j.Flow.Model, j.Flow.Class, j.CustomID, time.Now().UTC()
	_ = d.nc.Publish(schemas.JobEventSubject(j.Flow.Tenant, j.ID), encode(e)) // fails only where the connection is gone
}

// tellEnd tells that a job ended that no node runs.
func (d *Dispatcher) tellEnd(j *schemas.Job, attempt uint64, why *schemas.Error) {
	d.metrics.ended(j.Flow, schemas.StatusOf(why.Code), 0)
	d.tell(j, schemas.JobEvent{Event: schemas.JobEventEnded, Attempt: attempt, Status: schemas.StatusOf(why.Code), Code: why.Code})
}

// tellQueued tells that the queue took a job, by its headers.
func (d *Dispatcher) tellQueued(m *nats.Msg, flow schemas.Flow, now time.Time) {
	seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil || dueOf(m.Header.Get).After(now) {
		return // it is about to be delayed
	}
	j := &schemas.Job{Flow: flow}
	if j.ID, err = schemas.JobID(m.Header.Get, seq); err == nil && j.ReadAnswer(m.Header.Get) == nil {
		d.tell(j, schemas.JobEvent{Event: schemas.JobEventQueued})
	}
}

// tellStarted tells that a node has a job.
func (t *term) tellStarted(j *job) {
	c := j.promise.choice
	t.tell(j.Job, schemas.JobEvent{Event: schemas.JobEventStarted, Node: c.Node, Backend: c.Backend, Attempt: j.attempt})
}

// tellLost tells that a job's node is gone, and that the job is not.
func (t *term) tellLost(j *job) {
	c := j.promise.choice
	t.tell(j.Job, schemas.JobEvent{Event: schemas.JobEventRetried, Node: c.Node, Backend: c.Backend, Attempt: j.attempt, Code: schemas.Unreachable})
}

// tellDone tells what a node said of an attempt that is over. j is nil where a former
// leader assigned the job.
func (t *term) tellDone(j *job, d *schemas.JobDone) {
	e := schemas.JobEvent{
		Event: schemas.JobEventEnded, Node: d.Node, Attempt: d.Attempt,
		Status: d.Status, Code: d.Code, Tokens: d.Tokens, Cost: d.Cost,
	}
	switch {
	case d.Status != "":
	case d.Code != "" && d.RetryMS >= 0:
		e.Event = schemas.JobEventRetried
	default:
		return // somebody else has the job
	}
	of, took := &schemas.Job{ID: d.Job, Flow: schemas.Flow{Tenant: d.Tenant}}, time.Duration(0)
	if j != nil {
		of, took = j.Job, time.Since(j.at)
		if j.promise != nil {
			e.Backend = j.promise.choice.Backend
		}
	}
	if d.Status != "" {
		t.metrics.ended(of.Flow, d.Status, took)
		t.metrics.tokens.WithLabelValues(t.metrics.tenants.label(d.Tenant)).Add(float64(max(0, d.Tokens)))
	}
	if d.Status == schemas.StatusError && d.Code.Verdict().Action != schemas.Never { // its attempts are used up
		t.metrics.dead.WithLabelValues(string(d.Code)).Inc()
	}
	t.tell(of, e)
}
