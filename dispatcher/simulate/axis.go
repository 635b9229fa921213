package simulate

import (
	"math"
	"strconv"
)

// A scale places numbers between two coordinates.
type scale struct {
	log       bool
	low, high float64 // what stands at the ends; logarithms where log is set
	from, to  float64 // their coordinates
	zero, inf float64 // coordinates of what isn't between them
	ticks     []axisTick
}

// An axisTick is a number that an axis names.
type axisTick struct {
	at   float64 // coordinate
	name string
}

// What is above huge stands where infinity does, and on a logarithmic axis what is below
// tiny stands where 0 does: nothing overflows.
const (
	huge = 1e300
	tiny = 1e-300
)

// apart is how far 0 and infinity stand from the rest, as a part of the axis.
const apart = 0.1

// scale makes a scale that has room for all values, from one coordinate to another.
func (a Axis) scale(values []float64, from, to float64) scale {
	s := scale{log: a.Log, low: math.Inf(1), high: math.Inf(-1), from: from, to: to, zero: from, inf: to}
	hasZero, hasInf := false, false
	for _, v := range values {
		switch {
		case math.IsNaN(v) || v < -huge:
		case v > huge:
			hasInf = true
		case a.Log && v < tiny:
			hasZero = true
		default:
			s.low, s.high = min(s.low, s.number(v)), max(s.high, s.number(v))
		}
	}
	if hasZero {
		s.from += apart * (to - from)
		s.ticks = append(s.ticks, axisTick{s.zero, "0"})
	}
	if hasInf {
		s.to -= apart * (to - from)
	}
	if s.low > s.high { // no value
		s.low, s.high = 0, 1
	}
	if a.Log {
		s.logTicks()
	} else {
		s.linearTicks()
	}
	if hasInf {
		s.ticks = append(s.ticks, axisTick{s.inf, "∞"})
	}
	return s
}

// number is what a value is on the scale.
func (s *scale) number(v float64) float64 {
	if s.log {
		return math.Log10(v)
	}
	return v
}

// place is the coordinate of a value; NaN where it has none.
func (s *scale) place(v float64) float64 {
	switch {
	case math.IsNaN(v) || v < -huge:
		return math.NaN()
	case v > huge:
		return s.inf
	case s.log && v < tiny:
		return s.zero
	default:
		return s.between(s.number(v))
	}
}

// between is the coordinate of a number of the scale.
func (s *scale) between(x float64) float64 {
	return s.from + (x-s.low)/(s.high-s.low)*(s.to-s.from)
}

// linearTicks widens the scale to numbers that are easy to read, some 5 of them, and
// names them: multiples of 1, 2 or 5 times a power of ten.
func (s *scale) linearTicks() {
	size := max(math.Abs(s.low), math.Abs(s.high))
	switch {
	case size < tiny: // only 0
		s.low, s.high = 0, 1
	case s.high-s.low <= size*1e-9: // one value, or as good as one
		s.low, s.high = s.low-size/2, s.high+size/2
	}
	step := niceStep((s.high - s.low) / 5)
	first, last := math.Floor(s.low/step), math.Ceil(s.high/step)
	s.low, s.high = first*step, last*step
	decimals := max(0, -int(math.Floor(math.Log10(step)+1e-9)))
	for i := range int(last-first) + 1 {
		v := (first + float64(i)) * step
		s.ticks = append(s.ticks, axisTick{s.between(v), tickName(v, decimals)})
	}
}

// niceStep is the lowest of 1, 2 and 5 times a power of ten that isn't below about.
func niceStep(about float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(about)))
	for _, factor := range []float64{1, 2, 5} {
		if factor*power >= about*(1-1e-9) {
			return factor * power
		}
	}
	return 10 * power
}

// logTicks names powers of ten, and 2 and 5 times them where there are few, and widens
// the scale to the nearest of them.
func (s *scale) logTicks() {
	factors, every := []float64{1}, 1.0
	switch decades := s.high - s.low; {
	case decades <= 2.5:
		factors = []float64{1, 2, 5}
	case decades > 8:
		every = math.Ceil(decades / 8)
	}
	var numbers []float64
	for power := every * math.Floor(s.low/every); power <= s.high+every; power += every {
		for _, f := range factors {
			numbers = append(numbers, power+math.Log10(f))
		}
	}
	const near = 1e-9
	first, last := 0, len(numbers)-1
	for first+1 < last && numbers[first+1] <= s.low+near {
		first++
	}
	for last-1 > first && numbers[last-1] >= s.high-near {
		last--
	}
	s.low, s.high = numbers[first], numbers[last]
	for _, n := range numbers[first : last+1] {
		s.ticks = append(s.ticks, axisTick{s.between(n), tickName(math.Pow(10, n), max(0, -int(math.Floor(n+near))))})
	}
}

// tickName writes a number with so many decimals, and in thousands, millions or as a
// power of ten where it would be long.
func tickName(v float64, decimals int) string {
	switch size := math.Abs(v); {
	case size == 0:
		return "0"
	case size >= 1e12 || decimals > 5:
		return strconv.FormatFloat(v, 'g', 3, 64)
	case size >= 1e9:
		return short(v/1e9) + "G"
	case size >= 1e6:
		return short(v/1e6) + "M"
	case size >= 1e4:
		return short(v/1e3) + "k"
	default:
		return strconv.FormatFloat(v, 'f', decimals, 64)
	}
}

// short writes a number with no more digits than it needs.
func short(v float64) string { return strconv.FormatFloat(math.Round(v*1e3)/1e3, 'f', -1, 64) }
