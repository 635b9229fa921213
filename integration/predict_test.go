//go:build !race

package integration

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/dispatcher"
	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/dispatcher/simulate"
	"github.com/vramjet/vramjet/schemas"
)

// What TestSimulatorPredictsFleet runs, without the race detector, which would leave 100
// nodes too little of two cores: nodes that hold one model each and take a load's
// time to get another, and jobs of 3 s.
const (
	predictNodes  = 100
	predictModels = 100
	predictOnDisk = 6                       // of the models, on each node
	predictLoad   = 3400 * time.Millisecond // of the server: the worker adds a little
	predictDecode = 100                     // tokens per second
	predictTokens = 300                     // that a job generates on average
	predictLength = 60 * time.Second
	predictPhase  = 10 * time.Second // of a tenant's, quiet or busy
	predictRate   = 12.0             // jobs per second, of all tenants
	predictWithin = 0.15             // the share by which the simulator may be wrong
)

// predictRunTime is what a job takes that generates so many tokens.
func predictRunTime(generated int) time.Duration {
	return time.Duration(float64(generated) / predictDecode * float64(time.Second))
}

// predictFleet is the fleet as the simulator has it, whose loads take so long. Each node
// has some of the models on its disk, which are those of its neighbours for the most part.
func predictFleet(load time.Duration) simulate.Fleet {
	const startup = 2 * time.Second // that the simulator adds to the time of reading the file
	read := schemas.Bytes(float64(shelfModel) / (load - startup).Seconds())
	var f simulate.Fleet
	for i := range predictModels {
		f.Models = append(f.Models, simulate.Model{Name: fmt.Sprintf("model-%03d", i), Need: shelfModel, Slots: 1, Decode: predictDecode})
	}
	for i := range predictNodes {
		n := simulate.Node{Name: fmt.Sprintf("n-%02d", i), Devices: []schemas.Bytes{shelfDevice}, Read: read}
		for k := range predictOnDisk {
			n.Models = append(n.Models, f.Models[(i*predictModels/predictNodes+k)%predictModels].Name)
		}
		f.Nodes = append(f.Nodes, n)
	}
	return f
}

// predictJobs are those of four tenants of all classes, whose demand goes up and down.
// Two of them ask for some of the models, and two for the others, while those rest.
func predictJobs(f simulate.Fleet) []simulate.Job {
	var names [2][]string
	for i, m := range f.Models {
		names[i%2] = append(names[i%2], m.Name)
	}
	var all [][]simulate.Job
	for i, class := range []schemas.Class{schemas.Interactive, schemas.Normal, schemas.Normal, schemas.Batch} {
		from := predictPhase * time.Duration(i%2)
		s := simulate.Shape{At: from, Tenant: fmt.Sprint("tenant-", i), Class: class, Models: names[i%2], Zipf: 0.4, Generated: predictTokens}
		const mean, swing = predictRate / 4, 0.9
		all = append(all, s.Bursts(mean*(1-swing), mean*(1+swing), predictPhase, predictLength-from, uint64(10+i)))
	}
	jobs := simulate.Merge(all...)
	for i := range jobs {
		jobs[i].Prompt = 0
		jobs[i].Generated = min(jobs[i].Generated, 4*predictTokens)
	}
	return jobs
}

// An account is what a workload came to, on either side. Waits are from when a job is
// due until it begins to generate.
type account struct {
	loads, evictions int
	mean, p50, p99   float64 // waits in seconds
}

func (a account) String() string {
	return fmt.Sprintf("%d loads, %d evictions, waits: %.3f s on average, p50 %.3f s, p99 %.3f s", a.loads, a.evictions, a.mean, a.p50, a.p99)
}

// TestSimulatorPredictsFleet runs a workload through the dispatcher and 100 workers, and
// through the simulator with the load time that the workers show: it predicts how many
// loads there are, and how long jobs wait.
func TestSimulatorPredictsFleet(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs a workload of a minute in real time")
	}
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		goleak.VerifyNone(t, before)
	})
	policy := placement.DefaultPolicy()
	policy.AgingMS = 5000
	jobs := predictJobs(predictFleet(predictLoad))

	got, load := predictLive(t, policy, jobs)
	report, err := simulate.Run(t.Context(), simulate.Config{Fleet: predictFleet(load), Jobs: jobs, Tune: policy})
	if err != nil {
		t.Fatal(err)
	}
	want := account{report.Loads, report.Evictions, report.WaitMean, report.WaitP50, report.WaitP99}
	t.Logf("%d jobs; a load took a node %s", len(jobs), load)
	t.Logf("live:      %s", got)
	t.Logf("simulated: %s", want)
	t.Logf("off by: loads %+.1f %%, mean wait %+.1f %%", 100*off(want.loads, got.loads), 100*off(want.mean, got.mean))
	if math.Abs(off(want.loads, got.loads)) > predictWithin || math.Abs(off(want.mean, got.mean)) > predictWithin {
		t.Errorf("the simulator is off by more than %.0f %%", 100*predictWithin)
	}
}

// off is by which share of what was a prediction is wrong.
func off[T int | float64](predicted, was T) float64 {
	return float64(predicted)/float64(was) - 1
}

// predictLive runs the jobs through a fleet, and returns what they came to and what a
// load took as the nodes tell it, on average.
func predictLive(t *testing.T, policy placement.Policy, jobs []simulate.Job) (account, time.Duration) {
	t.Helper()
	srv := brokertest.Start(t)
	nc := brokertest.Connect(t, srv)
	brokertest.Setup(t, nc)
	d, err := dispatcher.New(nc, dispatcher.Config{Policy: policy, Logger: logLoud(t)})
	if err != nil {
		t.Fatal(err)
	}
	live(t, d.Run)
	starts := &starts{at: make([]time.Time, len(jobs))}
	fleet := shelves(t, srv, predictFleet(predictLoad), predictLoad, starts.began)
	u := connect(t, srv.ClientURL())
	u.ready(predictNodes)
	y := &tally{ends: map[string]int{}}
	sub, err := u.nc.Subscribe(schemas.ResultsPrefix+"*.*.end", y.take)
	if err != nil {
		t.Fatal(err)
	}
	_ = sub.SetPendingLimits(-1, -1)

	defer func() {
		if t.Failed() {
			u.unfinished(y, starts)
		}
	}()
	due := time.Now().Add(time.Second)
	u.submitAt(due, jobs)
	within(t, 2*time.Minute, "all jobs end", func() bool { return y.ended(".") == len(jobs) })
	if len(y.bad) > 0 {
		t.Errorf("%d jobs failed: %s", len(y.bad), y.bad[0])
	}
	a := account{}
	for _, s := range fleet {
		s.mu.Lock()
		a.loads += s.loads
		a.evictions += s.unloads
		if len(s.trouble) > 0 {
			t.Errorf("%d things no worker may do: %s", len(s.trouble), s.trouble[0])
		}
		s.mu.Unlock()
	}
	if starts.again > 0 {
		t.Errorf("%d jobs began more than once", starts.again)
	}
	a.mean, a.p50, a.p99 = starts.waits(due, jobs)
	return a, u.loadTime()
}

// starts notes when jobs begin to generate.
type starts struct {
	mu    sync.Mutex // guards what follows
	at    []time.Time
	again int // jobs that began more than once
}

func (s *starts) began(job int, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.at[job].IsZero() {
		s.again++
		return
	}
	s.at[job] = at
}

// begun is how many jobs have begun.
func (s *starts) begun() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.at {
		if !at.IsZero() {
			n++
		}
	}
	return n
}

// unfinished says what is left where not all jobs end in time.
func (u *user) unfinished(y *tally, starts *starts) {
	u.Helper()
	u.Logf("%d jobs began, %d ended", starts.begun(), y.ended("."))
	ctx, cancel := context.WithTimeout(u.Context(), patience)
	defer cancel()
	js, err := jetstream.New(u.nc)
	if err != nil {
		u.Error(err)
		return
	}
	stream, err := js.Stream(ctx, broker.StreamJobs)
	if err != nil {
		u.Error(err)
		return
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(schemas.JobsPrefix+">"))
	if err != nil {
		u.Error(err)
		return
	}
	for subject, n := range info.State.Subjects {
		k, err := stream.Consumer(ctx, broker.ConsumerName(subject))
		if err != nil {
			u.Logf("%s: %d jobs left; its consumer: %s", subject, n, err)
			continue
		}
		c := k.CachedInfo()
		u.Logf("%s: %d jobs left; its consumer: %d pending, %d not acknowledged, %d redelivered, %d pulls wait", subject, n, c.NumPending, c.NumAckPending, c.NumRedelivered, c.NumWaiting)
	}
}

// waits are how long jobs waited, in seconds.
func (s *starts) waits(due time.Time, jobs []simulate.Job) (mean, p50, p99 float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waits := make([]float64, len(jobs))
	for i, j := range jobs {
		waits[i] = s.at[i].Sub(due.Add(j.At)).Seconds()
		mean += waits[i] / float64(len(jobs))
	}
	slices.Sort(waits)
	return mean, simulate.Percentile(waits, 50), simulate.Percentile(waits, 99)
}

// ready waits until so many nodes are ready.
func (u *user) ready(count int) {
	u.Helper()
	within(u, patience, fmt.Sprintf("%d nodes are ready", count), func() bool {
		nodes, err := u.Nodes(u.Context(), 0)
		return err == nil && len(nodes) == count && !slices.ContainsFunc(nodes, func(n schemas.NodeState) bool {
			return len(n.Devices) == 0 || !n.Backends[0].Healthy
		})
	})
}

// submitAt submits each job when it is due.
func (u *user) submitAt(began time.Time, jobs []simulate.Job) {
	u.Helper()
	js, err := jetstream.New(u.nc, jetstream.WithPublishAsyncMaxPending(1000))
	if err != nil {
		u.Fatal(err)
	}
	for i, j := range jobs {
		subject, err := schemas.JobSubject(schemas.Flow{Tenant: j.Tenant, Class: j.Class, Model: j.Model})
		if err != nil {
			u.Fatal(err)
		}
		m := nats.NewMsg(subject)
		m.Data = fmt.Appendf(nil, `{"messages":[{"role":"user","content":"hi"}],"max_tokens":%d,"seed":%d}`, j.Generated, i)
		<-time.After(time.Until(began.Add(j.At)))
		if _, err := js.PublishMsgAsync(m, jetstream.WithStallWait(patience)); err != nil {
			u.Fatal(err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(patience):
		u.Fatal("jobs were not acknowledged")
	}
}

// loadTime is how long the last load of each model took on each node, on average.
func (u *user) loadTime() time.Duration {
	u.Helper()
	nodes, err := u.Nodes(u.Context(), 0)
	if err != nil {
		u.Fatal(err)
	}
	sum, count := int64(0), int64(0)
	for _, n := range nodes {
		for _, b := range n.Backends {
			for _, m := range b.Models {
				if m.LoadMS > 0 {
					sum, count = sum+m.LoadMS, count+1
				}
			}
		}
	}
	return time.Duration(sum) * time.Millisecond / time.Duration(max(1, count))
}
