// Package simulate replays a workload through the real placement code, on a virtual clock.
package simulate

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// A Job is one request of a workload.
type Job struct {
	At        time.Duration // since the workload began
	Tenant    string        // "" in a trace: schemas.DefaultTenant
	Class     schemas.Class // "" in a trace: schemas.Normal
	Model     string        // "": none yet, see Spread
	Prompt    int           // tokens
	Generated int           // tokens
}

// Bounds of what is read. No model of today answers within either of them.
const (
	maxTokens = 10_000_000                // of a prompt, or of what is generated
	maxSpan   = 10 * 366 * 24 * time.Hour // between two jobs of a workload
)

// Spread gives a model to each job that names none, by Zipf's law: the model at
// index i is asked for in proportion to 1/(i+1)^zipf. An exponent of 0 asks for all
// alike; about 1 is usual. It writes to jobs. The same arguments always give the same
// models; without models it does nothing.
func Spread(jobs []Job, models []string, zipf float64, seed uint64) {
	pick := newPicker(models, zipf)
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range jobs {
		if jobs[i].Model == "" {
			jobs[i].Model = pick.model(rng)
		}
	}
}

// A picker draws models by Zipf's law.
type picker struct {
	models []string
	sums   []float64 // of the models up to each, of their weights
}

func newPicker(models []string, zipf float64) picker {
	p := picker{models: models, sums: make([]float64, len(models))}
	sum := 0.0
	for i := range models {
		sum += math.Pow(float64(i+1), -zipf)
		p.sums[i] = sum
	}
	return p
}

// model draws a model; "" where there are none.
func (p *picker) model(rng *rand.Rand) string {
	if len(p.models) == 0 {
		return ""
	}
	x := rng.Float64() * p.sums[len(p.sums)-1]
	i := sort.Search(len(p.sums)-1, func(i int) bool { return p.sums[i] > x })
	return p.models[i]
}

// Merge returns the jobs of all workloads in the order of time. Jobs of the same
// moment keep the order in which they were given.
func Merge(workloads ...[]Job) []Job {
	all := slices.Concat(workloads...)
	sortByTime(all)
	return all
}

// sortByTime leaves jobs of the same moment in their order.
func sortByTime(jobs []Job) {
	slices.SortStableFunc(jobs, func(a, b Job) int { return cmp.Compare(a.At, b.At) })
}

// Scale makes the jobs come speed times as fast: 2 halves the time between them. It
// writes to jobs; a speed that isn't above 0 leaves them as they are.
func Scale(jobs []Job, speed float64) {
	if !(speed > 0) { // NaN too
		return
	}
	for i := range jobs {
		at := math.Round(float64(jobs[i].At) / speed)
		jobs[i].At = time.Duration(min(at, float64(maxSpan)))
	}
}

// checkFlow returns why no job can be of the tenant, the class and the model. A model
// of "" is to be given later, and passes.
func checkFlow(f schemas.Flow) error {
	f.Model = cmp.Or(f.Model, "any")
	_, err := schemas.JobSubject(f)
	return err
}
