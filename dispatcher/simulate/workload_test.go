package simulate

import (
	"cmp"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSpread(t *testing.T) {
	const n = 30_000
	models := []string{"a", "b", "c"}
	for _, c := range []struct {
		zipf float64
		want [3]float64 // shares
	}{
		{0, [3]float64{1. / 3, 1. / 3, 1. / 3}},
		{1, [3]float64{6. / 11, 3. / 11, 2. / 11}},
		{2, [3]float64{36. / 49, 9. / 49, 4. / 49}},
	} {
		jobs := make([]Job, n)
		jobs[7].Model = "mine"
		Spread(jobs, models, c.zipf, 1)
		if jobs[7].Model != "mine" {
			t.Errorf("the model that a job named was replaced by %q", jobs[7].Model)
		}
		count := map[string]int{}
		for _, j := range jobs {
			count[j.Model]++
		}
		for i, m := range models {
			if share := float64(count[m]) / n; math.Abs(share-c.want[i]) > 0.01 {
				t.Errorf("zipf %v: %s has %.3f of the jobs, want %.3f", c.zipf, m, share, c.want[i])
			}
		}
		again := make([]Job, n)
		again[7].Model = "mine"
		if Spread(again, models, c.zipf, 1); !slices.Equal(jobs, again) {
			t.Error("the same seed gave other models")
		}
		other := make([]Job, n)
		if Spread(other, models, c.zipf, 2); slices.Equal(jobs, other) {
			t.Error("another seed gave the same models")
		}
	}
}

func TestSpreadWithoutModels(t *testing.T) {
	jobs := make([]Job, 3)
	if Spread(jobs, nil, 1, 1); jobs[0].Model != "" {
		t.Errorf("a model came from nowhere: %q", jobs[0].Model)
	}
}

// Merging loses nothing, sorts by time, and keeps the order of what comes at once.
func TestMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		workloads := make([][]Job, rapid.IntRange(0, 4).Draw(t, "workloads"))
		number := 0
		for i := range workloads {
			for range rapid.IntRange(0, 8).Draw(t, "jobs") {
				workloads[i] = append(workloads[i], Job{At: time.Duration(rapid.IntRange(0, 5).Draw(t, "at")), Prompt: number})
				number++
			}
		}
		got := Merge(workloads...)
		seen := make([]bool, number)
		for i, j := range got {
			if seen[j.Prompt] {
				t.Fatalf("job %d is there twice", j.Prompt)
			}
			seen[j.Prompt] = true
			if i > 0 && cmp.Or(cmp.Compare(got[i-1].At, j.At), cmp.Compare(got[i-1].Prompt, j.Prompt)) >= 0 {
				t.Fatalf("%v comes before %v", got[i-1], j)
			}
		}
		if len(got) != number {
			t.Fatalf("%d jobs of %d", len(got), number)
		}
	})
}

func TestScale(t *testing.T) {
	for _, c := range []struct {
		speed float64
		want  time.Duration // of what came after 10 s
	}{
		{2, 5 * time.Second},
		{0.5, 20 * time.Second},
		{1, 10 * time.Second},
		{0, 10 * time.Second},
		{-1, 10 * time.Second},
		{math.NaN(), 10 * time.Second},
		{math.Inf(1), 0},
		{1e-300, maxSpan},
	} {
		jobs := []Job{{At: 0}, {At: 10 * time.Second}}
		if Scale(jobs, c.speed); jobs[0].At != 0 || jobs[1].At != c.want {
			t.Errorf("at speed %v: %v and %v, want 0 and %v", c.speed, jobs[0].At, jobs[1].At, c.want)
		}
	}
}
