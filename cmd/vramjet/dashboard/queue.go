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
	mostTenants = 50  // whose queues are asked for
	mostListed  = 10  // of which single jobs are listed
	mostFlows   = 100 // that are shown
)

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

	// Of its first job that waits.
	Oldest time.Time `json:"oldest,omitzero"`
	ETAS   *int64    `json:"eta_s"` // until it begins, roughly; null: nobody can say
	Reason string    `json:"reason"`
	Why    []string  `json:"why"`
	Next   string    `json:"next"`
	Fix    []string  `json:"fix"`
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

	leader  leaderSeen   // of askQueue
	letters lettersAsked // of askRest
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
	now := time.Now()
	for i := range list.Flows {
		q.flows = append(q.flows, view(tenant, &list.Flows[i], now))
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

// view is a flow as it is shown.
func view(tenant string, f *schemas.FlowInfo, now time.Time) flowView {
	v := flowView{
		Tenant: tenant, Class: f.Class, Model: f.Model, Waiting: f.Waiting, Running: f.Running, Paused: f.Paused,
		Reason: short(f.Reason), Next: short(f.Next), Why: []string{}, Fix: []string{},
	}
	for _, w := range f.Why {
		v.Why = append(v.Why, short(w))
	}
	for _, w := range f.Fix {
		v.Fix = append(v.Fix, strings.TrimSpace(w))
	}
	if f.OldestMS > 0 {
		v.Oldest = now.Add(-time.Duration(f.OldestMS) * time.Millisecond).UTC().Truncate(time.Second)
	}
	if f.ETAMS != nil {
		s := (*f.ETAMS + 999) / 1000
		v.ETAS = &s
	}
	return v
}
