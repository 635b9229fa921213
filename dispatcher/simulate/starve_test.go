package simulate

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// drawCase draws a small fleet and a crowd of jobs for it.
func drawCase(rnd *rand.Rand) Config {
	var cfg Config
	for i := range 1 + rnd.IntN(3) {
		n := Node{Name: fmt.Sprint("n", i)}
		for range 1 + rnd.IntN(2) {
			n.Devices = append(n.Devices, schemas.Bytes(10+rnd.IntN(15))*schemas.GiB)
		}
		cfg.Fleet.Nodes = append(cfg.Fleet.Nodes, n)
	}
	for i := range 1 + rnd.IntN(6) {
		cfg.Fleet.Models = append(cfg.Fleet.Models, Model{
			Name: fmt.Sprint("m", i), Need: schemas.Bytes(1+rnd.IntN(10)) * schemas.GiB, Slots: 1 + rnd.IntN(3), Prefill: 1e6, Decode: 100,
		})
	}
	crowd := time.Duration(1+rnd.IntN(60)) * time.Second
	for range 5 + rnd.IntN(60) {
		cfg.Jobs = append(cfg.Jobs, Job{
			At:     time.Duration(rnd.Int64N(int64(crowd))),
			Tenant: fmt.Sprint("t", rnd.IntN(3)), Class: schemas.Classes[rnd.IntN(3)],
			Model:  cfg.Fleet.Models[rnd.IntN(len(cfg.Fleet.Models))].Name,
			Prompt: 1, Generated: 1 + rnd.IntN(800),
		})
	}
	cfg.Jobs = Merge(cfg.Jobs)
	cfg.Weights = map[string]float64{"t0": 1, "t1": 0.5 + 3*rnd.Float64()}
	cfg.Tune = placement.Policy{
		AgingMS: 2000, AffinityLag: []float64{-1, 0, 5, 1e6}[rnd.IntN(4)], InteractiveReserve: rnd.IntN(3),
		MaxModelWaitMS: placement.PerClass[int64]{Interactive: 5_000, Normal: 10_000, Batch: 20_000},
	}
	return cfg
}

// TestNothingStarves draws 10,000 crowds: whatever the policy, all jobs end, and no
// class of a model waits for longer without one of its jobs beginning than the limit
// for models says, and what it takes to have the turns of all others: each model is
// loaded, stays for as long, and ends what it has begun. Of the jobs of a model, every
// fourth at least is of a class that waits.
func TestNothingStarves(t *testing.T) {
	cases := 10_000
	if testing.Short() {
		cases = 500
	}
	worst := 0.0
	for seed := range uint64(cases) {
		cfg := drawCase(rand.New(rand.NewPCG(seed, 7)))
		r, err := Run(t.Context(), cfg)
		if err != nil {
			t.Fatalf("case %d: %v", seed, err)
		}
		turns := 0.0
		longest := 0.0
		for _, q := range r.requests {
			longest = max(longest, (q.end - q.start).Seconds())
		}
		for _, m := range cfg.Fleet.Models {
			n, err := cfg.Fleet.Nodes[0].each(0)
			if err != nil {
				t.Fatal(err)
			}
			turns += 2*m.loadTime(n[0]).Seconds() + longest
		}
		for _, class := range schemas.Classes {
			limit := float64(cfg.Tune.MaxModelWaitMS.Of(class))/1000 + 2*float64(cfg.Tune.AgingMS)/1000 + 4*turns
			for _, m := range cfg.Fleet.Models {
				gap := longestWait(r, m.Name, class)
				worst = max(worst, gap/limit)
				if gap > limit {
					t.Fatalf("case %d: a job of the class %s for %s waits %.1f s while none begins, over %.1f s: %+v", seed, class, m.Name, gap, limit, cfg)
				}
			}
		}
		if r.IdleShare > 0.01 && cfg.Tune.InteractiveReserve == 0 {
			t.Fatalf("case %d: %.1f %% of the slots are free while a job waits that could have them", seed, 100*r.IdleShare)
		}
	}
	t.Logf("the worst wait of %d cases was %.0f %% of its limit", cases, 100*worst)
}

// longestWait is the longest time, in seconds, in which a job of a class and model
// waited and none of them began.
func longestWait(r *Report, model string, class schemas.Class) float64 {
	var waiting, started []time.Duration // arrivals and beginnings, in their order
	for _, q := range r.requests {
		if q.Model == model && q.Class == class {
			waiting, started = append(waiting, q.At), append(started, q.start)
		}
	}
	longest := time.Duration(0)
	for i, at := range waiting {
		first := started[i]
		for k := range started { // the first that begins after it came
			if started[k] >= at && started[k] < first {
				first = started[k]
			}
		}
		longest = max(longest, first-at)
	}
	return longest.Seconds()
}
