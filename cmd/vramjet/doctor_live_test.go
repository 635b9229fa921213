package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/broker/embedded"
	"github.com/vramjet/vramjet/dispatcher"
	"github.com/vramjet/vramjet/schemas"
)

// newClinic returns a site whose server is what a test says, without streams. Its files are
// in a directory of its own, and it listens on any port.
func newClinic(t *testing.T, cfg embedded.Config) *site {
	t.Helper()
	cfg.Dir, cfg.Port = t.TempDir(), -1
	srv, err := embedded.Start(cfg, brokertest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Shutdown)
	s := &site{shell: newShell(t), srv: srv}
	s.nc = brokertest.Connect(t, s.srv)
	s.env["VRAMJET_SERVER"] = s.srv.ClientURL()
	return s
}

// freePort returns a port that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// monitoredServer is a server with monitoring, and where that is.
func monitoredServer(t *testing.T, sync time.Duration) (embedded.Config, string) {
	t.Helper()
	port := freePort(t)
	return embedded.Config{SyncInterval: sync, Base: &server.Options{HTTPHost: "127.0.0.1", HTTPPort: port, ServerName: "n1"}},
		"http://127.0.0.1:" + strconv.Itoa(port)
}

// lead runs a dispatcher until the test ends.
func (s *site) lead(t *testing.T, id string) {
	t.Helper()
	s.leadBy(t, brokertest.Connect(t, s.srv), id)
}

// leadBy runs a dispatcher on a connection until the test ends, and returns when it leads
// or another does.
func (s *site) leadBy(t *testing.T, nc *nats.Conn, id string) {
	t.Helper()
	d, err := dispatcher.New(nc, dispatcher.Config{ID: id, Version: version, Logger: brokertest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(s.ctx)
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for { // until somebody leads
		holder, err := broker.Leader(s.ctx, s.js)
		if err != nil {
			t.Fatal(err)
		}
		if holder != "" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// healthy is a node where all is well.
func healthy(name string) schemas.NodeState {
	return schemas.NodeState{
		Node: name, Boot: "b", At: time.Now(), Version: version, DeviceSource: "nvml 580", Devices: []schemas.Device{{ID: "GPU-1"}},
		Backends: []schemas.Backend{{Name: "ollama", Healthy: true, Models: []schemas.Model{{Name: "m", State: schemas.Resident, Slots: 4}}}},
	}
}

// staff has nodes report.
func (s *site) staff(t *testing.T, nodes func() []schemas.NodeState) {
	t.Helper()
	s.report(t, nodes)
	if err := s.nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

// doctor runs vramjet doctor, checks the exit code and returns what is bad.
func (s *site) doctor(t *testing.T, code int, args ...string) (bad []string) {
	t.Helper()
	got, bad := s.doctorSays(t, args...)
	if got != code {
		t.Errorf("vramjet doctor %q: the exit code is %d, want %d: %q", args, got, code, bad)
	}
	return bad
}

func (s *site) doctorSays(t *testing.T, args ...string) (code int, bad []string) {
	t.Helper()
	code, stdout, stderr := s.run(append([]string{"doctor", "--json", "--wait", "100ms"}, args...)...)
	var remarks []remark
	if err := json.Unmarshal([]byte(stdout), &remarks); err != nil {
		t.Fatalf("%v: %s%s", err, stdout, stderr)
	}
	return code, badLines(remarks)
}

// doctorEnds runs vramjet doctor until what it says is as wanted.
func (s *site) doctorEnds(t *testing.T, what string, as func(bad []string) bool) {
	t.Helper()
	for {
		_, bad := s.doctorSays(t)
		if as(bad) {
			return
		}
		select {
		case <-s.ctx.Done():
			t.Fatalf("%s: %q", what, bad)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// remarked checks that there is a line that begins so.
func remarked(t *testing.T, bad []string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !slices.ContainsFunc(bad, func(line string) bool { return strings.HasPrefix(line, w) }) {
			t.Errorf("%q is not among %q", w, bad)
		}
	}
}

// TestDoctorWell: with a monitored server, two dispatchers and a node all is well; what is
// wrong with any of them is seen.
func TestDoctorWell(t *testing.T) {
	cfg, monitor := monitoredServer(t, 0)
	s := newClinic(t, cfg)
	s.js = brokertest.Setup(t, s.nc)
	s.lead(t, "d1")
	s.lead(t, "d2")
	node := healthy("gpu-1")
	s.staff(t, func() []schemas.NodeState { node.At = time.Now(); return []schemas.NodeState{node} })
	if bad := s.doctor(t, exitOK, "--monitor", monitor); len(bad) > 0 {
		t.Errorf("all is well, and it says %q", bad)
	}
	stdout, _ := s.want(t, exitOK, "doctor", "--wait", "100ms")
	for _, want := range []string{"ok    dispatchers  d1 leads and answers in ", ", 1 on standby\n", "ok    nodes        1 node, version " + version, "warn  sync         not checked: ", "\n        vramjet doctor --monitor"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not in what it prints:\n%s", want, stdout)
		}
	}

	node.Draining, node.Version = true, "0.0.1"
	node.Devices = nil
	node.Backends[0].Healthy, node.Backends[0].Error = false, "connection refused"
	remarked(t, s.doctor(t, exitFailed), "warn nodes gpu-1 is draining", "warn nodes gpu-1 has version 0.0.1", "warn backends gpu-1/ollama: connection refused", "FAIL backends no node", "warn devices gpu-1 has models and found no device: nvml 580")
}

// TestDoctorClock: a node whose clock is wrong is told from one that is silent.
func TestDoctorClock(t *testing.T) {
	s := newSite(t)
	node := healthy("gpu-1")
	s.staff(t, func() []schemas.NodeState {
		node.At = time.Now().Add(42 * time.Second)
		return []schemas.NodeState{node}
	})
	svc, err := micro.AddService(s.nc, micro.Config{Name: "vramjet-worker", Version: "0.1.0", Metadata: map[string]string{"node": "gpu-2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Stop()
	bad := s.doctor(t, exitNoDispatcher)
	remarked(t, bad, "warn clocks the clock of the node gpu-1 is 42s ahead", "FAIL nodes gpu-2 is connected and does not report", "FAIL dispatchers none is running")
}

// TestDoctorEmpty: a server that vramjet was never set up on, and one without JetStream.
func TestDoctorEmpty(t *testing.T) {
	s := newClinic(t, embedded.Config{MaxPayload: 1 << 20})
	remarked(t, s.doctor(t, exitFailed), "FAIL streams not there: VJ_JOBS, VJ_LATER", "warn payload a message may have 1.0 MiB", "FAIL dispatchers none", "FAIL nodes none answers", "warn limits not checked", "warn dead not checked")

	plain, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	go plain.Start()
	defer plain.WaitForShutdown()
	defer plain.Shutdown()
	if !plain.ReadyForConnections(10 * time.Second) {
		t.Fatal("it does not start")
	}
	bad := s.doctor(t, exitFailed, "--server", plain.ClientURL())
	remarked(t, bad, "FAIL jetstream JetStream is off", "warn streams VJ_JOBS: not checked")
	remarked(t, s.doctor(t, exitNoNATS, "--server", "nats://127.0.0.1:1"), "FAIL nats connect to NATS at nats://127.0.0.1:1")
	s.want(t, exitUsage, "doctor", "--monitor", "n1:8222")
}

// TestDoctorQueue: what is wrong in the streams.
func TestDoctorQueue(t *testing.T) {
	cfg, monitor := monitoredServer(t, time.Hour)
	s := newClinic(t, cfg)
	s.js = brokertest.Setup(t, s.nc)
	s.staff(t, func() []schemas.NodeState { return []schemas.NodeState{healthy("gpu-1")} })
	stream, err := s.js.Stream(s.ctx, broker.StreamJobs)
	if err != nil {
		t.Fatal(err)
	}
	jobs := stream.CachedInfo().Config
	jobs.MaxMsgsPerSubject = 2
	if _, err := s.js.UpdateStream(s.ctx, jobs); err != nil {
		t.Fatal(err)
	}
	const subject = "vj.v1.jobs.acme.normal.m"
	for range 2 {
		if _, err := s.js.Publish(s.ctx, subject, []byte("hi")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.js.Publish(s.ctx, "vj.v1.dead.acme.normal.m", nil); err != nil {
		t.Fatal(err)
	}
	flow, err := s.js.CreateConsumer(s.ctx, broker.StreamJobs, broker.ConsumerConfig(subject, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := flow.Next(jetstream.FetchMaxWait(5 * time.Second)); err != nil { // and nobody runs it
		t.Fatal(err)
	}
	_, err = s.js.CreateConsumer(s.ctx, broker.StreamJobs, jetstream.ConsumerConfig{Durable: "mine", FilterSubject: "vj.v1.jobs.beta.>", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	remarked(t, s.doctor(t, exitFailed, "--monitor", monitor),
		"FAIL sync n1 writes to the disk every 1h0m0s", "warn streams VJ_JOBS: max_msgs_per_subject is 2, not 100000", "warn consumers not the dispatcher's, and may take jobs away from it: mine",
		"warn leases acme: 1 job delivered and not settled, and 0 run on nodes", "FAIL limits the queue of m, normal, of acme is full: 2 of 2", "warn dead 1 dead letter, the newest ")
}

// TestDoctorRoles: an operator may ask all of it; of anybody else it says what is missing,
// and who has it.
func TestDoctorRoles(t *testing.T) {
	dir := t.TempDir()
	seeds := map[string]string{}
	var users []broker.User
	for _, who := range []broker.User{{Role: broker.RoleDispatcher, Name: "main"}, {Role: broker.RoleOperator, Name: "ana"}, {Role: broker.RoleViewer, Name: "wall"}, {Role: broker.RoleTenant, Name: "acme"}} {
		u, seed, err := broker.NewUser(who.Role, who.Name)
		if err != nil {
			t.Fatal(err)
		}
		seeds[who.Name] = filepath.Join(dir, who.Name+".nk")
		if err := os.WriteFile(seeds[who.Name], seed, 0o600); err != nil {
			t.Fatal(err)
		}
		users = append(users, u)
	}
	file := filepath.Join(dir, "auth.conf")
	if err := os.WriteFile(file, broker.WriteAuthorization(users), 0o600); err != nil {
		t.Fatal(err)
	}
	base, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{shell: newShell(t), srv: brokertest.StartServer(t, embedded.Config{Base: &server.Options{Accounts: base.Accounts, Nkeys: base.Nkeys}})}
	s.env["VRAMJET_SERVER"] = s.srv.ClientURL()
	be := func(u *broker.User) {
		write(t, "vramjet.yaml", "nats: {nkey: "+seeds[u.Name]+", inbox_prefix: "+u.InboxPrefix()+"}\n")
	}
	root, err := broker.Connect(s.ctx, broker.ConnectConfig{URL: s.srv.ClientURL(), NKey: seeds["main"], InboxPrefix: users[0].InboxPrefix()}, brokertest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(root.Close)
	s.js = brokertest.Setup(t, root)
	s.leadBy(t, root, "d1")

	be(&users[1])
	for _, line := range s.doctor(t, exitNoDispatcher) {
		if strings.Contains(line, "may not") {
			t.Errorf("an operator: %s", line)
		}
	}
	be(&users[2])
	remarked(t, s.doctor(t, exitNoDispatcher), "warn dispatchers standbys: not checked", "warn permissions this user may not publish on $JS.API.CONSUMER.LIST.VJ_JOBS: a user of the role dispatcher or operator may", "warn consumers not checked: this user may not")
	be(&users[3])
	remarked(t, s.doctor(t, exitOK, "--tenant", "acme"), "warn jetstream not checked: this user may not publish on $JS.API.INFO", "warn nodes not checked: this user may not subscribe on vj.v1.node.*.state")
	write(t, "vramjet.yaml", "nats: {nkey: "+seeds["ana"]+"}\n")
	remarked(t, s.doctor(t, exitFailed), "FAIL permissions this user may not subscribe on _INBOX.")
}

// TestDoctorCluster: a cluster is told from a server alone, and its replicas are counted.
func TestDoctorCluster(t *testing.T) {
	servers := brokertest.StartCluster(t, 3)
	s := &site{shell: newShell(t), srv: servers[0]}
	s.nc = brokertest.Connect(t, servers[0])
	s.env["VRAMJET_SERVER"] = servers[0].ClientURL()
	s.js = brokertest.Setup(t, s.nc)
	remarked(t, s.doctor(t, exitNoDispatcher), "warn replicas one of each stream, on a cluster of 3 servers")
	if err := broker.Setup(s.ctx, s.js, broker.StreamsConfig{Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	s.doctorEnds(t, "three replicas that are up to date", func(bad []string) bool {
		return !slices.ContainsFunc(bad, func(line string) bool { return strings.Contains(line, " replicas ") })
	})
	servers[2].Shutdown()
	s.doctorEnds(t, "a server that is gone", func(bad []string) bool {
		return slices.ContainsFunc(bad, func(line string) bool {
			return strings.HasPrefix(line, "warn replicas VJ_JOBS: the replica on n2 is offline")
		})
	})
}
