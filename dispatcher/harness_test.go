package dispatcher

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
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

// patience is longer than a delivery is waited for that a busy machine lost.
const patience = 45 * time.Second

// system is a NATS server and what the tests of this package do on it.
type system struct {
	*testing.T
	srv *embedded.Server
	nc  *nats.Conn
	js  jetstream.JetStream
	d   *Dispatcher // the last that was started
}

// within runs f on the goroutine of the dispatcher.
func (s *system) within(f func()) {
	s.Helper()
	done := make(chan struct{})
	s.d.post(func() { f(); close(done) })
	select {
	case <-done:
	case <-time.After(patience):
		s.Fatal("the dispatcher hangs")
	}
}

// until waits until ok holds of what the leader knows: what others publish is heard
// when it is.
func (s *system) until(what string, ok func(*term) bool) {
	s.Helper()
	for stop := time.Now().Add(patience); time.Now().Before(stop); time.Sleep(5 * time.Millisecond) {
		held := false
		s.within(func() { held = s.d.term != nil && ok(s.d.term) })
		if held {
			return
		}
	}
	s.Fatalf("still not so: %s", what)
}

func newSystem(t *testing.T) *system {
	t.Helper()
	srv := brokertest.Start(t)
	nc := brokertest.Connect(t, srv)
	return &system{T: t, srv: srv, nc: nc, js: brokertest.Setup(t, nc)}
}

// dispatch runs a dispatcher until the test ends, or until stop is called.
func (s *system) dispatch(cfg Config) (stop func()) {
	s.Helper()
	return s.run(s.dispatcher(cfg))
}

func (s *system) dispatcher(cfg Config) *Dispatcher {
	s.Helper()
	cfg.Logger = brokertest.Log(s)
	nc := brokertest.Connect(s, s.srv)
	d, err := New(nc, cfg)
	if err != nil {
		s.Fatal(err)
	}
	return d
}

func (s *system) run(d *Dispatcher) (stop func()) {
	s.Helper()
	s.d = d
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				s.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			s.Error("the dispatcher does not end")
		}
	}
	s.Cleanup(stop)
	return stop
}

// A deafened JetStream leaves the first requests of a new leader unanswered, as a cluster
// does that elects.
type deafened struct {
	jetstream.JetStream
	asked atomic.Int32 // how often, for a bucket
}

func (j *deafened) KeyValue(ctx context.Context, bucket string) (jetstream.KeyValue, error) {
	if n := j.asked.Add(1); n > 1 && n <= 4 { // after the lease: pauses, marks, shares
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return j.JetStream.KeyValue(ctx, bucket) //nolint:wrapcheck // it stands in for it
}

// deaf is a dispatcher whose first requests as a leader nobody answers.
func (s *system) deaf(cfg Config) *Dispatcher {
	s.Helper()
	d := s.dispatcher(cfg)
	d.js = &deafened{JetStream: d.js}
	return d
}

// submit publishes a job and returns its sequence.
func (s *system) submit(model, id string, header ...string) uint64 {
	s.Helper()
	subject, err := schemas.JobSubject(schemas.Flow{Tenant: "default", Class: schemas.Normal, Model: model})
	if err != nil {
		s.Fatal(err)
	}
	return s.publish(subject, id, header...)
}

func (s *system) publish(subject, id string, header ...string) uint64 {
	s.Helper()
	m := nats.NewMsg(subject)
	m.Data = []byte(`{"messages":[{"role":"user","content":"hi"}]}`)
	if id != "" {
		m.Header.Set(schemas.HeaderMsgID, id)
	}
	for i := 0; i+1 < len(header); i += 2 {
		m.Header.Set(header[i], header[i+1])
	}
	ack, err := s.js.PublishMsg(s.Context(), m)
	if err != nil {
		s.Fatal(err)
	}
	return ack.Sequence
}

// end waits for the end of a job and returns its status and its error.
func (s *system) end(id string) (schemas.Status, *schemas.Error) {
	s.Helper()
	for stop := time.Now().Add(patience); time.Now().Before(stop); {
		m, ok, err := broker.LastMsg(s.Context(), s.nc, broker.StreamResults, schemas.EndSubject("default", id))
		if err != nil {
			s.Fatal(err)
		}
		if ok {
			var f schemas.Failure
			if err := json.Unmarshal(m.Data, &f); err != nil {
				s.Fatal(err)
			}
			return schemas.Status(m.Header.Get(schemas.HeaderStatus)), f.Error
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.Fatalf("job %s has no end", id)
	return "", nil
}

// wantQueued waits until the queue holds n jobs.
func (s *system) wantQueued(n uint64) {
	s.Helper()
	var last uint64
	for stop := time.Now().Add(patience); time.Now().Before(stop); time.Sleep(5 * time.Millisecond) {
		st, err := s.js.Stream(s.Context(), broker.StreamJobs)
		if err != nil {
			s.Fatal(err)
		}
		if last = st.CachedInfo().State.Msgs; last == n {
			return
		}
	}
	s.Fatalf("the queue holds %d jobs, want %d", last, n)
}

// A fakeNode answers offers as the test tells it, and settles nothing by itself.
type fakeNode struct {
	busyMS int64   // what each job took, as it says; 0: 1
	cost   float64 // likewise
	tokens int64   // likewise
	*system
	nc    *nats.Conn
	state schemas.NodeState
	jobs  chan run // those that got their go
	sub   *nats.Subscription
	stop  chan struct{}
	waits sync.WaitGroup
}

// A run is a job that the dispatcher gave to a node.
type run struct {
	offer *nats.Msg
	ack   string
	lease string
}

func (r run) job() string     { return r.offer.Header.Get(schemas.HeaderJob) }
func (r run) attempt() string { return r.offer.Header.Get(schemas.HeaderAttempt) }

// node starts a node with models of two slots each. answer may refuse an offer by
// returning a reason, or not answer at all with "-".
func (s *system) node(id string, answer func(*nats.Msg) string, models ...string) *fakeNode {
	s.Helper()
	b := schemas.Backend{Name: "sim", Kind: "sim", Healthy: true}
	for _, m := range models {
		b.Models = append(b.Models, schemas.Model{
			Name: m, Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Resident, Slots: 2,
		})
	}
	return s.nodeWith(id, answer, b)
}

// nodeWith starts a node with a backend.
func (s *system) nodeWith(id string, answer func(*nats.Msg) string, b schemas.Backend) *fakeNode {
	s.Helper()
	n := &fakeNode{system: s, nc: brokertest.Connect(s, s.srv), jobs: make(chan run, 1000), stop: make(chan struct{})}
	n.state = schemas.NodeState{Node: id, Boot: "b1", Backends: []schemas.Backend{b}}
	sub, err := n.nc.Subscribe(schemas.NodeSubject(id, "run"), func(m *nats.Msg) {
		reason := ""
		if answer != nil {
			reason = answer(m)
		}
		if reason == "-" {
			return
		}
		n.answer(m, reason)
	})
	if err != nil {
		s.Fatal(err)
	}
	n.sub = sub
	if _, err := n.nc.Subscribe(schemas.NodesPing, func(*nats.Msg) { n.report() }); err != nil {
		s.Fatal(err)
	}
	n.report()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-n.stop:
				return
			case <-time.After(500 * time.Millisecond):
				n.report()
			}
		}
	}()
	s.Cleanup(func() { n.kill(); <-done; n.waits.Wait() })
	return n
}

func (n *fakeNode) answer(m *nats.Msg, reason string) {
	if reason != "" {
		state := n.state
		_ = m.Respond(encode(schemas.OfferAnswer{Reason: reason, State: &state}))
		return
	}
	to := n.nc.NewInbox()
	sub, err := n.nc.SubscribeSync(to)
	if err != nil {
		return
	}
	_ = n.nc.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: to, Data: encode(schemas.OfferAnswer{Accepted: true, Seq: 1 << 60})})
	n.waits.Go(func() {
		if goMsg, err := sub.NextMsg(2 * time.Second); err == nil {
			n.jobs <- run{m, string(goMsg.Data), goMsg.Header.Get(schemas.HeaderLease)}
		}
	})
}

func (n *fakeNode) report() {
	_ = n.nc.Publish(schemas.NodeSubject(n.state.Node, "state"), encode(n.state))
}

// kill is what kill -9 does: the connection is gone.
func (n *fakeNode) kill() {
	select {
	case <-n.stop:
	default:
		close(n.stop)
		n.nc.Close()
	}
}

// next waits for the next job that got its go.
func (n *fakeNode) next() run {
	n.Helper()
	select {
	case r := <-n.jobs:
		return r
	case <-time.After(patience):
		n.Fatalf("node %s got no job", n.state.Node)
		return run{}
	}
}

// finish settles a job and frees its slot.
func (n *fakeNode) finish(r run) {
	n.Helper()
	if err := broker.Ack(n.Context(), n.nc, r.ack); err != nil {
		n.Fatal(err)
	}
	n.free(r, "", -1)
}

func (n *fakeNode) free(r run, code schemas.Code, retryMS int64) {
	status := schemas.Status("")
	if retryMS < 0 {
		status = schemas.StatusOK
	}
	attempt, err := strconv.ParseUint(r.attempt(), 10, 64)
	if err != nil {
		n.Fatal(err)
	}
	_ = n.nc.Publish(schemas.NodeSubject(n.state.Node, "done"), encode(schemas.JobDone{
		Node: n.state.Node, Boot: "b1", Tenant: r.offer.Header.Get(schemas.HeaderTenant), Job: r.job(), Attempt: attempt, BusyMS: max(1, n.busyMS), Tokens: n.tokens, Cost: n.cost, Code: code, RetryMS: retryMS, Status: status,
	}))
}
