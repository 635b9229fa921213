package integration

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/client/batch"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

var authorization = regexp.MustCompile("(?s)\n(authorization \\{\n.*?\n\\})\n```")

// documentedUsers starts a NATS server with the users of docs/operations.md, who all
// have the same password here. It returns how a user connects.
func documentedUsers(t *testing.T) (as func(user string) string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := authorization.FindSubmatch(page)
	if block == nil {
		t.Fatal("docs/operations.md has no authorization block")
	}
	dir, port := t.TempDir(), freePort(t)
	config := fmt.Sprintf("port: %d\nhost: 127.0.0.1\njetstream {store_dir: %q}\n%s\n", port, dir, block[1])
	config = regexp.MustCompile(`\$[A-Z]+_PASSWORD`).ReplaceAllString(config, "secret")
	file := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "nats-server", "nats-server", "-c", file).says("Server is ready")
	return func(user string) string { return fmt.Sprintf("nats://%s:secret@127.0.0.1:%d", user, port) }
}

// TestDocumentedPermissions: with the users of the documentation, a job runs, its model
// is loaded, pinned and learned of, and nobody is refused anything.
func TestDocumentedPermissions(t *testing.T) {
	t.Parallel()
	server := sim.New(sim.Config{
		Devices: []sim.Device{{ID: "gpu", Memory: 24 * schemas.GiB}}, NoAutoload: true,
		Models: []sim.Model{{Name: "permitted", VRAM: 6 * schemas.GiB, LoadTime: 20 * time.Millisecond}},
	})
	backend := httptest.NewServer(server)
	t.Cleanup(backend.Close)
	as := documentedUsers(t)
	d := start(t, "dispatcher", "vramjet", "dispatcher", "--server", as("dispatcher"), "--http", "off")
	d.says("leading")
	config := filepath.Join(t.TempDir(), "vramjet.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "backends:\n  - {name: sim, kind: sim, url: %q}\n", backend.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	w := start(t, "worker", "vramjet", "worker", "--server", as("gpu-1"), "--node", "gpu-1", "--config", config, "--http", "off")
	u := connect(t, as("dispatcher")) // who sees nodes and controls them
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
	again := start(t, "worker again", "vramjet", "worker", "--server", as("gpu-1"), "--node", "gpu-1", "--config", config, "--http", "off")
	within(t, patience, "that is remembered", func() bool {
		nodes, err := u.Nodes(t.Context(), 0)
		return err == nil && len(nodes) == 1 && len(nodes[0].Backends) == 1 && nodes[0].Backends[0].Models[0].Pinned && nodes[0].Backends[0].Models[0].Learned.Known
	})
	for _, job := range []client.Job{client.Chat("permitted", "hi"), pictured("permitted", 2<<20)} {
		if r := u.tenantRuns(as("acme"), job); r.Text() == "" {
			t.Error("the tenant's job has no answer")
		}
	}
	u.tenantBatch(as("acme"))
	u.tenantOperates(as("acme"))
	within(t, patience, "no body is left", func() bool { _, left := u.bodies(); return left == 0 })
	for _, p := range []*process{d, w, again} {
		if strings.Contains(p.output(), "not permitted") || strings.Contains(strings.ToLower(p.output()), "permissions violation") {
			t.Errorf("%s is not permitted something", p.name)
		}
	}
}

// tenantRuns runs a job as the documented tenant, after a moment, and sees its events.
func (u *user) tenantRuns(url string, job client.Job) *client.Result {
	u.Helper()
	c, closeClient := u.tenant(url)
	defer closeClient()
	ctx, cancel := context.WithTimeout(u.Context(), patience)
	defer cancel()
	events := c.Events(ctx)
	job.At = time.Now().Add(100 * time.Millisecond)
	stream, err := c.Run(u.Context(), job)
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

// tenantBatch runs a batch as the documented tenant, and then does the rest that one can
// do with a batch.
func (u *user) tenantBatch(url string) {
	u.Helper()
	nc, err := nats.Connect(url, nats.CustomInboxPrefix("_INBOX_acme"))
	if err != nil {
		u.Fatal(err)
	}
	defer nc.Close()
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

// tenantOperates does what the documented tenant may beside that, after two jobs and a
// batch of two.
func (u *user) tenantOperates(url string) {
	u.Helper()
	c, closeClient := u.tenant(url)
	defer closeClient()
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

// tenant connects as the documented tenant.
func (u *user) tenant(url string) (*client.Client, func()) {
	u.Helper()
	nc, err := nats.Connect(url, nats.CustomInboxPrefix("_INBOX_acme"))
	if err != nil {
		u.Fatal(err)
	}
	c, err := client.New(nc, client.Options{Tenant: "acme"})
	if err != nil {
		u.Fatal(err)
	}
	return c, nc.Close
}
