package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// TestMain ignores a goroutine of the NATS client that may stay behind where somebody
// published asynchronously, as an object store does, and was done at once.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// start runs a NATS server in this process, with the streams that the client
// meets.
func start(tb testing.TB, change ...func(*server.Options)) *server.Server {
	tb.Helper()
	opts := &server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: tb.TempDir(), NoSigs: true, NoLog: true}
	for _, f := range change {
		f(opts)
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		tb.Fatal(err)
	}
	srv.Start()
	tb.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(10 * time.Second) {
		tb.Fatal("the NATS server is not ready")
	}
	return srv
}

func connect(tb testing.TB, srv *server.Server, opts ...nats.Option) *nats.Conn {
	tb.Helper()
	nc, err := nats.Connect(srv.ClientURL(), append(opts, nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	return nc
}

func newClient(tb testing.TB, nc *nats.Conn, opts client.Options) *client.Client {
	tb.Helper()
	c, err := client.New(nc, opts)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// deadline is a context that ends before the test run does.
func deadline(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 15*time.Second)
	tb.Cleanup(cancel)
	return ctx
}

// setup makes the streams as vramjet sets them up, as far as a client can tell.
func setup(tb testing.TB, nc *nats.Conn, change ...func(*jetstream.StreamConfig)) jetstream.JetStream {
	tb.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		tb.Fatal(err)
	}
	jobs := jetstream.StreamConfig{
		Name: "VJ_JOBS", Subjects: []string{schemas.JobsPrefix + ">"}, Retention: jetstream.WorkQueuePolicy,
		Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1000, Storage: jetstream.MemoryStorage,
	}
	for _, f := range change {
		f(&jobs)
	}
	results := jetstream.StreamConfig{
		Name: "VJ_RESULTS", Subjects: []string{schemas.ResultsPrefix + ">"}, AllowDirect: true, AllowMsgTTL: true, Storage: jetstream.MemoryStorage,
	}
	dead := jetstream.StreamConfig{
		Name: "VJ_DEAD", Subjects: []string{schemas.DeadPrefix + ">"}, AllowDirect: true, Storage: jetstream.MemoryStorage,
	}
	later := jetstream.StreamConfig{Name: "VJ_LATER", Subjects: []string{schemas.LaterPrefix + ">"}, Storage: jetstream.MemoryStorage}
	for _, cfg := range []jetstream.StreamConfig{jobs, later, results, dead} {
		if _, err := js.CreateStream(deadline(tb), cfg); err != nil {
			tb.Fatal(err)
		}
	}
	return js
}

// A taken is a job in the hands of the fake dispatcher and node.
type taken struct {
	tb      testing.TB
	nc      *nats.Conn
	Job     *schemas.Job
	attempt int
	seq     int
}

// serve takes each job and plays it, one at a time, until the test ends.
func serve(tb testing.TB, srv *server.Server, play func(j *taken)) {
	tb.Helper()
	nc := connect(tb, srv)
	js, err := jetstream.New(nc)
	if err != nil {
		tb.Fatal(err)
	}
	cons, err := js.CreateConsumer(deadline(tb), "VJ_JOBS", jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		tb.Fatal(err)
	}
	cc, err := cons.Consume(func(m jetstream.Msg) {
		defer func() { _ = m.Ack() }()
		flow, err := schemas.ParseJobSubject(m.Subject())
		if err != nil {
			tb.Error(err)
			return
		}
		meta, err := m.Metadata()
		if err != nil {
			tb.Error(err)
			return
		}
		job, err := schemas.ReadJob(m.Headers().Get, m.Data(), flow, meta.Sequence.Stream, nil)
		if err != nil {
			tb.Errorf("the job is refused: %v", err)
			return
		}
		play(&taken{tb: tb, nc: nc, Job: job, attempt: 1})
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { cc.Stop(); <-cc.Closed() })
}

func (t *taken) publish(kind schemas.EventKind, body string, status schemas.Status) {
	t.tb.Helper()
	subject := t.Job.EventSubject()
	if kind == schemas.EventEnd {
		subject = t.Job.EndSubject()
	}
	m := nats.NewMsg(subject)
	t.Job.SetAnswer(m.Header.Set, subject)
	m.Header.Set(schemas.HeaderEvent, string(kind))
	m.Header.Set(schemas.HeaderJob, t.Job.ID)
	m.Header.Set(schemas.HeaderAttempt, strconv.Itoa(t.attempt))
	m.Header.Set(schemas.HeaderSeq, strconv.Itoa(t.seq))
	if status != "" {
		m.Header.Set(schemas.HeaderStatus, string(status))
	}
	m.Data = []byte(body)
	t.seq++
	if err := t.nc.PublishMsg(m); err != nil {
		t.tb.Error(err)
	}
}

func (t *taken) accepted() {
	t.publish(schemas.EventAccepted, `{"node":"n1","backend":"b1","waited_ms":3,"load":false}`, "")
}

func (t *taken) chunk(text string) {
	t.publish(schemas.EventChunk, chunkBody(text), "")
}

func (t *taken) retry(message string) {
	t.publish(schemas.EventRetry, fmt.Sprintf(`{"error":{"message":%q,"type":"server_error","code":"stream_broken"},"vramjet":{"attempt":%d}}`, message, t.attempt), "")
	t.attempt++
	t.seq = 0
}

func (t *taken) ok(text string) {
	t.publish(schemas.EventEnd, fmt.Sprintf(`{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}],
		"usage":{"prompt_tokens":2,"completion_tokens":5,"total_tokens":7},"vramjet":{"node":"n1","backend":"b1","attempt":%d,"queued_ms":12,"ttft_ms":180}}`, text, t.attempt), schemas.StatusOK)
}

func (t *taken) fail(status schemas.Status, code schemas.Code, message string) {
	body, err := json.Marshal(schemas.Failure{Error: schemas.Errorf(code, "%s", message), Run: schemas.Run{Node: "n1", Attempt: 1}})
	if err != nil {
		t.tb.Error(err)
	}
	t.publish(schemas.EventEnd, string(body), status)
}

func chunkBody(text string) string {
	return fmt.Sprintf(`{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":%q}}]}`, text)
}

// read reads a stream to its end as one line: "accepted a b restarted end:ok".
func read(tb testing.TB, s *client.Stream) (string, error) {
	tb.Helper()
	var words []string
	var failed error
	for e, err := range s.All(deadline(tb)) {
		if err != nil {
			failed = err
			break
		}
		switch e.Kind {
		case schemas.EventChunk:
			words = append(words, e.Text())
		case schemas.EventEnd:
			words = append(words, "end:"+string(e.Status))
		default:
			words = append(words, string(e.Kind))
		}
	}
	return strings.Join(words, " "), failed
}

func wantCode(t *testing.T, err error, code schemas.Code) {
	t.Helper()
	var e *schemas.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("the error is %v, want one with the code %s", err, code)
	}
}
