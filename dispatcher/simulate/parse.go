package simulate

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// Bounds of what is asked for on a command line.
const (
	maxJobs   = 5_000_000 // some 400 MB
	maxPhases = 1_000_000 // of bursts
)

// ParseWorkload reads how jobs are to be made, and returns what makes them of a seed:
//
//	poisson:rate=2/s,for=10m,tenant=a,class=interactive,prompt=500,generated=100
//	bursts:base=30/m,peak=5/s,every=2m,for=1h,model=llama3.1:8b,model=qwen3:4b,zipf=1
//	flood:n=30000,at=60s,class=batch
//
// Rates are jobs a second (/s, which may be left out), a minute (/m) or an hour (/h).
// The keys rate, for, base, peak, every and n are needed by the generator that has
// them. All have at, tenant, class, model (once for each, the most popular first),
// zipf, prompt and generated, which mean what they do in a Shape.
func ParseWorkload(text string) (func(seed uint64) []Job, error) {
	g, err := parseGenerator(text)
	if err != nil {
		return nil, fmt.Errorf("workload %q: %w", text, err)
	}
	return g.jobs, nil
}

// A generator is a Shape, and how its jobs come. A poisson has one rate; a flood has
// only n.
type generator struct {
	shape         Shape
	base, peak    float64 // jobs a second
	every, length time.Duration
	n             int
}

func (g *generator) jobs(seed uint64) []Job {
	if g.n > 0 {
		return g.shape.Flood(g.n, seed)
	}
	return g.shape.Bursts(g.base, g.peak, g.every, g.length, seed)
}

// expected is how many jobs there will be, at most and on average.
func (g *generator) expected() float64 {
	return float64(g.n) + max(g.base, g.peak)*g.length.Seconds()
}

// generatorKeys are the keys that each generator needs.
var generatorKeys = map[string][]string{
	"poisson": {"rate", "for"},
	"bursts":  {"base", "peak", "every", "for"},
	"flood":   {"n"},
}

// shapeKeys are the keys that every generator takes.
var shapeKeys = []string{"at", "tenant", "class", "model", "zipf", "prompt", "generated"}

func parseGenerator(text string) (*generator, error) {
	name, list, _ := strings.Cut(text, ":")
	needed, ok := generatorKeys[name]
	if !ok {
		return nil, fmt.Errorf("%q is no generator: want poisson, bursts or flood, then ':' and its keys", name)
	}
	g, seen := &generator{}, map[string]bool{}
	for pair := range strings.SplitSeq(list, ",") {
		key, value, ok := strings.Cut(pair, "=")
		known := slices.Contains(needed, key) || slices.Contains(shapeKeys, key)
		switch {
		case list == "":
			continue // what it lacks is said below
		case !ok:
			return nil, fmt.Errorf("%q: want key=value", pair)
		case !known:
			return nil, fmt.Errorf("%s has no key %q: want %s", name, key, strings.Join(slices.Concat(needed, shapeKeys), ", "))
		case seen[key] && key != "model":
			return nil, fmt.Errorf("%s is there twice", key)
		}
		seen[key] = true
		if err := g.set(key, value); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	for _, key := range needed {
		if !seen[key] {
			return nil, fmt.Errorf("%s is missing: %s needs %s", key, name, strings.Join(needed, ", "))
		}
	}
	g.every = cmp.Or(g.every, g.length) // of a poisson: one phase
	return g, g.check()
}

// set gives a key its value.
func (g *generator) set(key, value string) (err error) {
	s := &g.shape
	switch key {
	case "rate":
		g.base, err = parseRate(value)
		g.peak = g.base
	case "base":
		g.base, err = parseRate(value)
	case "peak":
		g.peak, err = parseRate(value)
	case "for":
		g.length, err = parseSpan(value, 1)
	case "every":
		g.every, err = parseSpan(value, 1)
	case "n":
		g.n, err = parseCount(value, maxJobs)
	case "at":
		s.At, err = parseSpan(value, 0)
	case "tenant":
		s.Tenant = value
	case "class":
		s.Class = schemas.Class(value)
	case "model":
		s.Models = append(s.Models, value)
	case "zipf":
		s.Zipf, err = parseExponent(value)
	case "prompt":
		s.Prompt, err = parseCount(value, maxTokens)
	case "generated":
		s.Generated, err = parseCount(value, maxTokens)
	}
	return err
}

// check returns what is wrong with a generator whose values are right each.
func (g *generator) check() error {
	flow := schemas.Flow{Tenant: cmp.Or(g.shape.Tenant, schemas.DefaultTenant), Class: cmp.Or(g.shape.Class, schemas.Normal)}
	if err := checkFlow(flow); err != nil {
		return err
	}
	for _, model := range g.shape.Models {
		if _, err := schemas.EscapeModel(model); err != nil {
			return err
		}
	}
	switch n := g.expected(); {
	case n == 0:
		return errors.New("it makes no job: want a rate above 0")
	case n > maxJobs:
		return fmt.Errorf("it may make %.3g jobs: want %d at most", n, maxJobs)
	case g.n == 0 && g.length/g.every >= maxPhases:
		return fmt.Errorf("its rate changes every %v for %v: want %d changes at most", g.every, g.length, maxPhases)
	default:
		return nil
	}
}

// parseRate reads jobs a second.
func parseRate(text string) (float64, error) {
	number, unit, cut := strings.Cut(text, "/")
	seconds, ok := map[string]float64{"s": 1, "m": 60, "h": 3600}[unit]
	if !cut {
		seconds, ok = 1, true
	}
	rate, err := strconv.ParseFloat(number, 64)
	if err != nil || !ok || !(rate >= 0) || math.IsInf(rate, 0) {
		return 0, fmt.Errorf("%q: want jobs a second, minute or hour, like 2/s, 30/m or 100/h", text)
	}
	return rate / seconds, nil
}

// parseSpan reads a time that is least long at least.
func parseSpan(text string, least time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < least || d > maxSpan {
		return 0, fmt.Errorf("%q: want a time like 90s, 10m or 1h30m", text)
	}
	return d, nil
}

// parseCount reads a number from 1 to most.
func parseCount(text string, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%q: want a whole number from 1 to %d", text, most)
	}
	return n, nil
}

// parseExponent reads the exponent of a Zipf distribution.
func parseExponent(text string) (float64, error) {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || !(x >= 0 && x <= 10) {
		return 0, fmt.Errorf("%q: want a number from 0 to 10", text)
	}
	return x, nil
}
