package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
	"github.com/vramjet/vramjet/worker"
)

const gib1 = schemas.GiB

// zoo is a fleet with one of each: amounts that are known and not, several devices,
// slices, a sick device, a load with a reservation, a pin, a hosted API.
func zoo(now time.Time) []schemas.NodeState {
	known := schemas.Known
	const a, b = "GPU-8a6f2c1e", "GPU-17b0d9aa"
	return []schemas.NodeState{
		{
			Node: "cloud", Boot: "c1", At: now, Version: "0.2.0", DeviceSource: "none: no driver",
			Backends: []schemas.Backend{{Name: "openai", Kind: "openai", Healthy: true, Split: schemas.Spread, Models: []schemas.Model{
				{Name: "gpt-5-mini", State: schemas.Remote, Slots: 8, Busy: 2, Context: 400000},
			}}},
		},
		{
			Node: "gpu-1", Boot: "g1", At: now.Add(-800 * time.Millisecond), Version: "0.2.0", DeviceSource: "nvml 580.159.04",
			Devices: []schemas.Device{
				{
					ID: a, Name: "NVIDIA H100 80GB HBM3", Kind: "cuda", Total: known(80 * gib1), Used: known(48 * gib1), Free: known(31 * gib1), Reserved: known(gib1),
					Ours: known(46 * gib1), Others: known(2 * gib1), Promised: 8 * gib1, Available: known(19 * gib1), Utilization: new(97), Temperature: new(61), Power: new(412),
				},
				{
					ID: b, Name: "NVIDIA H100 80GB HBM3", Kind: "cuda", Total: known(80 * gib1), Used: known(0), Free: known(79 * gib1), Reserved: known(gib1),
					Ours: known(0), Others: known(300 * schemas.MiB), Promised: 2 * gib1, Available: known(72 * gib1), Utilization: new(0), Temperature: new(33),
				},
			},
			Backends: []schemas.Backend{
				{Name: "ollama", Kind: "ollama", Healthy: true, Devices: []string{a, b}, Split: schemas.Proportional, Loads: true, Models: []schemas.Model{
					{
						Name: "llama3.3:70b", State: schemas.Resident, VRAM: known(44 * gib1), Need: known(44 * gib1), Slots: 4, Busy: 1, Context: 8192, LoadMS: 38_200,
						NeedFrom: schemas.NeedConfigured, Estimate: known(42 * gib1), Learned: known(44 * gib1), Pinned: true, Devices: map[string]schemas.Bytes{a: 40 * gib1, b: 4 * gib1},
					},
					{
						Name: "qwen3:14b", State: schemas.Loading, Need: known(10 * gib1), Slots: 4, Busy: 1, Context: 16384,
						NeedFrom: schemas.NeedEstimated, Estimate: known(10 * gib1),
					},
					{Name: "llama3.1:8b", State: schemas.Installed, Need: known(6*gib1 + gib1/2), Slots: 4, NeedFrom: schemas.NeedLearned, Estimate: known(7 * gib1), Learned: known(6*gib1 + gib1/2), LoadMS: 95_400},
				}},
				{Name: "vllm", Kind: "vllm", Error: "unreachable: connect:\nconnection refused", Devices: []string{a}, Split: schemas.Equal, Models: []schemas.Model{
					{Name: "qwen2.5:72b", State: schemas.Resident, Slots: 16},
				}},
			},
			Running: []schemas.RunningJob{{Job: "j1", Model: "llama3.3:70b", Backend: "ollama"}, {Job: "j2", Model: "qwen3:14b", Backend: "ollama"}},
			Reservations: []schemas.Reservation{
				{Model: "qwen3:14b", Backend: "ollama", Devices: map[string]schemas.Bytes{b: 2 * gib1, a: 8 * gib1}, Arrived: known(3 * gib1), Expires: now.Add(9*time.Minute + 12*time.Second)},
			},
		},
		{
			Node: "gpu-2", Boot: "g2", At: now.Add(-2 * time.Second), Version: "0.1.0", Draining: true, DeviceSource: "nvidia-smi 580.159.04: nvml was not built in",
			Devices: []schemas.Device{
				{
					ID: "MIG-11aa", Name: "NVIDIA A100-SXM4-40GB", Kind: "cuda", MIG: true, Total: known(20 * gib1), Used: known(7 * gib1), Free: known(12 * gib1),
					Ours: known(6 * gib1), Others: known(gib1), Available: known(11 * gib1),
				},
				{ID: "GPU-dead", Name: "NVIDIA GB10", Kind: "cuda", Error: "XID 79: the GPU has fallen off the bus"},
			},
			Backends: []schemas.Backend{{Name: "ollama", Kind: "ollama", Healthy: true, Devices: []string{"MIG-11aa"}, Split: schemas.Spread, Loads: true, Models: []schemas.Model{
				{
					Name: "llama3.1:8b", State: schemas.Resident, VRAM: known(6 * gib1), Need: known(6 * gib1), Slots: 4, Context: 8192, LoadMS: 2100,
					NeedFrom: schemas.NeedTold, Devices: map[string]schemas.Bytes{"MIG-11aa": 6 * gib1},
				},
				{Name: "nomic-embed-text", State: schemas.Installed, Slots: 4},
			}}},
		},
		{Node: "new", Boot: "n1", At: now},
	}
}

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func TestNodesShowTable(t *testing.T) {
	var all, list, models bytes.Buffer
	nodes := zoo(noon)
	for i := range nodes {
		if err := printNode(&all, &nodes[i], noon); err != nil {
			t.Fatal(err)
		}
		all.WriteString("\n")
	}
	golden(t, "nodes-show.out", all.String())
	if err := printNodes(&list, nodes, noon); err != nil {
		t.Fatal(err)
	}
	golden(t, "nodes-ls.out", list.String())
	if err := printModelTable(&models, placesOf(nodes)); err != nil {
		t.Fatal(err)
	}
	golden(t, "models.out", models.String())
}

// A hosted API has more models than anybody reads: those in memory come first.
func TestNodesShowIsShort(t *testing.T) {
	b := schemas.Backend{Name: "b", Healthy: true}
	for range shownModels + 2 {
		b.Models = append(b.Models, schemas.Model{Name: "m", State: schemas.Remote})
	}
	b.Models = append(b.Models, schemas.Model{Name: "here", State: schemas.Resident})
	var out bytes.Buffer
	if err := printNode(&out, &schemas.NodeState{Node: "n", Backends: []schemas.Backend{b}}, noon); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "here") || !strings.Contains(got, "and 3 more: --json lists all") {
		t.Errorf("it prints %s", got)
	}
}

func TestWhere(t *testing.T) {
	n, b := schemas.NodeState{Node: "n"}, schemas.Backend{Name: "b"}
	at := slices.Repeat([]modelAt{{node: &n, backend: &b}}, 6)
	if got := where(at); got != "n/b, n/b, n/b, n/b and 2 more" {
		t.Errorf("got %q", got)
	}
}

// report publishes states when nodes are asked for theirs.
func (s *site) report(t *testing.T, states func() []schemas.NodeState) {
	t.Helper()
	_, err := s.nc.Subscribe(schemas.NodesPing, func(*nats.Msg) {
		for _, n := range states() {
			data, err := json.Marshal(n)
			if err != nil {
				t.Error(err)
			}
			_ = s.nc.Publish(schemas.NodeSubject(n.Node, "state"), data)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A nodePark are fake nodes that do what they are told.
type nodePark struct {
	mu    sync.Mutex
	nodes []schemas.NodeState
	asked []string // but for states
}

// park runs the zoo's nodes. answer, where it is not nil, is asked first, and
// reports whether the node is to say nothing more.
func (s *site) park(t *testing.T, answer func(m *nats.Msg, req schemas.ControlRequest) (done bool)) *nodePark {
	t.Helper()
	p := &nodePark{nodes: zoo(time.Now())}
	s.report(t, func() []schemas.NodeState { p.mu.Lock(); defer p.mu.Unlock(); return slices.Clone(p.nodes) })
	_, err := s.nc.Subscribe(schemas.NodeSubject("*", "control"), func(m *nats.Msg) {
		var req schemas.ControlRequest
		if err := json.Unmarshal(m.Data, &req); err != nil {
			t.Error(err)
		}
		if answer != nil && answer(m, req) {
			return
		}
		state, err := json.Marshal(p.do(strings.Split(m.Subject, ".")[3], req))
		if err != nil {
			t.Error(err)
		}
		_ = m.Respond(state)
	})
	if err == nil {
		err = s.nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// do changes a node and returns its state.
func (p *nodePark) do(name string, req schemas.ControlRequest) schemas.NodeState {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.nodes, func(n schemas.NodeState) bool { return n.Node == name })
	n := &p.nodes[i]
	if req.Do != "state" {
		p.asked = append(p.asked, strings.TrimSpace(strings.Join([]string{name, req.Do, req.Backend, req.Model}, " ")))
	}
	if m := modelIn(n, req.Backend, req.Model); m != nil {
		switch req.Do {
		case "load":
			m.State, m.VRAM, m.LoadMS = schemas.Resident, m.Need, 1500
		case "unload":
			m.State = schemas.Installed
		case "pin", "unpin":
			m.Pinned = req.Do == "pin"
		}
	}
	if req.Do == "drain" || req.Do == "undrain" {
		n.Draining = req.Do == "drain"
	}
	n.Seq++
	return *n
}

// TestModelsControl: what is asked of which node, what is printed, and the exit
// code.
func TestModelsControl(t *testing.T) {
	for _, c := range []struct {
		args, out, err string
		code           int
		asked          []string
	}{
		{args: "models pin llama3.1:8b", out: "gpu-1/ollama  llama3.1:8b  pinned\ngpu-2/ollama  llama3.1:8b  pinned\n", asked: []string{"gpu-1 pin ollama llama3.1:8b", "gpu-2 pin ollama llama3.1:8b"}},
		{args: "models pin llama3.1:8b --node gpu-2", out: "gpu-2/ollama  llama3.1:8b  pinned\n", asked: []string{"gpu-2 pin ollama llama3.1:8b"}},
		{args: "models pin llama3.3:70b", out: "gpu-1/ollama  llama3.3:70b  is pinned already\n"},
		{args: "models pin gpt-5-mini", code: exitFailed, err: "cannot pin gpt-5-mini:\n  cloud/openai: a hosted API has it"},
		{args: "models unpin llama3.3:70b", out: "gpu-1/ollama  llama3.3:70b  no longer pinned\n", asked: []string{"gpu-1 unpin ollama llama3.3:70b"}},
		{args: "models unpin llama3.1:8b", out: "gpu-1/ollama  llama3.1:8b  is not pinned\ngpu-2/ollama  llama3.1:8b  is not pinned\n"},
		{args: "models unload llama3.1:8b", out: "gpu-1/ollama  llama3.1:8b  is not in memory\ngpu-2/ollama  llama3.1:8b  unloaded\n", asked: []string{"gpu-2 unload ollama llama3.1:8b"}},
		{args: "models unload qwen2.5:72b", code: exitFailed, err: "gpu-1/vllm: the server (vllm) cannot be told what to load"},
		{args: "models load llama3.1:8b", out: "gpu-1/ollama  llama3.1:8b  loaded, 6.5 GiB, took 1.5s\n", asked: []string{"gpu-1 load ollama llama3.1:8b"}}, // the other one drains
		{args: "models load llama3.1:8b --node gpu-2", code: exitFailed, err: "gpu-2/ollama: the node takes no more jobs (vramjet nodes undrain gpu-2)"},
		{args: "models load qwen2.5:72b", code: exitFailed, err: "gpu-1/vllm: the backend is down: unreachable: connect: connection refused"},
		{args: "models load llama3.3:70b", out: "gpu-1/ollama  llama3.3:70b  is in memory already\n"},
		{args: "models load lama3.3:70b", code: exitNotFound, err: `no node has the model lama3.3:70b: did you mean "llama3.3:70b"?`},
		{args: "models load llama3.1:8b --backend vllm", code: exitNotFound, err: "llama3.1:8b is not there: it is at gpu-1/ollama, gpu-2/ollama"},
		{args: "models load llama3.1:8b --node gpu-3", code: exitNotFound, err: `no node by the name gpu-3 answers: did you mean "gpu-1"?`},
		{args: "models load", code: exitUsage, err: "<model>"},
		{args: "models ls [", code: exitUsage, err: "is no pattern"},
		{args: "models ls nothing-like-it", code: exitNotFound, err: "no node has the model nothing-like-it: there are gpt-5-mini, llama3.1:8b"},
		{args: "nodes drain gpu-1", out: "gpu-1  draining  jobs 2\n", asked: []string{"gpu-1 drain"}},
		{args: "nodes undrain gpu-2", out: "gpu-2  degraded  jobs 0\n", asked: []string{"gpu-2 undrain"}},
		{args: "nodes drain gpu-9", code: exitNotFound, err: "no node by the name gpu-9 answers"},
		{args: "nodes show gpu-9", code: exitNotFound, err: "no node by the name gpu-9 answers"},
	} {
		t.Run(c.args, func(t *testing.T) {
			s := newSite(t)
			p := s.park(t, nil)
			stdout, stderr := s.want(t, c.code, strings.Fields(c.args)...)
			if stdout != c.out || !strings.Contains(stderr, c.err) {
				t.Errorf("stdout is %q, want %q\nstderr is %q, want %q in it", stdout, c.out, stderr, c.err)
			}
			if !slices.Equal(p.asked, c.asked) {
				t.Errorf("the nodes were asked %q, want %q", p.asked, c.asked)
			}
		})
	}
}

// Where several backends could load a model, the user is told how to say which.
func TestModelsLoadChoice(t *testing.T) {
	s := newSite(t)
	p := s.park(t, nil)
	p.do("gpu-2", schemas.ControlRequest{Do: "undrain"})
	_, stderr := s.want(t, exitUsage, "models", "load", "llama3.1:8b")
	t.Chdir(packageDir)
	golden(t, "models-choice.err", stderr)
}

func TestModelsJSON(t *testing.T) {
	s := newSite(t)
	s.park(t, nil)
	stdout, _ := s.want(t, exitOK, "models", "llama3.1:8b", "--json")
	var list []listedModel
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || len(list) != 1 || len(list[0].Places) != 2 || list[0].Places[1].Model.Need != schemas.Known(6*gib1) {
		t.Errorf("models --json prints %s: %v", stdout, err)
	}
	stdout, _ = s.want(t, exitOK, "models", "pin", "llama3.1:8b", "--json")
	var done []deedDone
	if err := json.Unmarshal([]byte(stdout), &done); err != nil || len(done) != 2 || done[1].Node != "gpu-2" || !done[1].Model.Pinned || done[1].Error != nil {
		t.Errorf("models pin --json prints %s: %v", stdout, err)
	}
	stdout, _ = s.want(t, exitOK, "nodes", "show", "gpu-1", "--json")
	var state schemas.NodeState
	if err := json.Unmarshal([]byte(stdout), &state); err != nil || len(state.Devices) != 2 || len(state.Reservations) != 1 {
		t.Errorf("nodes show --json prints %s: %v", stdout, err)
	}
	var states []schemas.NodeState
	stdout, _ = s.want(t, exitOK, "nodes", "show", "--json")
	if err := json.Unmarshal([]byte(stdout), &states); err != nil || len(states) != 4 {
		t.Errorf("nodes show --json prints %s: %v", stdout, err)
	}
	s.want(t, exitOK, "nodes", "show")
	stdout, _ = s.want(t, exitOK, "nodes", "drain", "gpu-1", "--json")
	if err := json.Unmarshal([]byte(stdout), &state); err != nil || !state.Draining {
		t.Errorf("nodes drain --json prints %s: %v", stdout, err)
	}
}

// One place that fails keeps no other from being asked.
func TestModelsRefused(t *testing.T) {
	s := newSite(t)
	p := s.park(t, func(m *nats.Msg, req schemas.ControlRequest) bool {
		if req.Do != "pin" || !strings.Contains(m.Subject, "gpu-1") {
			return false
		}
		_ = m.Respond([]byte(`{"error":{"message":"not now","type":"overloaded_error","code":"overloaded"}}`))
		return true
	})
	stdout, stderr := s.want(t, exitFailed, "models", "pin", "llama3.1:8b")
	if stdout != "gpu-2/ollama  llama3.1:8b  pinned\n" || stderr != "vramjet: gpu-1/ollama: pin: overloaded: not now\n" || len(p.asked) != 1 {
		t.Errorf("stdout is %q, stderr is %q", stdout, stderr)
	}
	stdout, _ = s.want(t, exitFailed, "models", "pin", "llama3.1:8b", "--node", "gpu-1", "--json")
	var done []deedDone
	if err := json.Unmarshal([]byte(stdout), &done); err != nil || len(done) != 1 || done[0].Error == nil || done[0].Error.Code != schemas.Overloaded {
		t.Errorf("--json prints %s: %v", stdout, err)
	}
}

// A load takes its time: who waits is told how far it is, and may stop to wait.
func TestModelsLoadTakesLong(t *testing.T) {
	s := newSite(t)
	looked := make(chan struct{}, 10)
	var p *nodePark
	p = s.park(t, func(m *nats.Msg, req schemas.ControlRequest) bool {
		if req.Do == "load" {
			go func() {
				<-looked
				state, _ := json.Marshal(p.do("gpu-1", req))
				_ = m.Respond(state)
			}()
			return true
		}
		state, _ := json.Marshal(p.do("gpu-1", req))
		_ = m.Respond(state)
		looked <- struct{}{}
		return true
	})
	stdout, stderr := s.want(t, exitOK, "models", "load", "qwen3:14b")
	if !strings.HasPrefix(stdout, "gpu-1/ollama  qwen3:14b  loaded, 10.0 GiB") || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "it is loading") {
		t.Errorf("stdout is %q, stderr is %q", stdout, stderr)
	}
}

func TestModelsLoadGivenUp(t *testing.T) {
	s := newSite(t)
	asked := make(chan struct{}, 1)
	s.park(t, func(_ *nats.Msg, req schemas.ControlRequest) bool {
		if req.Do == "load" {
			asked <- struct{}{}
		}
		return req.Do == "load"
	})
	_, stderr := s.want(t, exitTimeout, "models", "load", "llama3.1:8b", "--timeout", "50ms")
	if !strings.Contains(stderr, "gpu-1/ollama: no answer to load within 50ms; gpu-1/ollama goes on: see vramjet models ls llama3.1:8b") {
		t.Errorf("stderr is %q", stderr)
	}
	<-asked
	ctx, cancel := context.WithCancel(s.ctx)
	go func() { <-asked; cancel() }()
	s.ctx = ctx
	if _, stderr := s.want(t, exitInterrupted, "models", "load", "llama3.1:8b"); !strings.Contains(stderr, "goes on") {
		t.Errorf("interrupted: stderr is %q", stderr)
	}
}

// A node that starts anew knows nothing of what it was asked for.
func TestModelsLoadRestarted(t *testing.T) {
	s := newSite(t)
	var p *nodePark
	p = s.park(t, func(_ *nats.Msg, req schemas.ControlRequest) bool {
		if req.Do == "load" {
			p.mu.Lock()
			p.nodes[1].Boot = "another"
			p.mu.Unlock()
		}
		return req.Do == "load"
	})
	if _, stderr := s.want(t, exitFailed, "models", "load", "llama3.1:8b"); !strings.Contains(stderr, errRestarted.Error()) {
		t.Errorf("stderr is %q", stderr)
	}
}

func TestControlNobody(t *testing.T) {
	s := newSite(t)
	for _, args := range []string{"models", "models load m", "models pin m", "nodes show", "nodes drain n"} {
		if _, stderr := s.want(t, exitNoDispatcher, append(strings.Fields(args), "--wait", "20ms")...); !strings.Contains(stderr, "is a worker running?") {
			t.Errorf("%s: stderr is %q", args, stderr)
		}
	}
}

// TestModelsLoadForReal: a real node loads and unloads what the command line says.
func TestModelsLoadForReal(t *testing.T) {
	s := newSite(t)
	server := httptest.NewServer(sim.New(sim.Config{
		Devices: []sim.Device{{ID: "sim-0", Memory: 24 * gib1}},
		Models:  []sim.Model{{Name: "big", VRAM: 20 * gib1, LoadTime: 1200 * time.Millisecond}, {Name: "huge", VRAM: 30 * gib1}},
	}))
	t.Cleanup(server.Close)
	provider, err := providers.New(providers.Config{Name: "sim", Kind: providers.KindSim, URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	w, err := worker.New(brokertest.Connect(t, s.srv), worker.Config{
		Node: "gpu-1", Logger: brokertest.Log(t),
		Backends: []worker.Backend{{Name: "sim", Kind: providers.KindSim, Provider: provider}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	for { // until the node has looked at its backend
		if code, _, _ := s.run("models", "ls", "big"); code == exitOK {
			break
		}
		if s.ctx.Err() != nil {
			t.Fatal("the node shows no model")
		}
	}
	stdout, stderr := s.want(t, exitOK, "models", "load", "big")
	if !strings.HasPrefix(stdout, "gpu-1/sim  big  loaded, 20.0 GiB, took ") || !strings.Contains(stderr, "waiting for the load") {
		t.Errorf("load: stdout is %q, stderr is %q", stdout, stderr)
	}
	if stdout, _ := s.want(t, exitOK, "models"); !strings.Contains(stdout, "big    resident   gpu-1/sim  20.0 GiB") {
		t.Errorf("models prints\n%s", stdout)
	}
	if _, stderr := s.want(t, exitFailed, "models", "load", "huge"); !strings.Contains(stderr, "gpu-1/sim: load: ") {
		t.Errorf("what never fits: stderr is %q", stderr)
	}
	if stdout, _ := s.want(t, exitOK, "models", "unload", "big"); stdout != "gpu-1/sim  big  unloaded\n" {
		t.Errorf("unload: stdout is %q", stdout)
	}
	if stdout, _ := s.want(t, exitOK, "models"); !strings.Contains(stdout, "big    installed  gpu-1/sim") {
		t.Errorf("models prints\n%s", stdout)
	}
}
