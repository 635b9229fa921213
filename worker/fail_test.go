package worker

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

func TestServerThatBreaksOff(t *testing.T) {
	r := newRig(t, nil)
	r.sim.Fail("quick", sim.Failure{Times: 1, After: 5, End: sim.EndCut})
	j := r.submit("j1", "quick", chat).run()
	_, m := j.end(schemas.EventRetry, 1)
	var f schemas.Failure
	if err := json.Unmarshal(m.Data, &f); err != nil || f.Error.Code != schemas.StreamBroken || f.Run.Attempt != 1 || f.Run.Node != "n1" {
		t.Errorf("retry %s", m.Data)
	}
	if d := j.done(); d.Code != schemas.StreamBroken || d.RetryMS < 100 || d.RetryMS > 150 {
		t.Errorf("done %+v", d)
	}
	j.run().ended(2, schemas.StatusOK)
}

func TestFailureBeforeTheFirstChunkIsSilent(t *testing.T) {
	r := newRig(t, nil)
	r.sim.Fail("quick", sim.Failure{Times: 1, Status: 503})
	j := r.submit("j1", "quick", chat).run()
	if d := j.done(); d.Code == "" || d.RetryMS < 0 {
		t.Errorf("done %+v", d)
	}
	j.next(schemas.EventAccepted)
	j.run().ended(2, schemas.StatusOK)
}

func TestCallersMistakeEndsAtOnce(t *testing.T) {
	r := newRig(t, nil)
	r.sim.Fail("quick", sim.Failure{Status: 400, Body: `{"error":{"message":"bad temperature","type":"invalid_request_error"}}`})
	j := r.submit("j1", "quick", chat).run()
	if _, body := j.ended(1, schemas.StatusError); !strings.Contains(string(body), "bad temperature") {
		t.Errorf("end %s", body)
	}
}

func TestAttemptsUsedUp(t *testing.T) {
	r := newRig(t, nil)
	r.sim.Fail("quick", sim.Failure{After: 5, End: sim.EndCut})
	dead := make(chan *nats.Msg, 10)
	r.subscribe(schemas.DeadPrefix+">", func(m *nats.Msg) { dead <- m })
	j := r.submit("j1", "quick", chat, schemas.HeaderAttempts, "1", "X-Mine", "yes",
		"Nats-Expected-Stream", broker.StreamJobs).run() // would keep the dead letter out of its stream
	_, body := j.ended(1, schemas.StatusError)
	if d := j.done(); d.Code != schemas.StreamBroken || d.RetryMS != -1 || d.Status != schemas.StatusError {
		t.Errorf("done %+v", d)
	}
	if !strings.Contains(string(body), `"code":"stream_broken"`) {
		t.Errorf("end %s", body)
	}
	m := wait(t, dead)
	h := m.Header
	if m.Subject != "vj.v1.dead.acme.normal.quick" || string(m.Data) != chat || h.Get(schemas.HeaderMsgID) != "j1" ||
		h.Get("X-Mine") != "yes" || h.Get(schemas.HeaderDeadCode) != "stream_broken" || h.Get(schemas.HeaderAttempts) != "1" {
		t.Errorf("dead letter %s %v %s", m.Subject, h, m.Data)
	}
	if h.Get(schemas.HeaderJob) != "j1" || h.Get(schemas.HeaderBackend) != "" || h.Get("Nats-Expected-Stream") != "" {
		t.Errorf("dead letter %v", h)
	}
	if at, err := time.Parse(time.RFC3339, h.Get(schemas.HeaderDeadAt)); err != nil || time.Since(at) > time.Minute {
		t.Errorf("dead at %s", h.Get(schemas.HeaderDeadAt))
	}
	if info, err := r.stream(broker.StreamDead).Info(t.Context()); err != nil || info.State.Msgs != 1 {
		t.Errorf("dead letters: %+v (%v)", info, err)
	}
}

func TestServerThatIsDown(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit("j1", "quick", chat)
	msg := j.fetch()
	r.http.CloseClientConnections()
	r.http.Close()
	s := r.await(func(s *schemas.NodeState) bool { return !s.Backends[0].Healthy })
	if b := s.Backends[0]; b.Error == "" || len(b.Models) != 5 {
		t.Errorf("backend %+v", b)
	}
	if reason := j.refused(msg); !strings.Contains(reason, "not healthy") {
		t.Errorf("refused since %q", reason)
	}
}

func TestModelsThatDoNotFitTogether(t *testing.T) {
	r := newRig(t, nil)
	r.submit("j1", "quick", chat).run().ended(1, schemas.StatusOK)
	j := r.submit("j2", "slow", chat, schemas.HeaderTimeout, "5s")
	msg := j.fetch()
	if reason := j.refused(msg); !strings.Contains(reason, "needs 14.0 GiB") {
		t.Errorf("refused since %q", reason)
	}
	subject := j.accept(msg, "quick")
	if s := r.await(func(s *schemas.NodeState) bool { return modelOf(s, "slow").Busy == 1 }); len(s.Reservations) != 1 {
		t.Errorf("reservations %+v", s.Reservations)
	}
	k := r.submit("k", "quick", chat)
	if reason := k.refused(k.fetch()); !strings.Contains(reason, "about to be unloaded") {
		t.Errorf("refused since %q", reason)
	}
	j.claim(subject, msg.Reply(), broker.AckWait)
	r.await(func(s *schemas.NodeState) bool {
		return modelOf(s, "slow").State == schemas.Resident && modelOf(s, "quick").State == schemas.Installed && len(s.Reservations) == 0
	})
	r.cancel("j2", schemas.Cancel{})
	j.ended(1, schemas.StatusCancelled)
}

func TestOneLoadForAllThatWait(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.submit("a", "heavy", unstream).run(), r.submit("b", "heavy", unstream).run()
	s := r.await(func(s *schemas.NodeState) bool { return modelOf(s, "heavy").Busy == 2 })
	if len(s.Reservations) != 1 {
		t.Errorf("reservations %+v", s.Reservations)
	}
	a.ended(1, schemas.StatusOK)
	b.ended(1, schemas.StatusOK)
	if n := r.sim.Counts("heavy").Loads; n != 1 {
		t.Errorf("%d loads", n)
	}
}

func TestLoadsOneAfterTheOther(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.submit("a", "heavy", unstream).run(), r.submit("b", "quick", unstream).run()
	s := r.await(func(s *schemas.NodeState) bool { return len(s.Reservations) == 2 })
	if got := modelOf(s, "quick").State; got != schemas.Loading {
		t.Errorf("while it waits for the other load it is %s", got)
	}
	if r.sim.Counts("quick").Loads > 0 {
		t.Error("both load at once")
	}
	a.ended(1, schemas.StatusOK)
	b.ended(1, schemas.StatusOK)
}

func TestPromisedMemoryIsNotPromisedTwice(t *testing.T) {
	r := newRig(t, func(_ *Config, p *pace) { p.claim = time.Hour })
	a, b := r.submit("a", "quick", unstream), r.submit("b", "slow", chat)
	msg := a.fetch()
	subject := a.accept(msg)
	if reason := b.refused(b.fetch()); !strings.Contains(reason, "needs 14.0 GiB") {
		t.Errorf("refused since %q", reason)
	}
	a.claim(subject, msg.Reply(), broker.AckWait)
	a.ended(1, schemas.StatusOK)
}

func TestLoadThatFails(t *testing.T) {
	r := newRig(t, nil)
	r.sim.Fail("quick", sim.Failure{Times: 2, Load: true})
	j := r.submit("j1", "quick", chat).run()
	if d := j.done(); d.Code != schemas.OutOfMemory || d.RetryMS < 500 || d.RetryMS > 750 {
		t.Errorf("done %+v", d)
	}
	r.await(func(s *schemas.NodeState) bool { return len(s.Reservations) == 0 && modelOf(s, "quick").Busy == 0 })
	j.next(schemas.EventAccepted)
	j.run().ended(2, schemas.StatusOK)
}

func TestDrainLetsJobsFinish(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit("j1", "heavy", chat).run()
	j.next(schemas.EventAccepted)
	k := r.submit("k", "quick", chat)
	msg := k.fetch()
	stopped := make(chan struct{})
	go func() { defer close(stopped); r.stop() }()
	r.await(func(s *schemas.NodeState) bool { return s.Draining })
	if reason := k.refused(msg); !strings.Contains(reason, "takes no more jobs") {
		t.Errorf("refused since %q", reason)
	}
	j.endsAfterSome(schemas.StatusOK)
	wait(t, stopped)
}

func TestDrainGivesTheRestBack(t *testing.T) {
	r := newRig(t, func(c *Config, _ *pace) { c.Drain = 50 * time.Millisecond })
	j := r.submit("j1", "slow", chat).run()
	j.next(schemas.EventAccepted)
	j.next(schemas.EventChunk)
	started := time.Now()
	r.stop()
	if took := time.Since(started); took > 2*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	if d := j.done(); d.RetryMS != 0 || d.Code != schemas.Overloaded {
		t.Errorf("done %+v", d)
	}
	msg := j.fetch()
	if meta, err := msg.Metadata(); err != nil || meta.NumDelivered != 2 {
		t.Errorf("delivered again: %+v (%v)", meta, err)
	}
	for {
		m := wait(t, j.events)
		kind := m.Header.Get(schemas.HeaderEvent)
		if kind == string(schemas.EventRetry) {
			break
		}
		if kind != string(schemas.EventChunk) {
			t.Fatalf("event %s %s", kind, m.Data)
		}
	}
}

func TestControl(t *testing.T) {
	r := newRig(t, nil)
	ask := func(body string) (s schemas.NodeState, fail schemas.APIError) {
		t.Helper()
		m, err := r.nc.Request(schemas.NodeSubject("n1", "control"), []byte(body), patience)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(m.Data, &s); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(m.Data, &fail); err != nil {
			t.Fatal(err)
		}
		return s, fail
	}
	if s, _ := ask(`{"do":"load","backend":"sim","model":"quick"}`); modelOf(&s, "quick").State != schemas.Resident {
		t.Errorf("after load: %+v", s)
	}
	if s, _ := ask(`{"do":"load","backend":"sim","model":"quick"}`); modelOf(&s, "quick").State != schemas.Resident {
		t.Errorf("after a second load: %+v", s)
	}
	if s, _ := ask(`{"do":"unload","backend":"sim","model":"quick"}`); modelOf(&s, "quick").State != schemas.Installed {
		t.Errorf("after unload: %+v", s)
	}
	for _, body := range []string{`{"do":"unload","backend":"x"}`, `{"do":"load","backend":"x"}`, `{"do":"pin"}`, `what`} {
		if _, f := ask(body); f.Error == nil {
			t.Errorf("%s was no error", body)
		}
	}
	if s, _ := ask(`{"do":"drain"}`); !s.Draining {
		t.Errorf("after drain: %+v", s)
	}
	j := r.submit("j1", "quick", chat)
	msg := j.fetch()
	j.refused(msg)
	if s, _ := ask(`{"do":"undrain"}`); s.Draining {
		t.Errorf("after undrain: %+v", s)
	}
	j.claim(j.accept(msg), msg.Reply(), broker.AckWait)
	j.ended(1, schemas.StatusOK)
}

func TestIsAMicroService(t *testing.T) {
	r := newRig(t, nil)
	m, err := r.nc.Request("$SRV.INFO."+serviceName, nil, patience)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"node":"n1"`, `"version":"1.2.3"`, schemas.NodeSubject("n1", "run")} {
		if !strings.Contains(string(m.Data), want) {
			t.Errorf("%s is not in %s", want, m.Data)
		}
	}
}

func TestPing(t *testing.T) {
	r := newRig(t, func(_ *Config, p *pace) { p.report = time.Hour; p.poll = time.Hour })
	if err := r.nc.Publish(schemas.NodesPing, nil); err != nil {
		t.Fatal(err)
	}
	r.await(func(*schemas.NodeState) bool { return true })
}

func TestStatesAreCoalesced(t *testing.T) {
	r := newRig(t, func(_ *Config, p *pace) { p.report, p.burst = time.Hour, 50*time.Millisecond })
	states := make(chan struct{}, 1000)
	r.subscribe(schemas.NodeSubject("n1", "state"), func(*nats.Msg) { states <- struct{}{} })
	const enough = 10
	started := time.Now()
	for range enough {
		if err := r.nc.Publish(schemas.NodesPing, nil); err != nil {
			t.Fatal(err)
		}
		wait(t, states)
	}
	if took := time.Since(started); took < (enough-2)*50*time.Millisecond {
		t.Errorf("%d states within %s", enough, took)
	}
}

func TestBackendThatComesLater(t *testing.T) {
	r := newRig(t, nil)
	b := r.worker.cfg.Backends[0]
	if err := r.worker.AddBackend(t.Context(), b); err == nil {
		t.Error("two backends of one name")
	}
	b.Name, b.Prefix, b.Models = "more", "x/", []string{"qui*"}
	if err := r.worker.AddBackend(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	s := r.await(func(s *schemas.NodeState) bool { return len(s.Backends) == 2 && s.Backends[1].Healthy })
	if m := s.Backends[1].Models; len(m) != 1 || m[0].Name != "x/quick" {
		t.Errorf("models %+v", m)
	}
	j := r.submit("j1", "x/quick", chat)
	j.change = func(h nats.Header) { h.Set(schemas.HeaderBackend, "more") }
	j.run().ended(1, schemas.StatusOK)
	r.stop()
	if err := r.worker.AddBackend(t.Context(), b); err == nil {
		t.Error("a worker that stopped took a backend")
	}
}
