package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
	"github.com/vramjet/vramjet/worker"
)

// simulated is a model of so much memory, which takes 10 ms for a token.
func simulated(name string, size schemas.Bytes) sim.Model {
	return sim.Model{Name: name, VRAM: size, LoadTime: 50 * time.Millisecond, TokenInterval: 10 * time.Millisecond, Slots: 2, Tokens: 5}
}

// needs says what loads take, for servers that do not tell.
func needs(models map[string]schemas.Bytes) map[string]worker.ModelConfig {
	configs := map[string]worker.ModelConfig{}
	for name, size := range models {
		configs[name] = worker.ModelConfig{Need: schemas.Known(size)}
	}
	return configs
}

// TestPlannedLoads: of models that do not fit together each is loaded when its job
// comes, and only what must go goes.
func TestPlannedLoads(t *testing.T) {
	for _, kind := range []string{providers.KindOllama, providers.KindLlamaRouter} {
		t.Run(kind, func(t *testing.T) {
			r := newRack(t)
			m := newHost(t, simulated("small", 2*gib), simulated("one", 10*gib), simulated("two", 10*gib))
			cfg := worker.Config{GPU: m, Backends: []worker.Backend{m.backend(kind)}}
			if kind == providers.KindLlamaRouter {
				cfg.Models = needs(map[string]schemas.Bytes{"small": 2 * gib, "one": 10 * gib, "two": 10 * gib})
			}
			r.node("n1", cfg)
			for _, model := range []string{"small", "one", "two", "one"} {
				r.first(r.run(client.Chat(model, "hi")))
			}
			got := map[string]sim.Counts{"small": m.Counts("small"), "one": m.Counts("one"), "two": m.Counts("two")}
			want := map[string]sim.Counts{
				"small": {Started: 1, Finished: 1, Peak: 1, Loads: 1},
				"one":   {Started: 2, Finished: 2, Peak: 1, Loads: 2, Unloads: 1},
				"two":   {Started: 1, Finished: 1, Peak: 1, Loads: 1, Unloads: 1},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("what happened to the models (-want +got):\n%s", diff)
			}

			var jobs []*client.Stream
			for i := range 12 {
				jobs = append(jobs, r.run(client.Chat([]string{"small", "one", "two"}[i%3], "hi")))
			}
			for _, s := range jobs {
				r.first(s)
			}
			m.unharmed("small", "one", "two")
		})
	}
}

// TestBackendsShareADevice: an idle model of one backend makes room for a model of
// another.
func TestBackendsShareADevice(t *testing.T) {
	r := newRack(t)
	m := newHost(t, simulated("mine", 10*gib), simulated("yours", 10*gib))
	r.node("n1", worker.Config{
		GPU:      m,
		Models:   needs(map[string]schemas.Bytes{"yours": 10 * gib}),
		Backends: []worker.Backend{m.backend(providers.KindOllama, "mine"), m.backend(providers.KindLlamaRouter, "yours")},
	})
	offers, err := r.nc.SubscribeSync(schemas.NodeSubject("n1", "run"))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ model, evict string }{
		{"mine", ""}, {"yours", "ollama mine"}, {"mine", "llamarouter yours"}, {"mine", ""},
	} {
		r.first(r.run(client.Chat(step.model, "hi")))
		offer, err := offers.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		if got := offer.Header.Get(schemas.HeaderEvict); got != step.evict || offer.Header.Get(schemas.HeaderModel) != step.model {
			t.Errorf("%s was offered with the eviction of %q, want %q", step.model, got, step.evict)
		}
	}
	m.unharmed("mine", "yours")
	if c, d := m.Counts("mine"), m.Counts("yours"); c.Loads != 2 || c.Unloads != 1 || d.Loads != 1 || d.Unloads != 1 {
		t.Errorf("mine: %+v, yours: %+v", c, d)
	}
}

// TestUnloadDrains: an operator's unload waits for the jobs of the model, and new ones
// wait for the unload.
func TestUnloadDrains(t *testing.T) {
	r := newRack(t)
	m := newHost(t, simulated("one", 10*gib))
	r.node("n1", m.ollama())
	running := r.run(tokens("one", 150))
	r.next(running, schemas.EventChunk)
	unloaded := r.control("n1", schemas.ControlRequest{Do: "unload", Backend: "ollama", Model: "one"})
	r.await("n1", "the model is about to go", func(s *schemas.NodeState) bool {
		return modelOf(s, "one").State == schemas.Installed && len(s.Running) == 1
	})
	next := r.run(tokens("one", 5))
	r.first(running)
	if code := unloaded(); code != "" {
		t.Errorf("the unload failed with %q", code)
	}
	r.first(next)
	m.unharmed("one")
	if c := m.Counts("one"); c.Loads != 2 || c.Unloads != 1 || c.Peak != 1 || c.Finished != 2 {
		t.Errorf("%+v; want it unloaded between the two jobs", c)
	}
}

// TestBusyModelIsDrained: a job whose model fits only without a busy one waits until
// that is idle. From then on jobs for the one that goes wait for their turn.
func TestBusyModelIsDrained(t *testing.T) {
	r := newRack(t)
	two := simulated("two", 10*gib)
	two.LoadTime = time.Second
	m := newHost(t, simulated("one", 10*gib), two)
	r.node("n1", m.ollama())
	running := r.run(tokens("one", 150))
	r.next(running, schemas.EventChunk)
	crowded := r.run(tokens("two", 20))
	r.waits(crowded.ID(), "n1/ollama: loads it when one is done")
	if c := m.Counts("one"); c.Unloads != 0 || c.Finished != 0 {
		t.Errorf("while it runs: %+v", c)
	}
	r.first(running)
	r.await("n1", "the other model is loading", func(s *schemas.NodeState) bool {
		return modelOf(s, "two").State == schemas.Loading
	})
	again := r.run(tokens("one", 5))
	r.first(crowded)
	r.first(again)
	m.unharmed("one", "two")
	if c, d := m.Counts("one"), m.Counts("two"); c.Loads != 2 || c.Unloads != 1 || d.Loads != 1 || d.Unloads != 1 {
		t.Errorf("one: %+v, two: %+v", c, d)
	}
}

// TestForeignMemory: where others have the memory, jobs go to another node; where
// there is none, they wait, and the reason says what is lacking.
func TestForeignMemory(t *testing.T) {
	r := newRack(t)
	a, b := newHost(t, simulated("one", 10*gib)), newHost(t, simulated("one", 10*gib))
	r.node("a", a.ollama())
	stop := r.node("b", b.ollama())
	a.Foreign("gpu", 12*gib)
	r.await("a", "others are seen to have the memory", func(s *schemas.NodeState) bool {
		return s.Devices[0].Others == schemas.Known(12*gib)
	})
	if node := r.first(r.run(client.Chat("one", "hi"))); node != "b" {
		t.Errorf("the job ran on %s", node)
	}
	stop()
	waiting := r.run(client.Chat("one", "hi"))
	r.waits(waiting.ID(), "a/ollama: needs 10.0 GiB, and 3.2 GiB can be freed")
	a.Foreign("gpu", 0)
	if node := r.first(waiting); node != "a" {
		t.Errorf("the job that waited ran on %s", node)
	}
	a.unharmed("one")
	b.unharmed("one")
}

// TestFailedLoad: a job whose load runs out of memory ends well on another node, and
// the one where it failed keeps serving.
func TestFailedLoad(t *testing.T) {
	r := newRack(t)
	var hosts []*host
	for i := range 2 {
		m := newHost(t, simulated("small", 2*gib), simulated("one", 10*gib))
		hosts = append(hosts, m)
		r.node(fmt.Sprint("n", i), m.ollama())
	}
	bad, good := hosts[0], hosts[1]
	bad.Fail("one", sim.Failure{Load: true})
	running := r.run(tokens("small", 300)) // so that its node has less room, and is preferred
	r.next(running, schemas.EventChunk)
	if bad.Counts("small").Started != 1 {
		t.Fatal("the first job did not go to the first node")
	}
	_, _, result := r.read(r.run(client.Chat("one", "hi")))
	if result.Run.Node != "n1" || result.Run.Attempt != 2 {
		t.Errorf("it ended on %s at attempt %d", result.Run.Node, result.Run.Attempt)
	}
	s := r.order("n0", "state", "", "")
	if len(s.Reservations) != 0 || modelOf(&s, "one").State != schemas.Installed {
		t.Errorf("after the load failed, kept is %+v and the model %+v", s.Reservations, modelOf(&s, "one"))
	}
	r.first(running)
	r.first(r.run(client.Chat("small", "hi")))
	if c := bad.Counts("small"); c.Loads != 1 || c.Finished != 2 {
		t.Errorf("the other model of that node: %+v", c)
	}
	bad.unharmed("small")
	good.unharmed("small", "one")
}

// TestPinnedModelStays: an idle model that is pinned makes no room: the job goes to
// another node, or waits.
func TestPinnedModelStays(t *testing.T) {
	r := newRack(t)
	a, b := newHost(t, simulated("one", 10*gib), simulated("two", 10*gib)), newHost(t, simulated("two", 10*gib))
	r.node("a", a.ollama())
	stop := r.node("b", b.ollama())
	r.first(r.run(client.Chat("one", "hi")))
	r.order("a", "pin", "ollama", "one")
	if node := r.first(r.run(client.Chat("two", "hi"))); node != "b" {
		t.Errorf("the job ran on %s", node)
	}
	stop()
	waiting := r.run(client.Chat("two", "hi"))
	r.waits(waiting.ID(), "a/ollama: needs 10.0 GiB, and 5.2 GiB can be freed; one is pinned")
	if c := a.Counts("one"); c.Unloads != 0 {
		t.Errorf("it was unloaded though it is pinned: %+v", c)
	}
	r.order("a", "unpin", "ollama", "one")
	if node := r.first(waiting); node != "a" {
		t.Errorf("the job that waited ran on %s", node)
	}
	a.unharmed("one", "two")
	b.unharmed("two")
}
