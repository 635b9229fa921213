package dispatcher

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// A term is the state of leading, from a takeover until the lease is gone. It
// belongs to the goroutine of Dispatcher.Run.
type term struct {
	*Dispatcher

	ctx     context.Context //nolint:containedctx // the term's own: it ends what the term began
	began   time.Time
	over    chan struct{}
	closing time.Time // when to stop waiting for what is under way; zero: the term goes on

	hints   *nats.Subscription // headers of jobs that arrive
	inboxes *nats.Subscription // what pulls and offers are answered
	inbox   string

	flows     map[string]*flow       // by subject
	byKey     map[schemas.Flow]*flow // the same
	tenants   map[string]*tenant
	paused    []*flow                    // of those, the ones that are not served until the next sweep
	pauses    pauses                     // what operators paused
	jobs      map[jobKey]*job            // fetched, and not over as far as known
	running   map[string]map[jobKey]*job // of those, the ones that a node has, by node
	parked    []*job                     // of those, the ones that look for another place
	consumers consumers
	offers    map[uint64]*offer
	lastOffer uint64

	voided   map[jobKey]voided // attempts that were given away while their node was out of sight
	avoid    map[jobKey]avoided
	losses   map[jobKey]losses
	counting bool // a count of the stream is under way
	counted  time.Time
	clearing bool // poison is being looked for
	extended time.Time
	marks    map[jobKey]time.Time // cancelled while queued, and when
	claimed  map[jobKey]bool      // a purge ends them in the queue

	former       map[string]float64 // shares of the leader before, by subject, until they are restored
	savedShares  time.Time
	savingShares bool
	sharesKnown  bool // those of a former leader were read

	spent       spent
	storedSpent spent

	later   later
	results results
}

// voided says up to which attempt a job's runs are void, and since when.
type voided struct {
	attempt uint64
	at      time.Time
}

// avoided says which places failed a job, and since when.
type avoided struct {
	places []string
	at     time.Time
}

// losses says how often a job's node was lost while it ran the job, and when it last
// was.
type losses struct {
	n       int
	at      time.Time
	rescued bool // it runs again
}

func newTerm(d *Dispatcher, t takeover) *term {
	m := &term{
		Dispatcher: d, ctx: t.ctx, began: time.Now(), over: t.over, inbox: d.nc.NewInbox(),
		flows: map[string]*flow{}, byKey: map[schemas.Flow]*flow{}, tenants: map[string]*tenant{}, jobs: map[jobKey]*job{}, running: map[string]map[jobKey]*job{},
		consumers: consumers{limit: d.cfg.Consumers, live: map[string]*consumer{}, closing: map[string]bool{}},
		offers:    map[uint64]*offer{}, voided: map[jobKey]voided{}, avoid: map[jobKey]avoided{}, losses: map[jobKey]losses{}, marks: map[jobKey]time.Time{}, claimed: map[jobKey]bool{},
		later: newLater(),
	}
	d.fleet.place = placement.NewScheduler(d.fleet.place.Fleet, d.cfg.Policy, d.cfg.Routes)
	d.fleet.forgetPromises(time.Now())
	if err := m.open(); err != nil {
		d.cfg.Logger.Error("cannot lead", "err", err)
		m.close(time.Now())
		return m
	}
	d.metrics.takeovers.Inc()
	d.cfg.Logger.Info("leading", "dispatcher", d.cfg.ID)
	return m
}

// open subscribes to what only the leader hears, and counts what waits.
func (t *term) open() (err error) {
	if t.hints, err = t.nc.ChanSubscribe(schemas.WaitingPrefix+">", t.msgs); err != nil {
		return fmt.Errorf("listen to arriving jobs: %w", err)
	}
	if t.inboxes, err = t.nc.ChanSubscribe(t.inbox+".>", t.msgs); err != nil {
		return fmt.Errorf("listen to answers: %w", err)
	}
	t.loadPauses()
	t.loadMarks()
	t.followLater()
	t.loadShares(t.count)
	return nil
}

// ending is closed when the lease is gone. A nil term never ends.
func (t *term) ending() <-chan struct{} {
	if t == nil || !t.closing.IsZero() {
		return nil
	}
	return t.ctx.Done()
}

// closeWithin is how long an ending term waits for pulls and offers under way: a
// job delivered after that waits for its lease to run out.
const closeWithin = time.Second

// close ends the term as soon as nothing is under way.
func (t *term) close(now time.Time) { t.closing = now.Add(closeWithin) }

// step decides, or ends the term where that is due: then it reports true.
func (t *term) step(now time.Time) (ended bool) {
	switch {
	case t == nil:
		return false
	case t.closing.IsZero():
		t.plan(now)
		return false
	case now.Before(t.closing) && t.underWay(now):
		return false
	}
	for _, s := range []*nats.Subscription{t.hints, t.inboxes} {
		if s != nil {
			_ = s.Unsubscribe() // fails only where the connection is gone
		}
	}
	for _, j := range t.parked {
		t.giveBack(j, 0)
	}
	t.savedShares = time.Time{}
	t.saveShares(now)
	t.cfg.Logger.Info("no longer leading", "dispatcher", t.cfg.ID)
	close(t.over)
	return true
}

// underWay reports whether a pull or an offer waits for an answer that may still come.
func (t *term) underWay(now time.Time) bool {
	for _, f := range t.flows {
		if n := len(f.awaiting); n > 0 && now.Sub(f.awaiting[n-1].sent) < pullsLost {
			return true
		}
	}
	return len(t.offers) > 0
}

// flowOf returns the flow of a subject, made where it is new.
func (t *term) flowOf(subject string, key schemas.Flow) *flow {
	f := t.flows[subject]
	if f == nil {
		x := t.tenantOf(key.Tenant)
		f = &flow{Flow: t.fleet.place.Flow(key, x.Weight), tenant: x, fleet: t.fleet, subject: subject, pause: t.pauses.match(key)}
		x.flows[f] = true
		f.regard(time.Now())
		t.byKey[key] = f
		t.flows[subject] = f
	}
	return f
}

// returned notes that the queue will deliver a job of a flow again. The flow may have been
// forgotten since.
func (t *term) returned(f *flow, now time.Time) { t.flowOf(f.subject, f.Flow.Flow).returned(now) }

// hinted takes the headers of a job that the queue just stored.
func (t *term) hinted(m *nats.Msg, now time.Time) {
	subject := schemas.JobsPrefix + m.Subject[len(schemas.WaitingPrefix):]
	f := t.flows[subject]
	if f == nil {
		key, err := schemas.ParseJobSubject(subject)
		if err != nil {
			t.clearPoison(m.Header.Get("Nats-Sequence"))
			return
		}
		f = t.flowOf(subject, key)
	}
	f.arrived(now)
	t.metrics.came(f.Flow.Flow)
	t.tellQueued(m, f.Flow.Flow, now)
	if f.tenant.queuedTooMany() {
		t.refuse(f, m.Header.Get("Nats-Sequence"), now)
	}
}

// plan gives free slots to jobs until there are no more of either: first to jobs
// that are fetched already and look for another place, then to flows, whose job
// is fetched after the decision.
func (t *term) plan(now time.Time) {
	if !t.pauses.known {
		return
	}
	t.placeParked(now)
	for {
		began := time.Now()
		f, choice, ok := t.fleet.place.Next(t.fleet.ms(now))
		if !ok {
			return
		}
		took := time.Since(began)
		t.metrics.decision.Observe(took.Seconds())
		t.cfg.Decided(took)
		t.serve(t.byKey[f.Flow], choice, now)
	}
}

// serve promises a slot to the next job of a flow and has it fetched. A flow that
// cannot be fetched from now waits for the next sweep.
func (t *term) serve(f *flow, choice placement.Choice, now time.Time) {
	if f.consumer == nil && !t.consumers.open(t, f, now) {
		t.fleet.place.Pause(f.Flow, "too many flows are served at once: it has its turn soon", t.fleet.ms(now))
		t.paused = append(t.paused, f)
		return
	}
	cost := t.fleet.place.Serve(f.Flow, choice, t.fleet.ms(now))
	f.awaiting = append(f.awaiting, want{promise: t.fleet.promise(choice, now), cost: cost})
	f.tenant.requests.take(1, now)
	f.tenant.regard(now)
	t.fetch(f, now)
}

// reported reconciles what the leader believes of a node's jobs with its report.
func (t *term) reported(s *schemas.NodeState, rebooted bool, now time.Time) { //nolint:revive // flag-parameter: a fact, not a mode
	if t == nil {
		return
	}
	if rebooted {
		t.nodeLost(s.Node, now)
	}
	runs := make(map[jobKey]uint64, len(s.Running))
	for _, r := range s.Running {
		k := jobKey{r.Tenant, r.Job}
		runs[k] = r.Attempt
		if v, ok := t.voided[k]; ok && r.Attempt <= v.attempt {
			t.void(k, r.Attempt)
		}
	}
	for k, j := range t.running[s.Node] {
		if s.Seq >= j.shown && runs[k] != j.attempt {
			t.forgetJob(k, j, now) // it's over, and word of that got lost
		}
	}
}

// jobDone frees the slot of a job, and learns what it cost: without the load that it
// waited for, which those behind it need not wait for again.
func (t *term) jobDone(d *schemas.JobDone, now time.Time) {
	if t == nil {
		return
	}
	k := jobKey{d.Tenant, d.Job}
	j := t.jobs[k]
	if j != nil && j.attempt == d.Attempt && j.promise != nil && j.promise.choice.Node != d.Node {
		return // it has no say in what another node runs
	}
	t.spend(t.costOf(j, d), now)
	if j == nil || j.attempt == d.Attempt {
		t.tellDone(j, d)
	}
	if j == nil || j.attempt != d.Attempt {
		return
	}
	j.flow.tenant.tokens.take(d.Tokens, now)
	if j.promise != nil {
		busy := j.promise.ran(time.Duration(d.BusyMS)*time.Millisecond, now)
		t.fleet.place.Done(j.flow.Flow, j.promise.choice.Model, j.cost, busy.Seconds())
		t.metrics.served.WithLabelValues(t.metrics.tenants.label(j.Flow.Tenant)).Add(busy.Seconds())
		switch {
		case d.Status == schemas.StatusOK:
			t.fleet.served(j.promise.choice, now)
		case speaksAgainst(d.Code):
			t.fleet.failed(j.promise.choice, j.promise.given, now)
		}
	}
	if d.Code != "" && d.RetryMS >= 0 {
		t.retry(k, j, d, now)
	}
	t.forgetJob(k, j, now)
}

// retry has a failed job looked for when the queue delivers it again, and keeps
// it from the place that failed it.
func (t *term) retry(k jobKey, j *job, d *schemas.JobDone, now time.Time) {
	t.metrics.retries.WithLabelValues(string(d.Code)).Inc()
	action := d.Code.Verdict().Action
	if (action == schemas.Elsewhere || action == schemas.Free) && j.promise != nil { // what a node can free, it did
		a := t.avoid[k]
		t.avoid[k] = avoided{append(a.places, j.promise.choice.Place()), now}
	}
	f, delay := j.flow, time.Duration(d.RetryMS)*time.Millisecond
	for _, late := range nakTakes {
		time.AfterFunc(delay+late, func() { t.post(func() { t.returned(f, time.Now()) }) })
	}
}

// nakTakes is how long after its node has said so a job may be back in the queue:
// mostly at once, and a little later where the server is busy. A look too many
// costs nothing, and the next count of the stream finds what comes later still.
var nakTakes = []time.Duration{20 * time.Millisecond, 300 * time.Millisecond}

// forgetJob drops a job that is over, or that somebody else answers for.
func (t *term) forgetJob(k jobKey, j *job, now time.Time) {
	if t.jobs[k] != j {
		return
	}
	delete(t.jobs, k)
	if j.running {
		delete(t.running[j.promise.choice.Node], k)
	}
	j.flow.held--
	j.flow.tenant.regard(now)
	t.fleet.release(j.promise, now)
}

// nodeLost gives back all jobs of a node that is gone, so that they run elsewhere
// at once.
func (t *term) nodeLost(node string, now time.Time) {
	if t == nil {
		return
	}
	for k, j := range t.running[node] {
		t.voided[k] = voided{j.attempt, now}
		t.cfg.Logger.Warn("a job lost its node", "job", j.ID, "node", node, "attempt", j.attempt)
		t.lost(j, now)
		t.forgetJob(k, j, now)
		t.giveBack(j, 0)
	}
}

// lost notes that a job's node is gone.
func (t *term) lost(j *job, now time.Time) {
	t.losses[j.key()] = losses{n: t.losses[j.key()].n + 1, at: now}
	t.metrics.losses.WithLabelValues(j.promise.choice.Node).Inc()
	t.tellLost(j)
}

// leasesOut looks for the jobs of a node again that was silent for so long that
// all its leases have run out: the queue delivers them to whoever asks.
func (t *term) leasesOut(node string, now time.Time) {
	if t == nil {
		return
	}
	for k, j := range t.running[node] {
		t.voided[k] = voided{j.attempt, now}
		t.lost(j, now)
		t.forgetJob(k, j, now)
		t.returned(j.flow, now)
	}
}

// void stops runs of a job that were given away, on whichever node still has one.
func (t *term) void(k jobKey, attempt uint64) {
	body, err := json.Marshal(schemas.Cancel{Attempt: attempt, Void: true})
	if err != nil {
		panic(fmt.Sprintf("marshal a cancel: %v", err)) // two plain members
	}
	if err := t.nc.Publish(schemas.CancelSubject(k.tenant, k.id), body); err != nil {
		t.cfg.Logger.Warn("a void run was not stopped", "job", k.id, "err", err)
	}
}
