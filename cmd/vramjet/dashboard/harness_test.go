package dashboard

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/broker/embedded"
	"github.com/vramjet/vramjet/dispatcher"
	"github.com/vramjet/vramjet/schemas"
)

// TestMain ignores a goroutine of the NATS client that may stay behind where somebody
// published asynchronously, as an object store does, and was done at once.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// patience is longer than anything that is waited for takes on a busy machine.
const patience = 60 * time.Second

// A site is a NATS server, a dispatcher and a dashboard.
type site struct {
	*testing.T
	srv *embedded.Server
	nc  *nats.Conn
	js  jetstream.JetStream
	web *httptest.Server
	d   *Dashboard
}

func newSite(t *testing.T, opts Options) *site {
	t.Helper()
	s := &site{T: t, srv: brokertest.Start(t)}
	s.nc = brokertest.Connect(t, s.srv)
	s.js = brokertest.Setup(t, s.nc)
	d, err := New(brokertest.Connect(t, s.srv), opts)
	if err != nil {
		t.Fatal(err)
	}
	s.d = d
	s.run(d.Run)
	s.web = httptest.NewServer(d.Handler())
	t.Cleanup(s.web.Close)
	t.Cleanup(s.web.CloseClientConnections)
	return s
}

// run runs something until the test ends.
func (s *site) run(f func(context.Context) error) {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	s.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.Errorf("Run: %v", err)
		}
	})
}

func (s *site) dispatch(cfg dispatcher.Config) {
	s.Helper()
	cfg.ID, cfg.Logger = "dispatcher-1", brokertest.Log(s)
	d, err := dispatcher.New(brokertest.Connect(s, s.srv), cfg)
	if err != nil {
		s.Fatal(err)
	}
	s.run(d.Run)
}

// submit stores a job. What it asks is a secret.
func (s *site) submit(tenant string, class schemas.Class, model, id string, header ...string) {
	s.Helper()
	subject, err := schemas.JobSubject(schemas.Flow{Tenant: tenant, Class: class, Model: model})
	if err != nil {
		s.Fatal(err)
	}
	m := nats.NewMsg(subject)
	m.Data = []byte(`{"messages":[{"role":"user","content":"` + secret + `"}]}`)
	m.Header.Set(schemas.HeaderMsgID, id)
	for i := 0; i+1 < len(header); i += 2 {
		m.Header.Set(header[i], header[i+1])
	}
	if _, err := s.js.PublishMsg(s.Context(), m); err != nil {
		s.Fatal(err)
	}
}

const secret = "xyzzy-plugh-plover"

// bury stores a dead letter.
func (s *site) bury(tenant, model, id string, code schemas.Code, message string) {
	s.Helper()
	m := nats.NewMsg(schemas.DeadPrefix + tenant + ".normal." + model)
	m.Data = []byte(`{"messages":[{"role":"user","content":"` + secret + `"}]}`)
	m.Header.Set(schemas.HeaderJob, id)
	m.Header.Set(schemas.HeaderDeadCode, string(code))
	m.Header.Set(schemas.HeaderDeadMessage, message)
	if _, err := s.js.PublishMsg(s.Context(), m); err != nil {
		s.Fatal(err)
	}
}

// get asks for a path and returns the answer, whose body is read.
func (s *site) get(path string, change func(*http.Request)) (*http.Response, string) {
	s.Helper()
	return s.ask(http.MethodGet, path, "", change)
}

func (s *site) ask(method, path, body string, change func(*http.Request)) (*http.Response, string) {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, s.web.URL+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	resp, err := s.web.Client().Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	var text strings.Builder
	if _, err := bufio.NewReader(resp.Body).WriteTo(&text); err != nil {
		s.Fatal(err)
	}
	return resp, text.String()
}

// A shown snapshot, as the page reads it.
type shown struct {
	Version   uint64       `json:"version"`
	Since     uint64       `json:"since"`
	Complete  bool         `json:"complete"`
	Header    *headerView  `json:"header"`
	Alerts    []alertView  `json:"alerts"`
	NodeNames []string     `json:"node_names"`
	Nodes     []nodeView   `json:"nodes"`
	Flows     *flowsView   `json:"flows"`
	Tenants   []tenantView `json:"tenants"`
	Jobs      *jobsView    `json:"jobs"`
	Batches   *batchesView `json:"batches"`
	Dead      *deadView    `json:"dead"`
	Events    []eventView  `json:"events"`
}

// look asks for the state until ok accepts it.
func (s *site) look(what string, ok func(*shown) bool) *shown {
	s.Helper()
	text := ""
	for stop := time.Now().Add(patience); time.Now().Before(stop); time.Sleep(100 * time.Millisecond) {
		_, text = s.get("/api/v1/state", nil)
		var got shown
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			s.Fatalf("%v in %s", err, text)
		}
		if strings.Contains(text, secret) {
			s.Fatal("a request is shown")
		}
		if got.Complete && ok(&got) {
			return &got
		}
	}
	s.Fatalf("%s is not shown: %s", what, text)
	return nil
}

// A fakeNode says what it is told to, and accepts all jobs. They run until they are
// finished.
type fakeNode struct {
	*site
	nc *nats.Conn

	mu    sync.Mutex // guards what is below
	state schemas.NodeState
	runs  []*run

	stop chan struct{}
	ends sync.WaitGroup
}

// A run is a job that a node has.
type run struct {
	schemas.RunningJob
	ack string // "": it has no go yet
}

const gib = schemas.GiB

// device is one with so much memory, of which others have some.
func device(id, name string, total, others, ours schemas.Bytes) schemas.Device {
	return schemas.Device{
		ID: id, Name: name, Kind: "cuda", Total: schemas.Known(total), Used: schemas.Known(others + ours), Free: schemas.Known(total - others - ours - gib/2),
		Reserved: schemas.Known(gib / 2), Ours: schemas.Known(ours), Others: schemas.Known(others), Available: schemas.Known((total - others - ours).Minus(gib)),
	}
}

// model is one that is on a device, or on none.
func model(name string, state schemas.ModelState, size schemas.Bytes, slots int, on ...string) schemas.Model {
	m := schemas.Model{
		Name: name, Kinds: []schemas.Kind{schemas.Chat}, State: state, Need: schemas.Known(size), NeedFrom: schemas.NeedLearned, Slots: slots, LoadMS: 20_000,
		Devices: map[string]schemas.Bytes{},
	}
	if state != schemas.Installed {
		m.VRAM = schemas.Known(size)
	}
	for _, id := range on {
		m.Devices[id] = size / schemas.Bytes(len(on))
	}
	return m
}

// node starts a node.
func (s *site) node(state schemas.NodeState) *fakeNode {
	s.Helper()
	n := &fakeNode{site: s, nc: brokertest.Connect(s, s.srv), state: state, stop: make(chan struct{})}
	n.state.Boot, n.state.Version = "b1", "v1.2.0"
	n.on(schemas.NodesPing, func(*nats.Msg) { n.report() })
	n.on(schemas.NodeSubject(state.Node, "run"), n.accept)
	n.on(schemas.NodeSubject(state.Node, "control"), func(m *nats.Msg) {
		var req schemas.ControlRequest
		if err := json.Unmarshal(m.Data, &req); err != nil {
			s.Error(err)
		}
		state := n.change(func(st *schemas.NodeState) {
			if req.Do == "drain" || req.Do == "undrain" {
				st.Draining = req.Do == "drain"
			}
		})
		_ = m.Respond(encode(state))
	})
	n.report()
	n.ends.Go(func() {
		for {
			select {
			case <-n.stop:
				return
			case <-time.After(time.Second):
				n.report()
			}
		}
	})
	s.Cleanup(n.kill)
	return n
}

func (n *fakeNode) on(subject string, f func(*nats.Msg)) {
	n.Helper()
	if _, err := n.nc.Subscribe(subject, f); err != nil {
		n.Fatal(err)
	}
}

// change changes what the node says of itself.
func (n *fakeNode) change(f func(*schemas.NodeState)) schemas.NodeState {
	n.mu.Lock()
	f(&n.state)
	n.mu.Unlock()
	return n.report()
}

func (n *fakeNode) report() schemas.NodeState {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state.Seq++
	n.state.At = time.Now().UTC()
	n.state.Running = nil
	busy := map[string]int{}
	for _, r := range n.runs {
		n.state.Running = append(n.state.Running, r.RunningJob)
		busy[r.Model]++
	}
	state := n.state
	state.Backends = slices.Clone(state.Backends)
	for i := range state.Backends {
		b := &state.Backends[i]
		b.Models = slices.Clone(b.Models)
		for j := range b.Models {
			b.Models[j].Busy = busy[b.Models[j].Name]
		}
	}
	_ = n.nc.Publish(schemas.NodeSubject(state.Node, "state"), encode(state))
	return state
}

// accept takes a job, shows it from its next report on, and waits for its go.
func (n *fakeNode) accept(m *nats.Msg) {
	h, to := m.Header, n.nc.NewInbox()
	sub, err := n.nc.SubscribeSync(to)
	if err != nil {
		return
	}
	flow, err := schemas.ParseJobSubject(h.Get(schemas.HeaderFlow))
	if err != nil {
		n.Errorf("an offer without a flow: %v", err)
	}
	r := &run{RunningJob: schemas.RunningJob{
		Job: h.Get(schemas.HeaderJob), Tenant: h.Get(schemas.HeaderTenant), Attempt: 1, Model: flow.Model, Backend: h.Get(schemas.HeaderBackend),
	}}
	n.mu.Lock()
	n.runs = append(n.runs, r)
	seq := n.state.Seq + 1
	n.mu.Unlock()
	_ = n.nc.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: to, Data: encode(schemas.OfferAnswer{Accepted: true, Seq: seq})})
	n.ends.Go(func() {
		claim, err := sub.NextMsg(5 * time.Second)
		n.mu.Lock()
		if err == nil {
			r.ack = string(claim.Data)
		} else {
			n.runs = slices.DeleteFunc(n.runs, func(other *run) bool { return other == r })
		}
		n.mu.Unlock()
		n.report()
	})
}

// finish ends the oldest job of a node well; false where it has none.
func (n *fakeNode) finish(tokens int64) bool {
	n.mu.Lock()
	i := slices.IndexFunc(n.runs, func(r *run) bool { return r.ack != "" })
	if i < 0 {
		n.mu.Unlock()
		return false
	}
	r := n.runs[i]
	n.runs = slices.Delete(n.runs, i, i+1)
	n.mu.Unlock()
	if _, err := n.nc.Request(r.ack, []byte("+ACK"), patience); err != nil {
		return false
	}
	_ = n.nc.Publish(schemas.NodeSubject(n.state.Node, "done"), encode(schemas.JobDone{
		Node: n.state.Node, Boot: "b1", Tenant: r.Tenant, Job: r.Job, Attempt: r.Attempt, BusyMS: 1500, Tokens: tokens, RetryMS: -1, Status: schemas.StatusOK,
	}))
	n.report()
	return true
}

// kill is what kill -9 does: the connection is gone.
func (n *fakeNode) kill() {
	select {
	case <-n.stop:
	default:
		close(n.stop)
		n.nc.Close()
	}
	n.ends.Wait()
}
