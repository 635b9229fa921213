package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/awsauth"
	"github.com/vramjet/vramjet/providers/rpc"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
	"github.com/vramjet/vramjet/worker"
)

// local lists where model servers listen by default: Ollama, llama-server and
// llama-swap, llama-server's newer port, vLLM and SGLang, LM Studio.
var local = []string{
	"http://127.0.0.1:11434", "http://127.0.0.1:8080", "http://127.0.0.1:9931",
	"http://127.0.0.1:8000", "http://127.0.0.1:30000", "http://127.0.0.1:1234",
}

// lookEvery is how often servers are looked for that were not there before.
const lookEvery = 5 * time.Second

// A backendFinder gives a worker its backends: those of the configuration, or
// those that are found on this machine, and the simulated one where that is
// asked for. It belongs to one goroutine.
type backendFinder struct {
	nc     *nats.Conn // for those that are services
	log    *slog.Logger
	getenv func(string) string
	want   []Backend       // what is to be added yet
	found  bool            // want was looked for, not configured
	missed map[string]bool // of want: it was said that they are not there
}

func newBackendFinder(nc *nats.Conn, cfg *Config, getenv func(string) string, log *slog.Logger) *backendFinder {
	f := &backendFinder{nc: nc, log: log, getenv: getenv, want: cfg.Backends, missed: map[string]bool{}}
	if len(f.want) > 0 {
		return f
	}
	f.found = true
	for _, url := range local {
		f.want = append(f.want, Backend{URL: url})
	}
	return f
}

// simulate adds the simulated server that listens at url.
func (f *backendFinder) simulate(url string) {
	if f.found {
		f.want, f.found = nil, false
	}
	f.want = append(f.want, Backend{Name: "sim", Kind: providers.KindSim, URL: url})
}

// lookNow looks once, and returns which servers are there.
func (f *backendFinder) lookNow(ctx context.Context) (there []Backend) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, b := range f.want {
		if kind, err := f.detect(ctx, b); err == nil {
			b.Kind = kind
			there = append(there, b)
		}
	}
	return there
}

// feed gives the worker its backends until ctx ends. A server that is not there
// yet is looked for again.
func (f *backendFinder) feed(ctx context.Context, w *worker.Worker) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	names := map[string]bool{}
	for {
		var still []Backend
		for _, b := range f.want {
			if !f.add(ctx, w, b, names) {
				still = append(still, b)
			}
		}
		f.want = still
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// add adds one backend, and reports whether there is nothing more to do for it.
func (f *backendFinder) add(ctx context.Context, w *worker.Worker, b Backend, names map[string]bool) bool {
	if b.Kind == providers.KindSim && b.URL == "" { // one of this process
		url, err := simServer(ctx)
		if err != nil {
			f.log.Error("a backend cannot be used", "backend", b.Name, "err", err)
			return true
		}
		b.URL = url
	}
	if b.Kind == "" || b.Kind == providers.KindLlamaCpp { // which of the two ways of llama-server it is
		kind, err := f.detect(ctx, b)
		switch {
		case err == nil && (b.Kind == "" || sameServer(b.Kind, kind)):
			b.Kind = kind
		case schemas.AsError(err).Code == schemas.Unreachable, b.Kind == "":
			if b.Kind != "" && !f.missed[b.Name] {
				f.missed[b.Name] = true
				f.log.Warn("a backend is not there yet", "backend", b.Name, "err", err)
			}
			return false
		}
	}
	if b.Name == "" {
		b.Name = freeName(b.Kind, names)
	}
	names[b.Name] = true
	wb, err := f.backend(b)
	if err == nil {
		err = w.AddBackend(ctx, wb)
	}
	if err != nil {
		if !errors.Is(err, worker.ErrStopped) && ctx.Err() == nil {
			f.log.Error("a backend cannot be used", "backend", b.Name, "err", err)
		}
		return true
	}
	f.log.Info("backend", "backend", b.Name, "kind", b.Kind, "url", cmp.Or(redact(b.URL), "the vendor's"))
	return true
}

// detect asks a server what it is, with the backend's key where it has one.
func (f *backendFinder) detect(ctx context.Context, b Backend) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	transport := newTransport(b.Timeouts.Connect)
	defer transport.CloseIdleConnections()
	return providers.Detect(ctx, b.URL, &http.Client{Transport: &asker{next: transport, keys: f.keys(b.KeysEnv)}})
}

// freeName is the kind, with a number where there are several.
func freeName(kind string, taken map[string]bool) string {
	name := kind
	for i := 2; taken[name]; i++ {
		name = fmt.Sprintf("%s-%d", kind, i)
	}
	return name
}

// backend makes what the worker needs of what the configuration says.
func (f *backendFinder) backend(b Backend) (worker.Backend, error) {
	p, err := f.provider(b)
	if err != nil {
		return worker.Backend{}, err
	}
	wb := worker.Backend{
		Name: b.Name, Kind: b.Kind, Provider: p, Slots: b.Slots, Models: b.Models, Prefix: b.Prefix, Run: b.Timeouts.Run, Price: schemas.Price(b.Price),
		Load:   worker.LoadConfig(b.Load),
		Local:  localAddr(b),
		Limits: providers.Limits{Queue: b.Timeouts.Queue, FirstToken: b.Timeouts.FirstToken, BetweenChunks: b.Timeouts.BetweenChunks},
	}
	if wb.Limits.FirstToken == 0 {
		wb.Limits.FirstToken = 5 * time.Minute
	}
	if wb.Limits.BetweenChunks == 0 {
		wb.Limits.BetweenChunks = time.Minute
	}
	switch devices := strings.Join(b.Devices, ","); {
	case devices == "none", providers.Hosted(b.Kind):
		wb.Devices = []string{}
	case devices != "" && devices != "all":
		wb.Devices = b.Devices
	}
	return wb, nil
}

func (f *backendFinder) provider(b Backend) (providers.Provider, error) {
	if b.Kind == providers.KindRPC {
		return rpc.New(f.nc, rpc.Config{Name: b.Name})
	}
	cfg := providers.Config{Name: b.Name, Kind: b.Kind, URL: b.URL, Keys: f.keys(b.KeysEnv), Models: b.Models, Connect: b.Timeouts.Connect}
	switch {
	case len(b.KeysEnv) > 0:
	case b.Kind == providers.KindBedrock:
		cfg.Sign = awsauth.Signer(f.awsCredentials)
	case b.Kind == providers.KindVertex && strings.Contains(b.URL, "aiplatform"): // the Gemini API takes keys alone
		cfg.Sign = googleSigner()
	}
	return providers.New(cfg)
}

// keys are the keys in the named environment variables, which are read each time
// that a key is needed: a key itself is kept nowhere. Variables that are not set
// count for nothing, unless none is.
func (f *backendFinder) keys(names []string) []providers.Key {
	var keys []providers.Key
	for _, name := range names {
		if f.getenv(name) != "" || len(names) == 1 {
			keys = append(keys, providers.Key{Name: name, Secret: func() string { return f.getenv(name) }})
		}
	}
	return keys
}

// awsCredentials are those in the environment, where AWS's own programs look first.
func (f *backendFinder) awsCredentials() awsauth.Credentials {
	return awsauth.Credentials{
		AccessKeyID: f.getenv(awsKeyID), SecretAccessKey: f.getenv(awsSecretKey), SessionToken: f.getenv("AWS_SESSION_TOKEN"),
	}
}

// What is needed to sign requests to AWS.
const (
	awsKeyID     = "AWS_ACCESS_KEY_ID"
	awsSecretKey = "AWS_SECRET_ACCESS_KEY" //nolint:gosec // a name, not a key
)

// simServer runs the simulated model server until ctx ends, and returns its URL.
func simServer(ctx context.Context) (url string, err error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("start the simulated model server: %w", err)
	}
	srv := &http.Server{Handler: sim.New(sim.Default()), ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = srv.Close() }) // nobody is left to wait for an answer
	go srv.Serve(l)                                    //nolint:errcheck // ends with ctx
	return "http://" + l.Addr().String(), nil
}

// served lists the names of models that do a kind of job.
func served(nodes []schemas.NodeState, kind schemas.Kind) []string {
	var names []string
	for _, n := range nodes {
		for _, b := range n.Backends {
			for _, m := range b.Models {
				for _, k := range m.Kinds {
					if k == kind {
						names = append(names, m.Name)
					}
				}
			}
		}
	}
	return names
}
