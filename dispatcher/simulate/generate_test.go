package simulate

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

func TestPoisson(t *testing.T) {
	shape := Shape{At: time.Minute, Tenant: "a", Class: schemas.Batch, Models: []string{"m", "n"}, Zipf: 1, Prompt: 2000, Generated: 30}
	const rate, length = 5.0, time.Hour
	jobs := shape.Poisson(rate, length, 1)
	n := float64(len(jobs))
	expected := rate * length.Seconds()
	if math.Abs(n-expected) > 4*math.Sqrt(expected) {
		t.Errorf("%v jobs, want about %v", n, expected)
	}
	if err := checkJobs(jobs); err != nil {
		t.Error(err)
	}
	if first, last := jobs[0].At, jobs[len(jobs)-1].At; first < time.Minute || last >= time.Minute+length {
		t.Errorf("the jobs come from %v to %v", first, last)
	}
	var prompt, generated, squares, popular float64
	for i, j := range jobs {
		if j.Tenant != "a" || j.Class != schemas.Batch {
			t.Fatalf("a job of another shape: %+v", j)
		}
		prompt += float64(j.Prompt)
		generated += float64(j.Generated)
		if j.Model == "m" {
			popular++
		}
		if i > 0 {
			gap := (j.At - jobs[i-1].At).Seconds() * rate
			squares += gap * gap
		}
	}
	for _, c := range []struct {
		what            string
		got, want, near float64
	}{
		{"tokens of a prompt", prompt / n, 2000, 60},
		{"generated tokens", generated / n, 30, 1},
		{"share of the first model", popular / n, 2. / 3, 0.02},
		{"mean square of the gaps (2 of exponential ones)", squares / n, 2, 0.15},
	} {
		if math.Abs(c.got-c.want) > c.near {
			t.Errorf("%s: %.3f, want about %v", c.what, c.got, c.want)
		}
	}
	if !slices.Equal(jobs, shape.Poisson(rate, length, 1)) {
		t.Error("the same seed made other jobs")
	}
	if slices.Equal(jobs, shape.Poisson(rate, length, 2)) {
		t.Error("another seed made the same jobs")
	}
}

func TestBursts(t *testing.T) {
	const every = 2 * time.Minute
	jobs := Shape{}.Bursts(1, 10, every, time.Hour-time.Minute, 1)
	if err := checkJobs(jobs); err != nil {
		t.Fatal(err)
	}
	phases := make([]int, 30)
	for _, j := range jobs {
		phases[j.At/every]++
	}
	for i, n := range phases {
		want := 120.0
		if i%2 == 1 {
			want = 1200
		}
		if i == 29 { // only the first half is within the hour less a minute
			want = 600
		}
		if math.Abs(float64(n)-want) > 4*math.Sqrt(want) {
			t.Errorf("%d jobs in phase %d, want about %v", n, i, want)
		}
	}
}

func TestFlood(t *testing.T) {
	jobs := Shape{At: time.Minute, Class: schemas.Batch}.Flood(30_000, 1)
	if len(jobs) != 30_000 || checkJobs(jobs) != nil {
		t.Fatalf("%d jobs: %v", len(jobs), checkJobs(jobs))
	}
	for _, j := range jobs {
		if j.At != time.Minute || j.Tenant != schemas.DefaultTenant || j.Class != schemas.Batch || j.Model != "" {
			t.Fatalf("a job of another shape: %+v", j)
		}
	}
}

// What asks for nothing gets nothing, and no loop without an end.
func TestNoJobs(t *testing.T) {
	for name, jobs := range map[string][]Job{
		"rate 0":         Shape{}.Poisson(0, time.Hour, 1),
		"rate below 0":   Shape{}.Poisson(-1, time.Hour, 1),
		"rate NaN":       Shape{}.Poisson(math.NaN(), time.Hour, 1),
		"almost never":   Shape{}.Poisson(1e-300, time.Hour, 1),
		"no time":        Shape{}.Poisson(1, 0, 1),
		"less than none": Shape{}.Poisson(1, -time.Hour, 1),
		"no phases":      Shape{}.Bursts(1, 1, 0, time.Hour, 1),
		"flood of 0":     Shape{}.Flood(0, 1),
		"flood of -1":    Shape{}.Flood(-1, 1),
	} {
		if len(jobs) > 0 {
			t.Errorf("%s: %d jobs", name, len(jobs))
		}
	}
}
