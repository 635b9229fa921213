package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/embedded"
	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/dispatcher"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
	"github.com/vramjet/vramjet/worker"
)

// setupWithin is how long a part may take to be there, and cleanWithin to be gone.
const (
	setupWithin = 30 * time.Second
	cleanWithin = 10 * time.Second
)

// A site is a NATS server with vramjet's streams, and what a mode starts beside it.
type site struct {
	Config
	durability Durability
	srv        *embedded.Server // nil: the user's own
	dir        string           // of srv
	nc         *nats.Conn
	js         jetstream.JetStream
	client     *client.Client
	streams    []string // of ours, that are to be deleted

	life  context.Context //nolint:containedctx // of the parts that were started: it ends with close
	end   context.CancelFunc
	parts sync.WaitGroup
	conns []*nats.Conn
}

// open starts a server, or connects to the user's own.
func open(ctx context.Context, cfg Config) (_ *site, err error) {
	s := &site{Config: cfg}
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if cfg.Connect == nil {
		if err := s.start(); err != nil { //nolint:contextcheck // a port is tried at once or not at all
			return nil, err
		}
	}
	if s.nc, err = s.connect(ctx); err != nil {
		return nil, err
	}
	if s.js, err = jetstream.New(s.nc); err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	if s.client, err = client.New(s.nc, client.Options{Tenant: Tenant}); err != nil {
		return nil, err
	}
	if s.srv == nil {
		return s, s.look(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, setupWithin)
	defer cancel()
	return s, broker.Setup(ctx, s.js, broker.StreamsConfig{})
}

// start starts the embedded server.
func (s *site) start() (err error) {
	if s.dir, err = os.MkdirTemp("", "vramjet-bench-"); err != nil {
		return fmt.Errorf("make a data directory: %w", err)
	}
	s.srv, err = embedded.Start(embedded.Config{Dir: s.dir, Port: -1, SyncInterval: s.SyncInterval}, s.Logger)
	s.durability = Durability{Sync: "always", Storage: "file", Replicas: 1}
	if s.SyncInterval > 0 {
		s.durability.Sync = "interval"
	}
	return err
}

// look sees that the user's servers have vramjet's streams, and that nobody is the
// tenant of the measurements.
func (s *site) look(ctx context.Context) error {
	for stream, subjects := range ours {
		st, err := s.js.Stream(ctx, stream)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return errors.New("there is no vramjet on these servers: start a dispatcher and try again, or measure an embedded server without --server and --context")
		}
		if err != nil {
			return fmt.Errorf("look at the stream %s: %w", stream, err)
		}
		info, err := st.Info(ctx, jetstream.WithSubjectFilter(subjects))
		if err != nil {
			return fmt.Errorf("look at the stream %s: %w", stream, err)
		}
		if len(info.State.Subjects) > 0 {
			return fmt.Errorf("the tenant %s has messages in %s, and measuring would delete them: if they are left from an earlier run, remove them with nats stream purge %s --subject '%s'", Tenant, stream, stream, subjects)
		}
		s.durability = Durability{Sync: "unknown", Storage: strings.ToLower(info.Config.Storage.String()), Replicas: info.Config.Replicas}
	}
	return nil
}

// ours are the subjects of the measurements in vramjet's streams.
var ours = map[string]string{
	broker.StreamJobs: schemas.JobsPrefix + Tenant + ".>", broker.StreamResults: schemas.ResultsPrefix + Tenant + ".>",
	broker.StreamDead: schemas.DeadPrefix + Tenant + ".>",
}

// where says which server it is.
func (s *site) where() string {
	if s.srv != nil {
		return "embedded"
	}
	return s.nc.ConnectedUrlRedacted()
}

// connect returns a connection of its own, as each part of vramjet has, that is closed
// with the site.
func (s *site) connect(ctx context.Context) (nc *nats.Conn, err error) {
	if s.srv == nil {
		nc, err = s.Connect(ctx)
	} else {
		nc, err = broker.Connect(ctx, broker.ConnectConfig{URL: s.srv.ClientURL(), Name: "vramjet bench"}, s.Logger)
	}
	if err == nil {
		s.conns = append(s.conns, nc)
	}
	return nc, err
}

// part runs a part of vramjet until the site is closed.
func (s *site) part(name string, run func(context.Context) error) {
	s.parts.Go(func() {
		if err := run(s.life); err != nil && s.life.Err() == nil {
			s.Logger.Error("a part ended", "part", name, "err", err)
		}
	})
}

// dispatch starts a dispatcher, unless these are the user's servers: then it sees that
// one answers.
func (s *site) dispatch(ctx context.Context, tenants map[string]dispatcher.Tenant) error {
	if s.srv == nil {
		_, err := s.client.Flows(ctx)
		return err
	}
	nc, err := s.connect(ctx)
	if err != nil {
		return err
	}
	d, err := dispatcher.New(nc, dispatcher.Config{Tenants: tenants, Logger: s.Logger})
	if err != nil {
		return err
	}
	s.part("dispatcher", d.Run)
	return nil
}

// serve starts a simulated model server and a worker for it, and runs a job of each
// model, so that it is in memory. It returns the server's URL.
func (s *site) serve(ctx context.Context, models ...sim.Model) (url string, err error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("start the simulated model server: %w", err)
	}
	srv := &http.Server{Handler: sim.New(sim.Config{Models: models}), ReadHeaderTimeout: setupWithin}
	s.parts.Go(func() { _ = srv.Serve(l) })               // ends with the site
	context.AfterFunc(s.life, func() { _ = srv.Close() }) //nolint:contextcheck // it lives as long as the site
	url = "http://" + l.Addr().String()
	provider, err := providers.New(providers.Config{Name: "sim", Kind: providers.KindSim, URL: url})
	if err != nil {
		return "", err
	}
	var names []string
	for _, m := range models {
		names = append(names, m.Name)
	}
	return url, s.work(ctx, provider, names...)
}

// work starts a worker for a provider, and runs a job of each model.
func (s *site) work(ctx context.Context, provider providers.Provider, models ...string) error {
	nc, err := s.connect(ctx)
	if err != nil {
		return err
	}
	w, err := worker.New(nc, worker.Config{
		Node: "bench-" + nuid.Next(), Logger: s.Logger,
		Backends: []worker.Backend{{
			Name: "sim", Kind: providers.KindSim, Provider: provider, Devices: []string{},
			Limits: providers.Limits{FirstToken: setupWithin, BetweenChunks: setupWithin},
		}},
	})
	if err != nil {
		return err
	}
	s.part("worker", w.Run)
	ctx, cancel := context.WithTimeout(ctx, setupWithin)
	defer cancel()
	for _, m := range models {
		if err := s.warm(ctx, m); err != nil {
			return fmt.Errorf("run a first job of %s: %w", m, err)
		}
	}
	return nil
}

// warm runs a job of a model.
func (s *site) warm(ctx context.Context, model string) error {
	stream, err := s.client.Run(ctx, client.Job{Model: model, Body: chat(1), Class: schemas.Interactive, Inbox: true})
	if err != nil {
		return err
	}
	defer stream.Close()
	_, err = stream.Result(ctx)
	return err
}

// stream makes a stream that is deleted with the site.
func (s *site) stream(ctx context.Context, cfg jetstream.StreamConfig) error {
	cfg.Replicas = s.durability.Replicas
	if _, err := s.js.CreateOrUpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("make the stream %s: %w", cfg.Name, err)
	}
	s.streams = append(s.streams, cfg.Name)
	return nil
}

// purge removes the jobs that nobody is to run.
func (s *site) purge(ctx context.Context) error {
	for name, subjects := range ours {
		st, err := s.js.Stream(ctx, name)
		if err == nil {
			err = st.Purge(ctx, jetstream.WithPurgeSubject(subjects))
		}
		if err != nil {
			return fmt.Errorf("remove what was measured from %s: %w", name, err)
		}
	}
	return nil
}

// close ends all parts, and removes what the measurements left.
func (s *site) close(ctx context.Context) error {
	s.end()
	s.parts.Wait()
	var err error
	if s.srv == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanWithin)
		defer cancel()
		err = s.purge(ctx)
		for _, name := range s.streams {
			err = errors.Join(err, s.js.DeleteStream(ctx, name))
		}
	}
	return errors.Join(err, s.stop())
}

// stop closes the connections and stops the server.
func (s *site) stop() error {
	s.end()
	for _, nc := range s.conns {
		nc.Close()
	}
	if s.srv != nil {
		s.srv.Shutdown()
	}
	if s.dir == "" {
		return nil
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("remove the data directory: %w", err)
	}
	return nil
}

// chat is a request for so many tokens.
func chat(tokens int) []byte {
	return fmt.Appendf(nil, `{"messages":[{"role":"user","content":"Tell me a story that goes on for a while."}],"stream":true,"max_tokens":%d}`, tokens)
}
