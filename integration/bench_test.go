package integration

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client"
	measure "github.com/vramjet/vramjet/cmd/vramjet/bench"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// BenchmarkTable prints what NATS alone does on this machine, and what vramjet
// does in the same run, each figure as a share of the one that bounds it. NATS,
// the dispatcher, the worker and the client with the simulated backend are four
// processes.
func BenchmarkTable(b *testing.B) {
	for b.Loop() {
		var t table
		relaxed, _ := natsServer(b, "")
		t.raw(b, relaxed)
		t.vramjet(b, relaxed)
		t.together(b)
		always, _ := natsServer(b, "sync_interval: always")
		t.durable(b, always)
		t.print()
	}
}

// table is the figures, by name.
type table struct {
	rows []row
	is   map[string]float64
}

type row struct {
	name, unit string
	value      float64
	of         string // the row that bounds it; "": none
}

// share is what of its bound a figure reaches, in percent: of a time, how much
// shorter the bound is.
func (r row) share(bound float64) float64 {
	if r.unit == "ms" {
		return 100 * bound / r.value
	}
	return 100 * r.value / bound
}

func (t *table) add(name, unit string, value float64, of string) {
	if t.is == nil {
		t.is = map[string]float64{}
	}
	t.is[name] = value
	fmt.Fprintf(os.Stderr, "%s: %.2f %s\n", name, value, unit)
	t.rows = append(t.rows, row{name, unit, value, of})
}

func (t *table) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nfigure\tvalue\tunit\tshare\n")
	for _, r := range t.rows {
		share := ""
		if bound := t.is[r.of]; bound > 0 {
			share = fmt.Sprintf("%.0f %% of %s", r.share(bound), r.of)
		}
		value := fmt.Sprintf("%.0f", r.value)
		if r.value < 100 {
			value = fmt.Sprintf("%.2f", r.value)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.name, value, r.unit, share)
	}
	w.Flush()
}

func dial(b *testing.B, url string) *nats.Conn {
	b.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	return nc
}

// raw measures NATS with nothing of vramjet around it.
func (t *table) raw(b *testing.B, url string) {
	b.Helper()
	pub, sub := dial(b, url), dial(b, url)

	const n = 400_000
	var got atomic.Int64
	done := make(chan struct{})
	s, err := sub.Subscribe("raw.chunk", func(*nats.Msg) {
		if got.Add(1) == n {
			close(done)
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	_ = s.SetPendingLimits(-1, -1)
	_ = sub.Flush()
	m := measure.Chunk("raw.chunk")
	began := time.Now()
	for range n {
		_ = pub.PublishMsg(m)
	}
	_ = pub.Flush()
	<-done
	t.add("nats: chunks published and received", "/s", n/time.Since(began).Seconds(), "")

	js, err := jetstream.New(pub)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "RAW", Subjects: []string{"raw.job"}, Retention: jetstream.WorkQueuePolicy}); err != nil {
		b.Fatal(err)
	}
	const jobs = 40_000
	body := []byte(strings.Repeat("x", 200))
	began = time.Now()
	for range jobs {
		if _, err := js.PublishAsync("raw.job", body, jetstream.WithStallWait(10*time.Second)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	t.add("nats: jobs stored (async)", "/s", jobs/time.Since(began).Seconds(), "")

	cons, err := js.CreateConsumer(b.Context(), "RAW", jetstream.ConsumerConfig{Durable: "raw", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1})
	if err != nil {
		b.Fatal(err)
	}
	began = time.Now()
	for left := jobs; left > 0; {
		batch, err := cons.Fetch(100)
		if err != nil {
			b.Fatal(err)
		}
		for m := range batch.Messages() {
			_ = m.Ack()
			left--
		}
	}
	t.add("nats: jobs pulled (100 at a time) and acknowledged", "/s", jobs/time.Since(began).Seconds(), "")
	t.minimal(b, url)
}

// minimal is the shortest way a job can go with the same NATS calls as vramjet's
// and nothing else: publish, pull one, offer, accept, go, a token, an end, ack.
func (t *table) minimal(b *testing.B, url string) {
	b.Helper()
	m := newMinimal(b, url)
	lat := m.latencies(1000, briefly)
	t.add("minimal path: publish to first token, p50", "ms", ms(percentile(lat, 50)), "")
	t.add("minimal path: publish to first token, p99", "ms", ms(percentile(lat, 99)), "")
	t.add("minimal path: jobs of one token", "/s", m.rate(20_000), "")
}

// bench is a system under measurement.
type bench struct {
	*testing.B
	url  string
	nc   *nats.Conn
	user *user
	http string // of the simulated backend
}

// newBench starts a dispatcher and a worker on the server at url, or with "" all
// of it in one process.
func newBench(b *testing.B, url string) *bench {
	b.Helper()
	return newBenchOf(b, url, sim.New(sim.Config{Models: []sim.Model{
		{Name: "instant", Slots: 256, Tokens: 1},
		{Name: "brief", Slots: 256, TokenInterval: briefly / 10},
		{Name: "paced", Slots: 256, TokenInterval: 5 * time.Millisecond},
		{Name: "flood", Slots: 64},
	}}), "instant")
}

// newBenchOf is newBench with a simulated server, which has that model.
func newBenchOf(b *testing.B, url string, server *sim.Server, model string) *bench {
	b.Helper()
	backend := httptest.NewServer(server)
	b.Cleanup(backend.Close)
	config := filepath.Join(b.TempDir(), "vramjet.yaml")
	yaml := fmt.Sprintf("backends:\n  - {name: sim, kind: sim, url: %q}\n", backend.URL)
	if err := os.WriteFile(config, []byte(yaml), 0o600); err != nil {
		b.Fatal(err)
	}
	if url == "" {
		addr := fmt.Sprintf("127.0.0.1:%d", freePort(b))
		url = "nats://" + addr
		start(b, "up", "vramjet", "up", "--nats", addr, "--http", "off", "--data", b.TempDir(), "--config", config, "--durability", "interval")
	} else {
		start(b, "dispatcher", "vramjet", "dispatcher", "--server", url, "--http", "off")
		start(b, "worker", "vramjet", "worker", "--server", url, "--config", config, "--node", "bench", "--http", "off")
	}
	s := &bench{B: b, url: url, http: backend.URL, user: connect(b, url)}
	s.nc = dial(b, url)
	s.user.serves(model, 1)
	return s
}

// vramjet measures the whole path.
func (t *table) vramjet(b *testing.B, url string) {
	b.Helper()
	s := newBench(b, url)
	for _, streams := range []int{1, 64} {
		model, n := "brief", 1000
		if streams > 1 {
			model, n = "paced", 64*12
		}
		s.latencies(model, 1, 20) // warm
		direct, queued := s.direct(model, streams, n), s.latencies(model, streams, n)
		for _, p := range []float64{50, 99} {
			d, q := percentile(direct, p), percentile(queued, p)
			t.add(fmt.Sprintf("first token, %d streams, direct HTTP, p%.0f", streams, p), "ms", ms(d), "")
			t.add(fmt.Sprintf("first token, %d streams, vramjet, p%.0f", streams, p), "ms", ms(q), "")
			of := ""
			if streams == 1 {
				of = fmt.Sprintf("minimal path: publish to first token, p%.0f", p)
			}
			t.add(fmt.Sprintf("first token, %d streams, added, p%.0f", streams, p), "ms", ms(q-d), of)
		}
	}
	t.add("vramjet: jobs of one token (relaxed durability)", "/s", s.rate(30_000), "minimal path: jobs of one token")
	t.add("vramjet: tokens relayed", "/s", s.flood(64, 20_000), "nats: chunks published and received")
}

// together measures what all of it in one process adds.
func (t *table) together(b *testing.B) {
	b.Helper()
	s := newBench(b, "")
	s.latencies("brief", 1, 20)
	direct, queued := s.direct("brief", 1, 1000), s.latencies("brief", 1, 1000)
	for _, p := range []float64{50, 99} {
		t.add(fmt.Sprintf("first token, 1 stream, added by vramjet up (one process), p%.0f", p), "ms", ms(percentile(queued, p)-percentile(direct, p)), "")
	}
}

// durable measures jobs/s where each job is on the disk before it is accepted.
func (t *table) durable(b *testing.B, url string) {
	b.Helper()
	s := newBench(b, url)
	s.latencies("instant", 1, 20)
	t.add("vramjet: jobs of one token (fsync always)", "/s", s.rate(6_000), "")
}

// briefly is how long an answer takes where one job follows the other, and so how
// long the machine rests in between: one that rests longer takes longer to wake.
const briefly = time.Millisecond

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func percentile(d []time.Duration, p float64) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[min(len(d)-1, int(float64(len(d))*p/100))]
}

// concurrently runs n calls of f, so many at a time, and returns what they took.
func concurrently(streams, n int, f func() time.Duration) []time.Duration {
	var (
		mu  sync.Mutex
		out []time.Duration
		wg  sync.WaitGroup
	)
	for range streams {
		wg.Go(func() {
			for range n / streams {
				d := f()
				mu.Lock()
				out = append(out, d)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return out
}

// direct measures the time to the first token of a plain HTTP call.
func (s *bench) direct(model string, streams, n int) []time.Duration {
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	defer c.CloseIdleConnections()
	body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":10}`, model)
	return concurrently(streams, n, func() time.Duration {
		began := time.Now()
		resp, err := c.Post(s.http+"/v1/chat/completions", "application/json", strings.NewReader(body))
		if err != nil {
			s.Error(err)
			return 0
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Scan()
		first := time.Since(began)
		for lines.Scan() {
		}
		return first
	})
}

// latencies measures the time to the first token through the queue.
func (s *bench) latencies(model string, streams, n int) []time.Duration {
	body := []byte(`{"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":10}`)
	return concurrently(streams, n, func() time.Duration {
		began := time.Now()
		st, err := s.user.Run(context.Background(), client.Job{Model: model, Body: body, Inbox: true, Class: schemas.Interactive})
		if err != nil {
			s.Error(err)
			return 0
		}
		defer st.Close()
		var first time.Duration
		for ev, err := range st.All(context.Background()) {
			if err != nil {
				s.Error(err)
				return 0
			}
			if ev.Kind == schemas.EventChunk && first == 0 {
				first = time.Since(began)
			}
			if ev.Kind == schemas.EventEnd && ev.Status != schemas.StatusOK {
				s.Errorf("a job failed: %s", ev.Body)
			}
		}
		return first
	})
}

// rate measures jobs of one token, end to end, with 512 outstanding.
func (s *bench) rate(n int) float64 {
	const outstanding = 512
	js, err := jetstream.New(s.nc)
	if err != nil {
		s.Fatal(err)
	}
	inbox := s.nc.NewInbox()
	window, done := make(chan struct{}, outstanding), make(chan struct{})
	var ended atomic.Int64
	sub, err := s.nc.Subscribe(inbox, func(m *nats.Msg) {
		if m.Header.Get(schemas.HeaderEvent) != string(schemas.EventEnd) {
			return
		}
		if m.Header.Get(schemas.HeaderStatus) != string(schemas.StatusOK) {
			s.Errorf("a job failed: %s", m.Data)
		}
		<-window
		if ended.Add(1) == int64(n) {
			close(done)
		}
	})
	if err != nil {
		s.Fatal(err)
	}
	defer sub.Unsubscribe()
	_ = sub.SetPendingLimits(-1, -1)
	began := time.Now()
	for range n {
		window <- struct{}{}
		m := nats.NewMsg("vj.v1.jobs.default.normal.instant")
		m.Header.Set(schemas.HeaderReply, inbox)
		m.Data = []byte(`{"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":1}`)
		if _, err := js.PublishMsgAsync(m, jetstream.WithStallWait(10*time.Second)); err != nil {
			s.Fatal(err)
		}
	}
	select {
	case <-done:
	case <-time.After(3 * time.Minute):
		s.Fatalf("%d of %d jobs ended", ended.Load(), n)
	}
	return float64(n) / time.Since(began).Seconds()
}

// flood measures tokens relayed: streams of a backend that makes them as fast as
// it can.
func (s *bench) flood(streams, tokens int) float64 {
	inbox := s.nc.NewInbox()
	var chunks, ended atomic.Int64
	done := make(chan struct{})
	sub, err := s.nc.Subscribe(inbox, func(m *nats.Msg) {
		switch m.Header.Get(schemas.HeaderEvent) {
		case string(schemas.EventChunk):
			chunks.Add(1)
		case string(schemas.EventEnd):
			if ended.Add(1) == int64(streams) {
				close(done)
			}
		}
	})
	if err != nil {
		s.Fatal(err)
	}
	defer sub.Unsubscribe()
	_ = sub.SetPendingLimits(-1, -1)
	began := time.Now()
	for range streams {
		m := nats.NewMsg("vj.v1.jobs.default.normal.flood")
		m.Header.Set(schemas.HeaderReply, inbox)
		m.Data = fmt.Appendf(nil, `{"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":%d}`, tokens)
		if err := s.nc.PublishMsg(m); err != nil {
			s.Fatal(err)
		}
	}
	select {
	case <-done:
	case <-time.After(3 * time.Minute):
		s.Fatalf("%d of %d streams ended, %d chunks", ended.Load(), streams, chunks.Load())
	}
	return float64(chunks.Load()) / time.Since(began).Seconds()
}
