package providers

import (
	"context"
	"sync"

	"github.com/vramjet/vramjet/schemas"
)

// flights counts the requests that run, by model, so that no model is unloaded
// under one.
type flights struct {
	mu      sync.Mutex // guards running
	running map[string]int
}

func newFlights() *flights { return &flights{running: map[string]int{}} }

// enter counts a request until leave is called.
func (f *flights) enter(model string) (leave func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running[model]++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.running[model]--; f.running[model] == 0 {
			delete(f.running, model)
		}
	}
}

// of returns how many requests for a model run.
func (f *flights) of(model string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running[model]
}

// all returns how many requests run.
func (f *flights) all() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, running := range f.running {
		n += running
	}
	return n
}

// idle returns an error where requests for a model run: ours, or those of others
// where the server tells. Where it cannot be asked, ours are what counts.
func (b *backend) idle(ctx context.Context, p PressureReporter, model string) error {
	return b.quiet(ctx, p, model, b.flights.of(model))
}

// allIdle is idle for a server whose models come and go together.
func (b *backend) allIdle(ctx context.Context, p PressureReporter, model string) error {
	return b.quiet(ctx, p, model, b.flights.all())
}

// quiet returns an error where ours run, or those of others.
func (b *backend) quiet(ctx context.Context, p PressureReporter, model string, running int) error {
	if running == 0 && p != nil {
		if now, err := p.Pressure(ctx, model); err == nil {
			running = max(now.Running, 0) + max(now.Waiting, 0)
		}
	}
	if running > 0 {
		return schemas.Errorf(schemas.Overloaded, "%s: %q runs %d requests: unload it when they are done", b.name, model, running)
	}
	return nil
}
