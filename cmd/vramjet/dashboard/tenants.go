package dashboard

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

// sharesOver is how many seconds count for what a tenant received.
const sharesOver = 60

// shares are how many jobs of each tenant ran, second by second.
type shares struct {
	samples []map[string]int // the oldest first
	last    time.Time
}

// sample takes note of what runs.
func (s *shares) sample(flows []flowView, now time.Time) {
	if now.Sub(s.last) < every*9/10 {
		return
	}
	s.last = now
	if len(s.samples) == sharesOver {
		s.samples = s.samples[1:]
	}
	running := map[string]int{}
	for _, f := range flows {
		running[f.Tenant] += f.Running
	}
	s.samples = append(s.samples, running)
}

// tenantView is a tenant as it is shown. Shares are of 1.
type tenantView struct {
	Tenant   string   `json:"tenant"`
	Weight   float64  `json:"weight"`
	Entitled float64  `json:"entitled"` // by its weight, among those that have jobs
	Received *float64 `json:"received"` // of the slots in use in the last minute; null: none was
	Waiting  int      `json:"waiting"`
	Running  int      `json:"running"`
}

// view lists the tenants that have jobs, or had some in the last minute.
func (s *shares) view(flows []flowView, weights map[string]float64) []tenantView {
	of := map[string]*tenantView{}
	get := func(name string) *tenantView {
		if of[name] == nil {
			of[name] = &tenantView{Tenant: name, Weight: cmp.Or(weights[name], 1)}
		}
		return of[name]
	}
	for _, f := range flows {
		t := get(f.Tenant)
		t.Waiting += f.Waiting
		t.Running += f.Running
	}
	used, total := map[string]int{}, 0
	for _, sample := range s.samples {
		for name, n := range sample {
			get(name)
			used[name] += n
			total += n
		}
	}
	all := 0.0
	for _, t := range of {
		all += t.Weight
	}
	rows := []tenantView{}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		t := of[name]
		t.Entitled = hundredths(t.Weight / all)
		if total > 0 {
			r := hundredths(float64(used[name]) / float64(total))
			t.Received = &r
		}
		rows = append(rows, *t)
	}
	return rows[:min(len(rows), mostTenants)]
}

// hundredths rounds a share, so that it does not change all the time.
func hundredths(f float64) float64 { return math.Round(f*100) / 100 }
