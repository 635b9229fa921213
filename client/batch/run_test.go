package batch

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/broker/embedded"
	"github.com/vramjet/vramjet/schemas"
)

// TestMain ignores a goroutine of the NATS client that may stay behind where somebody
// published asynchronously, as an object store does, and was done at once.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

const patient = 30 * time.Second

// A hall is a server, and a node that answers each job: those of the model "bad"
// with an error.
type hall struct {
	*testing.T
	srv *embedded.Server
	nc  *nats.Conn
	js  jetstream.JetStream
	ran sync.Map // how often each job ran, by id
	dir string

	slow atomic.Int64 // for how long a job runs, in ns
}

func newHall(t *testing.T) *hall {
	t.Helper()
	h := &hall{T: t, srv: brokertest.StartServer(t, embedded.Config{MaxPayload: 1 << 20}), dir: t.TempDir()}
	h.nc = brokertest.Connect(t, h.srv)
	h.js = brokertest.Setup(t, h.nc)
	return h
}

// serve answers jobs until the test ends.
func (h *hall) serve() {
	h.Helper()
	nc := brokertest.Connect(h, h.srv)
	js, err := jetstream.New(nc)
	if err != nil {
		h.Fatal(err)
	}
	cons, err := js.CreateConsumer(h.Context(), broker.StreamJobs, jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1})
	if err != nil {
		h.Fatal(err)
	}
	cc, err := cons.Consume(func(m jetstream.Msg) { h.answer(nc, m) })
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { cc.Stop(); <-cc.Closed() })
}

func (h *hall) answer(nc *nats.Conn, m jetstream.Msg) {
	time.Sleep(time.Duration(h.slow.Load()))
	id := m.Headers().Get(schemas.HeaderMsgID)
	n, _ := h.ran.LoadOrStore(id, new(atomic.Int64))
	n.(*atomic.Int64).Add(1) //nolint:forcetypeassert // what was stored
	end := nats.NewMsg(schemas.EndSubject(schemas.DefaultTenant, id))
	end.Header.Set(schemas.HeaderStatus, string(schemas.StatusOK))
	end.Header.Set(schemas.HeaderCustomID, m.Headers().Get(schemas.HeaderCustomID))
	end.Data = []byte(`{"object":"chat.completion","choices":[]}`)
	if strings.HasSuffix(m.Subject(), ".bad") {
		end.Header.Set(schemas.HeaderStatus, string(schemas.StatusError))
		end.Data = []byte(`{"error":{"message":"no","type":"server_error","code":"upstream_error"}}`)
	}
	if _, err := broker.PublishEnd(context.WithoutCancel(h.Context()), nc, end); err != nil {
		h.Errorf("publish an end: %v", err)
	}
	_ = m.Ack()
}

// file writes a batch of n lines, of which each tenth is for the model "bad".
func (h *hall) file(n int) string {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintln(&b, chatLine(fmt.Sprint("line ", i), map[bool]string{true: "bad", false: "good"}[i%10 == 9]))
	}
	path := filepath.Join(h.dir, "in.jsonl")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		h.Fatal(err)
	}
	return path
}

// wants checks that each of n lines is in one of the files, once.
func (h *hall) wants(out string, n int) {
	h.Helper()
	seen := map[string]int{}
	for name, bad := range map[string]bool{out: false, out + errorsSuffix: true} {
		file, err := os.Open(name)
		if err != nil {
			h.Fatal(err)
		}
		defer file.Close()
		for s := bufio.NewScanner(file); s.Scan(); {
			var e entry
			if err := json.Unmarshal(s.Bytes(), &e); err != nil {
				h.Fatalf("%s: %v", s.Bytes(), err)
			}
			seen[e.CustomID]++
			if e.ok() == bad {
				h.Errorf("in %s: %s", name, s.Bytes())
			}
		}
	}
	for i := range n {
		if got := seen[fmt.Sprint("line ", i)]; got != 1 {
			h.Fatalf("line %d is there %d times", i, got)
		}
	}
	if len(seen) != n {
		h.Errorf("%d lines, want %d", len(seen), n)
	}
}

func (h *hall) ctx() context.Context {
	ctx, cancel := context.WithTimeout(h.Context(), patient)
	h.Cleanup(cancel)
	return ctx
}

func (h *hall) run(in, out string, cfg Config) Progress {
	h.Helper()
	p, err := Run(h.ctx(), h.nc, in, out, cfg)
	if err != nil {
		h.Fatal(err)
	}
	return p
}

func TestRun(t *testing.T) {
	h := newHall(t)
	h.serve()
	events, err := h.nc.SubscribeSync(schemas.BatchEventSubject(schemas.DefaultTenant, "*"))
	if err != nil {
		t.Fatal(err)
	}
	in, out := h.file(2000), filepath.Join(h.dir, "out.jsonl")
	p := h.run(in, out, Config{InFlight: 50})
	if p.Jobs != 2000 || p.OK != 1800 || p.Failed != 200 || p.Codes[schemas.UpstreamError] != 200 {
		t.Errorf("%+v", p)
	}
	h.wants(out, 2000)
	for _, want := range []string{"started", "completed"} {
		m, err := events.NextMsg(time.Second)
		if err != nil || !strings.Contains(string(m.Data), `"event":"`+want+`"`) {
			t.Errorf("%v, want the event %s", m, want)
		}
	}
	rec, err := Status(h.ctx(), h.nc, schemas.DefaultTenant, p.Batch)
	if err != nil || rec.State != schemas.BatchCompleted || rec.OK != 1800 || rec.Failed != 200 {
		t.Errorf("%+v, %v", rec, err)
	}

	// Once more, nothing is run, and what it says is the same.
	if again := h.run(in, out, Config{}); again.Batch != p.Batch || again.OK != p.OK || again.Codes[schemas.UpstreamError] != 200 {
		t.Errorf("%+v", again)
	}
	h.wants(out, 2000)
	h.ran.Range(func(id, n any) bool {
		if n.(*atomic.Int64).Load() != 1 { //nolint:forcetypeassert // what was stored
			t.Errorf("%s ran more than once", id)
		}
		return true
	})

	// On another machine the results are the same.
	other := filepath.Join(t.TempDir(), "fetched.jsonl")
	if got, err := Fetch(h.ctx(), h.nc, schemas.DefaultTenant, p.Batch, other); err != nil || got.OK != 1800 || got.Failed != 200 {
		t.Errorf("fetched %+v, %v", got, err)
	}
	h.wants(other, 2000)
	if all, err := List(h.ctx(), h.nc, schemas.DefaultTenant); err != nil || len(all) != 1 || all[0].Batch != p.Batch {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestRunIsTakenUp: it is stopped again and again, and its output torn.
func TestRunIsTakenUp(t *testing.T) {
	h := newHall(t)
	h.serve()
	h.slow.Store(int64(200 * time.Microsecond))
	in, out := h.file(1000), filepath.Join(h.dir, "out.jsonl")
	for stops := 0; ; stops++ {
		ctx, cancel := context.WithCancel(h.ctx())
		cfg := Config{InFlight: 100}
		cfg.Progress = func(p Progress) {
			if p.Done() > 150*(stops+1) {
				cancel()
			}
		}
		_, err := Run(ctx, h.nc, in, out, cfg)
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if st, err := os.Stat(out); err == nil && st.Size() > 10 {
			if err := os.Truncate(out, st.Size()-5); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.wants(out, 1000)
}

// TestNothingIsRunTwice: what has its result is not submitted again, also when the queue
// has forgotten the ids of the jobs, and the files are lost.
func TestNothingIsRunTwice(t *testing.T) {
	h := newHall(t)
	stream, err := h.js.Stream(h.ctx(), broker.StreamJobs)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.Duplicates = 100 * time.Millisecond // the least that there is
	if _, err := h.js.UpdateStream(h.ctx(), cfg); err != nil {
		t.Fatal(err)
	}
	h.serve()
	in, out := h.file(100), filepath.Join(h.dir, "out.jsonl")
	h.run(in, out, Config{})
	for _, lost := range []bool{false, true} {
		if lost {
			for _, name := range []string{out, out + errorsSuffix} {
				if err := os.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(200 * time.Millisecond) // of the server's clock
		h.run(in, out, Config{})
		h.wants(out, 100)
		if st, err := h.js.Stream(h.ctx(), broker.StreamJobs); err != nil || st.CachedInfo().State.LastSeq != 100 {
			t.Errorf("files lost: %v: %d jobs were submitted, %v", lost, st.CachedInfo().State.LastSeq, err)
		}
	}
}

// TestOtherRoundsAreNotTaken: a job of a line's round before that ends late is no result
// of this one.
func TestOtherRoundsAreNotTaken(t *testing.T) {
	o, err := openOutputs(filepath.Join(t.TempDir(), "out"), someBatch)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	r := &runner{m: &manifest{}, out: o}
	r.m.Round = 1
	late, now := endOf(1, schemas.StatusCancelled, schemas.Cancelled), endOf(1, schemas.StatusOK, "")
	now.name.round = 1
	for _, e := range []*ended{late, now} {
		if err := r.take(e); err != nil {
			t.Fatal(err)
		}
	}
	if o.answered != 1 || o.failed != 0 {
		t.Errorf("%d answers, %d failures", o.answered, o.failed)
	}
}

// TestRunWaitsForRoom: a full queue holds the reader back, and fails nothing.
func TestRunWaitsForRoom(t *testing.T) {
	h := newHall(t)
	stream, err := h.js.Stream(h.ctx(), broker.StreamJobs)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgsPerSubject = 20
	if _, err := h.js.UpdateStream(h.ctx(), cfg); err != nil {
		t.Fatal(err)
	}
	var full atomic.Bool
	served := sync.OnceFunc(h.serve)
	out := filepath.Join(h.dir, "out.jsonl")
	h.run(h.file(500), out, Config{InFlight: 200, Progress: func(p Progress) {
		if p.Trouble != "" {
			full.Store(true)
			served()
		}
	}})
	if !full.Load() {
		t.Error("nobody said that the queue is full")
	}
	h.wants(out, 500)
}

// TestRunOutlivesTheServer: NATS restarts in the middle.
func TestRunOutlivesTheServer(t *testing.T) {
	h := newHall(t)
	proxy := brokertest.StartProxy(t, h.srv.ClientURL())
	nc, err := nats.Connect(proxy.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	h.serve()
	h.slow.Store(int64(time.Millisecond))
	out := filepath.Join(h.dir, "out.jsonl")
	cuts := 0
	_, err = Run(h.ctx(), nc, h.file(1500), out, Config{InFlight: 100, Progress: func(p Progress) {
		if cuts < 5 && p.Done() > 100*cuts {
			cuts++
			proxy.Cut()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if cuts < 3 {
		t.Errorf("it was cut %d times", cuts)
	}
	h.wants(out, 1500)
}

func TestRunRefusesWhatIsNotItsOwn(t *testing.T) {
	h := newHall(t)
	h.serve()
	in, out := h.file(20), filepath.Join(h.dir, "out.jsonl")
	h.run(in, out, Config{})
	h.file(30) // in the place of the other
	if _, err := Run(h.ctx(), h.nc, in, out, Config{}); err == nil || !strings.Contains(err.Error(), "holds the answers to another file") {
		t.Errorf("the input has changed: %v", err)
	}
	if err := os.Remove(out + manifestSuffix); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(h.ctx(), h.nc, in, out, Config{}); err == nil || !strings.Contains(err.Error(), "exists, and is no output of a batch") {
		t.Errorf("the output is something else: %v", err)
	}
	if _, err := Resume(h.ctx(), h.nc, out, Config{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("resumed without a manifest: %v", err)
	}
	if _, err := Status(h.ctx(), h.nc, schemas.DefaultTenant, "batch_nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the status of none: %v", err)
	}
}

// TestLargeLines: what is too large for a message is run as well.
func TestLargeLines(t *testing.T) {
	h := newHall(t)
	line := func(id string) string {
		return strings.Replace(chatLine(id, "good"), "hi", strings.Repeat("x", int(h.nc.MaxPayload())), 1)
	}
	if h.nc.MaxPayload() > maxLine/2 {
		t.Fatalf("the server takes %d bytes", h.nc.MaxPayload())
	}
	in, out := filepath.Join(h.dir, "in.jsonl"), filepath.Join(h.dir, "out.jsonl")
	if err := os.WriteFile(in, []byte(line("line 0")+"\n"+line("line 1")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Submit(h.ctx(), h.nc, in, Config{}); err != nil {
		t.Fatal(err)
	}
	h.serve()
	if p := h.run(in, out, Config{}); p.OK != 2 {
		t.Errorf("%+v", p)
	}
}

func TestSubmit(t *testing.T) {
	h := newHall(t)
	in := h.file(300)
	ctx, cancel := context.WithCancel(h.ctx())
	if _, err := Submit(ctx, h.nc, in, Config{InFlight: 20, Progress: func(p Progress) {
		if p.InFlight > 100 {
			cancel()
		}
	}}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	rec, err := Submit(h.ctx(), h.nc, in, Config{InFlight: 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Submit(h.ctx(), h.nc, in, Config{}); !errors.Is(err, ErrSubmitted) {
		t.Errorf("submitted twice: %v", err)
	}
	h.serve()
	out := filepath.Join(h.dir, "out.jsonl")
	for stop := time.Now().Add(patient); ; time.Sleep(20 * time.Millisecond) {
		p, err := Fetch(h.ctx(), h.nc, schemas.DefaultTenant, rec.Batch, out)
		if err != nil || time.Now().After(stop) {
			t.Fatalf("%+v, %v", p, err)
		}
		if p.Done() == 300 {
			break
		}
	}
	h.wants(out, 300)
}

// TestCancel: what runs the batch notices that somebody cancelled it, and each line has
// its result all the same.
func TestCancel(t *testing.T) {
	h := newHall(t)
	h.slow.Store(int64(20 * time.Millisecond))
	h.serve()
	purged := make(chan schemas.PurgeRequest, 1)
	if _, err := h.nc.Subscribe(schemas.APISubject(schemas.DefaultTenant, "purge"), func(m *nats.Msg) {
		var req schemas.PurgeRequest
		if err := json.Unmarshal(m.Data, &req); err != nil {
			t.Error(err)
		}
		purged <- req
		_ = m.Respond([]byte(`{"waiting":0,"running":0,"through":1}`))
	}); err != nil {
		t.Fatal(err)
	}
	in, out := h.file(5000), filepath.Join(h.dir, "out.jsonl")
	cancelled := false
	p := h.run(in, out, Config{InFlight: 10, Progress: func(p Progress) {
		if p.Done() == 0 || cancelled {
			return
		}
		cancelled = true
		if rec, err := Cancel(h.ctx(), h.nc, schemas.DefaultTenant, p.Batch); err != nil || rec.State != schemas.BatchCancelled {
			t.Errorf("%+v, %v", rec, err)
		}
	}})
	if p.Done() != 5000 || p.Codes[schemas.Cancelled] < 3000 || p.OK == 0 {
		t.Errorf("%+v", p)
	}
	if req := <-purged; req.Prefix != p.Batch+"-" || !req.Running {
		t.Errorf("purged %+v", req)
	}
	if rec, err := Status(h.ctx(), h.nc, schemas.DefaultTenant, p.Batch); err != nil || rec.State != schemas.BatchCancelled {
		t.Errorf("%+v, %v", rec, err)
	}
	if p = h.run(in, out, Config{}); p.Done() != 5000 {
		t.Errorf("run again: %+v", p)
	}
}

// TestPatiently: a server that does not answer is asked for some minutes, and one that
// answers with an error once.
func TestPatiently(t *testing.T) {
	silence := fmt.Errorf("read results: %w", context.DeadlineExceeded)
	for name, tt := range map[string]struct {
		answers []error // the last one for ever
		want    error
		asked   int
	}{
		"well":       {[]error{nil}, nil, 1},
		"comes back": {[]error{silence, silence, nil}, nil, 3},
		"says no":    {[]error{silence, errBusy}, errBusy, 2},
		"is gone":    {[]error{silence}, context.DeadlineExceeded, int(patience/apiTimeout) + 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked, told := 0, 0
				err := patiently(t.Context(), func() error {
					asked++
					answer := tt.answers[min(asked, len(tt.answers))-1]
					if errors.Is(answer, context.DeadlineExceeded) {
						time.Sleep(apiTimeout)
					}
					return answer
				}, func(error) { told++ })
				if !errors.Is(err, tt.want) || asked != tt.asked || told != tt.asked-1 {
					t.Errorf("asked %d times, told of it %d times: %v", asked, told, err)
				}
			})
		})
	}
}

var errBusy = errors.New("the server says 500")
