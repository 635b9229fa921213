package integration

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// minimal is the path of a job with the same NATS calls as vramjet's and no
// decision, no check, no backend: the bound for what vramjet can do here. As
// vramjet's, its parts are processes.
type minimal struct {
	testing.TB
	client *nats.Conn
	js     jetstream.JetStream
	events chan *nats.Msg
}

func newMinimal(b *testing.B, url string) *minimal {
	b.Helper()
	m := &minimal{TB: b, client: dial(b, url), events: make(chan *nats.Msg, 1<<16)}
	var err error
	if m.js, err = jetstream.New(m.client); err != nil {
		b.Fatal(err)
	}
	if _, err := m.js.CreateStream(b.Context(), jetstream.StreamConfig{
		Name: "MIN", Subjects: []string{"min.job"}, Retention: jetstream.WorkQueuePolicy,
		RePublish: &jetstream.RePublish{Source: "min.job", Destination: "min.waiting", HeadersOnly: true},
	}); err != nil {
		b.Fatal(err)
	}
	if _, err := m.js.CreateConsumer(b.Context(), "MIN", jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1}); err != nil {
		b.Fatal(err)
	}
	if _, err := m.client.ChanSubscribe("min.events", m.events); err != nil {
		b.Fatal(err)
	}
	for role := range minimalRoles {
		m.spawn(role, url)
	}
	return m
}

// minimalRole is the environment variable that makes the test's binary a part of
// the minimal path.
const minimalRole = "VRAMJET_MINIMAL_ROLE"

var minimalRoles = map[string]func(*nats.Conn){"dispatcher": minimalDispatcher, "worker": minimalWorker}

// spawn runs a part of the path in a process of its own, until the benchmark ends.
func (m *minimal) spawn(role, url string) {
	m.Helper()
	self, err := os.Executable()
	if err != nil {
		m.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), minimalRole+"="+role, "NATS_URL="+url)
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
	m.Cleanup(func() { stdin.Close(); cmd.Wait() })
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

func subscribe(nc *nats.Conn, subject string, h nats.MsgHandler) {
	s, err := nc.Subscribe(subject, h)
	if err != nil {
		panic(err)
	}
	_ = s.SetPendingLimits(-1, -1)
	_ = nc.Flush()
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
			<-m.events
			<-m.events
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
