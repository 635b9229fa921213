package dashboard

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// What is asked of the dispatcher is bounded, however many tenants and flows there are.
const (
	mostTenants  = 50  // whose queues are asked for
	mostListed   = 10  // of which single jobs are listed
	mostFlows    = 100 // that are shown
	mostExplored = 10  // of which it is asked in one round why they wait
	mostHeld     = 20  // running jobs of a flow that are passed over to find its oldest that waits
)

// mostRest is for how long a flow is not asked about at most.
const mostRest = 15 * time.Second

// queueAsked is what the dispatcher said of the queue.
type queueAsked struct {
	asked   bool
	leader  *string // nil: unknown; "": none leads
	trouble string  // why the rest is not known
	flows   []flowView
	pauses  []pauseOf
	jobs    []listedJob
}

type pauseOf struct {
	schemas.Pause
	tenant string
}

type listedJob struct {
	schemas.JobEntry
	tenant string
}

// flowView is a flow as it is shown.
type flowView struct {
	Tenant  string        `json:"tenant"`
	Class   schemas.Class `json:"class"`
	Model   string        `json:"model"`
	Waiting int           `json:"waiting"`
	Running int           `json:"running"`
	Paused  bool          `json:"paused"`

	// Of its oldest job that waits.
	Oldest time.Time `json:"oldest,omitzero"`
	ETAS   *int64    `json:"eta_s"` // until it begins, roughly; null: nobody can say
	Reason string    `json:"reason"`
	Why    []string  `json:"why"`
	Next   string    `json:"next"`
	Fix    []string  `json:"fix"`
}

func (f *flowView) flow() schemas.Flow {
	return schemas.Flow{Tenant: f.Tenant, Class: f.Class, Model: f.Model}
}

// flowsView are the flows that are shown.
type flowsView struct {
	Rows    []flowView `json:"rows"`
	More    int        `json:"more"` // flows that are not
	Trouble string     `json:"trouble"`
	Pauses  []string   `json:"pauses"`
}

func (b *board) flows() flowsView {
	v := flowsView{Rows: append([]flowView{}, b.queue.flows...), Trouble: b.queue.trouble, Pauses: []string{}}
	v.More = max(0, len(v.Rows)-mostFlows)
	v.Rows = v.Rows[:len(v.Rows)-v.More]
	for _, p := range b.queue.pauses {
		v.Pauses = append(v.Pauses, p.tenant+": "+p.Describe())
	}
	return v
}

// An asker asks the dispatcher and the streams. Its two methods are called by one
// goroutine each.
type asker struct {
	dashboard *Dashboard

	flows  map[schemas.Flow]*flowAsked // of askQueue
	leader leaderSeen                  // likewise

	letters lettersAsked // of askRest
}

// A flowAsked is what was answered about a flow, and when it may be asked again.
type flowAsked struct {
	oldest time.Time
	why    schemas.Why
	again  time.Time
}

// A leaderSeen is the lease of the leader as it was seen last.
type leaderSeen struct {
	revision uint64
	at       time.Time // of the first time that it was seen so
}

// leaseTTL is how long a lease lasts that is not renewed, and a margin.
const leaseTTL = 4 * time.Second

// leads returns who leads: "" where nobody does, nil where that is not known.
func (a *asker) leads(ctx context.Context) *string {
	ctx, cancel := context.WithTimeout(ctx, leaseTTL)
	defer cancel()
	kv, err := a.dashboard.js.KeyValue(ctx, "VJ_STATE")
	if err != nil {
		return nil
	}
	nobody := ""
	e, err := kv.Get(ctx, "leader")
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return &nobody
	}
	var lease struct {
		Holder string `json:"holder"`
	}
	if err != nil || json.Unmarshal(e.Value(), &lease) != nil {
		return nil
	}
	if e.Revision() != a.leader.revision {
		a.leader = leaderSeen{e.Revision(), time.Now()}
	}
	if time.Since(a.leader.at) > leaseTTL {
		return &nobody
	}
	return &lease.Holder
}

// askQueue asks what waits and runs.
func (a *asker) askQueue(ctx context.Context) {
	q := queueAsked{asked: true, leader: a.leads(ctx)}
	var tenants []string
	if err := a.ask(ctx, func(b *board) { tenants = b.tenants() }); err != nil {
		return
	}
	for _, tenant := range tenants {
		if err := a.askTenant(ctx, tenant, &q); err != nil {
			q.trouble = "The queue cannot be asked for: " + short(err.Error())
			break
		}
	}
	slices.SortStableFunc(q.flows, func(x, y flowView) int {
		return cmp.Or(cmp.Compare(x.Class.Rank(), y.Class.Rank()), cmp.Compare(y.Waiting, x.Waiting), cmp.Compare(x.Tenant, y.Tenant), cmp.Compare(x.Model, y.Model))
	})
	a.explore(ctx, &q)
	a.dashboard.update(ctx, func(b *board) { b.queue = q })
}

// ask has f read the board.
func (a *asker) ask(ctx context.Context, f func(*board)) error {
	done := make(chan struct{})
	a.dashboard.update(ctx, func(b *board) { f(b); close(done) })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-a.dashboard.done:
		return context.Canceled
	}
}

// tenants lists the tenants that are known, those of the configuration first.
func (b *board) tenants() []string {
	known := []string{schemas.DefaultTenant}
	add := func(names ...string) {
		for _, name := range names {
			if schemas.ValidToken(name) && !slices.Contains(known, name) {
				known = append(known, name)
			}
		}
	}
	add(slices.Sorted(maps.Keys(b.weights))...)
	add(b.rest.tenants...)
	for _, k := range b.jobs.order[max(0, len(b.jobs.order)-100):] {
		add(k.tenant)
	}
	return known[:min(len(known), mostTenants)]
}

// askTenant asks what of a tenant waits and runs.
func (a *asker) askTenant(ctx context.Context, tenant string, q *queueAsked) error {
	c, err := client.New(a.dashboard.nc, client.Options{Tenant: tenant})
	if err != nil {
		return err
	}
	list, err := c.Queue(ctx)
	if err != nil {
		return err
	}
	for _, f := range list.Flows {
		q.flows = append(q.flows, flowView{
			Tenant: tenant, Class: f.Class, Model: f.Model, Waiting: f.Waiting, Running: f.Running, Paused: f.Paused, Why: []string{}, Fix: []string{},
		})
	}
	for _, p := range list.Pauses {
		q.pauses = append(q.pauses, pauseOf{p, tenant})
	}
	tenants := map[string]bool{}
	for _, j := range q.jobs {
		tenants[j.tenant] = true
	}
	if len(list.Flows) == 0 || len(tenants) >= mostListed {
		return nil
	}
	jobs, err := c.Jobs(ctx, client.JobFilter{States: []schemas.JobState{schemas.JobQueued, schemas.JobRunning}, Limit: mostJobs})
	for _, j := range jobs {
		q.jobs = append(q.jobs, listedJob{j, tenant})
	}
	return err
}

// explore finds out since when the oldest job of each flow waits, and why: of a few
// flows at a time, those first that were not asked for longest.
func (a *asker) explore(ctx context.Context, q *queueAsked) {
	now := time.Now()
	running := map[jobKey]bool{}
	for _, j := range q.jobs {
		if j.State == schemas.JobRunning {
			running[jobKey{j.tenant, j.Job}] = true
		}
	}
	known := map[schemas.Flow]*flowAsked{}
	var due []*flowView
	for i := range q.flows[:min(len(q.flows), mostFlows)] {
		f := &q.flows[i]
		if f.Waiting == 0 {
			continue
		}
		k := f.flow()
		if known[k] = a.flows[k]; known[k] == nil {
			known[k] = &flowAsked{}
		}
		if !now.Before(known[k].again) {
			due = append(due, f)
		}
	}
	a.flows = known // the others wait no more
	slices.SortStableFunc(due, func(x, y *flowView) int { return known[x.flow()].again.Compare(known[y.flow()].again) })
	for _, f := range due[:min(len(due), mostExplored)] {
		a.askWhy(ctx, f, known[f.flow()], running)
	}
	for i := range q.flows {
		if k := known[q.flows[i].flow()]; k != nil {
			q.flows[i].explain(k)
		}
	}
}

// askWhy asks about the oldest job of a flow that waits.
func (a *asker) askWhy(ctx context.Context, f *flowView, k *flowAsked, running map[jobKey]bool) {
	began := time.Now()
	id, at, err := a.oldest(ctx, f, running)
	*k = flowAsked{oldest: at}
	if err == nil {
		if c, failed := client.New(a.dashboard.nc, client.Options{Tenant: f.Tenant}); failed == nil {
			k.why, err = c.Why(ctx, id)
		}
	}
	rest := restFor * time.Since(began)
	if err != nil || k.why.State != schemas.JobQueued { // it began, or it is not known which it is
		k.why, rest = schemas.Why{}, every
	}
	k.again = time.Now().Add(min(rest, mostRest))
}

// errNoneWaits says that no job of a flow was found that waits.
var errNoneWaits = errors.New("no job of the flow waits")

// oldest finds the oldest job of a flow that waits. The queue has those as well that
// run.
func (a *asker) oldest(ctx context.Context, f *flowView, running map[jobKey]bool) (id string, at time.Time, err error) {
	subject, err := schemas.JobSubject(f.flow())
	if err != nil {
		return "", at, err
	}
	ctx, cancel := context.WithTimeout(ctx, every)
	defer cancel()
	stream, err := a.dashboard.js.Stream(ctx, "VJ_JOBS")
	if err != nil {
		return "", at, err
	}
	next := uint64(1)
	for range min(len(running)+1, mostHeld) {
		m, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subject))
		if err != nil {
			return "", at, err
		}
		id, err := schemas.JobID(m.Header.Get, m.Sequence)
		if err == nil && !running[jobKey{f.Tenant, id}] {
			return id, m.Time.UTC(), nil
		}
		next = m.Sequence + 1
	}
	return "", at, errNoneWaits
}

// explain fills in what was answered about a flow.
func (f *flowView) explain(k *flowAsked) {
	f.Oldest = k.oldest
	f.Reason, f.Next = short(k.why.Reason), short(k.why.Next)
	f.Why, f.Fix = []string{}, []string{}
	for _, w := range k.why.Why {
		f.Why = append(f.Why, short(w))
	}
	f.Why = some(f.Why, 8, func(int) string { return "and more places" })
	for _, w := range k.why.Fix {
		f.Fix = append(f.Fix, strings.TrimSpace(w))
	}
	if k.why.ETAMS != nil {
		s := (*k.why.ETAMS + 999) / 1000
		f.ETAS = &s
	}
}
