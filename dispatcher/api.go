package dispatcher

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// serve makes the dispatcher a NATS micro service: every dispatcher hears what
// clients ask, and the leader answers.
func (d *Dispatcher) serve() (micro.Service, error) {
	svc, err := micro.AddService(d.nc, micro.Config{
		Name: "vramjet-dispatcher", Version: d.cfg.Version, QueueGroupDisabled: true,
		Description: "decides which LLM job runs on which node",
		Metadata:    map[string]string{"dispatcher": d.cfg.ID, "protocol": "v1"},
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // micro says what it was doing
	}
	ask := func(r micro.Request) {
		if d.mayAsk(r) {
			d.post(func() { d.term.asked(r) })
		}
	}
	if err := svc.AddEndpoint("api", micro.HandlerFunc(ask), micro.WithEndpointSubject(schemas.APISubject("*", "*"))); err != nil {
		return nil, err //nolint:wrapcheck // as above
	}
	return svc, nil
}

// mayAsk reports whether a request may be answered: not where it would have the
// dispatcher publish, or ask, what its sender may not.
func (d *Dispatcher) mayAsk(r micro.Request) bool {
	err := schemas.CheckAsker(r.Reply())
	if err == nil && !schemas.FromJetStream(r.Headers().Get, r.Reply()) {
		return true
	}
	d.cfg.Logger.Warn("a request is not answered", "subject", r.Subject(), "reply", r.Reply())
	return false
}

// The verbs about a job, and those about all of a tenant's.
var (
	jobVerbs = map[string]func(*term, jobKey, micro.Request){
		"cancel": (*term).cancel, "status": (*term).status, "why": (*term).why, "show": (*term).show,
	}
	tenantVerbs = map[string]func(*term, string, micro.Request){
		"list": (*term).list, "jobs": (*term).listJobs, "pause": (*term).pause, "resume": (*term).resume, "purge": (*term).purge,
	}
)

// asked answers a client. Only the leader does.
func (t *term) asked(r micro.Request) {
	if t == nil || !t.closing.IsZero() {
		return
	}
	tenant, verb, _ := strings.Cut(strings.TrimPrefix(r.Subject(), schemas.APIPrefix), ".")
	if ask := tenantVerbs[verb]; ask != nil {
		ask(t, tenant, r)
		return
	}
	ask := jobVerbs[verb]
	if ask == nil {
		known := slices.Sorted(maps.Keys(jobVerbs))
		known = append(known, slices.Sorted(maps.Keys(tenantVerbs))...)
		respond(r, schemas.APIError{Error: schemas.Errorf(schemas.InvalidRequest, "there is no verb %q: there are %s", verb, strings.Join(known, ", "))})
		return
	}
	var req schemas.JobRequest
	if err := json.Unmarshal(r.Data(), &req); err != nil || !schemas.ValidToken(req.Job) {
		respond(r, schemas.APIError{Error: schemas.Errorf(schemas.InvalidRequest, `the body is not {"job": id} with the id of a job`)})
		return
	}
	ask(t, jobKey{tenant, req.Job}, r)
}

// apiTimeout bounds what is looked up for an answer. Clients wait as long.
const apiTimeout = 5 * time.Second

func respond(r micro.Request, v any) {
	_ = r.Respond(encode(v)) // fails only where the connection is gone, and then so is who asked
}

// cancel stops a job wherever it is. A node that runs it ends it; a queued one
// ends at once, and is dropped when its turn comes.
func (t *term) cancel(k jobKey, r micro.Request) {
	j := t.jobs[k]
	info := schemas.JobInfo{Job: k.id, State: schemas.JobState(schemas.StatusCancelled)}
	if j != nil && j.running {
		info.Node, info.Backend, info.Attempt, info.Model = j.promise.choice.Node, j.promise.choice.Backend, j.attempt, j.Flow.Model
		t.broadcastCancel(k)
		respond(r, info)
		return
	}
	if j != nil && j.postponed { // it's in two places for a moment
		time.AfterFunc(laterPause, func() { t.post(func() { t.cancel(k, r) }) })
		return
	}
	if j != nil {
		t.cancelFetched(j, time.Now())
		respond(r, info)
		return
	}
	t.marks[k] = time.Now()
	t.broadcastCancel(k) // a node may run it of which nothing was heard yet
	t.lookUpDelayed(k, func(ctx context.Context, d *delayedJob, err error) {
		var answer any = info
		known := false
		if err == nil && d != nil {
			known, err = t.cancelDelayed(ctx, d)
		}
		if err == nil && !known {
			answer, err = t.cancelQueued(ctx, k, info, d != nil)
		}
		if err != nil {
			answer = unreadable("the job was not cancelled", err)
		}
		respond(r, answer)
	})
}

// cancelFetched stops a job that is on its way to a node.
func (t *term) cancelFetched(j *job, now time.Time) {
	t.marks[j.key()] = now
	j.cancelled = true
	if slices.Contains(t.parked, j) {
		t.unpark(j, now)
		t.finish(j, schemas.Errorf(schemas.Cancelled, "cancelled while it waited"), now)
	}
}

// lookUpDelayed looks for a job among those that are not due, and calls then with it,
// or with nil, on a goroutine that may take its time.
func (t *term) lookUpDelayed(k jobKey, then func(ctx context.Context, d *delayedJob, err error)) {
	look := func() {
		seqs, last := t.later.find(k), t.later.last
		t.inTime(func(ctx context.Context) {
			d, err := t.findDelayed(ctx, k, seqs, last)
			then(ctx, d, err)
		})
	}
	if t.later.loaded {
		look()
		return
	}
	t.inTime(func(ctx context.Context) { // who asks of any other job need not wait
		if _, end, err := t.endOf(ctx, k); err == nil && end != nil {
			then(ctx, nil, nil)
		} else if _, queued, err := t.findQueued(ctx, k); err == nil && queued {
			then(ctx, nil, nil)
		} else {
			t.post(func() { t.whenLaterKnown(look) })
		}
	})
}

// inTime runs f on a goroutine, for as long as who asked waits.
func (t *term) inTime(f func(ctx context.Context)) {
	t.spawn(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), apiTimeout)
		defer cancel()
		f(ctx)
	})
}

func (t *term) broadcastCancel(k jobKey) {
	if err := t.nc.Publish(schemas.CancelSubject(k.tenant, k.id), encode(schemas.Cancel{})); err != nil {
		t.cfg.Logger.Warn("a cancel was not sent", "job", k.id, "err", err)
	}
}

// searchFor bounds the search for a job that is to be cancelled. In a queue so
// long that it isn't found by then, it's taken to be there.
const searchFor = 500 * time.Millisecond

// cancelQueued stores the mark and the end of a job that no node has. A job that
// ended before keeps its end. moving says that the job is about to be queued.
func (t *term) cancelQueued(ctx context.Context, k jobKey, info schemas.JobInfo, moving bool) (any, error) { //nolint:revive // flag-parameter: a fact, not a mode
	if old, end, err := t.endOf(ctx, k); err != nil || end != nil {
		return old, err
	}
	searching, cancel := context.WithTimeout(ctx, searchFor)
	defer cancel()
	q, found, err := t.findQueued(searching, k)
	if err == nil && !found && !moving {
		return noJob(k), nil
	}
	if err := t.storeMark(ctx, k); err != nil {
		return nil, err
	}
	j := &schemas.Job{ID: k.id, Flow: schemas.Flow{Tenant: k.tenant}}
	if found {
		j.Flow = q.flow
		_ = j.ReadAnswer(q.msg.Header.Get) // what is wrong with it does not matter any more
	}
	why := schemas.Errorf(schemas.Cancelled, "cancelled while it waited")
	if first, err := broker.PublishEnd(ctx, t.nc, endMessage(j, 0, why, schemas.Run{})); err != nil || first {
		if err == nil {
			t.tellEnd(j, 0, why)
		}
		return info, err
	}
	old, _, err := t.endOf(ctx, k) // it ended just now
	return old, err
}

// endOf says how a job ended whose end is stored.
func (t *term) endOf(ctx context.Context, k jobKey) (info schemas.JobInfo, end *nats.Msg, err error) {
	info.Job = k.id
	end, ok, err := broker.LastMsg(ctx, t.nc, broker.StreamResults, schemas.EndSubject(k.tenant, k.id))
	if err != nil || !ok {
		return info, nil, err
	}
	info.State = schemas.JobState(end.Header.Get(schemas.HeaderStatus))
	info.Attempt, err = strconv.ParseUint(end.Header.Get(schemas.HeaderAttempt), 10, 64)
	return info, end, err
}

func noJob(k jobKey) schemas.APIError {
	return schemas.APIError{Error: schemas.Errorf(schemas.JobNotFound,
		"there is no job %s: it was never submitted, or its results have expired, or it answered to a reply subject and is over", k.id)}
}

func unreadable(what string, err error) schemas.APIError {
	return schemas.APIError{Error: schemas.Errorf(schemas.Internal, "%s: %s", what, err)}
}

// status says where a job is.
func (t *term) status(k jobKey, r micro.Request) {
	if j := t.jobs[k]; j != nil {
		respond(r, j.info())
		return
	}
	if info, ok := t.fleet.running(k); ok {
		respond(r, info)
		return
	}
	t.lookUpDelayed(k, func(ctx context.Context, d *delayedJob, err error) {
		if err != nil {
			respond(r, unreadable("the delayed jobs cannot be read", err))
			return
		}
		respond(r, t.statusStored(ctx, k, d))
	})
}

// statusStored says where a job is that no node has. d is it as it is delayed; nil: it
// is not.
func (t *term) statusStored(ctx context.Context, k jobKey, d *delayedJob) any {
	if old, end, err := t.endOf(ctx, k); err != nil {
		return unreadable("the results cannot be read", err)
	} else if end != nil {
		return old
	}
	if d != nil {
		return d.info(time.Now())
	}
	queued, found, err := t.findQueued(ctx, k)
	switch {
	case err != nil:
		return unreadable("the queue cannot be searched", err)
	case !found:
		return noJob(k)
	default:
		return queued.info(k, time.Now())
	}
}

func (j *job) info() schemas.JobInfo {
	info := schemas.JobInfo{Job: j.ID, State: schemas.JobQueued, Model: j.Flow.Model}
	if j.postponed {
		info.State, info.Due = schemas.JobDelayed, j.At
	}
	if j.running {
		info.State, info.Attempt = schemas.JobRunning, j.attempt
		info.Node, info.Backend = j.promise.choice.Node, j.promise.choice.Backend
	}
	return info
}

// running finds a job in the nodes' reports: one that another leader assigned.
func (f *fleet) running(k jobKey) (schemas.JobInfo, bool) {
	for id, n := range f.nodes {
		for _, r := range n.state.Running {
			if r.Tenant == k.tenant && r.Job == k.id {
				return schemas.JobInfo{Job: k.id, State: schemas.JobRunning, Node: id, Backend: r.Backend, Model: r.Model, Attempt: r.Attempt}, true
			}
		}
	}
	return schemas.JobInfo{}, false
}

// list says what of a tenant waits and runs, and what is paused.
func (t *term) list(tenant string, r micro.Request) {
	out, now := schemas.FlowList{Pauses: t.pauses.of[tenant]}, time.Now()
	for _, f := range t.flows {
		if f.Tenant == tenant && f.Waiting()+len(f.awaiting)+f.held > 0 {
			out.Flows = append(out.Flows, schemas.FlowInfo{
				Class: f.Class, Model: f.Model, Waiting: f.Waiting() + len(f.awaiting), Running: f.held, Paused: f.pause != nil,
				OldestMS: f.oldest(now).Milliseconds(),
			})
		}
	}
	slices.SortFunc(out.Flows, func(a, b schemas.FlowInfo) int {
		if c := a.Class.Rank() - b.Class.Rank(); c != 0 {
			return c
		}
		return strings.Compare(a.Model, b.Model)
	})
	explained := 0
	for i := range out.Flows {
		info := &out.Flows[i]
		if info.OldestMS > 0 && explained < schemas.FlowReasons {
			explained++
			t.explainFlow(info, schemas.Flow{Tenant: tenant, Class: info.Class, Model: info.Model}, now)
		}
	}
	respond(r, out)
}

// explainFlow says why the first job of a flow waits.
func (t *term) explainFlow(info *schemas.FlowInfo, key schemas.Flow, now time.Time) {
	var why schemas.Why
	t.explain(&why, key, placement.Ask{Model: key.Model, Flow: t.byKey[key].Flow}, 0, now)
	info.Why = why.Why[:min(len(why.Why), schemas.FlowPlaces)]
	info.Reason, info.ETAMS, info.Next, info.Fix = why.Reason, why.ETAMS, why.Next, why.Fix
}
