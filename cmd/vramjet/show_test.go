package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

func TestJobs(t *testing.T) {
	s := newSite(t)
	t.Chdir(packageDir)
	s.answerAPI(t, map[string]string{
		"status": `{"job":"j1","state":"running","node":"gpu-1","backend":"ollama","model":"llama3.2","attempt":2}`,
		"cancel": `{"job":"j1","state":"cancelled"}`,
		"why":    `{"job":"j1","state":"queued","model":"llama3.2","class":"normal","waited_ms":252000,"before":36,"reason":"all 4 slots of llama3.2 are busy, and jobs go first: 36 of its own","why":["gpu-1/ollama: all 4 slots are busy","gpu-2/ollama: is draining"],"next":"it begins when its turn comes","eta_ms":80000,"fix":["have the node take jobs again: vramjet nodes undrain gpu-2"]}`,
		"list": `{"flows":[{"class":"interactive","model":"llama3.2","waiting":0,"running":2},{"class":"normal","model":"llama3.2","waiting":36,"running":0,"oldest_ms":252000,"reason":"all 4 slots of llama3.2 are busy","eta_ms":80000},{"class":"batch","model":"qwen3:4b","waiting":1200,"running":4,"paused":true,"oldest_ms":7260000,"reason":"class batch is paused by ana@desk since 2026-11-01T12:00:00Z"}],` +
			`"pauses":[{"class":"batch","by":"ana@desk","since":"2026-11-01T12:00:00Z"},{"model":"llama3.3:*","since":"2026-11-01T13:30:00Z"}]}`,
		"pause":  `{"pauses":[{"class":"batch","by":"ana@desk","since":"2026-11-01T12:00:00Z"}]}`,
		"resume": `{"pauses":[]}`,
		"purge":  `{"waiting":1200,"running":4,"through":5000}`,
		"show": `{"job":"j1","state":"running","node":"gpu-1","backend":"ollama","model":"llama3.2","attempt":2,"class":"normal","submitted":"2026-11-01T12:00:00Z",` +
			`"headers":{"Vj-Timeout":"90s","X-Own":"kept"},"body":{"messages":[{"role":"user","content":"hi"}]}}`,
	})
	for _, c := range []struct {
		golden string
		args   []string
	}{
		{"jobs-status.out", []string{"jobs", "status", "j1"}},
		{"jobs-status.json", []string{"jobs", "status", "j1", "--json"}},
		{"jobs-cancel.out", []string{"jobs", "cancel", "j1"}},
		{"jobs-cancel-two.out", []string{"jobs", "cancel", "j1", "j2"}},
		{"jobs-why.out", []string{"jobs", "why", "j1"}},
		{"jobs-why.json", []string{"jobs", "why", "j1", "--output", "json"}},
		{"queue.out", []string{"queue"}},
		{"queue.json", []string{"queue", "--json"}},
		{"queue-pause.out", []string{"queue", "pause", "--class", "batch"}},
		{"queue-resume.out", []string{"queue", "resume", "--all"}},
		{"queue-resume.json", []string{"queue", "resume", "--all", "--json"}},
		{"queue-purge.out", []string{"queue", "purge", "--class", "batch", "--running", "--yes"}},
		{"queue-purge-dry.out", []string{"queue", "purge", "--class", "batch", "--dry-run"}},
		{"queue-purge.json", []string{"queue", "purge", "--class", "batch", "-y", "--json"}},
		{"jobs-show.out", []string{"jobs", "show", "j1", "--body"}},
		{"jobs-show.json", []string{"jobs", "show", "j1", "--body", "--json"}},
	} {
		stdout, stderr := s.want(t, exitOK, c.args...)
		golden(t, c.golden, stdout)
		if stderr != "" {
			t.Errorf("%v: stderr is %q", c.args, stderr)
		}
	}
}

func TestJobsErrors(t *testing.T) {
	s := newSite(t)
	for _, verb := range []string{"status", "cancel", "why", "show", "watch", "retry"} {
		s.want(t, exitNoDispatcher, "jobs", verb, "j1")
	}
	s.want(t, exitNoDispatcher, "jobs", "ls")
	s.want(t, exitOK, "jobs", "ls", "--state", "ok")
	s.want(t, exitNotFound, "jobs", "result", "j1") // nobody can say that it ever was
	s.want(t, exitNoDispatcher, "queue")
	gone := `{"error":{"message":"no job j1","type":"not_found_error","code":"job_not_found"}}`
	s.answerAPI(t, map[string]string{"status": gone, "cancel": gone, "why": gone, "show": gone, "list": `{"flows":null}`})
	for _, verb := range []string{"status", "cancel", "why", "show", "watch", "result", "retry"} {
		s.want(t, exitNotFound, "jobs", verb, "j1")
	}
	if _, stderr := s.want(t, exitNotFound, "jobs", "cancel", "j1", "j2"); strings.Count(stderr, "no job j1") != 2 {
		t.Errorf("two that there are not: %q", stderr)
	}
	if stdout, _ := s.want(t, exitOK, "queue", "--json"); stdout != "[]\n" {
		t.Errorf("an empty queue is %q", stdout)
	}
}

func fleet(now time.Time) []schemas.NodeState {
	gpu := func(name string, used, total float64) schemas.Device {
		return schemas.Device{
			Name: name, Kind: "cuda", Used: schemas.Known(schemas.Bytes(used * float64(schemas.GiB))),
			Total: schemas.Known(schemas.Bytes(total * float64(schemas.GiB))),
		}
	}
	return []schemas.NodeState{
		{
			Node: "gpu-1", At: now.Add(-800 * time.Millisecond), Devices: []schemas.Device{gpu("NVIDIA GeForce RTX 4090", 4.1, 24)},
			Backends: []schemas.Backend{{Name: "ollama", Healthy: true, Models: []schemas.Model{
				{Name: "qwen3:4b", State: schemas.Resident, Slots: 8, Busy: 3},
				{Name: "llama3.1:8b", State: schemas.Installed, Slots: 8},
			}}},
		},
		{
			Node: "gpu-2", At: now.Add(time.Second), Draining: true,
			Devices: []schemas.Device{gpu("NVIDIA H100", 40, 80), gpu("NVIDIA H100", 17.9, 80)},
			Backends: []schemas.Backend{{Name: "vllm", Healthy: true, Models: []schemas.Model{
				{Name: "qwen2.5:72b", State: schemas.Resident, Slots: 6, Busy: 6}, {Name: "b", State: schemas.Loading, Slots: 1, Busy: 1},
			}}},
		},
		{
			Node: "gpu-3", At: now.Add(-2500 * time.Millisecond), Devices: []schemas.Device{{Name: "Radeon", Total: schemas.Known(16 * schemas.GiB)}},
			Backends: []schemas.Backend{{Name: "a", Healthy: true}, {Name: "b"}},
		},
		{Node: "cloud", At: now, Backends: []schemas.Backend{{Name: "openai"}}},
		{Node: "new", At: now},
	}
}

func TestNodesTable(t *testing.T) {
	var out bytes.Buffer
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	if err := printNodes(&out, fleet(now), now); err != nil {
		t.Fatal(err)
	}
	golden(t, "nodes.out", out.String())
}

func TestNodes(t *testing.T) {
	s := newSite(t)
	if stdout, _ := s.want(t, exitNoDispatcher, "nodes", "--wait", "20ms", "--json"); stdout != "[]\n" {
		t.Errorf("no nodes are %q", stdout)
	}
	_, err := s.nc.Subscribe(schemas.NodesPing, func(*nats.Msg) {
		for _, n := range fleet(time.Now()) {
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
	if err := s.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	stdout, _ := s.want(t, exitOK, "nodes", "ls", "--json")
	var got []schemas.NodeState
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || len(got) != 5 || got[0].Node != "cloud" {
		t.Errorf("got %d nodes, %v", len(got), err)
	}
	s.want(t, exitOK, "nodes")
}
