package integration

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/client/batch"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// A guarded server is a real NATS server with the users that vramjet auth made.
type guarded struct {
	testing.TB
	dir string
	*process
}

// guard makes users, each "role name", beside those of vramjet auth init, and starts a
// server that knows them. more is what else its configuration says.
func guard(tb testing.TB, more string, users ...string) *guarded {
	tb.Helper()
	return guardCluster(tb, 1, more, users...)
}

// guardCluster is guard with a cluster of servers. signal is for the first.
func guardCluster(tb testing.TB, servers int, more string, users ...string) *guarded {
	tb.Helper()
	g := &guarded{TB: tb, dir: tb.TempDir()}
	var ports []int
	var urls, routes []string
	for range servers {
		port, route := freePort(tb), freePort(tb)
		ports = append(ports, port)
		urls, routes = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", port)), append(routes, fmt.Sprintf("nats://127.0.0.1:%d", route))
	}
	g.auth("init", "--server", strings.Join(urls, ","))
	for _, u := range users {
		role, name, _ := strings.Cut(u, " ")
		g.auth("add", role, name)
	}
	for i := range servers {
		config := fmt.Sprintf("port: %d\nhost: 127.0.0.1\nserver_name: n%d\nmax_payload: 8MB\njetstream {store_dir: %q}\ninclude auth.conf\n%s\n", ports[i], i, tb.TempDir(), more)
		if servers > 1 {
			config += fmt.Sprintf("cluster {name: c, listen: %q, routes: [%s]}\n", strings.TrimPrefix(routes[i], "nats://"), strings.Join(routes, ", "))
		}
		file := filepath.Join(g.dir, fmt.Sprintf("nats-%d.conf", i))
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			tb.Fatal(err)
		}
		p := start(tb, fmt.Sprint("nats-server-", i), "nats-server", "-c", file)
		p.says("Server is ready")
		if i == 0 {
			g.process = p
		}
	}
	return g
}

// auth runs vramjet auth.
func (g *guarded) auth(args ...string) {
	g.Helper()
	dir, err := binaries()
	if err != nil {
		g.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(dir, "vramjet"), append([]string{"auth", args[0], "--dir", g.dir}, args[1:]...)...).CombinedOutput()
	if err != nil {
		g.Fatalf("vramjet auth %q: %v\n%s", args, err, out)
	}
}

// as returns the context of a user, "role name".
func (g *guarded) as(user string) string {
	return filepath.Join(g.dir, strings.ReplaceAll(user, " ", "-")+".json")
}

// connect connects as a user, whose jobs are a tenant's.
func (g *guarded) connect(who, tenant string) *user {
	g.Helper()
	nc, err := broker.Connect(context.Background(), broker.ConnectConfig{Context: g.as(who)}, slog.New(slog.DiscardHandler))
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(nc.Close)
	c, err := client.New(nc, client.Options{Tenant: tenant})
	if err != nil {
		g.Fatal(err)
	}
	return &user{g.TB, c, nc}
}

// TestRolesWork: with the users of vramjet auth, a job runs, its model
// is loaded, pinned and learned of, and nobody is refused anything: on one server, and on
// a cluster.
func TestRolesWork(t *testing.T) {
	t.Parallel()
	for _, servers := range []int{1, 3} {
		t.Run(fmt.Sprint(servers), func(t *testing.T) {
			t.Parallel()
			rolesWork(t, servers)
		})
	}
}

func rolesWork(t *testing.T, servers int) {
	t.Helper()
	server := sim.New(sim.Config{
		Devices: []sim.Device{{ID: "gpu", Memory: 24 * schemas.GiB}}, NoAutoload: true,
		Models: []sim.Model{{Name: "permitted", VRAM: 6 * schemas.GiB, LoadTime: 20 * time.Millisecond}},
	})
	backend := httptest.NewServer(server)
	t.Cleanup(backend.Close)
	g := guardCluster(t, servers, "", "node gpu-1", "tenant acme", "tenant beta", "viewer wall")
	d := start(t, "dispatcher", "vramjet", "dispatcher", "--context", g.as("dispatcher main"), "--http", "off", "--replicas", fmt.Sprint(servers))
	d.says("leading")
	config := filepath.Join(t.TempDir(), "vramjet.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "backends:\n  - {name: sim, kind: sim, url: %q}\n", backend.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	w := start(t, "worker", "vramjet", "worker", "--context", g.as("node gpu-1"), "--node", "gpu-1", "--config", config, "--http", "off")
	u := g.connect("operator admin", "acme")
	u.serves("permitted", 1)
	pin := schemas.ControlRequest{Do: "pin", Backend: "sim", Model: "permitted"}
	if code := u.control("gpu-1", pin)(); code != "" {
		t.Errorf("to pin is refused: %s", code)
	}
	if code := u.control("gpu-1", schemas.ControlRequest{Do: "load", Backend: "sim", Model: "permitted"})(); code != "" {
		t.Errorf("to load is refused: %s", code)
	}
	within(t, patience, "it is pinned and learned of", func() bool {
		nodes, err := u.Nodes(t.Context(), 0)
		if err != nil || len(nodes) != 1 {
			return false
		}
		m := nodes[0].Backends[0].Models[0]
		return m.Pinned && m.State == schemas.Resident && m.Learned == schemas.Known(6*schemas.GiB)
	})
	w.signal(syscall.SIGTERM)
	<-w.done
	again := start(t, "worker again", "vramjet", "worker", "--context", g.as("node gpu-1"), "--node", "gpu-1", "--config", config, "--http", "off")
	within(t, patience, "that is remembered", func() bool {
		nodes, err := u.Nodes(t.Context(), 0)
		return err == nil && len(nodes) == 1 && len(nodes[0].Backends) == 1 && nodes[0].Backends[0].Models[0].Pinned && nodes[0].Backends[0].Models[0].Learned.Known
	})
	acme := g.connect("tenant acme", "acme")
	for _, job := range []client.Job{client.Chat("permitted", "hi"), pictured("permitted", 2<<20)} {
		if r := acme.tenantRuns(job); r.Text() == "" {
			t.Error("the tenant's job has no answer")
		}
	}
	acme.tenantBatch()
	acme.tenantOperates()
	g.connect("viewer wall", "acme").viewerLooks()
	root := g.connect("dispatcher main", "acme")
	within(t, patience, "no body is left", func() bool { _, left := root.bodies(); return left == 0 })
	permittedAll(t, d, w, again)
}

// permittedAll checks that processes were refused nothing.
func permittedAll(t *testing.T, all ...*process) {
	t.Helper()
	for _, p := range all {
		if strings.Contains(p.output(), "not permitted") || strings.Contains(strings.ToLower(p.output()), "permissions violation") {
			t.Errorf("%s is not permitted something", p.name)
		}
	}
}

// tenantRuns runs a job, after a moment, and sees its events.
func (u *user) tenantRuns(job client.Job) *client.Result {
	u.Helper()
	ctx, cancel := context.WithTimeout(u.Context(), patience)
	defer cancel()
	events := u.Events(ctx)
	job.At = time.Now().Add(100 * time.Millisecond)
	stream, err := u.Run(u.Context(), job)
	if err != nil {
		u.Fatal(err)
	}
	defer stream.Close()
	for e, err := range events {
		if err != nil {
			u.Fatal(err)
		}
		if e.Event == schemas.JobEventStarted {
			break
		}
	}
	r, err := stream.Result(u.Context())
	if err != nil {
		u.Fatal(err)
	}
	return r
}

// tenantBatch runs a batch as a tenant, and then does the rest that one can do with a
// batch.
func (u *user) tenantBatch() {
	u.Helper()
	nc := u.nc
	ctx, cancel := context.WithTimeout(u.Context(), patience)
	defer cancel()
	dir := u.TempDir()
	in := filepath.Join(dir, "in.jsonl")
	line := `{"custom_id":"%d","method":"POST","url":"/v1/completions","body":{"model":"permitted","prompt":"hi"}}` + "\n"
	if err := os.WriteFile(in, fmt.Appendf(nil, line+line, 1, 2), 0o600); err != nil {
		u.Fatal(err)
	}
	cfg := batch.Config{Tenant: "acme"}
	p, err := batch.Run(ctx, nc, in, filepath.Join(dir, "out.jsonl"), cfg)
	if err != nil || p.OK != 2 {
		u.Fatalf("the tenant's batch: %+v, %v", p, err)
	}
	if p, err = batch.RetryErrors(ctx, nc, filepath.Join(dir, "out.jsonl"), nil, cfg); err != nil || p.OK != 2 {
		u.Errorf("there is nothing to retry: %+v, %v", p, err)
	}
	if p, err = batch.Fetch(ctx, nc, "acme", p.Batch, filepath.Join(dir, "fetched.jsonl")); err != nil || p.OK != 2 {
		u.Errorf("fetched %+v, %v", p, err)
	}
	if all, err := batch.List(ctx, nc, "acme"); err != nil || len(all) != 1 {
		u.Errorf("listed %+v, %v", all, err)
	}
	if rec, err := batch.Status(ctx, nc, "acme", p.Batch); err != nil || rec.State != schemas.BatchCompleted {
		u.Errorf("status %+v, %v", rec, err)
	}
}

// tenantOperates does what a tenant may beside that, after two jobs and a batch of two.
func (u *user) tenantOperates() {
	u.Helper()
	c := u.Client
	if jobs, err := c.Jobs(u.Context(), client.JobFilter{}); err != nil || len(jobs) != 4 || jobs[0].Model != "permitted" || jobs[0].State != schemas.JobState(schemas.StatusOK) {
		u.Errorf("the tenant's jobs are %+v, %v", jobs, err)
	}
	for _, err := range c.Letters(u.Context(), client.LetterFilter{}) {
		u.Errorf("a dead letter, or no right to look for one: %v", err)
	}
	if paused, err := c.PauseFlows(u.Context(), schemas.Filter{Class: schemas.Batch}, "acme"); err != nil || len(paused) != 1 {
		u.Errorf("the tenant pauses: %+v, %v", paused, err)
	}
	if purged, err := c.Purge(u.Context(), schemas.PurgeRequest{}, nil); err != nil || purged.Waiting != 0 {
		u.Errorf("the tenant purges: %+v, %v", purged, err)
	}
}

// viewerLooks sees what a viewer may, and finds that it may not do the rest.
func (u *user) viewerLooks() {
	u.Helper()
	if nodes, err := u.Nodes(u.Context(), 0); err != nil || len(nodes) != 1 {
		u.Errorf("the viewer sees the nodes %+v, %v", nodes, err)
	}
	if list, err := u.Queue(u.Context()); err != nil || len(list.Pauses) != 1 {
		u.Errorf("the viewer sees the queue %+v, %v", list, err)
	}
	live := client.JobFilter{States: []schemas.JobState{schemas.JobQueued, schemas.JobRunning}}
	if jobs, err := u.Jobs(u.Context(), live); err != nil {
		u.Errorf("the viewer sees the jobs %+v, %v", jobs, err)
	}
	ctx, cancel := context.WithTimeout(u.Context(), 500*time.Millisecond)
	defer cancel()
	if paused, err := u.PauseFlows(ctx, schemas.Filter{Class: schemas.Normal}, "wall"); err == nil {
		u.Errorf("the viewer pauses %+v", paused)
	}
}
