package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/broker/embedded"
	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/dispatcher"
	"github.com/vramjet/vramjet/gpu"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
	"github.com/vramjet/vramjet/worker"
)

const gib = schemas.GiB

// A rack is the whole system in this process: a NATS server, a dispatcher, and the
// nodes that a test puts in.
type rack struct {
	*user
	srv        *embedded.Server
	dispatcher *nats.Conn // the dispatcher's own
}

// newRack is for tests that run alone: nothing of it may be left when they end.
func newRack(t *testing.T) *rack {
	t.Helper()
	return newRackOn(t, embedded.Config{})
}

// newRackOn is newRack on a server of its own making.
func newRackOn(t *testing.T, cfg embedded.Config) *rack {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections() // of what tests ask servers themselves
		goleak.VerifyNone(t, before)
	})
	srv := brokertest.StartServer(t, cfg)
	nc := brokertest.Connect(t, srv)
	brokertest.Setup(t, nc)
	d, err := dispatcher.New(nc, dispatcher.Config{Logger: brokertest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	live(t, d.Run)
	return &rack{user: connect(t, srv.ClientURL()), srv: srv, dispatcher: nc}
}

// live runs a part of the system until stop is called, or the test ends.
func live(tb testing.TB, run func(context.Context) error) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(stop)
	return stop
}

// node puts a node in, and returns once it knows its backends and devices. What it
// returns takes the node out again.
func (r *rack) node(id string, cfg worker.Config) (stop func()) {
	r.Helper()
	cfg.Node, cfg.Drain, cfg.Logger = id, patience, brokertest.Log(r)
	w, err := worker.New(brokertest.Connect(r, r.srv), cfg)
	if err != nil {
		r.Fatal(err)
	}
	stop = live(r, w.Run)
	r.await(id, "it knows what it has", func(s *schemas.NodeState) bool {
		return len(s.Devices) > 0 && !slices.ContainsFunc(s.Backends, func(b schemas.Backend) bool { return !b.Healthy })
	})
	return stop
}

// order has a node do something, and returns its state once that is done.
func (r *rack) order(node, do, backend, model string) schemas.NodeState {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	s, err := r.Control(ctx, node, schemas.ControlRequest{Do: do, Backend: backend, Model: model})
	if err != nil {
		r.Fatal(err)
	}
	return s
}

// await waits until a node's state is as it must be. It asks the node, as a state
// that was published may be from before what the test just did.
func (r *rack) await(node, what string, ok func(*schemas.NodeState) bool) {
	r.Helper()
	within(r, patience, node+": "+what, func() bool {
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		s, err := r.Control(ctx, node, schemas.ControlRequest{Do: "state"})
		return err == nil && ok(&s)
	})
}

// modelOf returns what a node says of a model, zero where it serves none of the name.
func modelOf(s *schemas.NodeState, model string) schemas.Model {
	for _, b := range s.Backends {
		for _, m := range b.Models {
			if m.Name == model {
				return m
			}
		}
	}
	return schemas.Model{}
}

// waits waits until these are all the reasons for which a job waits.
func (r *rack) waits(job string, reasons ...string) {
	r.Helper()
	var last schemas.Why
	defer func() {
		if r.Failed() {
			r.Logf("%s waits, since %q", job, last.Why)
		}
	}()
	within(r, patience, fmt.Sprintf("%s waits, since %q", job, reasons), func() bool {
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		var err error
		last, err = r.Why(ctx, job)
		return err == nil && slices.Equal(last.Why, reasons)
	})
}

// first expects that a job ends well at its first attempt, and returns its node.
func (r *rack) first(s *client.Stream) (node string) {
	r.Helper()
	_, _, result := r.read(s)
	if result.Run.Attempt != 1 {
		r.Errorf("%s ended at attempt %d", s.ID(), result.Run.Attempt)
	}
	return result.Run.Node
}

// tokens is a job that streams so many.
func tokens(model string, n int) client.Job {
	return client.Job{Model: model, Body: fmt.Appendf(nil, `{"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":%d}`, n)}
}

// A host is a simulated model server and the devices that it has.
type host struct {
	*sim.Server
	tb   testing.TB
	url  string
	http *http.Client
}

// newHost has a device "gpu" of 16 GiB. Its server does nothing by itself.
func newHost(tb testing.TB, models ...sim.Model) *host {
	tb.Helper()
	transport := &http.Transport{}
	m := &host{tb: tb, http: &http.Client{Transport: transport}, Server: sim.New(sim.Config{
		Devices: []sim.Device{{ID: "gpu", Memory: 16 * gib}}, Models: models, NoAutoload: true,
	})}
	server := httptest.NewServer(m.Server)
	tb.Cleanup(server.Close)
	tb.Cleanup(transport.CloseIdleConnections)
	m.url = server.URL
	return m
}

// backend is the host's server as a backend of a kind, with two slots a model.
func (m *host) backend(kind string, models ...string) worker.Backend {
	m.tb.Helper()
	p, err := providers.New(providers.Config{Name: kind, Kind: kind, URL: m.url, HTTP: m.http})
	if err != nil {
		m.tb.Fatal(err)
	}
	return worker.Backend{Name: kind, Kind: kind, Provider: p, Models: models, Slots: 2}
}

// ollama is a node with nothing but the host's server as an Ollama.
func (m *host) ollama() worker.Config {
	m.tb.Helper()
	return worker.Config{GPU: m, Backends: []worker.Backend{m.backend(providers.KindOllama)}}
}

// Devices reads the devices as a driver does, which knows nothing of models. It
// implements gpu.Reader.
func (m *host) Devices(ctx context.Context) ([]gpu.Device, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+"/sim/state", nil)
	if err != nil {
		return nil, err
	}
	resp, err := m.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var state struct {
		Devices []schemas.Device `json:"devices"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&state); err != nil {
		return nil, err
	}
	devices := make([]gpu.Device, 0, len(state.Devices))
	for _, d := range state.Devices {
		d.Ours, d.Others = schemas.Amount{}, schemas.Amount{}
		devices = append(devices, gpu.Device{Device: d})
	}
	return devices, nil
}

// Source implements gpu.Reader.
func (*host) Source() string { return "simulated" }

// Close implements gpu.Reader.
func (*host) Close() error { return nil }

// unharmed expects that no load was too much and that no answer was cut off.
func (m *host) unharmed(models ...string) {
	m.tb.Helper()
	for _, name := range models {
		if c := m.Counts(name); c.Refused != 0 || c.Overcommitted != 0 || c.Cut != 0 || c.Cancelled != 0 || c.Finished != c.Started {
			m.tb.Errorf("%s: %+v", name, c)
		}
	}
}
