package worker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

func offerHeader() nats.Header {
	h := nats.Header{}
	for k, v := range map[string]string{
		schemas.HeaderJob: "j1", schemas.HeaderTenant: "acme", schemas.HeaderFlow: "vj.v1.jobs.acme.batch.llama3.1:8b",
		schemas.HeaderAttempt: "2", schemas.HeaderBackend: "b", schemas.HeaderModel: "llama3.1:8b",
		schemas.HeaderKind: "chat", schemas.HeaderWaited: "1500",
	} {
		h.Set(k, v)
	}
	return h
}

// newTestAttempt is an attempt at a job of an inbox, whose events are returned.
func newTestAttempt(t *testing.T, lasts time.Duration) (*attempt, *nats.Subscription) {
	t.Helper()
	nc := brokertest.Connect(t, brokertest.Start(t))
	h := offerHeader()
	h.Set(schemas.HeaderReply, nc.NewInbox())
	events, err := nc.SubscribeSync(h.Get(schemas.HeaderReply))
	if err != nil {
		t.Fatal(err)
	}
	o, err := readOffer(h, []byte(`{"stream":true}`), "")
	if err != nil {
		t.Fatal(err)
	}
	l := newLease("nobody", time.Now(), lasts)
	return &attempt{w: &Worker{metrics: newMetrics("n1"), nc: nc}, offer: o, lease: l, out: newOutlet(nc, "n1", l, o)}, events
}

func TestNothingIsSaidWithoutALease(t *testing.T) {
	a, events := newTestAttempt(t, 0)
	if err := a.emit([]byte(`{}`)); !errors.Is(err, errLost) {
		t.Errorf("a chunk: %v", err)
	}
	a.offer.Job.Stream = false
	if err := a.emit([]byte(`{}`)); !errors.Is(err, errLost) {
		t.Errorf("a chunk that nobody wants: %v", err)
	}
	for name, s := range map[string]settlement{
		"ok":    settle(outcome{attempt: 1, attempts: 4}),
		"retry": settle(outcome{err: errDraining, attempt: 1, attempts: 4, began: true}),
		"dead":  settle(outcome{err: errDraining, attempt: 1, attempts: 1}),
	} {
		if err := a.tell(t.Context(), s, []byte(`{}`)); !errors.Is(err, errLost) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := a.w.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := events.Pending(); n != 0 {
		t.Errorf("%d events", n)
	}
}

func TestAnswersTheServerCannotCarry(t *testing.T) {
	a, _ := newTestAttempt(t, time.Hour)
	huge := []byte(`{"x":"` + strings.Repeat("y", int(a.w.nc.MaxPayload())) + `"}`)
	_, err := a.answerBody(providers.Answer{Body: huge}, nil)
	if e := schemas.AsError(err); e.Code != schemas.Refused {
		t.Errorf("an answer: %v", err)
	}
	if e := schemas.AsError(a.emit(huge)); e.Code != schemas.Refused {
		t.Errorf("a chunk: %v", e)
	}
	if _, err := a.answerBody(providers.Answer{Body: []byte("[]")}, nil); schemas.AsError(err).Code != schemas.UpstreamError {
		t.Errorf("an answer that is no object: %v", err)
	}
}

func TestTwoProbesInARow(t *testing.T) {
	for _, tt := range []struct {
		probes []int
		gone   bool
	}{
		{[]int{1}, false},
		{[]int{1, 3, 5}, false}, // it heard those between
		{[]int{2, 2}, false},    // the same one
		{[]int{1, 3, 4}, true},
	} {
		work, stop := context.WithCancelCause(t.Context())
		n := &node{numbers: map[uint64]*task{7: {stop: stop, probe: -1}}}
		for _, p := range tt.probes {
			unheard{7, p}.apply(t.Context(), n)
		}
		if gone := errors.Is(context.Cause(work), errGone); gone != tt.gone {
			t.Errorf("%v: gone %t", tt.probes, gone)
		}
		stop(nil)
	}
}

func TestDevicesOfABackend(t *testing.T) {
	n := &node{devices: ownReadings([]schemas.Device{{ID: "GPU-a"}, {ID: "GPU-b"}, {ID: "GPU-c"}})}
	own := ownReadings([]schemas.Device{{ID: "sim-0"}})
	for _, tt := range []struct {
		names []string
		own   []ledger.Reading
		want  []string
	}{
		{nil, nil, []string{"GPU-a", "GPU-b", "GPU-c"}},
		{[]string{}, nil, nil},
		{[]string{"GPU-c", "0"}, nil, []string{"GPU-a", "GPU-c"}},
		{[]string{"0"}, own, []string{"sim-0"}},
	} {
		var got []string
		for _, d := range n.devicesOf(&backend{Backend: Backend{Devices: tt.names}, own: tt.own}) {
			got = append(got, d.ID)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%v: %v, want %v", tt.names, got, tt.want)
		}
	}
}

func TestStateTellsThePrice(t *testing.T) {
	want := schemas.Price{Input: 0.15, Output: 0.6}
	if got := (&node{}).backendState(newBackend(Backend{Price: want})); got.Price != want {
		t.Errorf("%+v", got)
	}
}

func TestDescribesModels(t *testing.T) {
	for _, tt := range []struct {
		cfg   Backend
		model providers.Model
		slots int
	}{
		{Backend{}, providers.Model{}, 1},
		{Backend{}, providers.Model{Slots: 4}, 4},
		{Backend{Slots: 3}, providers.Model{Slots: 4}, 3},
		{Backend{}, providers.Model{State: schemas.Remote}, 8},
		{Backend{Slots: 2}, providers.Model{State: schemas.Remote}, 2},
		{Backend{Kind: providers.KindVLLM}, providers.Model{State: schemas.Resident}, 16},
	} {
		tt.cfg.Prefix, tt.model.Name = "far/", "m"
		b := newBackend(tt.cfg)
		if m := b.describe(tt.model); m.Slots != tt.slots || m.Name != "far/m" || b.serverName(m.Name) != "m" {
			t.Errorf("%+v: %+v", tt, m)
		}
	}
	b := newBackend(Backend{Models: []string{"llama3.2", "qwen3:*"}})
	for name, want := range map[string]bool{"llama3.2": true, "qwen3:8b": true, "llama3": false, "": false} {
		if b.Serves(name) != want {
			t.Errorf("serves %q: %t", name, !want)
		}
	}
}

func TestAnOlderLookIsNotBelieved(t *testing.T) {
	a, _ := newTestAttempt(t, time.Hour)
	n := newNode(&Worker{metrics: newMetrics("n1"), nc: a.w.nc, cfg: Config{Logger: brokertest.Log(t)}}, nil)
	b := newBackend(Backend{Name: "b"})
	n.backends = []*backend{b}
	now := time.Now()
	seen := func(began time.Time, state schemas.ModelState) {
		look{backend: "b", began: began, models: []providers.Model{{Name: "m", State: state}}}.apply(t.Context(), n)
	}
	seen(now, schemas.Resident)
	seen(now.Add(-time.Second), schemas.Installed)
	if m, _ := b.model("m"); m.State != schemas.Resident {
		t.Errorf("model %+v", m)
	}
}

func TestAnOlderReadingIsNotBelieved(t *testing.T) {
	n := newNode(&Worker{metrics: newMetrics("n1")}, nil)
	now := time.Now()
	of := func(at time.Time, id string) reading {
		return reading{source: machine, at: at, readings: ownReadings([]schemas.Device{{ID: id}})}
	}
	n.observe(of(now, "new"))
	n.observe(of(now.Add(-time.Millisecond), "old"))
	if len(n.devices) != 1 || n.devices[0].ID != "new" {
		t.Errorf("%+v", n.devices)
	}
}

// Loads that have not begun are planned anew where a server laid the last one on other
// devices than was planned.
func TestPlansAnew(t *testing.T) {
	n := newNode(&Worker{metrics: newMetrics("n1"), cfg: Config{Logger: brokertest.Log(t)}}, nil)
	b := newBackend(Backend{Name: "b", Split: schemas.Spread})
	n.backends = []*backend{b}
	at := time.Now()
	devices := func(used schemas.Bytes) reading {
		var all []schemas.Device
		for id, u := range map[string]schemas.Bytes{"x": used, "y": 0} {
			all = append(all, schemas.Device{ID: id, Total: schemas.Known(20 * gib), Used: schemas.Known(u), Free: schemas.Known(20*gib - u), Ours: schemas.Known(u)})
		}
		at = at.Add(time.Second)
		return reading{source: "b", at: at, readings: ownReadings(all)}
	}
	empty := devices(0)
	n.observe(empty)
	first := n.promise(b, "first", nil, ledger.Plan{"y": 15 * gib})
	first.active, first.stop = true, func(error) {}
	begun{load: first, reading: empty}.apply(t.Context(), n)
	l := n.promise(b, "m", nil, ledger.Plan{"x": 10 * gib})
	laid := devices(15 * gib) // the first one went to x
	seen := look{backend: "b", began: at, models: []providers.Model{{Name: "first", State: schemas.Resident, VRAM: schemas.Known(15 * gib)}}}
	loaded{load: first, looks: []look{seen}, reading: &laid}.apply(t.Context(), n)
	if held := n.books.Held(first.Victim); held["x"] != 15*gib {
		t.Errorf("the first one is on %v", held)
	}
	if l.plan["y"] != 10*gib || l.plan["x"] != 0 {
		t.Errorf("planned on %v", l.plan)
	}
	if got := n.books.Reservations(); len(got) != 1 || got[0].Plan["y"] != 10*gib {
		t.Errorf("kept %v", got)
	}
}

func TestNewRefuses(t *testing.T) {
	a, _ := newTestAttempt(t, time.Hour)
	p := instant{}
	for name, cfg := range map[string]Config{
		"no node":       {},
		"a bad node":    {Node: "gpu.1"},
		"no provider":   {Node: "n", Backends: []Backend{{Name: "b"}}},
		"no name":       {Node: "n", Backends: []Backend{{Provider: p}}},
		"a bad pattern": {Node: "n", Backends: []Backend{{Name: "b", Provider: p, Models: []string{"[x"}}}},
		"two of a name": {Node: "n", Backends: []Backend{{Name: "b", Provider: p}, {Name: "b", Provider: p}}},
	} {
		if _, err := New(a.w.nc, cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// asked is a provider that notes what it is asked.
type asked struct {
	providers.Provider
	got providers.Request
}

func (p *asked) Generate(_ context.Context, req providers.Request, _ func([]byte) error) (providers.Answer, error) {
	p.got = req
	return providers.Answer{}, nil
}

func TestTheServerIsToldTheClass(t *testing.T) {
	a, _ := newTestAttempt(t, time.Hour)
	p := &asked{}
	a.backend.Provider = p
	if _, err := a.call(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p.got.Class != schemas.Batch || p.got.Kind != schemas.Chat {
		t.Errorf("the provider was asked %+v", p.got)
	}
}
