package simulate

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// A Report is what a simulation came to. Waits are from a job's arrival until it
// begins to generate, loads included.
type Report struct {
	Policy   string  `json:"policy"`
	Jobs     int     `json:"jobs"`
	Finished int     `json:"finished"`
	Makespan float64 `json:"makespan_s"`

	Loads         int     `json:"loads"`
	Evictions     int     `json:"evictions"`
	Goodput       float64 `json:"goodput"`           // share of the fleet's slot-seconds that generated
	LostToLoading float64 `json:"lost_to_loading_s"` // GPU-seconds
	IdleShare     float64 `json:"idle_share"`        // slot-seconds free while a job waited that could have had them, of those that generated
	DrainShare    float64 `json:"drain_share"`       // likewise, of models that gave way to others
	TokensPerS    float64 `json:"tokens_per_s"`      // generated

	Jain         float64 `json:"jain"` // of the tenants' slot-seconds by their weights
	WaitP50      float64 `json:"wait_p50_s"`
	WaitP99      float64 `json:"wait_p99_s"`
	WaitMax      float64 `json:"wait_max_s"`
	WaitMean     float64 `json:"wait_mean_s"`
	RarestModel  string  `json:"rarest_model"`
	RarestP99    float64 `json:"rarest_model_wait_p99_s"`
	DecisionP50  float64 `json:"decision_p50_us"`
	DecisionP99  float64 `json:"decision_p99_us"`
	LoadsPerHour float64 `json:"loads_per_device_hour"`

	Classes map[schemas.Class]Waits `json:"classes"`
	Tenants map[string]Waits        `json:"tenants"`

	requests []*request
}

// Waits are those of some jobs, in seconds.
type Waits struct {
	Jobs    int     `json:"jobs"`
	P50     float64 `json:"wait_p50_s"`
	P99     float64 `json:"wait_p99_s"`
	Max     float64 `json:"wait_max_s"`
	Service float64 `json:"slot_seconds"` // that they generated
}

func (r *run) report() *Report {
	devices := 0
	for _, m := range r.machines {
		devices += len(m.Devices)
	}
	end, generated := time.Duration(0), 0
	for _, q := range r.requests {
		end = max(end, q.end)
		generated += q.Generated
	}
	p := &Report{
		Policy: r.Policy, Jobs: len(r.requests), Makespan: end.Seconds(),
		Loads: r.bill.loads, Evictions: r.bill.evictions, LostToLoading: r.bill.lost.Seconds(),
		Goodput:      r.bill.busy.Seconds() / (r.Fleet.slots() * end.Seconds()),
		IdleShare:    r.idle.freeTime.Seconds() / r.bill.busy.Seconds(),
		DrainShare:   r.idle.leaveTime.Seconds() / r.bill.busy.Seconds(),
		TokensPerS:   float64(generated) / end.Seconds(),
		LoadsPerHour: float64(r.bill.loads) / float64(devices) / end.Hours(),
		Classes:      waitsBy(r.requests, func(q *request) schemas.Class { return q.Class }),
		Tenants:      waitsBy(r.requests, func(q *request) string { return q.Tenant }),
		requests:     r.requests,
	}
	for _, q := range r.requests {
		if q.done {
			p.Finished++
		}
	}
	all := waitsOf(r.requests)
	p.WaitP50, p.WaitP99, p.WaitMax = all.P50, all.P99, all.Max
	sum := 0.0
	for _, q := range r.requests {
		sum += (q.start - q.At).Seconds()
	}
	p.WaitMean = sum / float64(len(r.requests))
	byModel := waitsBy(r.requests, func(q *request) string { return q.Model })
	p.RarestModel = slices.MinFunc(slices.Sorted(maps.Keys(byModel)), func(a, b string) int { return cmp.Compare(byModel[a].Jobs, byModel[b].Jobs) })
	p.RarestP99 = byModel[p.RarestModel].P99
	slices.Sort(r.decided)
	p.DecisionP50, p.DecisionP99 = micros(r.decided, 0.5), micros(r.decided, 0.99)
	p.Jain = r.jain(p.Tenants)
	return p
}

func (r *run) jain(tenants map[string]Waits) float64 {
	var service, weights []float64
	for _, name := range slices.Sorted(maps.Keys(tenants)) {
		service = append(service, tenants[name].Service)
		weights = append(weights, cmp.Or(r.Weights[name], 1))
	}
	return Jain(service, weights)
}

func micros(sorted []time.Duration, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := max(0, int(math.Ceil(p*float64(len(sorted))))-1)
	return float64(sorted[at].Nanoseconds()) / 1000
}

func waitsBy[K comparable](requests []*request, key func(*request) K) map[K]Waits {
	groups := map[K][]*request{}
	for _, q := range requests {
		groups[key(q)] = append(groups[key(q)], q)
	}
	waits := map[K]Waits{}
	for k, g := range groups {
		waits[k] = waitsOf(g)
	}
	return waits
}

func waitsOf(requests []*request) Waits {
	w := Waits{Jobs: len(requests)}
	waits := make([]float64, 0, len(requests))
	for _, q := range requests {
		waits = append(waits, (q.start - q.At).Seconds())
		w.Service += (q.end - q.start).Seconds()
	}
	slices.Sort(waits)
	w.P50, w.P99 = Percentile(waits, 50), Percentile(waits, 99)
	w.Max = waits[len(waits)-1]
	return w
}
