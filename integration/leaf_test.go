package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// TestFarSite: a site with GPUs has a leaf node of NATS, without JetStream, and its
// worker knows no other server. The network between is slow, and is cut for a while in
// the middle of a job. Jobs run there, also while another worker is lost, and every one
// ends once.
func TestFarSite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	leafPort := freePort(t)
	conf := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	hubPort, sitePort := freePort(t), freePort(t)
	hub := start(t, "hub", "nats-server", "-c", conf("hub.conf", fmt.Sprintf(
		"listen: 127.0.0.1:%d\nmax_payload: 8MB\njetstream {store_dir: %q}\nleafnodes {listen: 127.0.0.1:%d}\n", hubPort, dir, leafPort)))
	hub.says("Server is ready")
	wire := brokertest.StartProxy(t, fmt.Sprint("nats://127.0.0.1:", leafPort))
	wire.Delay(40 * time.Millisecond)
	site := start(t, "site", "nats-server", "-c", conf("site.conf", fmt.Sprintf(
		"listen: 127.0.0.1:%d\nmax_payload: 8MB\nleafnodes {reconnect: 1, remotes: [{url: %q}]}\n", sitePort, wire.URL())))
	site.says("Server is ready")

	url := fmt.Sprint("nats://127.0.0.1:", hubPort)
	start(t, "dispatcher", "vramjet", "dispatcher", "--server", url, "--http", "off").says("leading")
	start(t, "far worker", "vramjet", "worker", "--server", fmt.Sprint("nats://127.0.0.1:", sitePort), "--sim", "--node", "far", "--http", "off")
	u := connect(t, url)
	u.serves("sim-slow", 1)

	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	began := time.Now()
	u.wantOK(ctx, slow(5))
	t.Logf("a job of five tokens took %s, 40 ms away", time.Since(began).Round(time.Millisecond))

	counted := u.countEnds()
	s := u.run(slow(40))
	u.next(s, schemas.EventChunk)
	wire.Freeze()
	time.Sleep(2 * time.Second)
	wire.Cut() // what was on its way is lost
	wire.Thaw()
	r, err := s.Result(ctx)
	if err != nil || r.Status != schemas.StatusOK {
		t.Fatalf("ended %+v, %v", r, err)
	}
	t.Logf("after a cut of 2 s the job ended as attempt %d", r.Run.Attempt)
	u.serves("sim-slow", 1)
	u.wantOK(ctx, slow(5))
	within(t, patience, "both ends are heard", func() bool { return counted.jobs() >= 2 })
	counted.mu.Lock()
	defer counted.mu.Unlock()
	for id, n := range counted.of {
		if n != 1 {
			t.Errorf("%s has %d ends", id, n)
		}
	}
}

// wantOK runs a job.
func (u *user) wantOK(ctx context.Context, job client.Job) {
	u.Helper()
	ticket, err := u.Submit(ctx, job)
	if err != nil {
		u.Fatal(err)
	}
	if r, err := u.Result(ctx, ticket.ID); err != nil || r.Status != schemas.StatusOK {
		u.Fatalf("%s ended %+v, %v", ticket.ID, r, err)
	}
}

// TestFarSiteHasUsers: the leaf node of a site connects as the site's node, where the
// servers have users, and the site's processes need no seed. What that user may not, the
// site may not.
func TestFarSiteHasUsers(t *testing.T) {
	t.Parallel()
	leafPort, sitePort := freePort(t), freePort(t)
	g := guard(t, fmt.Sprintf("leafnodes {listen: 127.0.0.1:%d}", leafPort), "node far", "tenant default")
	conf := filepath.Join(t.TempDir(), "site.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "listen: 127.0.0.1:%d\nmax_payload: 8MB\nleafnodes {remotes: [{url: \"nats://127.0.0.1:%d\", nkey: $SITE_SEED}]}\n",
		sitePort, leafPort), 0o600); err != nil {
		t.Fatal(err)
	}
	seed, err := os.ReadFile(filepath.Join(g.dir, "node-far.nk"))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	launch(t, "site", exec.Command("env", "SITE_SEED="+strings.TrimSpace(string(seed)), filepath.Join(dir, "nats-server"), "-c", conf)).says("Server is ready")
	start(t, "dispatcher", "vramjet", "dispatcher", "--context", g.as("dispatcher main"), "--http", "off").says("leading")
	site := fmt.Sprint("nats://127.0.0.1:", sitePort)
	config := filepath.Join(t.TempDir(), "vramjet.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "nats: {url: %q, inbox_prefix: _INBOX.vj.node.far}\n", site), 0o600); err != nil {
		t.Fatal(err)
	}
	far := start(t, "far worker", "vramjet", "worker", "--config", config, "--sim", "--node", "far", "--http", "off")
	operator := g.connect("operator admin", "default")
	operator.serves("sim-slow", 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	g.connect("tenant default", "default").wantOK(ctx, slow(5))
	permittedAll(t, far)

	heard, err := operator.nc.SubscribeSync(schemas.NodeSubject("*", "state"))
	if err != nil {
		t.Fatal(err)
	}
	thief := connect(t, site)
	_ = thief.nc.Publish(schemas.NodeSubject("near", "state"), []byte(`{"node":"near"}`))
	if err := thief.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for range 3 { // it reports at least that often meanwhile
		m, err := heard.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject != schemas.NodeSubject("far", "state") {
			t.Errorf("the site speaks on %s", m.Subject)
		}
	}
}
