package broker_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/broker/embedded"
	"github.com/vramjet/vramjet/schemas"
)

func newJS(t *testing.T) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc := brokertest.Connect(t, brokertest.Start(t))
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func TestSetupMakesTheStreams(t *testing.T) {
	_, js := newJS(t)
	if err := broker.Setup(within(t, patience), js, broker.StreamsConfig{}); err != nil {
		t.Fatal(err)
	}
	type facts struct {
		Subjects     []string
		Retention    jetstream.RetentionPolicy
		Storage      jetstream.StorageType
		Discard      jetstream.DiscardPolicy
		PerSubject   bool
		MaxPerFlow   int64
		MaxConsumers int
		MaxAge       time.Duration
		Duplicates   time.Duration
		Direct, TTL  bool
		RePublish    *jetstream.RePublish
	}
	for name, want := range map[string]facts{
		broker.StreamJobs: {
			Subjects: []string{"vj.v1.jobs.>"}, Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage,
			Discard: jetstream.DiscardNew, PerSubject: true, MaxPerFlow: 100_000, MaxConsumers: 20_000,
			Duplicates: 2 * time.Minute, Direct: true,
			RePublish: &jetstream.RePublish{Source: "vj.v1.jobs.>", Destination: "vj.v1.waiting.>", HeadersOnly: true},
		},
		broker.StreamLater: {
			Subjects: []string{"vj.v1.later.>"}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, PerSubject: true,
			MaxPerFlow: 100_000, MaxConsumers: -1, Duplicates: 2 * time.Minute,
		},
		broker.StreamResults: {
			Subjects: []string{"vj.v1.results.>"}, Storage: jetstream.FileStorage, MaxPerFlow: -1, MaxConsumers: -1,
			MaxAge: 366 * 24 * time.Hour, Duplicates: 2 * time.Minute, Direct: true, TTL: true,
		},
		broker.StreamDead: {
			Subjects: []string{"vj.v1.dead.>"}, Storage: jetstream.FileStorage, MaxPerFlow: -1, MaxConsumers: -1,
			MaxAge: 30 * 24 * time.Hour, Duplicates: 2 * time.Minute, Direct: true,
		},
		"KV_" + broker.BucketState: {
			Subjects: []string{"$KV.VJ_STATE.>"}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew,
			MaxPerFlow: 1, MaxConsumers: -1, Duplicates: 2 * time.Minute, Direct: true, TTL: true,
		},
		"OBJ_" + schemas.BucketBodies: {
			Subjects: []string{"$O.VJ_BODIES.C.>", "$O.VJ_BODIES.M.>"}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew,
			MaxPerFlow: -1, MaxConsumers: -1, MaxAge: 7 * 24 * time.Hour, Duplicates: 2 * time.Minute, Direct: true,
		},
	} {
		c := streamInfo(t, js, name).Config
		got := facts{
			c.Subjects, c.Retention, c.Storage, c.Discard, c.DiscardNewPerSubject, c.MaxMsgsPerSubject,
			c.MaxConsumers, c.MaxAge, c.Duplicates, c.AllowDirect, c.AllowMsgTTL, c.RePublish,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestSetupIsIdempotent(t *testing.T) {
	nc, js := newJS(t)
	ctx := within(t, patience)
	if err := broker.Setup(ctx, js, broker.StreamsConfig{}); err != nil {
		t.Fatal(err)
	}
	updates, err := nc.SubscribeSync("$JS.EVENT.ADVISORY.STREAM.UPDATED.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.Setup(ctx, js, broker.StreamsConfig{}); err != nil {
		t.Fatal(err)
	}
	if err := broker.Setup(ctx, js, broker.StreamsConfig{ResultsAge: time.Hour}); err != nil {
		t.Fatal(err)
	}
	first, err := updates.NextMsgWithContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(first.Subject, broker.StreamResults) {
		t.Errorf("%s was changed by the same configuration", first.Subject)
	}
}

func TestSetupBySeveralAtOnce(t *testing.T) {
	srv := brokertest.Start(t)
	var wg sync.WaitGroup
	for i := range 8 { // each with another configuration: the last wins
		cfg := broker.StreamsConfig{ResultsAge: time.Duration(i+1) * time.Hour, MaxJobsPerFlow: int64(i + 1)}
		js, err := jetstream.New(brokertest.Connect(t, srv))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := broker.Setup(within(t, patience), js, cfg); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestSetupMigrates(t *testing.T) {
	nc := brokertest.Connect(t, brokertest.Start(t))
	js := brokertest.Setup(t, nc)
	submit(t, js, 3)

	// what an operator set, and an older program
	changed := streamInfo(t, js, broker.StreamJobs).Config
	changed.RePublish, changed.Compression = nil, jetstream.S2Compression
	if _, err := js.UpdateStream(within(t, patience), changed); err != nil {
		t.Fatal(err)
	}

	err := broker.Setup(within(t, patience), js, broker.StreamsConfig{
		MaxJobsPerFlow: 7, MaxJobsBytes: 1 << 20, MaxJobSize: 1 << 10,
		ResultsAge: time.Minute, DeadAge: time.Hour, DedupWindow: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	jobs := streamInfo(t, js, broker.StreamJobs)
	c := jobs.Config
	if c.MaxMsgsPerSubject != 7 || c.MaxBytes != 1<<20 || c.MaxMsgSize != 1<<10 || c.Duplicates != time.Second || c.RePublish == nil {
		t.Errorf("VJ_JOBS is %+v", c)
	}
	if c.Compression != jetstream.S2Compression {
		t.Error("what the operator set is gone")
	}
	if jobs.State.Msgs != 3 {
		t.Errorf("%d jobs are left of 3", jobs.State.Msgs)
	}
	if age := streamInfo(t, js, broker.StreamResults).Config.MaxAge; age != time.Minute {
		t.Errorf("VJ_RESULTS keeps %s", age)
	}
	if age := streamInfo(t, js, broker.StreamDead).Config.MaxAge; age != time.Hour {
		t.Errorf("VJ_DEAD keeps %s", age)
	}
}

func TestSetupRefusesWhatIsInTheWay(t *testing.T) {
	for _, tt := range []struct {
		name   string
		stands jetstream.StreamConfig
		want   []string
	}{
		{
			"retention",
			jetstream.StreamConfig{Name: "VJ_JOBS", Subjects: []string{"vj.v1.jobs.>"}},
			[]string{"VJ_JOBS", "retention is Limits", "WorkQueue is wanted", "nats stream rm VJ_JOBS"},
		},
		{
			"storage",
			jetstream.StreamConfig{Name: "VJ_DEAD", Subjects: []string{"vj.v1.dead.>"}, Storage: jetstream.MemoryStorage},
			[]string{"VJ_DEAD", "storage is Memory", "File is wanted", "nats stream rm VJ_DEAD"},
		},
		{
			"not ours",
			jetstream.StreamConfig{Name: "VJ_RESULTS", Subjects: []string{"shop.orders"}},
			[]string{"VJ_RESULTS", "[shop.orders]", "[vj.v1.results.>]", "nats stream rm VJ_RESULTS"},
		},
		{
			"overlap",
			jetstream.StreamConfig{Name: "ALL", Subjects: []string{"vj.>"}},
			[]string{"VJ_JOBS", "vj.v1.jobs.>", "belong to stream ALL", "nats stream rm ALL"},
		},
		{
			"expiring jobs",
			jetstream.StreamConfig{Name: "VJ_JOBS", Subjects: []string{"vj.v1.jobs.>"}, Retention: jetstream.WorkQueuePolicy, AllowMsgTTL: true},
			[]string{"VJ_JOBS", "expire"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, js := newJS(t)
			before, err := js.CreateStream(within(t, patience), tt.stands)
			if err != nil {
				t.Fatal(err)
			}
			err = broker.Setup(within(t, patience), js, broker.StreamsConfig{})
			if err == nil {
				t.Fatal("Setup took it")
			}
			for _, word := range tt.want {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %q: %v", word, err)
				}
			}
			after := streamInfo(t, js, tt.stands.Name).Config
			if diff := cmp.Diff(before.CachedInfo().Config, after); diff != "" {
				t.Errorf("the stream was changed:\n%s", diff)
			}
		})
	}
}

func TestSetupSaysThatReplicasNeedACluster(t *testing.T) {
	_, js := newJS(t)
	err := broker.Setup(within(t, patience), js, broker.StreamsConfig{Replicas: 3})
	if err == nil || !strings.Contains(err.Error(), "cluster") {
		t.Errorf("the error is %v", err)
	}
}

// JetStream that does not answer, as a cluster without a leader does, is asked
// again until the context ends.
func TestSetupWaitsForJetStream(t *testing.T) {
	dir := t.TempDir()
	srv := brokertest.StartServer(t, embedded.Config{Dir: dir})
	nc := brokertest.Connect(t, srv)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	srv.Shutdown()

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := broker.Setup(ctx, js, broker.StreamsConfig{}); err == nil || !strings.Contains(err.Error(), "VJ_JOBS") {
		t.Errorf("the error without a server is %v", err)
	}

	done := make(chan error, 1)
	go func() { done <- broker.Setup(within(t, patience), js, broker.StreamsConfig{}) }()
	restart(t, srv, dir)
	if err := receive(t, "Setup", done); err != nil {
		t.Error(err)
	}
}

func TestARepublishedJobIsHeadersOnly(t *testing.T) {
	nc := brokertest.Connect(t, brokertest.Start(t))
	js := brokertest.Setup(t, nc)
	hints, err := nc.SubscribeSync("vj.v1.waiting.>")
	if err != nil {
		t.Fatal(err)
	}
	submit(t, js, 1)
	hint, err := hints.NextMsgWithContext(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	if hint.Subject != "vj.v1.waiting.default.normal.llama3.2" || len(hint.Data) != 0 {
		t.Errorf("the hint is %q on %s", hint.Data, hint.Subject)
	}
}

func TestConsumerNames(t *testing.T) {
	for subject, want := range map[string]string{
		flow:                           "normal-",
		"vj.v1.jobs.a.interactive.a.b": "interactive-",
		"vj.v1.jobs.a.batch.x":         "batch-",
		"vj.v1.jobs.a.urgent.x":        "other-",
		"":                             "other-",
	} {
		name := broker.ConsumerName(subject)
		hash, ok := strings.CutPrefix(name, want)
		if !ok || len(hash) != 24 || strings.ToLower(hash) != hash {
			t.Errorf("%q has the consumer %q", subject, name)
		}
	}
	if broker.ConsumerName("vj.v1.jobs.a.batch.x") == broker.ConsumerName("vj.v1.jobs.b.batch.x") {
		t.Error("two flows share a consumer")
	}
}

func TestConsumerConfigIsTakenAsItIs(t *testing.T) {
	js := brokertest.Setup(t, brokertest.Connect(t, brokertest.Start(t)))
	want := broker.ConsumerConfig(flow, 12, 0)
	c, err := js.CreateOrUpdateConsumer(within(t, patience), broker.StreamJobs, want)
	if err != nil {
		t.Fatal(err)
	}
	got := c.CachedInfo().Config
	if got.FilterSubject != flow || got.AckPolicy != jetstream.AckExplicitPolicy || got.AckWait != 30*time.Second ||
		got.MaxDeliver != -1 || got.MaxAckPending != 12 || got.MaxWaiting != 512 || got.InactiveThreshold != 10*time.Minute ||
		got.Replicas != 0 || got.Metadata[broker.MetadataSubject] != flow {
		t.Errorf("the consumer is %+v", got)
	}
}

// restart starts a server where srv, which is shut down, was.
func restart(t *testing.T, srv *embedded.Server, dir string) *embedded.Server {
	t.Helper()
	return brokertest.StartServer(t, embedded.Config{Dir: dir, Port: port(t, srv)})
}
