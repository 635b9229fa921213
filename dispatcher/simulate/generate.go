package simulate

import (
	"cmp"
	"math"
	"math/rand/v2"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// Tokens that a job has on average where its Shape doesn't say.
const (
	defaultPrompt    = 500
	defaultGenerated = 100
)

// A Shape is what the jobs of one source have in common. How long their prompts and
// answers are is drawn from log-normal distributions with a standard deviation of 1.31
// times their mean (sigma is 1): in Azure's trace of code completion, it is 0.96 times
// for prompts, and 2.15 times for answers.
type Shape struct {
	At        time.Duration // when it begins, since the workload began
	Tenant    string        // "": schemas.DefaultTenant
	Class     schemas.Class // "": schemas.Normal
	Models    []string      // the most popular first; none: the jobs name no model, see Spread
	Zipf      float64       // how much more popular, as Spread has it; 0: all alike
	Prompt    int           // tokens on average; 0: 500
	Generated int           // tokens on average; 0: 100
}

// Poisson makes jobs that come independently of each other, rate of them a second on
// average, for a time of length. The same arguments always make the same jobs.
func (s Shape) Poisson(rate float64, length time.Duration, seed uint64) []Job {
	return s.Bursts(rate, rate, length, length, seed)
}

// Bursts makes jobs as Poisson does, but for every so long at the rate base, for as
// long at the rate peak, and so on in turn, for a time of length. Rates are jobs a
// second. It makes none where every isn't above 0.
func (s Shape) Bursts(base, peak float64, every, length time.Duration, seed uint64) []Job {
	var jobs []Job
	draw := s.source(seed)
	rates := [2]float64{base, peak}
	for i, start := 0, time.Duration(0); start < length && every > 0; i, start = 1-i, start+every {
		phase := min(every, length-start)
		for at := draw.gap(rates[i]); at < phase.Seconds(); at += draw.gap(rates[i]) {
			jobs = append(jobs, draw.job(start+time.Duration(at*float64(time.Second))))
		}
	}
	return jobs
}

// Flood makes n jobs that come all at once.
func (s Shape) Flood(n int, seed uint64) []Job {
	draw := s.source(seed)
	jobs := make([]Job, max(n, 0))
	for i := range jobs {
		jobs[i] = draw.job(0)
	}
	return jobs
}

// A source draws the jobs of a shape.
type source struct {
	shape  Shape
	models picker
	rng    *rand.Rand
}

func (s Shape) source(seed uint64) *source {
	s.Tenant = cmp.Or(s.Tenant, schemas.DefaultTenant)
	s.Class = cmp.Or(s.Class, schemas.Normal)
	s.Prompt = cmp.Or(s.Prompt, defaultPrompt)
	s.Generated = cmp.Or(s.Generated, defaultGenerated)
	return &source{s, newPicker(s.Models, s.Zipf), rand.New(rand.NewPCG(seed, 0))}
}

// gap is how long after a job the next one comes, in seconds; infinite where the rate
// isn't above 0.
func (s *source) gap(rate float64) float64 {
	if !(rate > 0) {
		return math.Inf(1)
	}
	return s.rng.ExpFloat64() / rate
}

// job draws a job that comes so long after its source began.
func (s *source) job(after time.Duration) Job {
	return Job{
		At:        s.shape.At + after,
		Tenant:    s.shape.Tenant,
		Class:     s.shape.Class,
		Model:     s.models.model(s.rng),
		Prompt:    s.tokens(s.shape.Prompt),
		Generated: s.tokens(s.shape.Generated),
	}
}

// tokens draws how many tokens there are where mean are the average, 1 at least.
func (s *source) tokens(mean int) int {
	n := math.Round(float64(mean) * math.Exp(s.rng.NormFloat64()-0.5)) // exp(-sigma²/2) makes it the mean
	return int(min(max(n, 1), maxTokens))
}
