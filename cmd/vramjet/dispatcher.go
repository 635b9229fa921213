package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// dispatcherCmd runs a dispatcher.
type dispatcherCmd struct {
	UnknownModelWait time.Duration `name:"unknown-model-wait" placeholder:"10s" help:"How long a job waits for a node that has its model before it fails (default: 10s; policy.unknown_model_wait)."`
	Replicas         int           `name:"replicas" default:"1" help:"How many NATS servers keep each job: 1, 3 or 5 (${default})."`
	HTTP             string        `name:"http" placeholder:"HOST:PORT" help:"Where health and the dashboard are served ($$VRAMJET_HTTP; default: 127.0.0.1:7433; off: nowhere)."`
}

// Help is shown below the command's summary.
func (*dispatcherCmd) Help() string {
	return `Any number may run: one leads, the others take over within seconds.

Examples:

    vramjet dispatcher --server nats://10.0.0.1:4222
    vramjet dispatcher --context prod --replicas 3 --http :7433
`
}

func (c *dispatcherCmd) settings() map[string]string {
	s := map[string]string{"http": c.HTTP}
	if c.UnknownModelWait > 0 {
		s["policy.unknown_model_wait"] = c.UnknownModelWait.String()
	}
	return s
}

// Run runs until ctx ends.
func (c *dispatcherCmd) Run(ctx context.Context, a *app) error {
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
	if err := makeStreams(ctx, nc, c.Replicas); err != nil {
		return err
	}
	h.connected(nc)
	log := a.logger()
	watch, err := h.dashboard(nc, cfg, log)
	if err != nil {
		return err
	}
	log.Info("dispatcher", "version", version, "protocol", protocol, "nats", nc.ConnectedUrlRedacted(), "http", h.url())
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return watch(gctx) })
	group.Go(func() error { return h.serve(gctx) })
	group.Go(func() error { return a.dispatch(gctx, nc, cfg, c.Replicas, h) })
	return group.Wait()
}
