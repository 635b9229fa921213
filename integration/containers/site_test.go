package containers

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/mount"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/network"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/client"
)

// patience is how long a test waits for what should take seconds at most.
const patience = time.Minute

// workers is how many workers a site has, each with a model server of its own.
const workers = 3

// A site is a whole vramjet in containers: three NATS servers, two dispatchers, three
// workers, their model servers, and a client that is to be started.
type site struct {
	testing.TB
	nats, dispatchers, workers, backends []*box
	client                               *box

	url string // of the NATS servers, from this machine
	nc  *nats.Conn
	js  jetstream.JetStream
	api *client.Client
}

// newSite starts one whose client submits rate jobs in a second. It stands when all
// nodes serve the model.
func newSite(t *testing.T, rate int) *site {
	t.Helper()
	return newSiteOn(t, docker(t), rate, mount.Mount{Type: mount.TypeVolume, Target: "/data"})
}

// newSiteOn is newSite with a disk of its own for the first NATS server.
func newSiteOn(t *testing.T, d *testcontainers.DockerProvider, rate int, first mount.Mount) *site {
	t.Helper()
	images(t)
	net, err := network.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { net.Remove(context.Background()) })
	s := &site{TB: t}
	var outside, inside []string
	conf, err := filepath.Abs(root + "/docker/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		name, port := fmt.Sprint("nats-", i+1), freePort(t)
		data := first
		if i > 0 {
			data = mount.Mount{Type: mount.TypeVolume, Target: "/data"}
		}
		s.nats = append(s.nats, recipe{
			image: imageTools, args: []string{"-c", "/nats.conf", "--profile", "8223"}, env: map[string]string{"NATS_NAME": name}, publish: map[int]int{4222: port},
			mounts: []mount.Mount{{Type: mount.TypeBind, Source: conf, Target: "/nats.conf", ReadOnly: true}, data},
		}.start(t, d, net, name))
		outside = append(outside, fmt.Sprintf("nats://127.0.0.1:%d", port))
		inside = append(inside, "nats://"+name+":4222")
	}
	s.url = strings.Join(outside, ",")
	env := map[string]string{"VRAMJET_SERVER": strings.Join(inside, ","), "VRAMJET_HTTP": ":7433"}
	for i := range 2 {
		s.dispatchers = append(s.dispatchers, recipe{image: imageVramjet, args: []string{"dispatcher", "--replicas", "3"}, env: env}.start(t, d, net, fmt.Sprint("dispatcher-", i+1)))
	}
	for i := range workers {
		backend := fmt.Sprint("backend-", i+1)
		s.backends = append(s.backends, recipe{image: imageTools, entrypoint: []string{"/actor"}, args: []string{"backend", "--slots", fmt.Sprint(max(32, rate*2))}}.start(t, d, net, backend))
		s.workers = append(s.workers, recipe{image: imageVramjet, args: []string{"worker"}, env: map[string]string{
			"VRAMJET_SERVER": env["VRAMJET_SERVER"], "VRAMJET_HTTP": env["VRAMJET_HTTP"], "VRAMJET_NODE": fmt.Sprint("worker-", i+1),
			"VRAMJET_BACKENDS": fmt.Sprintf("[{name: sim, kind: sim, url: 'http://%s:8000', devices: none}]", backend),
		}}.start(t, d, net, fmt.Sprint("worker-", i+1)))
	}
	s.connect()
	s.serves(workers)
	s.client = recipe{image: imageTools, entrypoint: []string{"/actor"}, args: []string{"load", "--server", env["VRAMJET_SERVER"], "--rate", fmt.Sprint(rate)}}.start(t, d, net, "client")
	return s
}

// boxes lists all containers.
func (s *site) boxes() []*box {
	all := append(append([]*box{}, s.nats...), s.dispatchers...)
	return append(append(append(all, s.workers...), s.backends...), s.client)
}

func (s *site) connect() {
	s.Helper()
	within(s, patience, "a connection to NATS", func() (ok bool) {
		var err error
		s.nc, err = broker.Connect(s.Context(), broker.ConnectConfig{URL: s.url, Name: "observer"}, slog.New(slog.DiscardHandler))
		return err == nil
	})
	s.Cleanup(s.nc.Close)
	var err error
	if s.js, err = jetstream.New(s.nc, jetstream.WithDefaultTimeout(2*time.Second)); err != nil {
		s.Fatal(err)
	}
	if s.api, err = client.New(s.nc, client.Options{}); err != nil {
		s.Fatal(err)
	}
}

// serves waits until n nodes serve the model.
func (s *site) serves(n int) {
	s.Helper()
	within(s, patience, fmt.Sprintf("%d nodes serve the model", n), func() bool {
		nodes, err := s.api.Nodes(s.Context(), 200*time.Millisecond)
		found := 0
		for _, node := range nodes {
			for _, b := range node.Backends {
				if b.Healthy && len(b.Models) > 0 {
					found++
				}
			}
		}
		return err == nil && found >= n
	})
}

// stream returns what is known of a stream, and asks until somebody answers.
func (s *site) stream(name string) *jetstream.StreamInfo {
	s.Helper()
	var info *jetstream.StreamInfo
	within(s, patience, "the stream "+name, func() bool {
		st, err := s.js.Stream(s.Context(), name)
		if err == nil {
			info = st.CachedInfo()
		}
		return err == nil
	})
	return info
}

// leader returns the dispatcher that leads, and the one that stands by.
func (s *site) leader() (leads, standby *box) {
	s.Helper()
	within(s, patience, "a dispatcher leads", func() bool {
		kv, err := s.js.KeyValue(s.Context(), broker.BucketState)
		if err != nil {
			return false
		}
		e, err := kv.Get(s.Context(), "leader")
		var lease struct{ Holder string }
		if err != nil || json.Unmarshal(e.Value(), &lease) != nil {
			return false
		}
		for i, d := range s.dispatchers {
			if _, said := d.logs(time.Unix(0, 0)); strings.Contains(said, "msg=leading dispatcher="+lease.Holder) {
				leads, standby = d, s.dispatchers[1-i]
			}
		}
		return leads != nil
	})
	return leads, standby
}

// jobsLeader returns the server that leads the stream of jobs, and one that follows.
func (s *site) jobsLeader() (leads, follows *box) {
	s.Helper()
	within(s, patience, "a server leads VJ_JOBS", func() bool {
		c := s.stream(broker.StreamJobs).Cluster
		for i, n := range s.nats {
			if c != nil && n.name == c.Leader {
				leads, follows = n, s.nats[(i+1)%3]
			}
		}
		return leads != nil
	})
	return leads, follows
}

// within waits until ok, and fails if that takes too long.
func within(tb testing.TB, limit time.Duration, what string, ok func() bool) {
	tb.Helper()
	for began := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > limit {
			tb.Fatalf("not within %s: %s", limit, what)
		}
	}
}
