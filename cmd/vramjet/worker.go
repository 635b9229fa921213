package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// workerCmd runs a worker.
type workerCmd struct {
	Node  string        `name:"node" placeholder:"NAME" help:"The node's name, unique among the workers ($$VRAMJET_NODE; default: the host's)."`
	HTTP  string        `name:"http" placeholder:"HOST:PORT" help:"Where health is served ($$VRAMJET_HTTP; default: 127.0.0.1:7433; off: nowhere)."`
	Sim   bool          `name:"sim" help:"Serve a simulated model server, for tests and a first look."`
	Drain time.Duration `name:"drain" default:"30s" help:"How long running jobs may still run at the end (${default})."`
}

// Help is shown below the command's summary.
func (*workerCmd) Help() string {
	return `Without backends in its configuration, a worker serves the model servers that it finds on its machine.

Examples:

    vramjet worker --server nats://10.0.0.1:4222
    vramjet worker --node gpu-1 --config vramjet.yaml --drain 5m
`
}

func (c *workerCmd) settings() map[string]string {
	return map[string]string{"node": c.Node, "http": c.HTTP}
}

// Run runs until ctx ends, and then until the running jobs have.
func (c *workerCmd) Run(ctx context.Context, a *app) error {
	cfg, from, err := a.load(c.settings())
	if err != nil {
		return err
	}
	a.tuneGC()
	h, err := a.listenHealth(ctx, cfg, from)
	if err != nil {
		return err
	}
	nc, err := a.join(ctx, cfg, from)
	if err != nil {
		return err
	}
	defer leave(nc)
	h.connected(nc)
	log := a.logger()
	log.Info("worker", "node", cfg.Node, "version", version, "protocol", protocol, "nats", nc.ConnectedUrlRedacted(), "http", h.url())

	life, end := context.WithCancel(context.WithoutCancel(ctx)) // of what jobs need while they drain
	defer end()
	backends := newBackendFinder(nc, cfg, a.getenv, log)
	if backends.found && !c.Sim && len(backends.lookNow(ctx)) == 0 {
		a.note(noModelServer)
	}
	if c.Sim {
		url, err := simServer(life)
		if err != nil {
			return err
		}
		backends.simulate(url)
	}
	defer a.tellStopping(ctx, c.Drain)()
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return h.serve(gctx) })
	group.Go(func() error { return work(gctx, cfg, backends, h, c.Drain) })
	return group.Wait()
}
