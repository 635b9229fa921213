package integration

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// minimal is the path of a job with the same NATS calls as vramjet's and no
// decision, no check, no backend: the bound for what vramjet can do here. As
// vramjet's, its parts are processes.
type minimal struct {
	testing.TB
	client *nats.Conn
	js     jetstream.JetStream
	events chan struct{}
	perJob int // events that the client gets of a job
	stop   []func()
}

// newMinimal returns the path of jobs whose token and end go to the client.
func newMinimal(b *testing.B, url string) *minimal {
	b.Helper()
	m := newPath(b, url)
	m.perJob = 2
	if _, err := m.client.Subscribe("min.events", func(*nats.Msg) { m.events <- struct{}{} }); err != nil {
		b.Fatal(err)
	}
	m.spawn("dispatcher", url, "")
	m.spawn("worker", url, "")
	return m
}

// newMinimalBatch returns the path of jobs whose end is stored, as those of a batch
// are, and read from the stream. backend is the URL that the worker asks for an
// embedding for each; "": it asks nobody.
func newMinimalBatch(b *testing.B, url, backend string) *minimal {
	b.Helper()
	m := newPath(b, url)
	m.perJob = 1
	if _, err := m.js.CreateOrUpdateStream(b.Context(), jetstream.StreamConfig{Name: "MINRES", Subjects: []string{"min.results.>"}, AllowDirect: true}); err != nil {
		b.Fatal(err)
	}
	ends, err := m.js.OrderedConsumer(b.Context(), "MINRES", jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{"min.results.*.end"}, DeliverPolicy: jetstream.DeliverNewPolicy,
	})
	if err != nil {
		b.Fatal(err)
	}
	consuming, err := ends.Consume(func(jetstream.Msg) { m.events <- struct{}{} })
	if err != nil {
		b.Fatal(err)
	}
	m.stop = append(m.stop, consuming.Stop)
	m.spawn("batch dispatcher", url, "")
	m.spawn("batch worker", url, backend)
	return m
}

func newPath(b *testing.B, url string) *minimal {
	b.Helper()
	m := &minimal{TB: b, client: dial(b, url), events: make(chan struct{}, 1<<16)}
	b.Cleanup(m.close)
	var err error
	if m.js, err = jetstream.New(m.client); err != nil {
		b.Fatal(err)
	}
	if _, err := m.js.CreateOrUpdateStream(b.Context(), jetstream.StreamConfig{
		Name: "MIN", Subjects: []string{"min.job"}, Retention: jetstream.WorkQueuePolicy,
		RePublish: &jetstream.RePublish{Source: "min.job", Destination: "min.waiting", HeadersOnly: true},
	}); err != nil {
		b.Fatal(err)
	}
	if _, err := m.js.CreateOrUpdateConsumer(b.Context(), "MIN", jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1}); err != nil {
		b.Fatal(err)
	}
	return m
}

// minimalRole is the environment variable that makes the test's binary a part of
// the minimal path, and minimalBackend who is asked on it.
const (
	minimalRole    = "VRAMJET_MINIMAL_ROLE"
	minimalBackend = "VRAMJET_MINIMAL_BACKEND"
)

var minimalRoles = map[string]func(*nats.Conn){
	"dispatcher": minimalDispatcher, "batch dispatcher": minimalBatchDispatcher,
	"worker": minimalWorker, "batch worker": minimalBatchWorker,
}

// spawn runs a part of the path in a process of its own, until the path is stopped.
func (m *minimal) spawn(role, url, backend string) {
	m.Helper()
	self, err := os.Executable()
	if err != nil {
		m.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), minimalRole+"="+role, minimalBackend+"="+backend, "NATS_URL="+url)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe() // its end ends the process
	if err != nil {
		m.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		m.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	m.stop = append(m.stop, func() { stdin.Close(); cmd.Wait() })
	if _, err := stdout.Read(make([]byte, 1)); err != nil { // it listens now
		m.Fatal(err)
	}
}

// playMinimalRole runs a part of the path, where this process is to be one.
func playMinimalRole() {
	role := os.Getenv(minimalRole)
	if role == "" {
		return
	}
	nc, err := nats.Connect(os.Getenv("NATS_URL"))
	if err != nil {
		panic(err)
	}
	minimalRoles[role](nc)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// minimalDispatcher pulls a job for each hint, offers it, and passes the ack subject on.
func minimalDispatcher(nc *nats.Conn) {
	inbox := nc.NewInbox()
	subscribe(nc, "min.waiting", func(*nats.Msg) {
		_ = nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.MIN.c", inbox, []byte(`{"batch":1,"expires":5000000000}`))
	})
	subscribe(nc, inbox, func(job *nats.Msg) {
		if job.Reply == "" {
			return
		}
		go func() {
			if r, err := nc.Request("min.run", job.Data, 10*time.Second); err == nil {
				_ = r.Respond([]byte(job.Reply))
			}
		}()
	})
}

// minimalBatchDispatcher is minimalDispatcher for jobs that have a name: it asks whether
// they ended already, hears that they have, and tells anyone who listens of each step.
func minimalBatchDispatcher(nc *nats.Conn) {
	inbox := nc.NewInbox()
	event := []byte(`{"event":"started","job":"bt-0123456789-1","model":"embed","class":"batch","at":"2026-01-01T00:00:00Z"}`)
	subscribe(nc, "min.waiting", func(*nats.Msg) {
		_ = nc.Publish("min.told", event)
		_ = nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.MIN.c", inbox, []byte(`{"batch":1,"expires":5000000000}`))
	})
	subscribe(nc, inbox, func(job *nats.Msg) {
		if job.Reply == "" {
			return
		}
		go func() {
			if _, err := nc.Request("$JS.API.DIRECT.GET.MINRES.min.results."+nuid.Next()+".end", nil, 10*time.Second); err != nil {
				return
			}
			if r, err := nc.Request("min.run", job.Data, 10*time.Second); err == nil {
				_ = r.Respond([]byte(job.Reply))
				_ = nc.Publish("min.told", event)
			}
		}()
	})
	subscribe(nc, "min.done", func(*nats.Msg) { _ = nc.Publish("min.told", event) })
}

// minimalWorker accepts each offer, and on its go publishes a token and an end and acks.
func minimalWorker(nc *nats.Conn) {
	goes := nc.NewInbox()
	var offers atomic.Int64
	subscribe(nc, "min.run", func(offer *nats.Msg) {
		_ = nc.PublishRequest(offer.Reply, goes+"."+strconv.FormatInt(offers.Add(1), 10), []byte("+OK"))
	})
	subscribe(nc, goes+".*", func(g *nats.Msg) {
		token, end := chunk("min.events"), chunk("min.events")
		end.Header["Vj-Event"] = []string{"end"}
		_ = nc.PublishMsg(token)
		_ = nc.PublishMsg(end)
		ack := string(g.Data)
		go func() { _, _ = nc.Request(ack, []byte("+ACK"), 10*time.Second) }()
	})
}

// minimalBatchWorker is minimalWorker for jobs whose events are stored, the end with a
// confirmation and if it is the first. It says that it is done.
func minimalBatchWorker(nc *nats.Conn) {
	backend := os.Getenv(minimalBackend)
	web := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
	goes := nc.NewInbox()
	var offers atomic.Int64
	subscribe(nc, "min.run", func(offer *nats.Msg) {
		_ = nc.PublishRequest(offer.Reply, goes+"."+strconv.FormatInt(offers.Add(1), 10), []byte("+OK"))
	})
	subscribe(nc, goes+".*", func(g *nats.Msg) {
		job := "min.results." + nuid.Next()
		ack := string(g.Data)
		go func() {
			_ = nc.PublishMsg(chunk(job + ".event"))
			end := chunk(job + ".end")
			if backend != "" {
				end.Data = embed(web, backend)
			}
			end.Header["Nats-Expected-Last-Subject-Sequence"] = []string{"0"}
			_ = nc.Publish("min.done", []byte(`{"job":"bt-0123456789-1","node":"bench","attempt":1,"status":"ok"}`))
			_, _ = nc.RequestMsg(end, 10*time.Second)
			_, _ = nc.Request(ack, []byte("+ACK"), 10*time.Second)
		}()
	})
}

// embed has a text embedded, and returns the answer.
func embed(web *http.Client, backend string) []byte {
	resp, err := web.Post(backend+"/v1/embeddings", "application/json", strings.NewReader(`{"model":"embed","input":"the text of line 1"}`))
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		panic(fmt.Sprint(resp.Status, err))
	}
	return body
}

func subscribe(nc *nats.Conn, subject string, h nats.MsgHandler) {
	s, err := nc.Subscribe(subject, h)
	if err != nil {
		panic(err)
	}
	_ = s.SetPendingLimits(-1, -1)
	_ = nc.Flush()
}

// close stops the parts.
func (m *minimal) close() {
	for _, stop := range m.stop {
		stop()
	}
	m.stop = nil
}

// latencies runs jobs one after the other, with pauses, and returns the times to
// their token. A machine that idles in between takes longer to wake.
func (m *minimal) latencies(n int, pause time.Duration) []time.Duration {
	var out []time.Duration
	for range n {
		began := time.Now()
		if _, err := m.js.PublishAsync("min.job", []byte("{}")); err != nil {
			m.Fatal(err)
		}
		<-m.events
		out = append(out, time.Since(began))
		<-m.events
		time.Sleep(pause)
	}
	return out
}

// rate runs n jobs, 512 at a time, and returns jobs per second.
func (m *minimal) rate(n int) float64 {
	window := make(chan struct{}, 512)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range n {
			for range m.perJob {
				<-m.events
			}
			<-window
		}
	}()
	began := time.Now()
	for range n {
		window <- struct{}{}
		if _, err := m.js.PublishAsync("min.job", []byte("{}"), jetstream.WithStallWait(10*time.Second)); err != nil {
			m.Fatal(err)
		}
	}
	<-done
	return float64(n) / time.Since(began).Seconds()
}
