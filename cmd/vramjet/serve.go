package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/cmd/vramjet/dashboard"
	"github.com/vramjet/vramjet/dispatcher"
	"github.com/vramjet/vramjet/gpu"
	"github.com/vramjet/vramjet/worker"
)

// connectWithin is how long a part of vramjet waits for NATS when it starts: the
// server may be starting as well.
const connectWithin = 30 * time.Second

// tuneGC lets the heap of a part of vramjet grow to five times what is live, which
// is some MiB, before it's collected. Go's own twice costs it a quarter of its
// jobs per second. $GOGC wins.
func (a *app) tuneGC() {
	if a.getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

// join connects a part of vramjet to NATS, and waits for a server that is not
// there yet.
func (a *app) join(ctx context.Context, cfg *Config, from sources) (*nats.Conn, error) {
	log := a.logger()
	nc, err := backoff.Retry(ctx, func() (*nats.Conn, error) {
		nc, err := broker.Connect(ctx, cfg.NATS.connect(from, a.getenv), log)
		if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) {
			return nil, backoff.Permanent(err) // time changes nothing
		}
		return nc, err
	}, backoff.WithMaxElapsedTime(connectWithin), backoff.WithNotify(func(err error, next time.Duration) {
		log.Warn("NATS is not there yet", "err", err, "again_in", next.Round(time.Millisecond))
	}))
	if err != nil {
		return nil, &codedError{exitNoNATS, err}
	}
	return nc, nil
}

// makeStreams makes the streams, or brings them up to date.
func makeStreams(ctx context.Context, nc *nats.Conn, replicas int) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	return broker.Setup(ctx, js, broker.StreamsConfig{Replicas: replicas})
}

// restoreEvery is how often it is looked whether the streams are there.
const restoreEvery = 10 * time.Second

// keepStreams makes streams anew that are gone while we run: somebody deleted one, or
// the server came back without its store.
func keepStreams(ctx context.Context, nc *nats.Conn, replicas int, log *slog.Logger) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	tick := time.NewTicker(restoreEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		look, cancel := context.WithTimeout(ctx, restoreEvery)
		made, err := broker.Restore(look, js, broker.StreamsConfig{Replicas: replicas})
		cancel()
		if len(made) > 0 {
			log.Error("streams were gone, and are made anew: what they held is lost", "streams", made)
		}
		if err != nil && ctx.Err() == nil && !broker.Transient(err) {
			log.Warn("streams cannot be looked at", "err", err)
		}
	}
}

// dispatch runs a dispatcher until ctx ends.
func (a *app) dispatch(ctx context.Context, nc *nats.Conn, cfg *Config, replicas int, h *health) error {
	log := a.logger()
	tenants := make(map[string]dispatcher.Tenant, len(cfg.Tenants))
	for name, t := range cfg.Tenants {
		tenants[name] = dispatcher.Tenant(t)
	}
	consumers := 0
	if replicas > 1 {
		consumers = 100 // each is a Raft group then
	}
	d, err := dispatcher.New(nc, dispatcher.Config{
		Version: version, UnknownModelWait: cfg.Policy.UnknownModelWait, Policy: cfg.Policy.placement(), Routes: cfg.Routes, Budget: cfg.Policy.OverflowBudget,
		Tenants: tenants, Consumers: consumers, Logger: log,
	})
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	h.checks.add(healthCheck{name: "dispatcher", live: true, err: d.Alive})
	h.metrics.MustRegister(d, broker.StreamCollector(js)) //nolint:contextcheck // a scrape has its own time
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return keepStreams(gctx, nc, replicas, log) })
	group.Go(func() error { return d.Run(gctx) })
	return group.Wait()
}

// work runs a worker until ctx ends and its jobs have.
func work(ctx context.Context, cfg *Config, backends *backendFinder, h *health, drain time.Duration) error {
	devices := gpu.Open(backends.log) //nolint:contextcheck // what it starts ends with Close
	defer devices.Close()
	w, err := worker.New(backends.nc, worker.Config{
		Node: cfg.Node, Version: version, GPU: devices, Models: cfg.models(), MaxBody: cfg.MaxBody.amount().Bytes, Drain: drain, Logger: backends.log,
	})
	if err != nil {
		return usage(err)
	}
	h.checks.add(healthCheck{name: "worker", live: true, err: w.Alive}, healthCheck{name: "backends", err: w.Serves})
	h.metrics.MustRegister(w)
	looking, stop := context.WithCancel(ctx)
	group, _ := errgroup.WithContext(context.WithoutCancel(ctx))
	group.Go(func() error { backends.feed(looking, w); return nil })
	group.Go(func() error { defer stop(); return w.Run(ctx) })
	return group.Wait()
}

// A health serves /livez, /readyz and /metrics and, where there are pages, these.
type health struct {
	listener net.Listener // nil: nowhere
	metrics  *prometheus.Registry
	pages    http.Handler // for all other paths; nil: none
	checks   checks
}

// listenHealth takes the address at once, so that a port in use shows before
// anything is started. Where nobody asked for that address, another part of
// vramjet on this machine may have it: then health is served nowhere.
func (a *app) listenHealth(ctx context.Context, cfg *Config, from sources) (*health, error) {
	if cfg.HTTP == "off" {
		return &health{metrics: newRegistry()}, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", cfg.HTTP)
	switch {
	case err == nil:
		return &health{listener: l, metrics: newRegistry()}, nil
	case from["http"].rank == byDefault:
		a.logger().Warn("health and dashboard are not served: the address is taken", "http", cfg.HTTP)
		return &health{metrics: newRegistry()}, nil
	default:
		return nil, fmt.Errorf("serve health over HTTP: %w (choose another address with --http, or --http off)", err)
	}
}

// newRegistry returns a registry for the metrics of this process, with those of Go and of
// the operating system.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(newBuildInfo(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// newBuildInfo tells what this is.
func newBuildInfo() prometheus.Collector {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "vramjet_build_info", Help: "1, with what this is.",
		ConstLabels: prometheus.Labels{"version": version, "protocol": protocol, "goversion": runtime.Version()},
	})
	build.Set(1)
	return build
}

// url is where it is served; "" where it isn't.
func (h *health) url() string {
	if h.listener == nil {
		return ""
	}
	return "http://" + h.listener.Addr().String()
}

// serve answers until ctx ends.
func (h *health) serve(ctx context.Context) error {
	if h.listener == nil {
		<-ctx.Done()
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /livez", h.checks.handler(true))
	mux.Handle("GET /readyz", h.checks.handler(false))
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.metrics, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	if h.pages != nil {
		mux.Handle("/", h.pages)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = srv.Shutdown(late) // requests that take longer than this are cut
	})
	defer stop()
	if err := srv.Serve(h.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health over HTTP: %w", err)
	}
	return nil
}

// dashboard has h serve the dashboard. The function that is returned keeps it up to
// date until ctx ends.
func (h *health) dashboard(nc *nats.Conn, cfg *Config, log *slog.Logger) (run func(ctx context.Context) error, err error) {
	if h.listener == nil {
		return func(ctx context.Context) error { <-ctx.Done(); return nil }, nil // who runs it ends with it
	}
	weights := make(map[string]float64, len(cfg.Tenants))
	for name, t := range cfg.Tenants {
		weights[name] = t.Weight
	}
	d, err := dashboard.New(nc, dashboard.Options{Token: string(cfg.HTTPToken), Weights: weights, Logger: log})
	if err != nil {
		return nil, err
	}
	h.pages = d.Handler()
	return d.Run, nil
}

// drainTimeout bounds the last messages of a connection.
const drainTimeout = 5 * time.Second

// leave sends what a connection still holds, and closes it.
func leave(nc *nats.Conn) {
	if nc.IsConnected() {
		_ = nc.FlushTimeout(drainTimeout) // else nobody takes it
	}
	nc.Close()
}
