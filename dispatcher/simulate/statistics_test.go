package simulate

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestPercentile(t *testing.T) {
	ten := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	thousand := make([]float64, 1000)
	for i := range thousand {
		thousand[i] = float64(i + 1)
	}
	for _, c := range []struct {
		sorted  []float64
		p, want float64
	}{
		{nil, 50, 0},
		{[]float64{7}, 0, 7},
		{[]float64{7}, 99, 7},
		{ten, -1, 1},
		{ten, 0, 1},
		{ten, 10, 1},
		{ten, 10.1, 2},
		{ten, 50, 5},
		{ten, 99, 10},
		{ten, 100, 10},
		{ten, 200, 10},
		{ten, math.NaN(), 1},
		{thousand, 99, 990},
		{thousand, 99.9, 999},
		{thousand, 99.99, 1000},
		{thousand[:750], 4.4, 33}, // 4.4*750/100 is above 33, as floats have it
	} {
		if got := Percentile(c.sorted, c.p); got != c.want {
			t.Errorf("the %v-th percentile of %d values is %v, want %v", c.p, len(c.sorted), got, c.want)
		}
	}
}

// The percentile is one of the values, p percent are not above it, and fewer are not
// above any lower value.
func TestPercentileIsNearestRank(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(-1e6, 1e6), 1, 50).Draw(t, "values")
		slices.Sort(values)
		p := float64(rapid.IntRange(0, 1000).Draw(t, "p")) / 10
		got := Percentile(values, p)
		if !slices.Contains(values, got) {
			t.Fatalf("%v is none of the values", got)
		}
		upTo, below := 0, 0
		for _, v := range values {
			if v <= got {
				upTo++
			}
			if v < got {
				below++
			}
		}
		want := p * float64(len(values)) / 100
		if float64(upTo) < want-1e-6 || below > 0 && float64(below) > want-1e-6 {
			t.Fatalf("%v: %d values up to it and %d below, want %.2f", got, upTo, below, want)
		}
	})
}

func TestJain(t *testing.T) {
	for _, c := range []struct {
		service, weights []float64
		want             float64
	}{
		{nil, nil, 1},
		{[]float64{0, 0}, nil, 1},
		{[]float64{5}, []float64{2}, 1},
		{[]float64{3, 3, 3}, nil, 1},
		{[]float64{1, 1, 2}, []float64{1, 1, 2}, 1},
		{[]float64{9, 0, 0}, nil, 1. / 3},
		{[]float64{2, 1}, []float64{1, 1}, 0.9},
		{[]float64{2, 1, 8}, []float64{1, 1, 0}, 0.9},
		{[]float64{2, 1, 8}, []float64{1, 1}, 0.9},
		{[]float64{1e300, 1e300}, nil, 1},
		{[]float64{1e-300, 1e-300}, nil, 1},
	} {
		if got := Jain(c.service, c.weights); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("Jain(%v, %v) = %v, want %v", c.service, c.weights, got, c.want)
		}
	}
}

// The index lies between 1/n and 1, is 1 for service in proportion to the weights,
// and depends neither on the unit nor on the order.
func TestJainProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 20).Draw(t, "n")
		service := rapid.SliceOfN(rapid.Float64Range(0, 1e6), n, n).Draw(t, "service")
		weights := rapid.SliceOfN(rapid.Float64Range(0.1, 100), n, n).Draw(t, "weights")
		unit := rapid.Float64Range(0.001, 1000).Draw(t, "unit")
		got := Jain(service, weights)
		if got < 1/float64(n)-1e-9 || got > 1+1e-9 {
			t.Fatalf("%v is not within 1/%d and 1", got, n)
		}
		scaled, fair := make([]float64, n), make([]float64, n)
		for i := range n {
			scaled[i], fair[i] = service[i]*unit, weights[i]*unit
		}
		slices.Reverse(scaled)
		backwards := slices.Clone(weights)
		slices.Reverse(backwards)
		if other := Jain(scaled, backwards); math.Abs(other-got) > 1e-9 {
			t.Fatalf("%v in one unit and order, %v in another", got, other)
		}
		if ideal := Jain(fair, weights); math.Abs(ideal-1) > 1e-9 {
			t.Fatalf("service in proportion to the weights has %v, want 1", ideal)
		}
	})
}
