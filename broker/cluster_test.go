package broker_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/schemas"
)

// On a cluster that has just started: Setup waits for it, ends are stored once,
// streams get more replicas, and the lease goes from one to the next.
func TestOnACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster takes seconds to elect its leader")
	}
	servers := brokertest.StartCluster(t, 3)
	nc := brokertest.Connect(t, servers[0])
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	for _, replicas := range []int{1, 3} {
		start := time.Now()
		if err := broker.Setup(ctx, js, broker.StreamsConfig{Replicas: replicas}); err != nil {
			t.Fatal(err)
		}
		t.Logf("Setup with %d replicas took %s", replicas, time.Since(start))
		for _, name := range []string{broker.StreamJobs, broker.StreamLater, broker.StreamResults, broker.StreamDead, "KV_" + broker.BucketState, "OBJ_" + schemas.BucketBodies} {
			if got := streamInfo(t, js, name).Config.Replicas; got != replicas {
				t.Errorf("%s has %d replicas of %d", name, got, replicas)
			}
		}
	}

	var firsts atomic.Int32
	var wg sync.WaitGroup
	for i := range 12 {
		nc := brokertest.Connect(t, servers[i%3])
		wg.Go(func() {
			first, err := broker.PublishEnd(ctx, nc, endMsg("j"))
			if err != nil {
				t.Error(err)
			}
			if first {
				firsts.Add(1)
			}
		})
	}
	wg.Wait()
	if n := streamInfo(t, js, broker.StreamResults).State.Msgs; n != 1 || firsts.Load() != 1 {
		t.Errorf("%d ends are stored, %d were the first", n, firsts.Load())
	}

	bucket := bodies(t, js)
	for i := range 12 { // whichever replica is asked, and however late it hears of it
		name := fmt.Sprint("default.b", i)
		for { // what was sent while the replicas were added may have got no answer
			once, cancel := context.WithTimeout(ctx, 2*time.Second)
			_, err := bucket.PutBytes(once, name, make([]byte, 300<<10))
			cancel()
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				t.Fatal(err)
			}
		}
		nc := brokertest.Connect(t, servers[i%3])
		if got, err := broker.FetchBody(ctx, nc, name, schemas.MaxBody); err != nil || len(got) != 300<<10 {
			t.Errorf("a body that was just stored: %d bytes, %v", len(got), err)
		}
		if err := broker.DeleteBody(ctx, nc, name); err != nil {
			t.Error(err)
		}
	}

	submit(t, js, 1)
	if err := broker.Ack(ctx, nc, deliver(t, js, broker.AckWait).Reply()); err != nil {
		t.Error(err)
	}
	for jobsLeft(t, js) != 0 { // replicas remove it a little later
		waitFor(t, 10*time.Millisecond)
		if ctx.Err() != nil {
			t.Fatal("the job is still there")
		}
	}

	terms := &ledger{terms: map[string]<-chan struct{}{}}
	all := map[string]*candidate{}
	for i, name := range []string{"a", "b", "c"} {
		all[name] = newCandidate(t, servers[i], name, broker.DefaultLeaseTTL)
		all[name].watch(t, terms)
	}
	for range all {
		c := all[terms.await(t)]
		c.stop()
		if err := receive(t, "the end of "+c.name, c.ended); err != nil {
			t.Error(err)
		}
		c.ended <- nil
	}
}
