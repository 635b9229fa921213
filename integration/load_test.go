package integration

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// tally counts the ends of jobs.
type tally struct {
	mu   sync.Mutex
	ends map[string]int // by subject
	bad  []string       // those that are not ok
}

func (y *tally) take(m *nats.Msg) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.ends[m.Subject]++
	if m.Header.Get(schemas.HeaderStatus) != string(schemas.StatusOK) {
		y.bad = append(y.bad, fmt.Sprintf("%s: %.200s", m.Subject, m.Data))
	}
}

// ended is how many jobs have ended whose id contains a text.
func (y *tally) ended(part string) (n int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for subject := range y.ends {
		if strings.Contains(subject, part) {
			n++
		}
	}
	return n
}

// TestTenThousandJobs puts 10,000 jobs through 60 flows, half of them while no
// worker runs. One of five models is blocked: nobody serves it until all jobs of
// the others have ended. So none of those waited for a blocked one.
func TestTenThousandJobs(t *testing.T) {
	t.Parallel()
	const jobs = 10_000
	backend := httptest.NewServer(sim.New(sim.Config{Models: []sim.Model{
		{Name: "free-1", Slots: 16},
		{Name: "free-2", Slots: 16},
		{Name: "free-3", Slots: 16},
		{Name: "free-4", Slots: 16},
		{Name: "blocked", Slots: 16},
	}}))
	t.Cleanup(backend.Close)
	url, _ := natsServer(t, "")
	d := start(t, "dispatcher", "vramjet", "dispatcher", "--server", url, "--http", "off", "--unknown-model-wait", "10m")
	d.says("leading")
	u := connect(t, url)

	y := &tally{ends: map[string]int{}}
	sub, err := u.nc.Subscribe(schemas.ResultsPrefix+"*.*.end", y.take)
	if err != nil {
		t.Fatal(err)
	}
	_ = sub.SetPendingLimits(-1, -1)
	_ = u.nc.Flush()

	memory := []int64{d.rss()}
	u.submitMany(0, jobs/2)
	memory = append(memory, d.rss())
	serve(t, url, backend.URL, "free", "free-*")
	u.submitMany(jobs/2, jobs)
	free := jobs / 5 * 4
	took := within(t, 3*time.Minute, "all jobs of the free models end", func() bool { return y.ended(".free-") == free })
	memory = append(memory, d.rss())
	if n := y.ended(".blocked-"); n != 0 {
		t.Errorf("%d jobs of a model that nobody serves have ended", n)
	}
	t.Logf("%d jobs of free models ended within %s of their submission, past %d that were blocked", free, took.Round(time.Millisecond), jobs/5)

	serve(t, url, backend.URL, "rest", "blocked")
	within(t, 3*time.Minute, "all jobs end", func() bool { return y.ended(".") == jobs })
	memory = append(memory, d.rss())
	y.mu.Lock()
	defer y.mu.Unlock()
	for subject, n := range y.ends {
		if n != 1 {
			t.Errorf("%s: %d ends", subject, n)
		}
	}
	if len(y.bad) > 0 {
		t.Errorf("%d jobs failed: %s", len(y.bad), y.bad[0])
	}
	t.Logf("memory of the dispatcher in MiB: %d idle, %d with 5,000 jobs queued, %d after 8,000 jobs, %d at the end",
		memory[0]>>20, memory[1]>>20, memory[2]>>20, memory[3]>>20)
	if grown := memory[3] - memory[0]; grown > 64<<20 {
		t.Errorf("the dispatcher grew by %d MiB", grown>>20)
	}
}

// serve starts a worker for some of a simulated server's models.
func serve(t *testing.T, url, backend, node, models string) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "vramjet.yaml")
	yaml := fmt.Sprintf("backends:\n  - {name: sim, kind: sim, url: %q, models: [%q]}\n", backend, models)
	if err := os.WriteFile(config, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "worker "+node, "vramjet", "worker", "--server", url, "--config", config, "--node", node, "--http", "off")
}

// submitMany submits jobs spread over 3 classes, 5 models and 4 tenants.
func (u *user) submitMany(from, to int) {
	u.Helper()
	js, err := jetstream.New(u.nc)
	if err != nil {
		u.Fatal(err)
	}
	models := []string{"free-1", "free-2", "free-3", "free-4", "blocked"}
	var acks []jetstream.PubAckFuture
	for i := from; i < to; i++ {
		model := models[i%5]
		subject, err := schemas.JobSubject(schemas.Flow{
			Tenant: fmt.Sprint("t", i/5%4), Class: schemas.Classes[i/20%3], Model: model,
		})
		if err != nil {
			u.Fatal(err)
		}
		m := nats.NewMsg(subject)
		m.Header.Set(schemas.HeaderMsgID, fmt.Sprintf("%s-%d", model, i))
		m.Data = []byte(`{"messages":[{"role":"user","content":"hi"}],"max_tokens":3}`)
		ack, err := js.PublishMsgAsync(m, jetstream.WithStallWait(10*time.Second))
		if err != nil {
			u.Fatal(err)
		}
		acks = append(acks, ack)
	}
	for _, a := range acks {
		select {
		case <-a.Ok():
		case err := <-a.Err():
			u.Fatal(err)
		case <-time.After(patience):
			u.Fatal("a job was not acknowledged")
		}
	}
}
