package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// patience is how long anything in a test may take.
const patience = 10 * time.Second

// A rig is a node in front of a simulated model server, with a NATS server, and
// a dispatcher that does what the test tells it.
type rig struct {
	t      *testing.T
	nc     *nats.Conn        // the dispatcher's
	join   func() *nats.Conn // another one
	js     jetstream.JetStream
	sim    *sim.Server
	http   *httptest.Server
	worker *Worker
	states chan *schemas.NodeState // the newest
	dones  chan schemas.JobDone
	stop   func() // ends Run and waits for it
	again  func() // runs another worker of the node, after stop
}

// simConfig has a quick and a slow model of 14 GiB each on a device of 24 GiB.
func simConfig() sim.Config {
	return sim.Config{
		Devices: []sim.Device{{ID: "sim-0", Memory: 24 * gib}},
		Models: []sim.Model{
			{Name: "quick", VRAM: 14 * gib, LoadTime: 20 * time.Millisecond, Slots: 2, Tokens: 20},
			{Name: "slow", VRAM: 14 * gib, LoadTime: 20 * time.Millisecond, TokenInterval: 10 * time.Millisecond, Slots: 2, Tokens: 2000},
			{Name: "heavy", VRAM: gib, LoadTime: time.Second, Slots: 4, Tokens: 5},
			{Name: "silent", VRAM: gib, FirstToken: time.Minute},
			{Name: "embed", Kinds: []schemas.Kind{schemas.Embedding}, VRAM: gib, Slots: 2},
		},
	}
}

func newRig(t *testing.T, change func(*Config, *pace)) *rig {
	t.Helper()
	r := &rig{t: t, sim: sim.New(simConfig()), states: make(chan *schemas.NodeState, 1), dones: make(chan schemas.JobDone, 1000)}
	srv := brokertest.Start(t)
	r.join = func() *nats.Conn { return brokertest.Connect(t, srv) }
	r.nc = brokertest.Connect(t, srv)
	r.js = brokertest.Setup(t, r.nc)
	r.http = httptest.NewServer(r.sim)
	t.Cleanup(r.http.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	p, err := providers.New(providers.Config{Name: "sim", Kind: "sim", URL: r.http.URL, HTTP: &http.Client{Transport: transport}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Node: "n1", Version: "v1.2.3", Drain: patience, Logger: brokertest.Log(t),
		Backends: []Backend{{Name: "sim", Kind: "sim", Provider: p}},
	}
	pace := defaultPace()
	pace.sweep, pace.report, pace.burst = 10*time.Millisecond, 50*time.Millisecond, 5*time.Millisecond
	pace.poll, pace.devices, pace.probe = 50*time.Millisecond, 50*time.Millisecond, 20*time.Millisecond
	if change != nil {
		change(&cfg, &pace)
	}
	r.follow()
	r.again = func() { r.start(cfg, pace) }
	r.again()
	return r
}

// start runs a worker until stop is called.
func (r *rig) start(cfg Config, pace pace) {
	r.t.Helper()
	var err error
	if r.worker, err = New(r.join(), cfg); err != nil {
		r.t.Fatal(err)
	}
	r.worker.pace = pace
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.worker.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := wait(r.t, ended); err != nil {
			r.t.Errorf("run: %v", err)
		}
	})
	r.t.Cleanup(r.stop)
	r.await(func(s *schemas.NodeState) bool { return len(s.Backends) > 0 && s.Backends[0].Healthy && !s.Draining })
}

// follow keeps what the node says of itself.
func (r *rig) follow() {
	r.t.Helper()
	r.subscribe(schemas.NodeSubject("n1", "state"), func(m *nats.Msg) {
		var s schemas.NodeState
		if err := json.Unmarshal(m.Data, &s); err != nil {
			r.t.Errorf("state: %v", err)
			return
		}
		select {
		case <-r.states:
		default:
		}
		r.states <- &s
	})
	r.subscribe(schemas.NodeSubject("n1", "done"), func(m *nats.Msg) {
		var d schemas.JobDone
		if err := json.Unmarshal(m.Data, &d); err != nil {
			r.t.Errorf("done: %v", err)
			return
		}
		r.dones <- d
	})
}

func (r *rig) subscribe(subject string, f nats.MsgHandler) {
	r.t.Helper()
	if _, err := r.nc.Subscribe(subject, f); err != nil {
		r.t.Fatal(err)
	}
	if err := r.nc.Flush(); err != nil {
		r.t.Fatal(err)
	}
}

// await returns the first state of the worker that runs now that ok is content with. One
// of the worker before it may still come in: they came by connections of their own.
func (r *rig) await(ok func(*schemas.NodeState) bool) *schemas.NodeState {
	r.t.Helper()
	deadline := time.After(patience)
	var last *schemas.NodeState
	for {
		select {
		case last = <-r.states:
			if last.Boot == r.worker.boot && ok(last) {
				return last
			}
		case <-deadline:
			r.t.Fatalf("no such state; the last is %+v", last)
		}
	}
}

// busy waits until a model has that many slots taken. It asks the node, since a state
// that was published may be from before what the test just did.
func (r *rig) busy(name string, busy int) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("%s has not %d slots taken", name, busy), func() bool { return modelOf(r.now(), name).Busy == busy })
}

// now returns the node's state as it is.
func (r *rig) now() *schemas.NodeState {
	r.t.Helper()
	m, err := r.nc.Request(schemas.NodeSubject("n1", "control"), []byte(`{"do":"state"}`), patience)
	if err != nil {
		r.t.Fatal(err)
	}
	var s schemas.NodeState
	if err := json.Unmarshal(m.Data, &s); err != nil {
		r.t.Fatal(err)
	}
	return &s
}

func modelOf(s *schemas.NodeState, name string) schemas.Model {
	i := slices.IndexFunc(s.Backends[0].Models, func(m schemas.Model) bool { return m.Name == name })
	if i < 0 {
		return schemas.Model{}
	}
	return s.Backends[0].Models[i]
}

func wait[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// A job is one that a test submitted.
type job struct {
	*rig
	id       string
	subject  string
	model    string
	consumer jetstream.Consumer
	events   chan *nats.Msg // all of them
	header   nats.Header
	change   func(nats.Header) // of the offer
}

// submit puts a job into the queue, with headers as pairs. Its events are read
// from its result subjects, or from Vj-Reply.
func (r *rig) submit(id, model, body string, headers ...string) *job {
	r.t.Helper()
	subject, err := schemas.JobSubject(schemas.Flow{Tenant: "acme", Class: schemas.Normal, Model: model})
	if err != nil {
		r.t.Fatal(err)
	}
	j := &job{rig: r, id: id, subject: subject, model: model, events: make(chan *nats.Msg, 10_000), header: nats.Header{}}
	j.header.Set(schemas.HeaderMsgID, id)
	for i := 0; i < len(headers); i += 2 {
		j.header.Set(headers[i], headers[i+1])
	}
	reply := cmp.Or(j.header.Get(schemas.HeaderReply), schemas.ResultSubjects("acme", id))
	if reply != "_INBOX.nobody" {
		r.subscribe(reply, func(m *nats.Msg) { j.events <- m })
	}
	ctx := r.t.Context()
	if _, err := r.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Header: j.header, Data: []byte(body)}); err != nil {
		r.t.Fatal(err)
	}
	j.consumer, err = r.js.CreateOrUpdateConsumer(ctx, broker.StreamJobs, broker.ConsumerConfig(subject, 100, 1))
	if err != nil {
		r.t.Fatal(err)
	}
	return j
}

const (
	chat     = `{"messages":[{"role":"user","content":"hello"}],"stream":true}`
	unstream = `{"messages":[{"role":"user","content":"hello"}]}`
	text     = `{"prompt":"hello","stream":true}`
	embedded = `{"input":"hello"}`
)

// fetch takes the job from the queue.
func (j *job) fetch() jetstream.Msg {
	j.t.Helper()
	msg, err := j.consumer.Next(jetstream.FetchMaxWait(patience))
	if err != nil {
		j.t.Fatalf("fetch %s: %v", j.id, err)
	}
	return msg
}

// offer offers the delivery to the node.
func (j *job) offer(msg jetstream.Msg, evict ...string) (schemas.OfferAnswer, *nats.Msg) {
	j.t.Helper()
	meta, err := msg.Metadata()
	if err != nil {
		j.t.Fatal(err)
	}
	h := nats.Header{}
	maps.Copy(h, msg.Headers())
	if h.Get(schemas.HeaderKind) == "" {
		h.Set(schemas.HeaderKind, "chat")
	}
	h.Set(schemas.HeaderJob, j.id)
	h.Set(schemas.HeaderTenant, "acme")
	h.Set(schemas.HeaderFlow, j.subject)
	h.Set(schemas.HeaderAttempt, strconv.FormatUint(meta.NumDelivered, 10))
	h.Set(schemas.HeaderBackend, "sim")
	h.Set(schemas.HeaderModel, j.model)
	h.Set(schemas.HeaderWaited, "12")
	for _, m := range evict {
		h.Add(schemas.HeaderEvict, "sim "+m)
	}
	if j.change != nil {
		j.change(h)
	}
	reply, err := j.nc.RequestMsg(&nats.Msg{Subject: schemas.NodeSubject("n1", "run"), Header: h, Data: msg.Data()}, patience)
	if err != nil {
		j.t.Fatalf("offer %s: %v", j.id, err)
	}
	var answer schemas.OfferAnswer
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		j.t.Fatal(err)
	}
	return answer, reply
}

// accept offers the delivery and expects that it is accepted.
func (j *job) accept(msg jetstream.Msg, evict ...string) (goSubject string) {
	j.t.Helper()
	answer, reply := j.offer(msg, evict...)
	if !answer.Accepted || reply.Reply == "" {
		j.t.Fatalf("offer %s: %+v", j.id, answer)
	}
	return reply.Reply
}

// refused offers the delivery and expects that it is refused.
func (j *job) refused(msg jetstream.Msg) string {
	j.t.Helper()
	answer, _ := j.offer(msg)
	if answer.Accepted || answer.Reason == "" || answer.State == nil {
		j.t.Fatalf("offer %s: %+v", j.id, answer)
	}
	return answer.Reason
}

// claim sends the go.
func (j *job) claim(subject, ack string, lease time.Duration) {
	j.t.Helper()
	h := nats.Header{schemas.HeaderLease: {strconv.FormatInt(lease.Milliseconds(), 10)}}
	if err := j.nc.PublishMsg(&nats.Msg{Subject: subject, Header: h, Data: []byte(ack)}); err != nil {
		j.t.Fatal(err)
	}
}

// run fetches the job, has the node accept it, and sends the go.
func (j *job) run(evict ...string) *job {
	j.t.Helper()
	msg := j.fetch()
	j.claim(j.accept(msg, evict...), msg.Reply(), broker.AckWait)
	return j
}

// next returns the next event, which must be of that kind.
func (j *job) next(kind schemas.EventKind) *nats.Msg {
	j.t.Helper()
	m := wait(j.t, j.events)
	if got := m.Header.Get(schemas.HeaderEvent); got != string(kind) {
		j.t.Fatalf("%s: event %s %s, want %s", j.id, got, m.Data, kind)
	}
	return m
}

// end reads the events of an attempt up to the first of a kind, and checks how
// they are numbered. It returns the chunks and the last event.
func (j *job) end(kind schemas.EventKind, attempt uint64) (chunks [][]byte, last *nats.Msg) {
	j.t.Helper()
	for seq := 0; ; seq++ {
		m := wait(j.t, j.events)
		h := m.Header
		if got, want := fmt.Sprint(h.Get(schemas.HeaderJob), h.Get(schemas.HeaderAttempt), "-", h.Get(schemas.HeaderSeq)), fmt.Sprint(j.id, attempt, "-", seq); got != want {
			j.t.Fatalf("event %s %s, want %s", got, m.Data, want)
		}
		switch got := schemas.EventKind(h.Get(schemas.HeaderEvent)); {
		case got == kind:
			return chunks, m
		case got == schemas.EventChunk:
			chunks = append(chunks, m.Data)
		case got == schemas.EventAccepted && seq == 0:
		default:
			j.t.Fatalf("%s: event %s %s", j.id, got, m.Data)
		}
	}
}

// ended expects an end of that status, and that the job is gone from the queue.
func (j *job) ended(attempt uint64, status schemas.Status) (chunks [][]byte, body []byte) {
	j.t.Helper()
	chunks, m := j.end(schemas.EventEnd, attempt)
	if got := m.Header.Get(schemas.HeaderStatus); got != string(status) {
		j.t.Fatalf("%s ended %s: %s, want %s", j.id, got, m.Data, status)
	}
	if got := m.Header.Get(schemas.HeaderNode); got != "n1" {
		j.t.Errorf("%s ended on the node %q", j.id, got)
	}
	j.gone()
	return chunks, m.Data
}

// gone waits until the job is no longer in the queue.
func (j *job) gone() {
	j.t.Helper()
	j.eventually("the job is still in the queue", func() bool {
		_, err := j.stream(broker.StreamJobs).GetLastMsgForSubject(j.t.Context(), j.subject)
		return err != nil
	})
}

func (r *rig) stream(name string) jetstream.Stream {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// eventually asks again and again: JetStream does not tell.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatal(what)
		}
	}
}

// done returns what the node says when the job's slot is free.
func (j *job) done() schemas.JobDone {
	j.t.Helper()
	d := wait(j.t, j.dones)
	if d.Job != j.id || d.Tenant != "acme" || d.Node != "n1" {
		j.t.Fatalf("done %+v, want %s", d, j.id)
	}
	return d
}
