package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// A raid is a court where beta has a job in the hands of a node, an answer, a dead letter
// and a batch, and somebody has acme's seed.
type raid struct {
	*court
	js         jetstream.JetStream // the dispatcher's
	acme, beta *nats.Conn
	delivery   jetstream.Msg
	betas      *nats.Subscription // what beta hears
	before     map[string]uint64  // how many messages there are that are not acme's
}

func newRaid(t *testing.T) *raid {
	t.Helper()
	r := &raid{court: newCourt(t)}
	root := r.as("dispatcher main")
	r.acme, r.beta = r.as("tenant acme"), r.as("tenant beta")
	js, err := jetstream.New(root)
	if err != nil {
		t.Fatal(err)
	}
	r.js = js
	const flow = "vj.v1.jobs.beta.normal.m"
	r.ask(r.beta, flow, `{"prompt":"secret of beta"}`)
	r.ask(r.beta, "$KV.VJ_BATCHES.beta.b", "secret of beta")
	r.ask(root, "vj.v1.results.beta.j.end", "secret of beta")
	r.ask(root, "vj.v1.dead.beta.normal.m", "secret of beta")
	r.ask(root, "$KV.VJ_STATE.leader", "d1")
	r.ask(root, "vj.v1.results.acme.j.end", "+TERM")
	r.ask(r.acme, "$KV.VJ_BATCHES.acme.b", "+TERM")
	r.ask(r.acme, "$KV.VJ_BATCHES.acme.empty", "")
	cons, err := js.CreateOrUpdateConsumer(t.Context(), broker.StreamJobs, broker.ConsumerConfig(flow, 10, 0))
	if err != nil {
		t.Fatal(err)
	}
	if r.delivery, err = cons.Next(); err != nil {
		t.Fatal(err)
	}
	if r.betas, err = r.beta.SubscribeSync("_INBOX_beta.>"); err != nil {
		t.Fatal(err)
	}
	r.before = r.held()
	return r
}

// ask asks and returns the answer, "" where none came.
func (r *raid) ask(nc *nats.Conn, subject, body string) string {
	r.Helper()
	m, err := nc.Request(subject, []byte(body), 300*time.Millisecond)
	if err != nil {
		return ""
	}
	return string(m.Data)
}

// held counts what there is that is not acme's, by stream and subject.
func (r *raid) held() map[string]uint64 {
	r.Helper()
	held := map[string]uint64{}
	for _, name := range []string{"VJ_JOBS", "VJ_LATER", "VJ_RESULTS", "VJ_DEAD", "KV_VJ_STATE", "KV_VJ_BATCHES", "OBJ_VJ_BODIES"} {
		s, err := r.js.Stream(r.Context(), name)
		if err != nil {
			r.Errorf("%s: %v", name, err)
			continue
		}
		info, err := s.Info(r.Context(), jetstream.WithSubjectFilter(">"))
		if err != nil {
			r.Fatal(err)
		}
		held[name] = 0
		for subject, n := range info.State.Subjects {
			if !strings.Contains(subject, ".acme.") {
				held[name+" "+subject] = n
			}
		}
	}
	return held
}

// unharmed checks that all is as it was before.
func (r *raid) unharmed(after string) {
	r.Helper()
	r.settled()
	if now := r.held(); fmt.Sprint(now) != fmt.Sprint(r.before) {
		r.Errorf("after %s: there is %v, and was %v", after, now, r.before)
		r.before = now
	}
}

// settled waits until the server has done what it was sent: it answers on the same
// connection, later, what comes after.
func (r *raid) settled() {
	r.Helper()
	r.ask(r.acme, "$JS.API.DIRECT.GET.VJ_RESULTS.vj.v1.results.acme.j.end", "")
	r.ask(r.acme, "$KV.VJ_BATCHES.acme.last", "")
}

// consumer asks for a consumer on a subject that acme may ask on.
func (r *raid) consumer(stream, filter string, cfg map[string]any) string {
	r.Helper()
	cfg["name"], cfg["ack_policy"] = "raid", "none"
	body, err := json.Marshal(map[string]any{"stream_name": stream, "config": cfg})
	if err != nil {
		r.Fatal(err)
	}
	return r.ask(r.acme, "$JS.API.CONSUMER.CREATE."+stream+".raid."+filter, string(body))
}

// TestStolenTenant: who has a tenant's seed reads nothing of another tenant, ends none of
// its jobs, and reaches nothing of JetStream's but the tenant's own.
func TestStolenTenant(t *testing.T) {
	r := newRaid(t)
	nosy, err := r.acme.SubscribeSync("_INBOX_acme.>")
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{
		"$JS.API.STREAM.MSG.GET.VJ_JOBS", "$JS.API.DIRECT.GET.VJ_RESULTS", "$JS.API.DIRECT.GET.VJ_RESULTS.vj.v1.results.beta.j.end",
		"$JS.API.DIRECT.GET.KV_VJ_BATCHES.$KV.VJ_BATCHES.beta.b", "$JS.API.STREAM.MSG.GET.VJ_DEAD", "$JS.API.CONSUMER.NAMES.VJ_RESULTS", "$JS.API.CONSUMER.LIST.VJ_RESULTS",
		"$JS.API.CONSUMER.CREATE.VJ_RESULTS.raid.vj.v1.results.beta.>", "$JS.API.CONSUMER.CREATE.VJ_RESULTS.raid.vj.v1.results.>", "$JS.API.CONSUMER.CREATE.VJ_RESULTS.raid",
		"$JS.API.CONSUMER.CREATE.VJ_JOBS.raid.vj.v1.jobs.acme.>", "$JS.API.STREAM.CREATE.RAID", "$JS.API.STREAM.UPDATE.VJ_JOBS", "$JS.API.STREAM.PURGE.VJ_JOBS",
		"$JS.API.STREAM.DELETE.VJ_JOBS", "$JS.API.STREAM.SNAPSHOT.VJ_JOBS", "$KV.VJ_STATE.leader", "$KV.VJ_BATCHES.beta.b", "vj.v1.jobs.beta.normal.m", "vj.v1.api.beta.cancel",
		"vj.v1.cancel.beta.j", "vj.v1.node.gpu-1.run", "vj.v1.node.gpu-1.control", "vj.v1.node.gpu-1.state", "vj.v1.results.beta.j.end", r.delivery.Reply(),
	} {
		for _, body := range []string{"", `{"seq":1}`, "+TERM", `{"stream_name":"VJ_RESULTS","config":{"name":"raid","ack_policy":"none"}}`, `{"name":"RAID","mirror":{"name":"VJ_JOBS"}}`} {
			if err := r.acme.PublishRequest(subject, "_INBOX_acme.loot", []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.unharmed("what acme may not ask")
	for m, err := nosy.NextMsg(100 * time.Millisecond); err == nil; m, err = nosy.NextMsg(100 * time.Millisecond) {
		if strings.Contains(string(m.Data), "beta") {
			t.Errorf("acme reads %q", m.Data)
		}
	}
	for _, cfg := range []map[string]any{
		{"filter_subject": "vj.v1.results.beta.>"},
		{"filter_subjects": []string{"vj.v1.results.beta.>"}},
		{},
		{"filter_subject": ""},
		{"filter_subjects": []string{"vj.v1.results.acme.>", "vj.v1.results.beta.>"}},
	} {
		if answer := r.consumer("VJ_RESULTS", "vj.v1.results.acme.>", cfg); !strings.Contains(answer, `"error"`) {
			t.Errorf("a consumer of %v is made: %s", cfg, answer)
		}
	}
	roll := &nats.Msg{Subject: "$KV.VJ_BATCHES.acme.b", Header: nats.Header{"Nats-Rollup": {"all"}}}
	if _, err := r.acme.RequestMsg(roll, time.Second); err != nil {
		t.Error(err)
	}
	r.unharmed("a rollup of batches")
}

// TestStolenTenantHasItAnswered: a server answers wherever a request says. None of it gets
// out of the tenant's own account.
func TestStolenTenantHasItAnswered(t *testing.T) {
	r := newRaid(t)
	own := map[string]any{"filter_subject": "$KV.VJ_BATCHES.acme.*"}
	if answer := r.consumer("KV_VJ_BATCHES", "$KV.VJ_BATCHES.acme.*", own); strings.Contains(answer, `"error"`) {
		t.Fatal(answer)
	}
	var targets []string
	for _, verb := range []string{"DELETE", "PURGE"} {
		for s := range r.before {
			if !strings.Contains(s, " ") {
				targets = append(targets, "$JS.API.STREAM."+verb+"."+s)
			}
		}
	}
	targets = append(targets, "$KV.VJ_STATE.leader", "$KV.VJ_BATCHES.beta.b", "vj.v1.jobs.beta.normal.m", "vj.v1.results.beta.j.end", "vj.v1.later.beta.normal.m", r.delivery.Reply(), "_INBOX_beta.x")
	for _, target := range targets {
		for _, request := range []string{
			"$JS.API.DIRECT.GET.VJ_RESULTS.vj.v1.results.acme.j.end", "$JS.API.DIRECT.GET.VJ_RESULTS.vj.v1.results.acme.none.end", // empty
			"$JS.API.DIRECT.GET.KV_VJ_BATCHES.$KV.VJ_BATCHES.acme.b", "$JS.API.DIRECT.GET.KV_VJ_BATCHES.$KV.VJ_BATCHES.acme.empty",
			"$JS.API.CONSUMER.MSG.NEXT.KV_VJ_BATCHES.raid", "$JS.API.CONSUMER.DELETE.VJ_DEAD.none", "vj.v1.jobs.acme.normal.m", "$KV.VJ_BATCHES.acme.empty",
		} {
			if err := r.acme.PublishRequest(request, target, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.unharmed("answers to somewhere else")
	if m, err := r.betas.NextMsg(50 * time.Millisecond); err == nil {
		t.Errorf("beta hears %q on %s", m.Data, m.Subject)
	}
}

// TestStolenTenantPushes: a consumer that pushes is not held to its owner's subjects: NATS
// has no right for that. What JetStream itself listens to it does not reach, and who else
// hears it can tell.
func TestStolenTenantPushes(t *testing.T) {
	r := newRaid(t)
	for _, target := range []string{"$JS.API.STREAM.PURGE.VJ_JOBS", "$KV.VJ_STATE.leader", "vj.v1.jobs.beta.normal.m", "vj.v1.results.beta.j.end", r.delivery.Reply()} {
		r.consumer("KV_VJ_BATCHES", "$KV.VJ_BATCHES.acme.*", map[string]any{"filter_subject": "$KV.VJ_BATCHES.acme.*", "deliver_subject": target})
		r.unharmed("pushing to " + target)
		r.ask(r.acme, "$JS.API.CONSUMER.DELETE.KV_VJ_BATCHES.raid", "")
	}
	control, err := r.as("node gpu-1").SubscribeSync("vj.v1.node.gpu-1.control")
	if err != nil {
		t.Fatal(err)
	}
	r.consumer("KV_VJ_BATCHES", "$KV.VJ_BATCHES.acme.*", map[string]any{"filter_subject": "$KV.VJ_BATCHES.acme.*", "deliver_subject": "vj.v1.node.gpu-1.control"})
	m, err := control.NextMsg(patience)
	if err != nil {
		t.Fatalf("it is not pushed any more: say so in docs/security.md: %v", err)
	}
	if !schemas.FromJetStream(m.Header.Get, m.Reply) {
		t.Errorf("a node takes for a request of an operator's what acme had pushed: %+v", m)
	}
}

// TestConsumersAreKnownByName: NATS has no right to only some consumers of a stream. Who
// knows the name of another tenant's can read from it and delete it. The names are random,
// and nobody but an operator may list them.
func TestConsumersAreKnownByName(t *testing.T) {
	r := newRaid(t)
	js, err := jetstream.New(r.beta)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := js.OrderedConsumer(t.Context(), broker.StreamResults, jetstream.OrderedConsumerConfig{FilterSubjects: []string{"vj.v1.results.beta.>"}})
	if err != nil {
		t.Fatal(err)
	}
	name := theirs.CachedInfo().Name
	if len(name) < 22 {
		t.Errorf("the name %q can be guessed", name)
	}
	if loot := r.ask(r.acme, "$JS.API.CONSUMER.MSG.NEXT.VJ_RESULTS."+name, ""); !strings.Contains(loot, "beta") {
		t.Errorf("it is not so any more: say so in docs/security.md: %q", loot)
	}
}

// TestRevoke: a server that is told of it closes a revoked user's connections and lets it
// in no more, and one that was added may work: no server starts anew.
func TestRevoke(t *testing.T) {
	t.Parallel()
	g := guard(t, "", "tenant acme")
	root := g.connect("dispatcher main", "acme")
	js, err := jetstream.New(root.nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.Setup(t.Context(), js, broker.StreamsConfig{}); err != nil {
		t.Fatal(err)
	}
	acme := g.connect("tenant acme", "acme")
	seed, err := os.ReadFile(strings.TrimSuffix(g.as("tenant acme"), ".json") + ".nk")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := acme.nc.Request("vj.v1.jobs.acme.normal.m", []byte("x"), patience); err != nil {
		t.Fatal(err)
	}
	g.auth("revoke", "tenant", "acme")
	g.auth("add", "tenant", "beta")
	const reloaded = "Reloaded server configuration"
	for i := range 2 { // a server knows the imports of a new account by the second reload only
		g.signal(syscall.SIGHUP)
		within(t, patience, reloaded, func() bool { return strings.Count(g.output(), reloaded) > i })
	}
	within(t, patience, "acme is out", func() bool { return !acme.nc.IsConnected() })
	beta := g.connect("tenant beta", "beta")
	within(t, patience, "beta submits", func() bool {
		m, err := beta.nc.Request("vj.v1.jobs.beta.normal.m", []byte("x"), time.Second)
		return err == nil && strings.Contains(string(m.Data), `"seq":2`)
	})
	old, err := nkeys.ParseDecoratedUserNKey(seed)
	if err != nil {
		t.Fatal(err)
	}
	key, err := old.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if nc, err := nats.Connect(root.nc.ConnectedUrl(), nats.Nkey(key, old.Sign)); err == nil {
		nc.Close()
		t.Error("a revoked seed lets somebody in")
	}
	if !root.nc.IsConnected() {
		t.Error("somebody else was thrown out")
	}
}

// TestDeputies: neither a dispatcher nor a node publishes or does, with rights of its own,
// what a request that is answered elsewhere, or a message of JetStream's, would have it.
func TestDeputies(t *testing.T) {
	t.Parallel()
	url, _ := up(t)
	u := connect(t, url)
	u.serves("sim-fast", 1)
	nodes, err := u.Nodes(t.Context(), 0)
	if err != nil || len(nodes) != 1 {
		t.Fatal(err)
	}
	control := schemas.NodeSubject(nodes[0].Node, "control")
	const elsewhere = "vj.v1.events.default.jobs.raid"
	heard, err := u.nc.SubscribeSync(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	stored := nats.Header{"Nats-Stream": {"KV_VJ_BATCHES"}, "Nats-Sequence": {"1"}}
	for _, m := range []*nats.Msg{
		{Subject: "vj.v1.api.default.list", Reply: elsewhere},
		{Subject: control, Reply: elsewhere, Data: []byte(`{"do":"state"}`)},
		{Subject: control, Data: []byte(`{"do":"drain"}`), Header: stored},
		{Subject: schemas.NodeSubject(nodes[0].Node, "run"), Reply: elsewhere, Data: []byte(`{}`)},
		{Subject: schemas.NodeSubject("forged", "state"), Data: []byte(`{"node":"forged"}`), Header: stored},
	} {
		if err := u.nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	for _, subject := range []string{"vj.v1.api.default.list", control} { // answered after what came before
		if _, err := u.nc.Request(subject, []byte(`{"do":"state"}`), patience); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := heard.NextMsg(50 * time.Millisecond); err == nil {
		t.Errorf("somebody publishes %s for who asked", m.Data)
	}
	if nodes, err = u.Nodes(t.Context(), 0); err != nil || len(nodes) != 1 || nodes[0].Draining {
		t.Errorf("the nodes are %+v, %v", nodes, err)
	}
}
