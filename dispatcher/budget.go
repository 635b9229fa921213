package dispatcher

import (
	"fmt"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// spent is what the jobs of routes cost at hosted APIs, on one day. Another leader goes
// on from what was stored of it.
type spent struct {
	Day    string  `json:"day"` // in UTC, as 2026-01-02
	Amount float64 `json:"amount"`
}

// on returns what was spent on a day.
func (s spent) on(now time.Time) spent {
	if day := now.UTC().Format(time.DateOnly); s.Day != day {
		return spent{Day: day}
	}
	return s
}

// spentKey is where it is stored, in the bucket of the state.
const spentKey = "spent"

// routed reports whether a job is of a route.
func (t *term) routed(j *job) bool { return len(t.cfg.Routes[j.Flow.Model]) > 0 }

// spend notes what a job cost.
func (t *term) spend(cost float64, now time.Time) {
	if cost > 0 {
		t.spent = t.spent.on(now)
		t.spent.Amount += cost
		t.budget(now)
	}
}

// budget lets routes use hosted APIs, or not.
func (t *term) budget(now time.Time) {
	t.spent = t.spent.on(now)
	why := ""
	if most := t.cfg.Budget; most > 0 && t.spent.Amount >= most {
		why = fmt.Sprintf("is a hosted API, and the budget of the day is used up: %.2f of %.2f, until midnight UTC (policy.overflow_budget)", t.spent.Amount, most)
	}
	t.fleet.place.SetSpent(why)
}

// restoreSpent goes on from what a former leader stored.
func (t *term) restoreSpent(former spent, now time.Time) {
	t.spent = t.spent.on(now)
	if former = former.on(now); former.Amount > 0 {
		t.spent.Amount += former.Amount
	}
	t.budget(now)
}

// costOf is what a job that ended cost of the budget. Of a former leader's job nobody
// knows whether it was a route's: then it counts as one.
func (t *term) costOf(j *job, d *schemas.JobDone) float64 {
	if j == nil || t.routed(j) {
		return d.Cost
	}
	return 0
}
