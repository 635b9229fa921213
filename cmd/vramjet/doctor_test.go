package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/embedded"
	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// wantedStreams returns the configurations that Setup makes.
func wantedStreams(t *testing.T) map[string]jetstream.StreamConfig {
	t.Helper()
	s := newSite(t)
	all := map[string]jetstream.StreamConfig{}
	for _, name := range broker.StreamNames() {
		stream, err := s.js.Stream(s.ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = stream.CachedInfo().Config
	}
	return all
}

// sevenJobs is the subject of seven jobs, of which two run.
const sevenJobs = "vj.v1.jobs.acme.normal.llama3.1:8b"

// wellFacts are those of a cluster of three servers where nothing is wrong.
func wellFacts(configs map[string]jetstream.StreamConfig) *facts {
	asked := between{noon.Add(-3 * time.Millisecond), noon}
	f := &facts{
		now: noon, version: "0.2.0", tenant: "default",
		server: serverFacts{
			name: "n1", id: "N1", version: "2.15.2", cluster: "c", url: "nats://n1:4222", known: 3, maxPayload: 8 << 20,
			rtt: asked1(300 * time.Microsecond),
		},
		account: asked1(&jetstream.AccountInfo{Tier: jetstream.Tier{Streams: 7, Store: 3 << 20}, API: jetstream.APIStats{Level: 5}}),
		dispatchers: asked1([]micro.Info{
			{ServiceIdentity: micro.ServiceIdentity{ID: "a", Version: "0.2.0", Metadata: map[string]string{"dispatcher": "d1", "protocol": "v1"}}},
			{ServiceIdentity: micro.ServiceIdentity{ID: "b", Version: "0.2.0", Metadata: map[string]string{"dispatcher": "d2", "protocol": "v1"}}},
		}),
		leader: asked1("d1"), answer: asked1(3 * time.Millisecond),
		workers: asked1([]micro.Info{{ServiceIdentity: micro.ServiceIdentity{Metadata: map[string]string{"node": "gpu-1"}}}}),
		nodes: asked1(nodeFacts{asked: asked, states: []schemas.NodeState{{
			Node: "gpu-1", Version: "0.2.0", At: noon.Add(-time.Millisecond), DeviceSource: "nvml 580.159.04",
			Devices:  []schemas.Device{{ID: "GPU-8a6f2c1e", Name: "NVIDIA H100"}},
			Backends: []schemas.Backend{{Name: "ollama", Healthy: true, Models: []schemas.Model{{Name: "llama3.1:8b", State: schemas.Resident}}}},
			Running:  []schemas.RunningJob{{Job: "j1", Tenant: "acme"}, {Job: "j2", Tenant: "acme"}},
		}}}),
		consumers: asked1([]*jetstream.ConsumerInfo{{
			Name: broker.ConsumerName(sevenJobs), Config: broker.ConsumerConfig(sevenJobs, 0, 0), NumAckPending: 2, Created: noon.Add(-time.Hour),
		}}),
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		m := monitored{url: "http://" + name + ":8222"}
		m.vars.ID, m.vars.Name, m.vars.WriteDeadline = strings.ToUpper(name), name, 2*time.Second
		m.vars.JetStream.Config.SyncAlways, m.vars.JetStream.Config.MaxStore = true, 100<<30
		f.monitors = append(f.monitors, m)
	}
	for _, name := range broker.StreamNames() {
		cfg := configs[name]
		cfg.Replicas = 3
		info := &jetstream.StreamInfo{Config: cfg, TimeStamp: noon.Add(-time.Millisecond), Cluster: &jetstream.ClusterInfo{
			Leader: "n1", Replicas: []*jetstream.PeerInfo{{Name: "n2", Current: true}, {Name: "n3", Current: true}},
		}}
		if name == broker.StreamJobs {
			info.State.Subjects = map[string]uint64{sevenJobs: 7}
		}
		f.streams = append(f.streams, streamFacts{name: name, info: asked1(info), asked: asked})
	}
	f.leases = []leaseCount{countOf(f)}
	return f
}

func asked1[T any](got T) asked[T] { return asked[T]{got: got} }

func countOf(f *facts) leaseCount {
	return leaseCount{
		unacked: countedBy(f.consumers, unackedJobs), leading: map[string]int{"acme": 2},
		running: countedBy(f.nodes, func(n nodeFacts) map[string]int { return runningJobs(n.states) }),
	}
}

// ills lists what can be wrong, and what is said of it.
var ills = []struct {
	what string
	do   func(*facts)
	want string
}{
	{"an old server", func(f *facts) { f.server.version = "2.12.3" }, "warn nats nats-server 2.12.3"},
	{"a server that is too old", func(f *facts) { f.server.version = "2.10.29" }, "FAIL nats nats-server 2.10.29"},
	{"a version of somebody's", func(f *facts) { f.server.version = "dev" }, "warn nats nats-server dev"},
	{"no pong", func(f *facts) { f.server.rtt.err = errors.New("nats: timeout") }, "FAIL nats nats://n1:4222 does not answer a ping"},
	{"no JetStream", func(f *facts) { f.account.err = jetstream.ErrJetStreamNotEnabled }, "FAIL jetstream JetStream is off on this server"},
	{"none for us", func(f *facts) { f.account.err = jetstream.ErrJetStreamNotEnabledForAccount }, "FAIL jetstream JetStream is off for this account"},
	{"few streams", func(f *facts) { f.account.got.Limits.MaxStreams = 3 }, "FAIL jetstream the account may have 3 streams, and vramjet needs 7"},
	{"limits of bytes", func(f *facts) { f.account.got.Limits.MaxBytesRequired = true }, "FAIL jetstream the account takes only streams"},
	{"few consumers", func(f *facts) { f.account.got.Limits.MaxConsumers = 20 }, "warn jetstream the account may have 20 consumers"},
	{"an account that is nearly full", func(f *facts) { f.account.got.Limits.MaxStore = 3_500_000 }, "warn jetstream the account's store is nearly full"},
	{"a stream that is gone", func(f *facts) { f.streams[2].info.err = jetstream.ErrStreamNotFound }, "FAIL streams not there: VJ_RESULTS"},
	{"a stream that nobody asked about in time", func(f *facts) { f.streams[2].info.err = context.DeadlineExceeded }, "warn streams VJ_RESULTS: not checked"},
	{"a stream that is not ours", func(f *facts) { f.streams[0].info.got.Config.Retention = jetstream.InterestPolicy }, "FAIL streams VJ_JOBS is not ours: its retention"},
	{"a stream that somebody changed", func(f *facts) { f.streams[0].info.got.Config.MaxMsgsPerSubject = 50 }, "warn streams VJ_JOBS: max_msgs_per_subject is 50, not 100000"},
	{"one copy on a cluster", func(f *facts) { f.replicas(1) }, "warn replicas one of each stream, on a cluster of 3 servers"},
	{"copies that differ", func(f *facts) { f.streams[3].info.got.Config.Replicas, f.streams[3].info.got.Cluster.Replicas = 1, nil }, "warn replicas there are 3 of some streams, and 1 of VJ_DEAD"},
	{"a replica that is offline", func(f *facts) {
		*f.streams[0].info.got.Cluster.Replicas[1] = jetstream.PeerInfo{Name: "n3", Offline: true}
	}, "warn replicas VJ_JOBS: the replica on n3 is offline"},
	{"a replica that lags", func(f *facts) {
		*f.streams[0].info.got.Cluster.Replicas[1] = jetstream.PeerInfo{Name: "n3", Lag: 5000}
	}, "warn replicas VJ_JOBS: the replica on n3 is 5000 operations behind"},
	{"a replica that is behind", func(f *facts) {
		*f.streams[0].info.got.Cluster.Replicas[1] = jetstream.PeerInfo{Name: "n3", Active: 9 * time.Second}
	}, "warn replicas VJ_JOBS: the replica on n3 is not up to date; last seen 9s ago"},
	{"a replica too few", func(f *facts) { c := f.streams[0].info.got.Cluster; c.Replicas = c.Replicas[:1] }, "warn replicas VJ_JOBS: there are 2 of 3 replicas"},
	{"no leader", func(f *facts) { f.streams[0].info.got.Cluster.Leader = "" }, "FAIL replicas VJ_JOBS has no leader"},
	{"no monitoring", func(f *facts) { f.monitors = nil }, "warn sync not checked"},
	{"monitoring of one", func(f *facts) { f.monitors = f.monitors[:1] }, "warn sync not checked: 2 servers more"},
	{"monitoring that fails", func(f *facts) { f.monitors[1].err = errors.New("connection refused") }, "warn sync not checked: connection refused"},
	{"a server that syncs now and then", func(f *facts) {
		f.monitors[1].vars.JetStream.Config.SyncAlways, f.monitors[1].vars.JetStream.Config.SyncInterval = false, 2*time.Minute
	}, "warn sync n2 writes to the disk every 2m0s"},
	{"the only server syncs now and then", func(f *facts) {
		f.replicas(1)
		f.server.cluster = ""
		f.monitors = f.monitors[:1]
		f.monitors[0].vars.JetStream.Config.SyncAlways = false
	}, "FAIL sync n1 writes to the disk every 0s"},
	{"a full disk", func(f *facts) {
		f.monitors[0].health = "JetStream stream 'G > VJ_JOBS' write error: no space left on device"
	}, "FAIL sync n1 is not well: JetStream stream"},
	{"a server that stalls senders", func(f *facts) { f.monitors[0].vars.WriteDeadline = 10 * time.Second }, "warn sync n1 lets a reader that takes nothing"},
	{"small messages", func(f *facts) { f.server.maxPayload = 1 << 20 }, "warn payload a message may have 1.0 MiB"},
	{"a node's clock", func(f *facts) { f.nodes.got.states[0].At = noon.Add(42 * time.Second) }, "warn clocks the clock of the node gpu-1 is 42s ahead of this machine's"},
	{"a server's clock", func(f *facts) { f.eachStream(func(i *jetstream.StreamInfo) { i.TimeStamp = noon.Add(-time.Minute) }) }, "warn clocks the clock of the server n1 is 1m0s behind this machine's"},
	{"our clock", func(f *facts) {
		f.eachStream(func(i *jetstream.StreamInfo) { i.TimeStamp = noon.Add(-time.Minute) })
		f.nodes.got.states[0].At = noon.Add(-time.Minute)
	}, "warn clocks all 2 clocks of servers and nodes differ"},
	{"a user who may not", func(f *facts) { f.refused = []*refusedError{{"publish", "$JS.API.CONSUMER.LIST.VJ_JOBS"}} }, "warn permissions this user may not publish on $JS.API.CONSUMER.LIST.VJ_JOBS: a user of the role dispatcher or operator may"},
	{"what nobody may", func(f *facts) { f.refused = []*refusedError{{"publish", "$SYS.REQ.X"}} }, "warn permissions this user may not publish on $SYS.REQ.X: no role may"},
	{"a user who hears nothing", func(f *facts) { f.refused = []*refusedError{{"subscribe", "_INBOX.abc.*"}} }, "FAIL permissions this user may not subscribe on _INBOX.abc.*, and so hears no answer"},
	{"no dispatcher", func(f *facts) { f.answer.err, f.dispatchers.got = client.ErrNoDispatcher, nil }, "FAIL dispatchers none is running"},
	{"no leader among them", func(f *facts) { f.answer.err = client.ErrNoDispatcher }, "FAIL dispatchers 2 dispatchers, and none answers as the leader"},
	{"no standby", func(f *facts) { f.dispatchers.got = f.dispatchers.got[:1] }, "warn dispatchers one leads and answers in 3.0ms; no other stands by"},
	{"another version leads", func(f *facts) { f.dispatchers.got[0].Version = "0.1.0" }, "warn dispatchers dispatcher d1 has version 0.1.0, and this program 0.2.0"},
	{"another protocol", func(f *facts) { f.dispatchers.got[0].Metadata["protocol"] = "v2" }, "FAIL dispatchers dispatcher d1 speaks protocol v2"},
	{"nobody says who stands by", func(f *facts) { f.dispatchers.err = &refusedError{"publish", "$SRV.INFO"} }, "warn dispatchers standbys: not checked"},
	{"no node", func(f *facts) { f.nodes.got.states, f.workers.got = nil, nil }, "FAIL nodes none answers: jobs wait"},
	{"a node that is silent", func(f *facts) { f.nodes.got.states[0].Node = "gpu-2" }, "FAIL nodes gpu-1 is connected and does not report"},
	{"two nodes of one name", func(f *facts) { f.workers.got = append(f.workers.got, f.workers.got[0]) }, "FAIL nodes 2 workers have the name gpu-1"},
	{"a node that drains", func(f *facts) { f.nodes.got.states[0].Draining = true }, "warn nodes gpu-1 is draining: it takes no jobs"},
	{"a node of another version", func(f *facts) { f.nodes.got.states[0].Version = "0.1.0" }, "warn nodes gpu-1 has version 0.1.0"},
	{"a model server that is down", func(f *facts) {
		b := &f.nodes.got.states[0].Backends
		*b = append(*b, schemas.Backend{Name: "vllm", Error: "connection\nrefused"})
	}, "warn backends gpu-1/vllm: connection refused"},
	{"all model servers down", func(f *facts) { f.nodes.got.states[0].Backends[0].Healthy = false }, "FAIL backends no node has a model server that is well"},
	{"no model server", func(f *facts) { f.nodes.got.states[0].Backends = nil }, "warn backends gpu-1 has found no model server"},
	{"no model", func(f *facts) { f.nodes.got.states[0].Backends[0].Models = nil }, "FAIL backends no model server has a model"},
	{"a sick device", func(f *facts) { f.nodes.got.states[0].Devices[0].Error = "XID 79" }, "warn devices gpu-1: GPU-8a6f2c1e (NVIDIA H100): XID 79"},
	{"no device", func(f *facts) {
		f.nodes.got.states[0].Devices, f.nodes.got.states[0].DeviceSource = nil, "none: no driver"
	}, "warn devices gpu-1 has models and found no device: none: no driver"},
	{"a consumer of somebody's", func(f *facts) { f.consumers.got[0].Name = "mine" }, "warn consumers not the dispatcher's, and may take jobs away from it: mine"},
	{"a consumer that nobody needs", func(f *facts) {
		f.streams[0].info.got.State.Subjects = nil
		f.consumers.got[0].NumAckPending = 0
		f.consumers.got[0].Delivered.Last = new(noon.Add(-20 * time.Minute))
	}, "warn consumers 1 consumer without a live flow"},
	{"many consumers", func(f *facts) { f.consumers.got = slices.Repeat(f.consumers.got, 120) }, "warn consumers 120 consumers of VJ_JOBS, and 100 should be enough"},
	{"jobs that nobody runs", func(f *facts) {
		f.nodes.got.states[0].Running = nil
		f.leases = slices.Repeat([]leaseCount{countOf(f)}, 3)
	}, "warn leases acme: 2 jobs delivered and not settled, and 0 run on nodes"},
	{"jobs without a lease", func(f *facts) { f.consumers.got = nil; f.leases = slices.Repeat([]leaseCount{countOf(f)}, 3) }, "warn leases acme: 2 jobs on nodes, and 0 leases"},
	{"a full queue", func(f *facts) { f.streams[0].info.got.State.Subjects = map[string]uint64{sevenJobs: 100_000} }, "FAIL limits the queue of llama3.1:8b, normal, of acme is full: 100000 of 100000"},
	{"a queue that fills", func(f *facts) { f.streams[0].info.got.State.Subjects = map[string]uint64{sevenJobs: 80_000} }, "warn limits the queue of llama3.1:8b, normal, of acme is nearly full"},
	{"many delayed jobs", func(f *facts) { f.streams[1].info.got.State.Msgs = 900_000 }, "warn limits VJ_LATER, in messages, is nearly full: 900000 of 1000000"},
	{"a full store", func(f *facts) { f.monitors[2].vars.JetStream.Stats.Store = 100 << 30 }, "FAIL limits the store of n3, in bytes, is full"},
	{"new dead letters", func(f *facts) {
		f.streams[3].info.got.State = jetstream.StreamState{Msgs: 12, LastTime: noon.Add(-4 * time.Minute), Subjects: map[string]uint64{"vj.v1.dead.acme.normal.m": 12}}
	}, "warn dead 12 dead letters, the newest 4m00s ago; of acme"},
}

// replicas has each stream in n copies.
func (f *facts) replicas(n int) {
	f.eachStream(func(i *jetstream.StreamInfo) { i.Config.Replicas = n })
}

func (f *facts) eachStream(do func(*jetstream.StreamInfo)) {
	for i := range f.streams {
		do(f.streams[i].info.got)
	}
}

// badLines returns remarks that are not ok, each as a line without its fix.
func badLines(remarks []remark) (lines []string) {
	for _, r := range remarks {
		if r.Result != resultOK {
			lines = append(lines, map[result]string{resultWarning: "warn", resultFailed: "FAIL"}[r.Result]+" "+string(r.Check)+" "+r.Text)
		}
	}
	return lines
}

// TestDoctorJudges: where all is well, all checks are made and ok; each thing that is
// wrong is said, first of all that is bad by then.
func TestDoctorJudges(t *testing.T) {
	configs := wantedStreams(t)
	t.Chdir(packageDir)
	well := diagnose(wellFacts(configs))
	if _, types := constants(t, "cmd/vramjet"); len(badLines(well)) > 0 || len(well) != len(types["check"]) {
		t.Errorf("of %d checks %d were made, and are bad: %q", len(types["check"]), len(well), badLines(well))
	}
	for _, ill := range ills {
		f := wellFacts(configs)
		ill.do(f)
		bad := badLines(diagnose(f))
		if len(bad) == 0 || !slices.ContainsFunc(bad, func(line string) bool { return strings.HasPrefix(line, ill.want) }) {
			t.Errorf("%s: %q, want %q", ill.what, bad, ill.want)
		}
	}
}

// TestDoctorOfUp: a server in vramjet up has no monitoring, and no dispatcher beside its own:
// nothing is wrong with that.
func TestDoctorOfUp(t *testing.T) {
	f := wellFacts(wantedStreams(t))
	f.replicas(1)
	f.monitors, f.dispatchers.got = nil, f.dispatchers.got[:1]
	f.server.name, f.server.cluster, f.server.known = embedded.NameSynced, "", 1
	all := diagnose(f)
	if bad := badLines(all); len(bad) > 0 {
		t.Errorf("it says %q", bad)
	}
	var said strings.Builder
	if err := printRemarks(&said, all); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ok    sync         the embedded server of vramjet up: on the disk before", "it ends and starts with the embedded server"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("%q is not in what it prints:\n%s", want, &said)
		}
	}
	f.server.name = embedded.NameUnsynced
	if bad := badLines(diagnose(f)); len(bad) != 1 || !strings.HasPrefix(bad[0], "warn sync the embedded server of vramjet up: what it acknowledged") {
		t.Errorf("with --durability interval it says %q", bad)
	}
}

// TestDoctorNotMade: a check that could not be made does not pass.
func TestDoctorNotMade(t *testing.T) {
	f := &facts{server: serverFacts{version: "2.15.2", maxPayload: 8 << 20}, now: noon}
	no := errors.New("no answer")
	f.account.err, f.dispatchers.err, f.workers.err, f.leader.err, f.answer.err = no, no, no, no, no
	f.nodes.err, f.consumers.err = no, no
	for _, name := range broker.StreamNames() {
		f.streams = append(f.streams, streamFacts{name: name, info: asked[*jetstream.StreamInfo]{err: no}})
	}
	f.leases = []leaseCount{countOf(f)}
	made := map[check]bool{}
	for _, r := range diagnose(f) {
		if r.Result == resultOK {
			made[r.Check] = true
		}
	}
	if len(made) != 3 || !made[checkNATS] || !made[checkPayload] || !made[checkPermissions] {
		t.Errorf("ok without having been asked: %v", made)
	}
}

// TestDoctorPrints: what is printed, with --json, too.
func TestDoctorPrints(t *testing.T) {
	configs := wantedStreams(t)
	t.Chdir(packageDir)
	f := wellFacts(configs)
	var out bytes.Buffer
	if err := printRemarks(&out, diagnose(f)); err != nil {
		t.Fatal(err)
	}
	golden(t, "doctor.out", out.String())
	for _, ill := range ills {
		switch ill.what {
		case "an old server", "a stream that somebody changed", "a replica that is offline", "no monitoring", "no standby", "a node that drains",
			"a model server that is down", "no device", "a consumer that nobody needs", "new dead letters", "a node's clock":
			ill.do(f)
		}
	}
	out.Reset()
	remarks := diagnose(f)
	if err := printRemarks(&out, remarks); err != nil {
		t.Fatal(err)
	}
	golden(t, "doctor-ill.out", out.String())
	text, err := json.MarshalIndent(remarks[:3], "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "doctor.json", string(text)+"\n")
}

// TestDoctorExit: the exit code is that of the first check that fails.
func TestDoctorExit(t *testing.T) {
	for _, c := range []struct {
		want int
		all  []remark
	}{
		{exitOK, []remark{checkNATS.ok(""), checkDead.warn("", "")}},
		{exitFailed, []remark{checkStreams.fail("", ""), checkNodes.fail("", "")}},
		{exitNoNATS, []remark{checkNATS.fail("", "")}},
		{exitNoDispatcher, []remark{checkSync.warn("", ""), checkNodes.fail("", "")}},
	} {
		if got := exitCode(conclude(c.all)); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.all, got, c.want)
		}
	}
}

// TestLasting: only what differs at each look, and in the same way, lasts.
func TestLasting(t *testing.T) {
	look := func(unacked, running int) leaseCount {
		return leaseCount{unacked: asked1(map[string]int{"a": unacked}), running: asked1(map[string]int{"a": running})}
	}
	for _, c := range []struct {
		looks []leaseCount
		want  int
	}{
		{[]leaseCount{look(2, 2)}, 0},
		{[]leaseCount{look(5, 2), look(4, 2), look(9, 3)}, 2},
		{[]leaseCount{look(5, 2), look(2, 4), look(9, 3)}, 0},
		{[]leaseCount{look(1, 2), look(0, 3), look(3, 7)}, -1},
		{[]leaseCount{look(1, 2), look(3, 3)}, 0},
	} {
		if got := lasting(c.looks, "a"); got != c.want {
			t.Errorf("%+v: %d, want %d", c.looks, got, c.want)
		}
	}
}

// TestRefused: what may not be asked is given up at once, each time it is asked; a refusal
// that comes late does not end the next question.
func TestRefused(t *testing.T) {
	g := &gatherer{}
	for range 2 {
		for _, e := range []*refusedError{{"publish", "a"}, {"publish", "b"}} {
			a := ask(t.Context(), g, func(ctx context.Context) (int, error) {
				g.refuse(e)
				<-ctx.Done()
				return 0, ctx.Err()
			})
			if !errors.Is(a.err, e) {
				t.Errorf("%s: %v", e.subject, a.err)
			}
		}
	}
	late := ask(t.Context(), g, func(ctx context.Context) (int, error) {
		g.refuse(&refusedError{"publish", "b"})
		return 7, ctx.Err()
	})
	if late.err != nil || late.got != 7 || len(g.refused) != 2 {
		t.Errorf("%+v, and refused were %d", late, len(g.refused))
	}
}
