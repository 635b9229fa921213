package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/cmd/vramjet/bench"
)

// benchCmd measures what this machine, or a NATS server, can do.
type benchCmd struct {
	Modes      []string      `arg:"" optional:"" name:"mode" help:"What to measure: enqueue, dispatch, relay, ttft, scale, fairness (default: all of them)."`
	Time       time.Duration `default:"3s" placeholder:"DURATION" help:"How long each point is measured (${default})."`
	Durability string        `enum:"always,interval" default:"always" help:"When a message is on the disk of the embedded server: always (before it is acknowledged) or interval (within 2 minutes)."`
	Nodes      int           `default:"1000" placeholder:"N" help:"Of scale: how many nodes report (${default})."`
	Devices    int           `default:"8" placeholder:"N" help:"Of scale: how many devices each node has (${default})."`
	Rate       int           `default:"500" placeholder:"N" help:"Of scale: how many jobs come in a second (${default})."`
}

// Help is shown below the command's summary.
func (*benchCmd) Help() string {
	return `Measures vramjet, and beside each figure what NATS alone does in the same run on the same server. It is all in this process: an embedded NATS server in a temporary directory, a dispatcher, and a worker with a simulated model server. Only scale has its dispatcher in another one, so that its processor time can be told.

    enqueue   jobs per second that the queue acknowledges, with 1, 64 and 512 in flight
    dispatch  jobs per second from their submission to their stored end
    relay     chunks per second from a model server through a worker to the readers
    ttft      how much later the first token comes than by a direct call
    scale     what a dispatcher takes that follows many nodes, while jobs come
    fairness  what tenants of different weights get while all want more

With --server or --context, those of your servers are measured, beside the dispatcher that runs there: a worker with a simulated model server joins for as long as it takes. The jobs are those of the tenant bench, and are removed in the end; so are the streams whose names begin with VJBENCH. scale and fairness cannot be measured there.

Examples:

    vramjet bench
    vramjet bench enqueue ttft --time 10s --durability interval
    vramjet bench scale --nodes 200 --devices 4 --rate 1000 --json
    vramjet bench enqueue dispatch --server nats://10.0.0.1:4222
`
}

// benchDispatcher is the environment variable that makes vramjet bench the dispatcher
// of a measurement, on the server that it names.
const benchDispatcher = "VRAMJET_BENCH_DISPATCHER"

// Run measures, and prints what was measured until ctx ended.
func (c *benchCmd) Run(ctx context.Context, a *app) error {
	a.tuneGC()
	if url := a.getenv(benchDispatcher); url != "" {
		return bench.PlayDispatcher(ctx, url, a.in, a.out)
	}
	cfg, err := c.config(a)
	if err != nil {
		return err
	}
	r, err := bench.Run(ctx, c.Modes, cfg)
	r.Version = version
	if a.asJSON() {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else if err := printBench(a.out, r); err != nil {
		return err
	}
	return err
}

// config says what to measure, and on what.
func (c *benchCmd) config(a *app) (bench.Config, error) {
	own := a.Server != "" || a.Context != "" // only what was said just now: the environment may name servers in use
	if err := c.check(own); err != nil {
		return bench.Config{}, usage(err)
	}
	log := slog.New(slog.DiscardHandler)
	if a.LogLevel != "info" { // what the parts say as they come and go is no news here
		log = a.logger()
	}
	cfg := bench.Config{
		Time: c.Time, Fleet: bench.Fleet{Nodes: c.Nodes, Devices: c.Devices, Rate: c.Rate},
		Dispatcher: playDispatcher, Progress: func(text string) { a.note("%s", text) }, Logger: log,
	}
	if c.Durability == "interval" {
		cfg.SyncInterval = 2 * time.Minute
	}
	if !own {
		return cfg, nil
	}
	conf, from, err := a.load(nil)
	if err != nil {
		return cfg, err
	}
	cfg.Connect = func(ctx context.Context) (*nats.Conn, error) {
		nc, err := broker.Connect(ctx, conf.NATS.connect(from, a.getenv), log)
		if err != nil {
			return nil, &codedError{exitNoNATS, err}
		}
		return nc, nil
	}
	return cfg, nil
}

// check sees that what is asked for can be measured, on the user's own servers or not.
func (c *benchCmd) check(own bool) error { //nolint:revive // flag-parameter: a fact, not a mode
	for _, mode := range c.Modes {
		if !slices.Contains(bench.Modes, mode) {
			hint := ": there are " + strings.Join(bench.Modes, ", ")
			if best, ok := nearest(mode, bench.Modes); ok {
				hint = fmt.Sprintf(": did you mean %q?", best)
			}
			return fmt.Errorf("there is no mode %q%s", mode, hint)
		}
		if why := bench.Unfit(mode); own && why != "" {
			return fmt.Errorf("%s cannot be measured on your servers, since %s: leave out --server and --context", mode, why)
		}
	}
	switch {
	case c.Time < 100*time.Millisecond || c.Time > time.Hour:
		return fmt.Errorf("--time %s: want 100ms to 1h", c.Time)
	case c.Nodes < 1 || c.Nodes > 100_000:
		return fmt.Errorf("--nodes %d: want 1 to 100000", c.Nodes)
	case c.Devices < 1 || c.Devices > 64:
		return fmt.Errorf("--devices %d: want 1 to 64", c.Devices)
	case c.Rate < 1 || c.Rate > 100_000:
		return fmt.Errorf("--rate %d: want 1 to 100000", c.Rate)
	}
	return nil
}

// playDispatcher returns this program as the dispatcher of a measurement.
func playDispatcher(ctx context.Context, url string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	cmd := exec.CommandContext(ctx, self, "bench")
	cmd.Env = append(os.Environ(), benchDispatcher+"="+url)
	cmd.Stderr = os.Stderr
	return cmd
}
