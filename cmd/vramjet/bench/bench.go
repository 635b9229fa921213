// Package bench measures what vramjet does, and beside each figure what NATS alone does
// in the same run, on the same server.
//
// A mode measures one thing. All parts run in this process, on an embedded NATS server
// with a simulated model server behind a worker; or, for those modes that can, beside a
// dispatcher of the user's own.
package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
)

// Tenant is whose jobs the measurements submit.
const Tenant = "bench"

// The modes.
const (
	Enqueue  = "enqueue"
	Dispatch = "dispatch"
	Relay    = "relay"
	TTFT     = "ttft"
	Scale    = "scale"
	Fairness = "fairness"
)

// Modes lists the modes, in the order in which they run.
var Modes = []string{Enqueue, Dispatch, Relay, TTFT, Scale, Fairness}

// Config tunes a run. The zero Config is ready to use, but for Scale, which needs
// Dispatcher.
type Config struct {
	// Time is how long each point is measured. 0: 3 s.
	Time time.Duration

	// SyncInterval is how long a message of the embedded server may be acknowledged
	// and not be on the disk yet. 0: each is synced first.
	SyncInterval time.Duration

	// Connect connects to the user's own servers. nil: to an embedded one.
	Connect func(context.Context) (*nats.Conn, error)

	// Fleet is what Scale simulates.
	Fleet Fleet

	// Dispatcher returns a process of this program that calls PlayDispatcher, until
	// ctx ends.
	Dispatcher func(ctx context.Context, url string) *exec.Cmd

	// Progress is told what is measured next. nil: nobody is.
	Progress func(text string)

	// Logger gets what the parts of vramjet log. nil discards it.
	Logger *slog.Logger
}

// A Fleet is how large a fleet is, and how many jobs come for it.
type Fleet struct {
	Nodes   int // 0: 1000
	Devices int // of each node; 0: 8
	Rate    int // jobs per second; 0: 500
}

func (c Config) withDefaults() Config {
	c.Time = cmp.Or(c.Time, 3*time.Second)
	c.Fleet.Nodes = cmp.Or(c.Fleet.Nodes, 1000)
	c.Fleet.Devices = cmp.Or(c.Fleet.Devices, 8)
	c.Fleet.Rate = cmp.Or(c.Fleet.Rate, 500)
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// modes are what measures.
var modes = map[string]func(context.Context, *site, *Result) error{
	Enqueue: enqueue, Dispatch: dispatch, Relay: relay, TTFT: firstToken, Scale: scale, Fairness: fairness,
}

// Unfit says why a mode cannot run on servers that vramjet runs on; "" where it can.
func Unfit(mode string) string {
	switch mode {
	case Scale:
		return "its nodes are made up, and a dispatcher in use would send them jobs"
	case Fairness:
		return "its tenants need weights, which a dispatcher in use has in its configuration"
	default:
		return ""
	}
}

// Run runs modes one after the other, all where none is named, and returns what was
// measured: also with an error, which is that of the modes that failed, or ctx's where
// that ended.
func Run(ctx context.Context, names []string, cfg Config) (*Report, error) {
	cfg = cfg.withDefaults()
	r := &Report{At: time.Now().UTC().Truncate(time.Second), Machine: thisMachine(), Results: []Result{}, Seconds: cfg.Time.Seconds()}
	var failed error
	for _, mode := range Modes {
		if len(names) > 0 && !slices.Contains(names, mode) {
			continue
		}
		result := Result{Mode: mode, Figures: []Figure{}}
		if why := Unfit(mode); cfg.Connect != nil && why != "" {
			result.Skipped = why
		} else if err := r.measure(ctx, cfg, &result); err != nil && ctx.Err() == nil {
			result.Failed = err.Error()
			failed = errors.Join(failed, fmt.Errorf("measure %s: %w", mode, err))
		}
		r.Results = append(r.Results, result)
		if ctx.Err() != nil {
			r.Interrupted = true
			return r, ctx.Err()
		}
	}
	return r, failed
}

// measure runs one mode.
func (r *Report) measure(ctx context.Context, cfg Config, result *Result) (err error) {
	s, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	if r.Durability == (Durability{}) {
		r.Machine.NATS = s.nc.ConnectedServerVersion()
		r.Server, r.Durability = s.where(), s.durability
	}
	return modes[result.Mode](ctx, s, result)
}
