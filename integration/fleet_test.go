package integration

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// The fleet of TestFleet. A GiB takes 2 ms to load: 500 times as fast as from a disk
// of 1 GiB/s, and so is everything else.
const (
	fleetNodes   = 8
	fleetDevices = 4
	fleetMemory  = 24 * schemas.GiB // of a device
	fleetModels  = 40
	fleetJobs    = 20_000
	perGiB       = 2 * time.Millisecond
)

// A fleetModel is one of the models, all of which every node has on its disk.
type fleetModel struct {
	name    string
	size    schemas.Bytes
	devices float64 // on how many it lies
}

func (m fleetModel) loadTime() time.Duration {
	return time.Duration(float64(perGiB) * float64(m.size) / float64(schemas.GiB))
}

// A trace is what is asked of the fleet, by everybody who is compared.
type trace struct {
	models []fleetModel
	jobs   []int // indices of models, in the order of submission
}

// newTrace has models of 1 to 60 GiB and jobs that are spread over them by Zipf's law.
func newTrace(seed uint64, jobs int) *trace {
	rnd := rand.New(rand.NewPCG(seed, 0))
	x := &trace{}
	var weights []float64
	sum := 0.0
	for i := range fleetModels {
		size := schemas.Bytes(1+rnd.IntN(60)) * schemas.GiB
		x.models = append(x.models, fleetModel{
			name: fmt.Sprintf("model-%02d", i), size: size,
			devices: math.Ceil(float64(size) / float64(fleetMemory)),
		})
		sum += 1 / float64(i+1)
		weights = append(weights, sum)
	}
	for range jobs {
		at, i := rnd.Float64()*sum, 0
		for weights[i] < at {
			i++
		}
		x.jobs = append(x.jobs, i)
	}
	return x
}

// A machine is a simulated server of the fleet.
type machine struct {
	*sim.Server
	url string
}

// newFleet starts the servers. evict has them make room by themselves.
func newFleet(t *testing.T, x *trace, evict bool) []machine {
	t.Helper()
	var fleet []machine
	for range fleetNodes {
		cfg := sim.Config{NoAutoload: !evict, EvictIdle: evict}
		for i := range fleetDevices {
			cfg.Devices = append(cfg.Devices, sim.Device{ID: fmt.Sprint("gpu-", i), Memory: fleetMemory})
		}
		for _, m := range x.models {
			cfg.Models = append(cfg.Models, sim.Model{Name: m.name, VRAM: m.size, LoadTime: m.loadTime(), FirstToken: 2 * time.Millisecond, Slots: 4, Tokens: 3})
		}
		s := sim.New(cfg)
		srv := httptest.NewServer(s)
		t.Cleanup(srv.Close)
		fleet = append(fleet, machine{s, srv.URL})
	}
	return fleet
}

// A bill is what a run took of the fleet.
type bill struct {
	jobs, loads, refused, overcommitted, cut int
	lost                                     time.Duration // of devices, to loading
}

func billOf(x *trace, fleet []machine) bill {
	var b bill
	for _, s := range fleet {
		for _, m := range x.models {
			c := s.Counts(m.name)
			b.jobs += c.Finished
			b.loads += c.Loads
			b.refused += c.Refused
			b.overcommitted += c.Overcommitted
			b.cut += c.Cut
			b.lost += time.Duration(float64(c.Loads) * float64(m.loadTime()) * m.devices)
		}
	}
	return b
}

func (b bill) String() string {
	return fmt.Sprintf("%d answers, %.1f loads per 1,000 jobs, %.1f GPU-seconds lost to loading, %d loads refused for memory (%d of them by the fleet's own models), %d requests cut",
		b.jobs, float64(b.loads)*1000/float64(max(1, b.jobs)), b.lost.Seconds(), b.refused, b.overcommitted, b.cut)
}

// disturb has others take memory and loads fail, at random, until stop is closed.
func disturb(x *trace, fleet []machine, stop <-chan struct{}) {
	rnd := rand.New(rand.NewPCG(7, 0))
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		s := fleet[rnd.IntN(len(fleet))]
		s.Foreign(fmt.Sprint("gpu-", rnd.IntN(fleetDevices)), schemas.Bytes(rnd.IntN(12))*schemas.GiB)
		if rnd.IntN(4) == 0 {
			fleet[rnd.IntN(len(fleet))].Fail(x.models[rnd.IntN(len(x.models))].name, sim.Failure{Times: 1, Load: true})
		}
	}
}

// TestFleet puts 20,000 jobs for 40 models of 1 to 60 GiB through 8 nodes of 4
// devices, which hold three quarters of these models at a time, while others take
// memory and loads fail at random. Every job ends; no load finds memory taken that
// was promised to it by the node itself; no model is unloaded under a request; no
// reservation is left. The same jobs go through two ways of doing without a plan, for
// comparison.
func TestFleet(t *testing.T) {
	x := newTrace(1, fleetJobs)
	t.Run("vramjet", func(t *testing.T) { fleetOfPlans(t, x) })
	for name, choose := range map[string]chooser{"least loaded": leastLoaded, "lru reactive": whereItWas} {
		t.Run(name, func(t *testing.T) { fleetOfReactions(t, x, choose) })
	}
}

func fleetOfPlans(t *testing.T, x *trace) {
	fleet := newFleet(t, x, false)
	url, _ := natsServer(t, "")
	start(t, "dispatcher", "vramjet", "dispatcher", "--server", url, "--http", "off")
	for i, s := range fleet {
		serveAs(t, url, fmt.Sprint("n", i), fmt.Sprintf("  - {name: sim, kind: sim, url: %q}\n", s.url))
	}
	u := connect(t, url)
	u.serves(x.models[0].name, fleetNodes)
	y := &tally{ends: map[string]int{}}
	sub, err := u.nc.Subscribe(schemas.ResultsPrefix+"*.*.end", y.take)
	if err != nil {
		t.Fatal(err)
	}
	_ = sub.SetPendingLimits(-1, -1)
	states := u.follow()

	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() { disturb(x, fleet, stop) })
	began := time.Now()
	u.submitTrace(x)
	within(t, 5*time.Minute, "all jobs end", func() bool { return y.ended(".") == len(x.jobs) })
	took := time.Since(began)
	close(stop)
	others.Wait()

	b := billOf(x, fleet)
	t.Logf("vramjet: %d jobs in %s, %d not ok; %s", len(x.jobs), took.Round(time.Millisecond), len(y.bad), b)
	if b.overcommitted > 0 || b.cut > 0 {
		t.Errorf("%d loads found memory taken by the node's own models, %d requests were cut", b.overcommitted, b.cut)
	}
	for subject, n := range y.ends {
		if n != 1 {
			t.Errorf("%s: %d ends", subject, n)
		}
	}
	if len(y.bad) > len(x.jobs)/100 {
		t.Errorf("%d jobs failed: %s", len(y.bad), y.bad[0])
	}
	within(t, patience, "no reservation is left", func() bool { return states.reservations() == 0 })
	if over := states.overcommitted(); over != "" {
		t.Error(over)
	}
}

// serveAs starts a worker with backends as the configuration has them.
func serveAs(t *testing.T, url, node, backends string) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "vramjet.yaml")
	if err := os.WriteFile(config, []byte("backends:\n"+backends), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "worker "+node, "vramjet", "worker", "--server", url, "--config", config, "--node", node, "--http", "off")
}

// submitTrace submits the jobs of a trace.
func (u *user) submitTrace(x *trace) {
	u.Helper()
	js, err := jetstream.New(u.nc, jetstream.WithPublishAsyncMaxPending(1000))
	if err != nil {
		u.Fatal(err)
	}
	for i, at := range x.jobs {
		subject, err := schemas.JobSubject(schemas.Flow{Tenant: "t", Class: schemas.Normal, Model: x.models[at].name})
		if err != nil {
			u.Fatal(err)
		}
		m := nats.NewMsg(subject)
		m.Header.Set(schemas.HeaderMsgID, fmt.Sprintf("j-%d", i))
		m.Data = []byte(`{"messages":[{"role":"user","content":"hi"}]}`)
		if _, err := js.PublishMsgAsync(m, jetstream.WithStallWait(patience)); err != nil {
			u.Fatal(err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(patience):
		u.Fatal("jobs were not acknowledged")
	}
}
