package integration

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// slow is a job that streams for some seconds.
func slow(tokens int) client.Job {
	return client.Job{Model: "sim-slow", Body: fmt.Appendf(nil, `{"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":%d}`, tokens)}
}

// fleet starts dispatchers and simulated workers on a server of its own.
func fleet(t *testing.T, dispatchers, workers int) (u *user, d, w []*process) {
	t.Helper()
	url, _ := natsServer(t, "")
	for i := range dispatchers {
		d = append(d, start(t, fmt.Sprint("dispatcher ", i), "vramjet", "dispatcher", "--server", url))
	}
	for i := range workers {
		w = append(w, start(t, fmt.Sprint("worker ", i), "vramjet", "worker", "--server", url, "--sim", "--node", fmt.Sprint("n", i)))
	}
	u = connect(t, url)
	u.serves("sim-slow", workers)
	return u, d, w
}

// counted subscribes to all events of a job and counts its ends.
func (u *user) watch(id string) (events func() []*nats.Msg) {
	u.Helper()
	sub, err := u.nc.SubscribeSync(schemas.ResultSubjects(schemas.DefaultTenant, id))
	if err != nil {
		u.Fatal(err)
	}
	var seen []*nats.Msg
	return func() []*nats.Msg {
		for {
			m, err := sub.NextMsg(10 * time.Millisecond)
			if err != nil {
				return seen
			}
			seen = append(seen, m)
		}
	}
}

func ends(events []*nats.Msg) (n int) {
	for _, m := range events {
		if m.Header.Get(schemas.HeaderEvent) == string(schemas.EventEnd) {
			n++
		}
	}
	return n
}

// TestKilledWorker: a job whose worker is killed while it streams ends well on
// another one, as attempt 2, once.
func TestKilledWorker(t *testing.T) {
	t.Parallel()
	u, _, workers := fleet(t, 1, 2)
	job := slow(100)
	job.ID = "killed"
	events := u.watch(job.ID)
	s := u.run(job)
	acc, err := func() (schemas.Accepted, error) { ev := u.next(s, schemas.EventAccepted); return ev.Accepted() }()
	if err != nil {
		t.Fatal(err)
	}
	u.next(s, schemas.EventChunk)
	for i, w := range workers {
		if acc.Node == fmt.Sprint("n", i) {
			w.signal(syscall.SIGKILL)
		}
	}
	died := time.Now()
	again := u.next(s, schemas.EventAccepted)
	t.Logf("running elsewhere after %s", time.Since(died).Round(time.Millisecond))
	if took := time.Since(died); took > 5*time.Second {
		t.Errorf("running elsewhere after %s, want 5s at most", took)
	}
	if again.Attempt != 2 {
		t.Errorf("the second run is attempt %d", again.Attempt)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := s.Result(ctx)
	if err != nil || r.Status != schemas.StatusOK || r.Run.Attempt != 2 || r.Run.Node == acc.Node {
		t.Errorf("ended %+v, %v; want ok, attempt 2, on the other node", r, err)
	}
	if n := ends(events()); n != 1 {
		t.Errorf("%d ends", n)
	}
}

// TestKilledLeader: when the leading dispatcher is killed, running streams don't
// notice, and the next job is dispatched within 3 s.
func TestKilledLeader(t *testing.T) {
	t.Parallel()
	u, dispatchers, _ := fleet(t, 2, 1)
	job := slow(300)
	job.ID = "running"
	events := u.watch(job.ID)
	s := u.run(job)
	u.next(s, schemas.EventChunk)
	led := false
	for _, d := range dispatchers {
		if strings.Contains(d.output(), "leading") {
			d.signal(syscall.SIGKILL)
			led = true
			break
		}
	}
	if !led {
		t.Fatal("no dispatcher says that it leads")
	}
	died := time.Now()
	next := u.run(slow(2))
	u.next(next, schemas.EventAccepted)
	t.Logf("dispatched after %s", time.Since(died).Round(time.Millisecond))
	if took := time.Since(died); took > 3*time.Second {
		t.Errorf("the next job was dispatched after %s, want 3s at most", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if r, err := s.Result(ctx); err != nil || r.Run.Attempt != 1 {
		t.Errorf("the running stream ended %+v, %v", r, err)
	}
	if n := ends(events()); n != 1 {
		t.Errorf("%d ends", n)
	}
}

// TestKilledNATS: when the NATS server is killed and started again, a running
// stream goes on, and the next job runs.
func TestKilledNATS(t *testing.T) {
	t.Parallel()
	url, server := natsServer(t, "")
	start(t, "dispatcher", "vramjet", "dispatcher", "--server", url)
	start(t, "worker", "vramjet", "worker", "--server", url, "--sim", "--node", "n0")
	u := connect(t, url)
	u.serves("sim-slow", 1)
	s := u.run(slow(200))
	u.next(s, schemas.EventChunk)
	server.signal(syscall.SIGKILL)
	<-server.done
	again := start(t, "nats-server again", "nats-server", server.cmd.Args[1:]...)
	again.says("Server is ready")

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := s.Result(ctx)
	if err != nil || r.Status != schemas.StatusOK || r.Run.Attempt != 1 {
		t.Errorf("the running stream ended %+v, %v; want ok, attempt 1", r, err)
	}
	next, err := u.Submit(ctx, slow(2))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := u.Result(ctx, next.ID); err != nil || r.Status != schemas.StatusOK {
		t.Errorf("the next job ended %+v, %v", r, err)
	}
}

// TestFrozenWorker: a worker that is stopped for 60 s in the middle of a job, and
// then goes on, publishes nothing more of it.
func TestFrozenWorker(t *testing.T) {
	if testing.Short() {
		t.Skip("takes over a minute")
	}
	t.Parallel()
	u, _, workers := fleet(t, 1, 2)
	job := slow(2000) // a minute
	job.ID = "frozen"
	events := u.watch(job.ID)
	s := u.run(job)
	ev := u.next(s, schemas.EventAccepted)
	acc, err := ev.Accepted()
	if err != nil {
		t.Fatal(err)
	}
	u.next(s, schemas.EventChunk)
	var frozen *process
	for i, w := range workers {
		if acc.Node == fmt.Sprint("n", i) {
			frozen = w
		}
	}
	frozen.signal(syscall.SIGSTOP)
	stopped := time.Now()
	before := len(events())

	within(t, 45*time.Second, "the job runs elsewhere", func() bool {
		for _, m := range events() {
			if m.Header.Get(schemas.HeaderAttempt) != "1" {
				return true
			}
		}
		return false
	})
	t.Logf("running elsewhere after %s", time.Since(stopped).Round(time.Millisecond))
	time.Sleep(time.Until(stopped.Add(60 * time.Second)))
	frozen.signal(syscall.SIGCONT)

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r, err := s.Result(ctx)
	if err != nil || r.Run.Attempt < 2 {
		t.Errorf("ended %+v, %v; want ok at attempt 2", r, err)
	}
	all := events()
	if n := ends(all); n != 1 {
		t.Errorf("%d ends", n)
	}
	for _, m := range all[before:] {
		// What the connection had in hand when the process was stopped may still come.
		if m.Header.Get(schemas.HeaderAttempt) == "1" && m.Header.Get(schemas.HeaderEvent) != "" {
			t.Errorf("the frozen worker published %s %s of attempt 1 afterwards", m.Header.Get(schemas.HeaderEvent), m.Header.Get(schemas.HeaderSeq))
		}
	}
}
