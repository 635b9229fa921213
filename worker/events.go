package worker

import (
	"context"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// An outlet publishes the events of one attempt, numbered and in order, as long
// as the lease is ours. It belongs to the goroutine of the attempt.
type outlet struct {
	nc    *nats.Conn
	lease *lease
	job   *schemas.Job
	flow  string   // the job's subject in the queue
	node  string   // ours
	msg   nats.Msg // reused for every event; nats.go copies it
	kind  []string // values of two of its headers, changed in place
	seq   []string
	next  uint64

	// Probes ask whether the client still listens. "" probe: nobody asks.
	probe  string
	probes uint64
	every  time.Duration
	asked  time.Time
}

// newOutlet returns the outlet of an attempt of a node at a job.
func newOutlet(nc *nats.Conn, node string, l *lease, o *offer) *outlet {
	out := &outlet{nc: nc, lease: l, job: o.Job, flow: o.Subject, node: node, kind: []string{""}, seq: []string{""}}
	out.msg.Subject = o.Job.EventSubject()
	out.msg.Header = nats.Header{
		schemas.HeaderEvent:   out.kind,
		schemas.HeaderJob:     {o.Job.ID},
		schemas.HeaderAttempt: {strconv.FormatUint(o.Attempt, 10)},
		schemas.HeaderSeq:     out.seq,
	}
	o.Job.SetAnswer(out.msg.Header.Set, out.msg.Subject)
	if trace := o.header.Get(schemas.HeaderTrace); trace != "" {
		out.msg.Header[schemas.HeaderTrace] = []string{trace}
	}
	return out
}

// publish sends one event, or returns errLost where the lease is not ours now.
func (o *outlet) publish(kind schemas.EventKind, body []byte, now time.Time) error {
	if !o.lease.held(now) {
		return errLost
	}
	o.kind[0] = string(kind)
	o.seq[0] = strconv.FormatUint(o.next, 10)
	o.msg.Data, o.msg.Reply = body, ""
	if o.probe != "" && now.Sub(o.asked) >= o.every {
		o.probes++
		o.asked = now
		o.msg.Reply = o.probe + strconv.FormatUint(o.probes, 10)
	}
	if err := o.nc.PublishMsg(&o.msg); err != nil {
		return err
	}
	o.next++
	return nil
}

// end publishes the job's end and returns once it is stored, or, where it goes
// to a reply subject, once the server has it. It tries again until ctx ends.
func (o *outlet) end(ctx context.Context, s settlement, body []byte) error {
	header := make(nats.Header, len(o.msg.Header)+5)
	maps.Copy(header, o.msg.Header)
	header[schemas.HeaderEvent] = []string{string(schemas.EventEnd)}
	header[schemas.HeaderSeq] = []string{strconv.FormatUint(o.next, 10)}
	header[schemas.HeaderStatus] = []string{string(s.status)}
	header[schemas.HeaderFlow] = []string{o.flow}
	header[schemas.HeaderNode] = []string{o.node}
	if s.err != nil {
		header[schemas.HeaderCode] = []string{string(s.err.Code)}
	}
	msg := &nats.Msg{Subject: o.job.EndSubject(), Header: header, Data: body}
	if o.job.Reply == "" {
		_, err := broker.PublishEnd(ctx, o.nc, msg) // whoever was first: there is an end
		return err
	}
	for {
		err := o.flushed(ctx, msg)
		if err == nil || ctx.Err() != nil || !o.lease.held(time.Now()) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(flushPause):
		}
	}
}

// Bounds of one attempt to flush, and of the pause after it.
const (
	flushTimeout = 2 * time.Second
	flushPause   = 100 * time.Millisecond
)

// flushed publishes msg and returns once the server has it: an error means that
// it may not. The same event may then be sent twice, with the same number.
func (o *outlet) flushed(ctx context.Context, msg *nats.Msg) error {
	if err := o.nc.PublishMsg(msg); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	return o.nc.FlushWithContext(ctx)
}
