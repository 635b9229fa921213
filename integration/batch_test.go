package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

const (
	batchLines = 10_000
	batchKills = 10 // of each process
)

// A plant runs batches: a NATS server, two dispatchers and two workers, each of which
// may be killed and is there again, with model servers in this process.
type plant struct {
	testing.TB
	url     string
	dir     string
	nats    *process
	parts   []*process // dispatchers and workers
	command [][]string // what each of these runs
	sims    []*sim.Server
	models  []string
}

func newPlant(t *testing.T) *plant {
	t.Helper()
	p := &plant{TB: t, dir: t.TempDir(), models: []string{"chat-a", "chat-b", "embed"}}
	p.url, p.nats = natsServer(t, "")
	for i := range 2 {
		p.run(fmt.Sprint("dispatcher ", i), "dispatcher", "--http", "off")
		s := sim.New(sim.Config{Models: []sim.Model{
			{Name: "chat-a", LoadTime: 50 * time.Millisecond, FirstToken: 10 * time.Millisecond, Slots: 8, Tokens: 5},
			{Name: "chat-b", LoadTime: 50 * time.Millisecond, FirstToken: 5 * time.Millisecond, Slots: 8, Tokens: 5},
			{Name: "embed", Kinds: []schemas.Kind{schemas.Embedding}, LoadTime: 50 * time.Millisecond, FirstToken: 2 * time.Millisecond, Slots: 8},
		}})
		srv := httptest.NewServer(s)
		t.Cleanup(srv.Close)
		p.sims = append(p.sims, s)
		config := filepath.Join(p.dir, fmt.Sprintf("n%d.yaml", i))
		yaml := fmt.Sprintf("backends:\n- {name: sim, kind: sim, url: %q, devices: none}\n", srv.URL)
		if err := os.WriteFile(config, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		p.run(fmt.Sprint("worker ", i), "worker", "--http", "off", "--config", config, "--node", fmt.Sprint("n", i))
	}
	u := connect(t, p.url)
	for _, m := range p.models {
		u.serves(m, 2)
	}
	return p
}

func (p *plant) run(name string, args ...string) {
	args = append(args, "--server", p.url)
	p.command = append(p.command, args)
	p.parts = append(p.parts, start(p, name, "vramjet", args...))
}

// write writes a batch of mixed models, in which each hundredth request is one that
// the model server refuses.
func (p *plant) write(lines int) string {
	p.Helper()
	var b bytes.Buffer
	for i := range lines {
		url, body := "/v1/chat/completions", map[string]any{"model": p.models[i%2], "messages": []map[string]string{{"role": "user", "content": fmt.Sprint("tell me of ", i)}}}
		switch {
		case i%100 == 50:
			body["messages"] = []map[string]string{{"role": "user", "content": strings.Repeat("too long ", 5000)}}
		case i%3 == 2:
			url, body = "/v1/embeddings", map[string]any{"model": "embed", "input": fmt.Sprint("text ", i)}
		}
		line, err := json.Marshal(map[string]any{"custom_id": fmt.Sprint("request ", i), "method": "POST", "url": url, "body": body})
		if err != nil {
			p.Fatal(err)
		}
		fmt.Fprintln(&b, string(line))
	}
	in := filepath.Join(p.dir, "in.jsonl")
	if err := os.WriteFile(in, b.Bytes(), 0o600); err != nil {
		p.Fatal(err)
	}
	return in
}

// generations is how many requests the model servers began with, and how many of
// these run now.
func (p *plant) generations() (began, running int) {
	for _, s := range p.sims {
		for _, m := range p.models {
			c := s.Counts(m)
			began += c.Started
			running += c.Started - c.Finished - c.Cancelled
		}
	}
	return began, running
}

// A line of answers.
type answerLine struct {
	ID       string `json:"id"`
	CustomID string `json:"custom_id"`
	Response *struct {
		StatusCode int             `json:"status_code"`
		Body       json.RawMessage `json:"body"`
	} `json:"response"`
}

// answers reads both files of a batch, by custom_id, and checks that each is there once.
func (p *plant) answers(out string, lines int) map[string]answerLine {
	p.Helper()
	all := map[string]answerLine{}
	for _, name := range []string{out, out + ".errors"} {
		file, err := os.Open(name)
		if err != nil {
			p.Fatal(err)
		}
		defer file.Close()
		s := bufio.NewScanner(file)
		s.Buffer(nil, 16<<20)
		for s.Scan() {
			var a answerLine
			if err := json.Unmarshal(s.Bytes(), &a); err != nil {
				p.Fatalf("%s: %v in %.200s", name, err, s.Bytes())
			}
			if _, twice := all[a.CustomID]; twice {
				p.Errorf("%s is there twice", a.CustomID)
			}
			all[a.CustomID] = a
		}
	}
	for i := range lines {
		a, ok := all[fmt.Sprint("request ", i)]
		want := 200
		if i%100 == 50 {
			want = 400
		}
		if !ok || a.Response == nil || a.Response.StatusCode != want {
			p.Fatalf("request %d: %+v, want the status %d", i, a, want)
		}
	}
	if len(all) != lines {
		p.Errorf("%d results of %d lines", len(all), lines)
	}
	return all
}

// TestBatchSurvivesKills: whatever is killed, each line of a batch has its result once,
// and no more is generated anew than ran when something was killed.
func TestBatchSurvivesKills(t *testing.T) {
	p := newPlant(t)
	in, out := p.write(batchLines), filepath.Join(p.dir, "out.jsonl")
	args := []string{"batch", "run", in, "-o", out, "--in-flight", "300", "--server", p.url}
	batch := start(t, "client", "vramjet", args...)

	rnd := rand.New(rand.NewPCG(5, 0))
	var points []int
	for range 4 * batchKills {
		points = append(points, 200+rnd.IntN(batchLines-400))
	}
	slices.Sort(points)
	victims := rnd.Perm(4 * batchKills)
	mayRepeat := 0
	slowest := map[string]time.Duration{}
	for i, point := range points {
		within(t, 2*patience, fmt.Sprintf("%d lines are begun", point), func() bool { began, _ := p.generations(); return began >= point+mayRepeat })
		_, running := p.generations()
		mayRepeat += running
		var name string
		switch victim := victims[i] % 4; victim {
		case 0:
			name = "client"
			p.kill(batch)
			batch = start(t, "client", "vramjet", args...)
		case 1:
			name = "nats-server"
			p.kill(p.nats)
			p.nats = launch(t, "nats-server", exec.Command(p.nats.cmd.Path, p.nats.cmd.Args[1:]...))
		default:
			name = map[int]string{2: "dispatcher", 3: "worker"}[victim]
			k := 2*rnd.IntN(2) + victim - 2
			p.kill(p.parts[k])
			p.parts[k] = start(t, p.parts[k].name, "vramjet", p.command[k]...)
		}
		killed := time.Now()
		before, _ := p.generations()
		within(t, 2*patience, "work goes on", func() bool { began, _ := p.generations(); return began > before+2*48 || began >= batchLines })
		slowest[name] = max(slowest[name], time.Since(killed))
		t.Logf("%s killed at %s with %d running: %d begun %s later", name, killed.Format("05.000"), running, point, time.Since(killed).Round(time.Millisecond))
	}
	within(t, 4*patience, "the batch is done", func() bool {
		select {
		case <-batch.done:
			return true
		default:
			return false
		}
	})
	if code := batch.cmd.ProcessState.ExitCode(); code != 4 {
		t.Fatalf("the batch ended with %d, want 4: lines failed", code)
	}
	all := p.answers(out, batchLines)
	began, _ := p.generations()
	t.Logf("%d kills: %d generations of %d lines, at most %d more were to be expected; work went on after %v at most", len(points), began, batchLines-batchLines/100, mayRepeat, slowest)
	if extra := began - (batchLines - batchLines/100); extra > mayRepeat {
		t.Errorf("%d generations too many, want %d at most", extra, mayRepeat)
	}

	// What is stored is the same, byte by byte.
	again := filepath.Join(p.dir, "fetched.jsonl")
	id, _, _ := strings.Cut(all["request 0"].ID, "-")
	fetch := start(t, "fetch", "vramjet", "batch", "fetch", id, "-o", again, "--server", p.url)
	<-fetch.done
	for custom, stored := range p.answers(again, batchLines) {
		if !bytes.Equal(stored.Response.Body, all[custom].Response.Body) || stored.ID != all[custom].ID {
			t.Errorf("%s is stored as\n%s\nand was written as\n%s", custom, stored.Response.Body, all[custom].Response.Body)
		}
	}
}

func (*plant) kill(victim *process) {
	victim.signal(syscall.SIGKILL)
	<-victim.done
}
