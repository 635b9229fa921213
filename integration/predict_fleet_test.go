//go:build !race

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/broker/embedded"
	"github.com/vramjet/vramjet/dispatcher/simulate"
	"github.com/vramjet/vramjet/gpu"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
	"github.com/vramjet/vramjet/worker"
)

// A shelf is a model server with one device, in this process: models lie on it or
// don't, and a job takes the time that the simulator says. It's as little as a real
// worker can be put in front of.
type shelf struct {
	models []simulate.Model
	took   time.Duration               // a load
	began  func(job int, at time.Time) // called when a job begins to generate

	mu             sync.Mutex // guards what follows
	running        map[string]int
	resident       map[string]bool
	loads, unloads int
	trouble        []string // what no worker may do
}

// shelfDevice is the memory of a shelf's device, and shelfModel what a model takes of
// it: there is room for one, whatever is kept for safety.
const (
	shelfDevice = 24 * schemas.GiB
	shelfModel  = 18 * schemas.GiB
)

// Models implements providers.Provider.
func (s *shelf) Models(context.Context) ([]providers.Model, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	models := make([]providers.Model, len(s.models))
	for i, m := range s.models {
		models[i] = providers.Model{
			Name: m.Name, Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Installed,
			Need: schemas.Known(m.Need), Slots: m.Slots,
		}
		if s.resident[m.Name] {
			models[i].State, models[i].VRAM = schemas.Resident, schemas.Known(m.Need)
		}
	}
	return models, nil
}

// Generate implements providers.Provider.
func (s *shelf) Generate(ctx context.Context, req providers.Request, emit func([]byte) error) (providers.Answer, error) {
	at := time.Now()
	var body struct {
		Job    int `json:"seed"`
		Tokens int `json:"max_tokens"`
	}
	if err := json.Unmarshal(req.Body, &body); err != nil {
		return providers.Answer{}, schemas.Errorf(schemas.InvalidRequest, "%s", err)
	}
	s.began(body.Job, at)
	s.use(req.Model, 1)
	defer s.use(req.Model, -1)
	if err := emit([]byte(`{"choices":[]}`)); err != nil {
		return providers.Answer{}, err
	}
	select {
	case <-ctx.Done():
		return providers.Answer{}, context.Cause(ctx)
	case <-time.After(time.Until(at.Add(predictRunTime(body.Tokens)))):
		return providers.Answer{Body: []byte(`{"object":"chat.completion","choices":[]}`), Usage: schemas.Usage{CompletionTokens: body.Tokens}}, nil
	}
}

// use notes that a request of a model begins or ends.
func (s *shelf) use(model string, by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[model] += by
	if !s.resident[model] || s.running[model] > s.models[0].Slots {
		s.trouble = append(s.trouble, fmt.Sprintf("%d requests of %s, in memory: %t", s.running[model], model, s.resident[model]))
	}
}

// Load implements providers.Loader.
func (s *shelf) Load(ctx context.Context, model string) error {
	s.mu.Lock()
	s.loads++
	if len(s.resident) > 0 {
		s.trouble = append(s.trouble, fmt.Sprintf("%s is loaded where there is %v", model, s.resident))
	}
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(s.took):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resident[model] = true
	return nil
}

// Unload implements providers.Loader.
func (s *shelf) Unload(_ context.Context, model string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[model] > 0 {
		s.trouble = append(s.trouble, model+" is unloaded while it runs")
	}
	s.unloads++
	delete(s.resident, model)
	return nil
}

// Devices implements gpu.Reader.
func (s *shelf) Devices(context.Context) ([]gpu.Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := shelfModel * schemas.Bytes(len(s.resident))
	return []gpu.Device{{Device: schemas.Device{
		ID: "gpu", Name: "simulated", Kind: "sim", Total: schemas.Known(shelfDevice), Reserved: schemas.Known(0),
		Used: schemas.Known(used), Free: schemas.Known(shelfDevice.Minus(used)),
	}}}, nil
}

// Source implements gpu.Reader.
func (*shelf) Source() string { return "simulated" }

// Close implements gpu.Reader.
func (*shelf) Close() error { return nil }

// loud logs what an operator should look at, and not each load.
type loud struct{ slog.Handler }

// Enabled implements slog.Handler.
func (loud) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// WithAttrs implements slog.Handler.
func (h loud) WithAttrs(attrs []slog.Attr) slog.Handler { return loud{h.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (h loud) WithGroup(name string) slog.Handler { return loud{h.Handler.WithGroup(name)} }

func logLoud(tb testing.TB) *slog.Logger {
	tb.Helper()
	return slog.New(loud{brokertest.Log(tb).Handler()})
}

// shelves puts a worker in front of each node of a simulator's fleet, under the same
// names, and returns what they serve. took is what a load takes, began is called as
// jobs begin to generate.
func shelves(t *testing.T, srv *embedded.Server, fleet simulate.Fleet, took time.Duration, began func(job int, at time.Time)) []*shelf {
	t.Helper()
	var all []*shelf
	for _, n := range fleet.Nodes {
		s := &shelf{took: took, began: began, running: map[string]int{}, resident: map[string]bool{}}
		for _, m := range fleet.Models {
			if slices.Contains(n.Models, m.Name) {
				s.models = append(s.models, m)
			}
		}
		w, err := worker.New(brokertest.Connect(t, srv), worker.Config{
			Node: n.Name, GPU: s, Drain: patience, Logger: logLoud(t),
			Backends: []worker.Backend{{Name: "sim", Kind: "shelf", Provider: s}},
		})
		if err != nil {
			t.Fatal(err)
		}
		live(t, w.Run)
		all = append(all, s)
	}
	return all
}
