package dispatcher

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// listWithin is how long an answer looks for jobs that match, before it says how to
// go on: less than a client waits before it asks again.
const listWithin = 500 * time.Millisecond

// listJobs lists the jobs of a tenant that have not ended. Which of them run, the
// leader knows; those that wait are looked up in the queue.
func (t *term) listJobs(tenant string, r micro.Request) {
	req := schemas.JobsRequest{Limit: schemas.DefaultJobs}
	err := json.Unmarshal(r.Data(), &req)
	req.Limit = min(cmp.Or(req.Limit, schemas.DefaultJobs), schemas.MostJobs)
	if err != nil || req.Check() != nil || req.Limit < 0 {
		respond(r, schemas.APIError{Error: schemas.Errorf(schemas.InvalidRequest, `the body is not {"state", "class", "model", "since", "limit", "before"}, all of them optional`)})
		return
	}
	var list schemas.JobList
	if (req.State == "" || req.State == schemas.JobRunning) && req.Before == 0 {
		list.Jobs = t.runningJobs(tenant, &req)
	}
	if req.State == schemas.JobRunning {
		respond(r, list)
		return
	}
	t.spawn(func() {
		ctx, cancel := context.WithTimeout(t.ctx, apiTimeout)
		defer cancel()
		if err := t.addQueued(ctx, tenant, &req, &list); err != nil {
			respond(r, unreadable("the queue cannot be read", err))
			return
		}
		respond(r, list)
	})
}

// runningJobs lists jobs that run, the newest first.
func (t *term) runningJobs(tenant string, req *schemas.JobsRequest) []schemas.JobEntry {
	var found []schemas.JobEntry
	add := func(e schemas.JobEntry) {
		if req.Match(e.Class, e.Model) && !e.At.Before(req.Since) {
			found = append(found, e)
		}
	}
	for k, j := range t.jobs {
		if k.tenant == tenant && j.running {
			add(schemas.JobEntry{JobInfo: j.info(), Class: j.Flow.Class, At: j.at.UTC()})
		}
	}
	for id, n := range t.fleet.nodes { // those that another leader gave out
		for _, run := range n.state.Running {
			if run.Tenant == tenant && t.jobs[jobKey{tenant, run.Job}] == nil {
				add(schemas.JobEntry{JobInfo: schemas.JobInfo{
					Job: run.Job, State: schemas.JobRunning, Node: id, Backend: run.Backend, Model: run.Model, Attempt: run.Attempt,
				}})
			}
		}
	}
	slices.SortFunc(found, func(a, b schemas.JobEntry) int {
		return cmp.Or(b.At.Compare(a.At), strings.Compare(a.Job, b.Job))
	})
	return found[:min(len(found), req.Limit)]
}

// A queuedEntry is a line of a list, and where the queue has its job.
type queuedEntry struct {
	schemas.JobEntry
	seq uint64
}

// addQueued adds jobs that wait to a list, the newest first: for their turn or, where
// these are asked for, for their time. The queue can only be
// read forwards: so it's read by windows, from its end on, each twice as wide as the
// one before, and no more than one of them is in memory.
func (t *term) addQueued(ctx context.Context, tenant string, req *schemas.JobsRequest, list *schemas.JobList) error {
	name, widest := broker.StreamJobs, uint64(20_000) // which takes a fraction of listWithin
	if req.State == schemas.JobDelayed {
		name, widest = broker.StreamLater, 500
	}
	stream, err := t.js.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	state := stream.CachedInfo().State
	began, before := time.Now(), cmp.Or(req.Before, state.LastSeq+1)
	for width := uint64(500); before > max(1, state.FirstSeq); width = min(2*width, widest) {
		room := req.Limit - len(list.Jobs)
		if room == 0 || time.Since(began) > listWithin {
			list.Next = before
			return nil
		}
		from := before - min(width, before-1)
		page, old, err := t.queuedBetween(ctx, tenant, from, before, req)
		if err != nil {
			return err
		}
		t.do(func() { page = t.notListed(tenant, page, req, list) })
		slices.Reverse(page)
		if len(page) > room {
			page, from, old = page[:room], page[room-1].seq, false
		}
		for _, e := range page {
			list.Jobs = append(list.Jobs, e.JobEntry)
		}
		if old {
			return nil
		}
		before = from
	}
	return nil
}

// queuedBetween lists the jobs between two sequences of the queue, the oldest first.
// old means that some there are older than those asked for.
func (t *term) queuedBetween(ctx context.Context, tenant string, from, before uint64, req *schemas.JobsRequest) (page []queuedEntry, old bool, err error) {
	msgs := t.queued(ctx, tenant, from)
	if req.State == schemas.JobDelayed {
		msgs = t.delayed(ctx, tenant, from)
	}
	now := time.Now()
	for m, err := range msgs {
		if err != nil {
			return nil, false, err
		}
		if m.Sequence >= before {
			break
		}
		e, ok := t.readQueued(m, now)
		switch {
		case m.Time.Before(req.Since):
			old = true
		case ok && req.Match(e.Class, e.Model):
			page = append(page, e)
		}
	}
	return page, old, nil
}

// readQueued reads a job that waits for its turn or, where it was delayed, for its time.
// It reports false for what is none.
func (t *term) readQueued(m *jetstream.RawStreamMsg, now time.Time) (queuedEntry, bool) {
	e := queuedEntry{schemas.JobEntry{At: m.Time.UTC()}, m.Sequence}
	if strings.HasPrefix(m.Subject, schemas.LaterPrefix) {
		d := t.readDelayed(m)
		e.JobInfo, e.Class = d.info(now), d.Flow.Class
		return e, d.Flow.Class != ""
	}
	flow, err := schemas.ParseJobSubject(m.Subject)
	id, _ := schemas.JobID(m.Header.Get, m.Sequence)
	e.JobInfo, e.Class = queuedJob{flow: flow, msg: m}.info(jobKey{flow.Tenant, id}, now), flow.Class
	return e, err == nil
}

// notListed drops the jobs that run from a page of the queue: the list has them, but
// for those that began since, which stay as what they are now.
func (t *term) notListed(tenant string, page []queuedEntry, req *schemas.JobsRequest, list *schemas.JobList) []queuedEntry {
	kept := page[:0]
	for _, e := range page {
		if info, _ := t.whereIs(jobKey{tenant, e.Job}); info.State == schemas.JobRunning {
			listed := slices.ContainsFunc(list.Jobs, func(l schemas.JobEntry) bool { return l.Job == e.Job })
			if listed || req.State != "" || req.Before > 0 {
				continue
			}
			e.JobInfo = info
		}
		kept = append(kept, e)
	}
	return kept
}

// show says all that is known of a job.
func (t *term) show(k jobKey, r micro.Request) {
	var req schemas.JobRequest
	_ = json.Unmarshal(r.Data(), &req) // it was read before
	info, fetched := t.whereIs(k)
	if fetched != nil || info.State == schemas.JobRunning {
		t.inTime(func(ctx context.Context) {
			m, err := t.queuedAt(ctx, k, fetched)
			t.shown(r, t.details(info, m, req.Body), err)
		})
		return
	}
	t.lookUpDelayed(k, func(ctx context.Context, d *delayedJob, err error) {
		if err != nil {
			t.shown(r, nil, err)
			return
		}
		details, err := t.findDetails(ctx, k, d, req.Body)
		t.shown(r, details, err)
	})
}

// shown answers what is known of a job; nil: nobody knows it.
func (t *term) shown(r micro.Request, d *schemas.JobDetails, err error) {
	var answer []byte
	switch {
	case err != nil:
		answer = encode(unreadable("the job cannot be looked up", err))
	case d == nil:
		answer = encode(schemas.APIError{Error: schemas.Errorf(schemas.JobNotFound, "there is no such job")})
	default:
		answer = encode(d)
	}
	if most := t.nc.MaxPayload(); int64(len(answer)) > most {
		answer = encode(schemas.APIError{Error: schemas.Errorf(schemas.Refused,
			"with its request the answer is %s, over the server's max_payload of %s: ask without the request", schemas.Bytes(len(answer)), schemas.Bytes(most))})
	}
	_ = r.Respond(answer) // as respond
}

// findDetails looks for a job that nobody has: it ended, or is delayed, or waits. nil
// means that there is none.
func (t *term) findDetails(ctx context.Context, k jobKey, delayed *delayedJob, body bool) (*schemas.JobDetails, error) {
	if end, err := t.readEnd(ctx, k); err != nil || end != nil {
		return end, err
	}
	now := time.Now()
	if delayed != nil {
		stream, err := t.laterStream(ctx)
		if err != nil {
			return nil, fmt.Errorf("open the delayed jobs: %w", err)
		}
		m, err := stream.GetMsg(ctx, delayed.seq)
		if err != nil {
			return nil, fmt.Errorf("read a delayed job: %w", err)
		}
		return t.details(delayed.info(now), m, body), nil
	}
	q, found, err := t.findQueued(ctx, k)
	if err != nil || !found {
		return nil, err
	}
	return t.details(q.info(k, now), q.msg, body), nil
}

// details returns what is known of a job as it was submitted. m is nil where it just
// ended.
func (t *term) details(info schemas.JobInfo, m *jetstream.RawStreamMsg, body bool) *schemas.JobDetails { //nolint:revive // flag-parameter: as it was asked for
	d := &schemas.JobDetails{JobInfo: info}
	if m == nil {
		return d
	}
	if e, ok := t.readQueued(m, m.Time); ok {
		d.Class, d.Model = e.Class, cmp.Or(d.Model, e.Model)
	}
	d.Submitted, d.Headers = m.Time.UTC(), map[string]string{}
	for key := range m.Header {
		if !strings.HasPrefix(key, "Nats-") && key != schemas.HeaderLater { // the queue's own
			d.Headers[key] = m.Header.Get(key)
		}
	}
	if body && d.Headers[schemas.HeaderBody] == "" { // else it's too large for a message
		d.Body = schemas.BodyJSON(m.Data)
	}
	return d
}

// queuedAt returns a job as the queue has it, or nil. fetched is it as the leader has
// it; nil where another one had it fetched.
func (t *term) queuedAt(ctx context.Context, k jobKey, fetched *job) (*jetstream.RawStreamMsg, error) {
	if fetched == nil {
		q, _, err := t.findQueued(ctx, k)
		return q.msg, err
	}
	for m, err := range t.queued(ctx, k.tenant, fetched.seq) {
		if err != nil {
			return nil, err
		}
		if m.Sequence == fetched.seq {
			return m, nil
		}
		break
	}
	return nil, nil //nolint:nilnil // there is none
}

// readEnd returns how a job ended whose end is stored, or nil.
func (t *term) readEnd(ctx context.Context, k jobKey) (*schemas.JobDetails, error) {
	info, end, err := t.endOf(ctx, k)
	if err != nil || end == nil {
		return nil, err
	}
	d := &schemas.JobDetails{JobInfo: info}
	if flow, err := schemas.ParseJobSubject(end.Header.Get(schemas.HeaderFlow)); err == nil {
		d.Class, d.Model = flow.Class, flow.Model
	}
	var body struct {
		Error *schemas.Error `json:"error"`
		Run   *schemas.Run   `json:"vramjet"`
	}
	if err := json.Unmarshal(end.Data, &body); err != nil {
		return nil, fmt.Errorf("read the end: %w", err)
	}
	d.Failure, d.Run = body.Error, body.Run
	d.Ended, err = time.Parse(time.RFC3339Nano, end.Header.Get(jetstream.TimeStampHeaer))
	if body.Run != nil {
		d.Node, d.Backend = body.Run.Node, body.Run.Backend
		if err == nil {
			d.Submitted = d.Ended.Add(-time.Duration(body.Run.TotalMS) * time.Millisecond)
		}
	}
	return d, nil
}
