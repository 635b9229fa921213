package broker_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/broker/embedded"
)

func port(t *testing.T, srv *embedded.Server) int {
	t.Helper()
	u, err := url.Parse(srv.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	p, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPublishEndOnce(t *testing.T) {
	srv := brokertest.Start(t)
	js := brokertest.Setup(t, brokertest.Connect(t, srv))
	const publishers = 16
	var firsts atomic.Int32
	var wg sync.WaitGroup
	for range publishers {
		nc := brokertest.Connect(t, srv)
		wg.Go(func() {
			first, err := broker.PublishEnd(within(t, patience), nc, endMsg("j1"))
			if err != nil {
				t.Error(err)
			}
			if first {
				firsts.Add(1)
			}
		})
	}
	wg.Wait()
	if n := firsts.Load(); n != 1 {
		t.Errorf("%d of %d ends were the first", n, publishers)
	}
	if n := streamInfo(t, js, broker.StreamResults).State.Msgs; n != 1 {
		t.Errorf("%d ends are stored", n)
	}
}

func TestPublishEndRefused(t *testing.T) {
	nc := brokertest.Connect(t, brokertest.Start(t))
	brokertest.Setup(t, nc)
	ctx := within(t, patience)

	t.Run("too large", func(t *testing.T) {
		msg := endMsg("large")
		msg.Data = make([]byte, 9<<20)
		if _, err := broker.PublishEnd(ctx, nc, msg); !errors.Is(err, nats.ErrMaxPayload) || !strings.Contains(err.Error(), msg.Subject) {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("not a stream", func(t *testing.T) {
		sub, err := nc.Subscribe("elsewhere", func(m *nats.Msg) { _ = m.Respond([]byte("hello")) })
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = sub.Unsubscribe() }()
		if _, err := broker.PublishEnd(ctx, nc, &nats.Msg{Subject: "elsewhere"}); err == nil || ctx.Err() != nil {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		closed := brokertest.Connect(t, brokertest.Start(t))
		closed.Close()
		if _, err := broker.PublishEnd(within(t, patience), closed, endMsg("closed")); !errors.Is(err, nats.ErrConnectionClosed) {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestPublishStoredWaitsForTheStream(t *testing.T) {
	nc := brokertest.Connect(t, brokertest.Start(t))
	msg := &nats.Msg{Subject: "vj.v1.dead.default.normal.m", Data: []byte("x")}

	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := broker.PublishStored(ctx, nc, msg)
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("the error without a stream is %v", err)
	}

	done := make(chan error, 1)
	go func() { done <- broker.PublishStored(within(t, patience), nc, msg) }()
	js := brokertest.Setup(t, nc)
	if err := receive(t, "PublishStored", done); err != nil {
		t.Fatal(err)
	}
	if n := streamInfo(t, js, broker.StreamDead).State.Msgs; n != 1 {
		t.Errorf("%d messages are stored", n)
	}
}

func TestPublishStoredSaysThatAFlowIsFull(t *testing.T) {
	nc := brokertest.Connect(t, brokertest.Start(t))
	js := brokertest.Setup(t, nc)
	ctx := within(t, patience)
	if err := broker.Setup(ctx, js, broker.StreamsConfig{MaxJobsPerFlow: 1}); err != nil {
		t.Fatal(err)
	}
	submit(t, js, 1)
	err := broker.PublishStored(ctx, nc, &nats.Msg{Subject: flow, Data: []byte("x")})
	if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "maximum messages per subject exceeded") {
		t.Errorf("the error is %v", err)
	}
	if err := broker.PublishStored(ctx, nc, &nats.Msg{Subject: flow + "x", Data: []byte("x")}); err != nil {
		t.Errorf("another flow is full, too: %v", err)
	}
}

// A server that restarts in between costs a retry, and no end is stored twice.
func TestPublishEndSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	srv := brokertest.StartServer(t, embedded.Config{Dir: dir})
	nc := brokertest.Connect(t, srv)
	brokertest.Setup(t, nc)
	srv.Shutdown()
	done := make(chan error, 1)
	go func() {
		first, err := broker.PublishEnd(within(t, patience), nc, endMsg("j"))
		if err == nil && !first {
			err = errors.New("it was not the first")
		}
		done <- err
	}()
	restart(t, srv, dir)
	if err := receive(t, "PublishEnd", done); err != nil {
		t.Fatal(err)
	}
	first, err := broker.PublishEnd(within(t, patience), nc, endMsg("j"))
	if first || err != nil {
		t.Errorf("a second end: first %v, %v", first, err)
	}
}

func TestAckRemovesTheJob(t *testing.T) {
	nc := brokertest.Connect(t, brokertest.Start(t))
	js := brokertest.Setup(t, nc)
	submit(t, js, 1)
	msg := deliver(t, js, broker.AckWait)
	if err := broker.Ack(within(t, patience), nc, msg.Reply()); err != nil {
		t.Fatal(err)
	}
	if n := jobsLeft(t, js); n != 0 {
		t.Errorf("%d jobs are left", n)
	}
}

func TestNakDeliversAgain(t *testing.T) {
	for _, delay := range []time.Duration{0, 700 * time.Millisecond} {
		t.Run(delay.String(), func(t *testing.T) {
			nc := brokertest.Connect(t, brokertest.Start(t))
			js := brokertest.Setup(t, nc)
			submit(t, js, 1)
			msg := deliver(t, js, broker.AckWait)
			start := time.Now()
			if err := broker.Nak(within(t, patience), nc, msg.Reply(), delay); err != nil {
				t.Fatal(err)
			}
			again := deliver(t, js, broker.AckWait)
			if took := time.Since(start); took < delay || took > delay+2*time.Second {
				t.Errorf("it was delivered again after %s", took)
			}
			if n := delivery(t, again); n != 2 {
				t.Errorf("it is delivery %d", n)
			}
		})
	}
}

func TestTermRemovesTheJobWithAReason(t *testing.T) {
	nc := brokertest.Connect(t, brokertest.Start(t))
	js := brokertest.Setup(t, nc)
	advisories, err := nc.SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>")
	if err != nil {
		t.Fatal(err)
	}
	submit(t, js, 1)
	if err := broker.Term(within(t, patience), nc, deliver(t, js, broker.AckWait).Reply(), "no such model"); err != nil {
		t.Fatal(err)
	}
	advisory, err := advisories.NextMsgWithContext(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(advisory.Data), `"no such model"`) {
		t.Errorf("the advisory is %s", advisory.Data)
	}
	if n := jobsLeft(t, js); n != 0 {
		t.Errorf("%d jobs are left", n)
	}
}

func TestExtendKeepsTheLease(t *testing.T) {
	nc := brokertest.Connect(t, brokertest.Start(t))
	js := brokertest.Setup(t, nc)
	submit(t, js, 1)
	const ackWait = time.Second
	msg := deliver(t, js, ackWait)
	start := time.Now()
	tick := time.NewTicker(ackWait / 4)
	defer tick.Stop()
	for time.Since(start) < 2*ackWait {
		<-tick.C
		if err := broker.Extend(within(t, patience), nc, msg.Reply()); err != nil {
			t.Fatal(err)
		}
	}
	extended := time.Now()
	again := deliver(t, js, ackWait) // waits until the lease has run out
	if held := time.Since(extended); held < ackWait*8/10 {
		t.Errorf("the job was delivered again %s after its lease was extended", held)
	}
	if n := delivery(t, again); n != 2 {
		t.Errorf("it is delivery %d", n)
	}
}

// restartable returns a server that is set up, its data directory and a
// connection.
func restartable(t *testing.T) (srv *embedded.Server, dir string, nc *nats.Conn, js jetstream.JetStream) {
	t.Helper()
	dir = t.TempDir()
	srv = brokertest.StartServer(t, embedded.Config{Dir: dir})
	nc = brokertest.Connect(t, srv)
	return srv, dir, nc, brokertest.Setup(t, nc)
}

func TestAckTriesAgainAndExtendDoesNot(t *testing.T) {
	srv, dir, nc, js := restartable(t)
	submit(t, js, 1)
	msg := deliver(t, js, broker.AckWait)
	srv.Shutdown()

	start := time.Now()
	if err := broker.Extend(within(t, patience), nc, msg.Reply()); err == nil {
		t.Error("Extend without a server returned nil")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("Extend took %s to fail", took)
	}
	done := make(chan error, 1)
	go func() { done <- broker.Ack(within(t, patience), nc, msg.Reply()) }()
	restart(t, srv, dir)
	if err := receive(t, "Ack", done); err != nil {
		t.Fatal(err)
	}
	if n := jobsLeft(t, js); n != 0 {
		t.Errorf("%d jobs are left", n)
	}
}

// Where the lease has run out while there was no connection, nothing may be sent
// later.
func TestAnAckThatGaveUpIsNotSentLater(t *testing.T) {
	srv, dir, nc, js := restartable(t)
	submit(t, js, 1)
	msg := deliver(t, js, broker.AckWait)
	down := nc.StatusChanged(nats.RECONNECTING)
	srv.Shutdown()
	receive(t, "the loss of the connection", down)

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := broker.Ack(ctx, nc, msg.Reply()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ack without a server: %v", err)
	}
	restart(t, srv, dir)
	brokertest.Setup(t, nc) // waits for the connection, behind whatever it has buffered
	if n := jobsLeft(t, js); n != 1 {
		t.Errorf("%d jobs are left of 1", n)
	}
}

// A job that was given back is delivered at once, also by a server that restarted since:
// as where all of it is stopped and started again.
func TestNakOutlivesTheServer(t *testing.T) {
	srv, dir, nc, js := restartable(t)
	submit(t, js, 1)
	msg := deliver(t, js, broker.AckWait)
	if err := broker.Nak(within(t, patience), nc, msg.Reply(), 0); err != nil {
		t.Fatal(err)
	}
	srv.Shutdown()
	restart(t, srv, dir)
	brokertest.Setup(t, nc) // waits for the connection
	start := time.Now()
	again := deliver(t, js, broker.AckWait)
	if took := time.Since(start); took > broker.AckWait/2 {
		t.Errorf("it was delivered again after %s", took)
	}
	if n := delivery(t, again); n != 2 {
		t.Errorf("it is delivery %d", n)
	}
}

func TestLastMsg(t *testing.T) {
	nc := brokertest.Connect(t, brokertest.Start(t))
	brokertest.Setup(t, nc)
	ctx := within(t, patience)
	end := endMsg("j")
	if ok, err := broker.Has(ctx, nc, broker.StreamResults, end.Subject); ok || err != nil {
		t.Errorf("before: %v, %v", ok, err)
	}
	end.Header = nats.Header{"Vj-Status": {"ok"}}
	if _, err := broker.PublishEnd(ctx, nc, end); err != nil {
		t.Fatal(err)
	}
	msg, ok, err := broker.LastMsg(ctx, nc, broker.StreamResults, end.Subject)
	if !ok || err != nil {
		t.Fatalf("after: %v, %v", ok, err)
	}
	for seq, want := range map[uint64]bool{1: true, 2: false} {
		if ok, err := broker.HasSeq(ctx, nc, broker.StreamResults, seq); ok != want || err != nil {
			t.Errorf("message %d: %v, %v", seq, ok, err)
		}
	}
	if msg.Subject != end.Subject || string(msg.Data) != string(end.Data) || msg.Header.Get("Vj-Status") != "ok" {
		t.Errorf("the last message is %+v", msg)
	}
	empty := &nats.Msg{Subject: "vj.v1.results.default.empty.end"}
	if err := broker.PublishStored(ctx, nc, empty); err != nil {
		t.Fatal(err)
	}
	if ok, err := broker.Has(ctx, nc, broker.StreamResults, empty.Subject); !ok || err != nil {
		t.Errorf("an empty message: %v, %v", ok, err)
	}
}

func TestAskLast(t *testing.T) {
	nc := brokertest.Connect(t, brokertest.Start(t))
	end := endMsg("j")
	inbox, answers := nc.NewInbox(), make(chan *nats.Msg, 1)
	if _, err := nc.ChanSubscribe(inbox+".>", answers); err != nil {
		t.Fatal(err)
	}
	has := func() (bool, error) {
		reply := inbox + ".7"
		if err := broker.AskLast(nc, broker.StreamResults, end.Subject, reply); err != nil {
			t.Fatal(err)
		}
		m := receive(t, "the answer", answers)
		if m.Subject != reply {
			t.Errorf("the answer came on %s, want %s", m.Subject, reply)
		}
		return broker.HasLast(m)
	}
	if _, err := has(); err == nil {
		t.Error("no error where there is no stream")
	}
	brokertest.Setup(t, nc)
	if ok, err := has(); ok || err != nil {
		t.Errorf("before: %v, %v", ok, err)
	}
	if _, err := broker.PublishEnd(within(t, patience), nc, end); err != nil {
		t.Fatal(err)
	}
	if ok, err := has(); !ok || err != nil {
		t.Errorf("after: %v, %v", ok, err)
	}
}

func BenchmarkPublishEnd(b *testing.B) {
	nc := brokertest.Connect(b, brokertest.Start(b))
	brokertest.Setup(b, nc)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if first, err := broker.PublishEnd(b.Context(), nc, endMsg(strconv.Itoa(i))); !first || err != nil {
			b.Fatal(first, err)
		}
	}
}

func BenchmarkHas(b *testing.B) {
	nc := brokertest.Connect(b, brokertest.Start(b))
	brokertest.Setup(b, nc)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := broker.Has(b.Context(), nc, broker.StreamResults, "vj.v1.results.default.j.end"); err != nil {
			b.Fatal(err)
		}
	}
}

// freePort returns a port that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}
