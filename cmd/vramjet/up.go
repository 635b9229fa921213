package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/embedded"
	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// upCmd runs all of it in one process.
type upCmd struct {
	NATS       string        `name:"nats" default:"127.0.0.1:4222" placeholder:"HOST:PORT" help:"Where the embedded NATS server listens (${default})."`
	HTTP       string        `name:"http" default:"" placeholder:"HOST:PORT" help:"Where health and the dashboard are served ($$VRAMJET_HTTP; default: 127.0.0.1:7433; off: nowhere)."`
	Data       string        `name:"data" placeholder:"DIR" help:"Where jobs are stored (default: vramjet in $$XDG_DATA_HOME or ~/.local/share)."`
	Sim        bool          `name:"sim" help:"Run a simulated model server, for a machine without one."`
	Durability string        `name:"durability" enum:"always,interval" default:"always" help:"When an accepted job is on the disk: always (before it is accepted) or interval (within 2 minutes)."`
	Try        string        `name:"try" placeholder:"PROMPT" help:"Submit one job with this prompt, print its answer and end. Without a model server, a simulated one answers."`
	Drain      time.Duration `name:"drain" default:"30s" help:"How long running jobs may still run at the end (${default})."`
}

// Help is shown below the command's summary.
func (*upCmd) Help() string {
	return `Everything in one process: an embedded NATS server, a dispatcher, and a worker for the model servers found on this machine. Other machines join with vramjet worker --server.

Examples:

    vramjet up
    vramjet up --sim
    vramjet up --nats 0.0.0.0:4222 --data /var/lib/vramjet --config vramjet.yaml
`
}

func (c *upCmd) load(a *app) (*Config, sources, error) {
	if a.Server+a.Context+a.Creds != "" {
		return nil, nil, usage(errors.New("up runs a NATS server of its own: to join another, vramjet worker or vramjet dispatcher"))
	}
	return a.load(map[string]string{"http": c.HTTP})
}

// Run runs until ctx ends, or with --try until the answer is there.
func (c *upCmd) Run(ctx context.Context, a *app) error {
	cfg, from, err := c.load(a)
	if err != nil {
		return err
	}
	a.tuneGC()
	h, err := a.listenHealth(ctx, cfg, from)
	if err != nil {
		return err
	}
	srv, err := c.server(a) //nolint:contextcheck // a port is tried at once or not at all
	if err != nil {
		return err
	}
	defer srv.Shutdown()
	log := a.logger()
	nc, err := broker.Connect(ctx, broker.ConnectConfig{InProcess: srv.InProcess(), Name: "vramjet up"}, log)
	if err != nil {
		return err
	}
	defer leave(nc)
	if err := makeStreams(ctx, nc, 1); err != nil {
		return err
	}
	a.note("vramjet %s  protocol %s  embedded NATS (file store, fsync %s)  data %s", version, protocol, c.Durability, c.dataDir(a))

	h.connected(nc)
	life, end := context.WithCancel(context.WithoutCancel(ctx)) // of the dispatcher, which outlives the worker's jobs
	defer end()
	backends, err := c.backends(life, a, nc, cfg)
	if err != nil {
		return err
	}
	watch, err := h.dashboard(nc, cfg, log)
	if err != nil {
		return err
	}
	defer a.tellStopping(ctx, c.Drain)()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var group errgroup.Group
	group.Go(func() error { defer stop(); return watch(ctx) })
	group.Go(func() error { defer stop(); return h.serve(ctx) })
	group.Go(func() error { srv.Heal(life); return nil })
	group.Go(func() error { defer stop(); return a.dispatch(life, nc, cfg, 1, h) })
	group.Go(func() error { defer end(); return work(ctx, cfg, backends, h, c.Drain) })
	group.Go(func() error {
		err := c.greet(ctx, a, nc, cfg.Node, addresses{nats: reachable(srv.ClientURL()), join: joinable(srv.ClientURL()), http: h.url()})
		if err != nil || c.Try != "" {
			stop()
		}
		return err
	})
	return group.Wait()
}

// server starts the embedded NATS server.
func (c *upCmd) server(a *app) (*embedded.Server, error) {
	host, port, err := net.SplitHostPort(c.NATS)
	if err != nil {
		return nil, usage(fmt.Errorf("--nats %q is not like 127.0.0.1:4222", c.NATS))
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, usage(fmt.Errorf("--nats %q is not like 127.0.0.1:4222", c.NATS))
	}
	cfg := embedded.Config{Dir: c.dataDir(a), Host: host, Port: int(n)}
	if n == 0 {
		cfg.Port = -1 // any free one
	}
	if c.Durability == "interval" {
		cfg.SyncInterval = 2 * time.Minute
	}
	srv, err := embedded.Start(cfg, a.logger())
	if err != nil {
		return nil, fmt.Errorf("%w (--data and --nats name others)", err)
	}
	return srv, nil
}

// dataDir is where jobs are stored.
func (c *upCmd) dataDir(a *app) string {
	if c.Data != "" {
		return c.Data
	}
	if dir := a.getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "vramjet")
	}
	return filepath.Join(a.getenv("HOME"), ".local", "share", "vramjet")
}

// backends are those of the configuration or of this machine. With --try, the
// simulated one stands in where there's none.
func (c *upCmd) backends(ctx context.Context, a *app, nc *nats.Conn, cfg *Config) (*backendFinder, error) {
	f := newBackendFinder(nc, cfg, a.getenv, a.logger())
	sim := c.Sim
	if f.found && !sim {
		there := f.lookNow(ctx)
		for _, b := range there {
			a.note("backend  %s at %s", b.Kind, b.URL)
		}
		switch {
		case len(there) > 0:
		case c.Try != "":
			a.note("backend  no model server was found on this machine: a SIMULATED one stands in, its answers are made up")
			sim = true
		default:
			a.note("backend  " + noModelServer)
		}
	}
	if sim {
		at, err := simServer(ctx)
		if err != nil {
			return nil, err
		}
		if c.Sim {
			a.note("backend  sim      %s   SIMULATED: its answers are made up", at)
		}
		f.simulate(at)
	}
	return f, nil
}

// noModelServer says that there is none, and what to do.
const noModelServer = "no model server was found on this machine yet; looking on (start Ollama or llama-server, or name one in --config; --sim simulates one)"

// tellStopping says that a process stops, once ctx ends, until it has stopped.
func (a *app) tellStopping(ctx context.Context, drain time.Duration) (stopped func() bool) {
	return context.AfterFunc(ctx, func() {
		a.note("stopping: jobs that run have %s to end, others wait in the queue; ctrl-C again stops at once, and they run again later", drain)
	})
}

// addresses are where what runs here is found, by this machine and by others; "" for
// what is not.
type addresses struct{ nats, join, http string }

// greet says what there is once the node has reported it, and what to try. With
// --try it does that.
func (c *upCmd) greet(ctx context.Context, a *app, nc *nats.Conn, node string, at addresses) error {
	cl, err := client.New(nc, client.Options{})
	if err != nil {
		return err
	}
	var nodes []schemas.NodeState
	for ctx.Err() == nil && len(served(nodes, schemas.Chat)) == 0 {
		if nodes, err = cl.Nodes(ctx, 200*time.Millisecond); err != nil && ctx.Err() == nil {
			return err
		}
		nodes = slices.DeleteFunc(nodes, func(n schemas.NodeState) bool { return n.Node != node }) // others may have joined before
	}
	models := served(nodes, schemas.Chat)
	if len(models) == 0 {
		return nil // ended before there was anything
	}
	for _, n := range nodes {
		for _, d := range n.Devices {
			a.note("gpu      %s %s   %s total   %s free", d.ID, d.Name, d.Total, d.Free)
		}
	}
	a.note("models   %s", modelList(nodes))
	if at.http != "" {
		a.note("health   %s/readyz", at.http)
		a.note("page     %s/", at.http)
	}
	a.note("nats     %s", at.nats)
	if at.join != "" {
		a.note("         OPEN: whoever reaches %s may do everything, as it has no users (docs/security.md)", at.join)
		a.note("join     vramjet worker --server %s", at.join)
	}
	model := models[0]
	if c.Try == "" {
		a.note("try      vramjet submit -s %s -m %s \"Why is the sky blue?\"", at.nats, model)
		a.note("         nats -s %s pub vj.v1.jobs.default.normal.%s \"Why is the sky blue?\"", at.nats, model)
		return nil
	}
	a.note("\n$ vramjet submit -m %s %q", model, c.Try)
	began := time.Now()
	stream, err := cl.Run(ctx, client.Chat(model, c.Try))
	if err != nil {
		return err
	}
	defer stream.Close()
	err = (&submitCmd{}).follow(ctx, a, cl, stream, began)
	a.note("\nthat was all, and nothing runs any more; to have it stay: vramjet up")
	return err
}

// reachable is how a server that listens on every address is reached from here.
func reachable(at string) string {
	return strings.NewReplacer("//0.0.0.0:", "//127.0.0.1:", "//[::]:", "//[::1]:").Replace(at)
}

// joinable is how a server is reached from other machines; "" where it is not. One that
// listens on every address is told by the first of this machine that is no loopback.
func joinable(at string) string {
	u, err := url.Parse(at)
	if err != nil || isLoopback(u.Hostname()) {
		return ""
	}
	if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsUnspecified() {
		return at
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, addr := range addrs {
		if n, ok := addr.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return "nats://" + net.JoinHostPort(n.IP.String(), u.Port())
		}
	}
	return ""
}

// modelList says what is served: name (state, memory).
func modelList(nodes []schemas.NodeState) string {
	var out []string
	for _, n := range nodes {
		for _, b := range n.Backends {
			for _, m := range b.Models {
				size := m.VRAM
				if !size.Known {
					size = m.Need
				}
				out = append(out, fmt.Sprintf("%s (%s, %s)", m.Name, m.State, size))
			}
		}
	}
	return strings.Join(out, "  ")
}
