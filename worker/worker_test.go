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

func TestRunsAJob(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit("j1", "quick", chat, schemas.HeaderTrace, "00-abc-def-01")
	j.run()
	first := j.next(schemas.EventAccepted)
	var a schemas.Accepted
	if err := json.Unmarshal(first.Data, &a); err != nil || a.Node != "n1" || a.Backend != "sim" || a.WaitedMS != 12 || !a.Load {
		t.Errorf("accepted %s", first.Data)
	}
	if first.Header.Get(schemas.HeaderTrace) != "00-abc-def-01" {
		t.Errorf("headers %v", first.Header)
	}
	if d := j.done(); d.Code != "" || d.RetryMS != -1 || d.Attempt != 1 || d.Status != schemas.StatusOK {
		t.Errorf("done %+v", d)
	}
	j.gone()
	end, ok, err := broker.LastMsg(t.Context(), r.nc, broker.StreamResults, schemas.EndSubject("acme", "j1"))
	if err != nil || !ok {
		t.Fatalf("the end is not stored: %v", err)
	}
	var answer struct {
		Choices []struct {
			Message struct{ Content string }
		}
		Usage schemas.Usage
		Run   schemas.Run `json:"vramjet"`
	}
	if err := json.Unmarshal(end.Data, &answer); err != nil {
		t.Fatal(err)
	}
	if len(answer.Choices) != 1 || answer.Choices[0].Message.Content != sim.Text("hello", 20) || answer.Usage.CompletionTokens != 20 {
		t.Errorf("answer %s", end.Data)
	}
	if run := answer.Run; run.Node != "n1" || run.Attempt != 1 || run.QueuedMS != 12 || run.LoadMS < 10 || run.TotalMS < run.TTFTMS || run.TTFTMS < 22 {
		t.Errorf("run %+v", run)
	}
	s := r.await(func(s *schemas.NodeState) bool {
		return len(s.Running) == 0 && modelOf(s, "quick").State == schemas.Resident
	})
	if m := modelOf(s, "quick"); m.Busy != 0 || m.LoadMS < 10 {
		t.Errorf("model %+v", m)
	}
	if len(s.Devices) != 1 || len(s.Reservations) != 0 || s.Version != "v1.2.3" {
		t.Errorf("state %+v", s)
	}
}

func TestEventsAreNumberedWithoutGaps(t *testing.T) {
	r := newRig(t, nil)
	chunks, _ := r.submit("j1", "quick", chat).run().ended(1, schemas.StatusOK)
	if len(chunks) < 20 {
		t.Errorf("%d chunks", len(chunks))
	}
}

// Each event repeats what the job wants repeated, and says how long it is kept, where
// it is.
func TestEventsSayWhatTheJobWants(t *testing.T) {
	r := newRig(t, nil)
	for id, ttl := range map[string]string{"stored": "5400", "inbox": ""} {
		headers := []string{schemas.HeaderCustomID, "№ 7", schemas.HeaderKeep, "90m"}
		if id == "inbox" {
			headers = append(headers, schemas.HeaderReply, nats.NewInbox())
		}
		j := r.submit(id, "quick", chat, headers...).run()
		for kind := ""; kind != string(schemas.EventEnd); {
			h := wait(t, j.events).Header
			if kind = h.Get(schemas.HeaderEvent); h.Get(schemas.HeaderCustomID) != "№ 7" || h.Get(schemas.HeaderTTL) != ttl {
				t.Errorf("%s: a %s has %v", id, kind, h)
			}
		}
		j.gone()
	}
	if n, err := r.stream(broker.StreamResults).Info(t.Context()); err != nil || n.State.Msgs < 22 {
		t.Errorf("the results: %+v, %v", n, err)
	}
}

func TestRepliesToAnInbox(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit("j1", "quick", text, schemas.HeaderReply, nats.NewInbox(), schemas.HeaderKind, "completion")
	chunks, body := j.run().ended(1, schemas.StatusOK)
	if len(chunks) < 20 || !strings.Contains(string(body), "text_completion") {
		t.Errorf("%d chunks, end %s", len(chunks), body)
	}
	if ok, err := broker.Has(t.Context(), r.nc, broker.StreamResults, schemas.EndSubject("acme", "j1")); err != nil || ok {
		t.Errorf("the end is stored as well (%v)", err)
	}
}

func TestChunksOnlyForThoseWhoAsk(t *testing.T) {
	r := newRig(t, nil)
	if chunks, _ := r.submit("j1", "quick", unstream).run().ended(1, schemas.StatusOK); len(chunks) != 0 {
		t.Errorf("%d chunks", len(chunks))
	}
	chunks, body := r.submit("j2", "embed", embedded, schemas.HeaderKind, "embedding").run().ended(1, schemas.StatusOK)
	if len(chunks) != 0 || !strings.Contains(string(body), `"embedding"`) {
		t.Errorf("%d chunks, end %s", len(chunks), body)
	}
}

func TestRefuses(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit("j1", "slow", chat)
	msg := j.fetch()
	for reason, change := range map[string]func(nats.Header){
		"no backend x":   func(h nats.Header) { h.Set(schemas.HeaderBackend, "x") },
		"does not serve": func(h nats.Header) { h.Set(schemas.HeaderModel, "x") },
		"no embedding":   func(h nats.Header) { h.Set(schemas.HeaderKind, "embedding") },
		"not in memory":  func(h nats.Header) { h.Set(schemas.HeaderEvict, "sim quick") },
	} {
		j.change = change
		if got := j.refused(msg); !strings.Contains(got, reason) {
			t.Errorf("refused since %q, want %q", got, reason)
		}
	}
	j.change = nil
	j.claim(j.accept(msg), msg.Reply(), broker.AckWait)
	if got := j.refused(msg); got != "already running" {
		t.Errorf("the same attempt was refused since %q", got)
	}
	j.change = func(h nats.Header) { h.Set(schemas.HeaderAttempt, "x") }
	if answer, _ := j.offer(msg); answer.Accepted || !strings.Contains(answer.Reason, "Vj-Attempt") {
		t.Errorf("an offer that cannot be read: %+v", answer)
	}
	r.submit("j2", "slow", chat).run()
	j3 := r.submit("j3", "slow", chat)
	if got := j3.refused(j3.fetch()); !strings.Contains(got, "all 2 slots") {
		t.Errorf("a third job on two slots was refused since %q", got)
	}
	r.cancel("j1", schemas.Cancel{})
	r.cancel("j2", schemas.Cancel{})
}

func TestUnclaimedOfferIsForgotten(t *testing.T) {
	r := newRig(t, func(_ *Config, p *pace) { p.claim = 100 * time.Millisecond })
	j := r.submit("j1", "slow", chat)
	msg := j.fetch()
	late := j.accept(msg)
	s := r.await(func(s *schemas.NodeState) bool { return modelOf(s, "slow").Busy == 1 })
	if len(s.Running) != 1 || len(s.Reservations) != 1 || s.Reservations[0].Devices["sim-0"] != 14*gib {
		t.Errorf("state %+v", s)
	}
	s = r.await(func(s *schemas.NodeState) bool { return modelOf(s, "slow").Busy == 0 })
	if len(s.Running) != 0 || len(s.Reservations) != 0 {
		t.Errorf("it stayed: %+v, %+v", s.Running, s.Reservations)
	}
	j.claim(late, msg.Reply(), broker.AckWait) // is not heard any more
	j.claim(j.accept(msg), msg.Reply(), broker.AckWait)
	if n := r.sim.Counts("slow").Started; n > 1 {
		t.Errorf("run %d times", n)
	}
	r.cancel("j1", schemas.Cancel{})
	j.ended(1, schemas.StatusCancelled)
}

func TestALateGoIsNotRun(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit("j1", "quick", chat)
	msg := j.fetch()
	j.claim(j.accept(msg), msg.Reply(), r.worker.pace.margin)
	r.busy("quick", 0)
	if n := r.sim.Counts("quick").Started; n != 0 || len(j.events) != 0 {
		t.Errorf("run %d times, %d events", n, len(j.events))
	}
}

func (r *rig) cancel(id string, c schemas.Cancel) {
	r.t.Helper()
	body, err := json.Marshal(c)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.nc.Publish(schemas.CancelSubject("acme", id), body); err != nil {
		r.t.Fatal(err)
	}
}

func TestCancel(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit("j1", "slow", chat).run()
	j.next(schemas.EventAccepted)
	j.next(schemas.EventChunk)
	r.cancel("j1", schemas.Cancel{Attempt: 1})
	j.endsAfterSome(schemas.StatusCancelled)
	if d := j.done(); d.Code != schemas.Cancelled || d.RetryMS != -1 {
		t.Errorf("done %+v", d)
	}
	r.eventually("the server still generates", func() bool { return r.sim.Counts("slow").Cancelled == 1 })
}

// endsAfterSome reads on to the end, from the middle of an attempt.
func (j *job) endsAfterSome(status schemas.Status) *nats.Msg {
	j.t.Helper()
	for {
		m := wait(j.t, j.events)
		if m.Header.Get(schemas.HeaderEvent) == string(schemas.EventEnd) {
			if got := m.Header.Get(schemas.HeaderStatus); got != string(status) {
				j.t.Fatalf("ended %s: %s", got, m.Data)
			}
			j.gone()
			return m
		}
	}
}

func TestCancelBeforeTheGo(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit("j1", "slow", chat)
	msg := j.fetch()
	subject := j.accept(msg)
	r.cancel("j1", schemas.Cancel{})
	j.claim(subject, msg.Reply(), broker.AckWait)
	_, m := j.end(schemas.EventEnd, 1)
	if m.Header.Get(schemas.HeaderStatus) != string(schemas.StatusCancelled) {
		t.Errorf("end %v %s", m.Header, m.Data)
	}
	j.gone()
	if c := r.sim.Counts("slow"); c.Started != 0 {
		t.Errorf("the server was asked: %+v", c)
	}
}

func TestCancelWhileTheModelLoads(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit("j1", "heavy", chat).run()
	j.next(schemas.EventAccepted)
	r.await(func(s *schemas.NodeState) bool { return modelOf(s, "heavy").State == schemas.Loading })
	started := time.Now()
	r.cancel("j1", schemas.Cancel{})
	j.endsAfterSome(schemas.StatusCancelled)
	if took := time.Since(started); took > 800*time.Millisecond {
		t.Errorf("a cancel took %s: it waited for the load", took)
	}
}

func TestCancelOfAnOlderAttempt(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit("j1", "quick", chat)
	j.change = func(h nats.Header) { h.Set(schemas.HeaderAttempt, "2") }
	msg := j.fetch()
	subject := j.accept(msg)
	r.cancel("j1", schemas.Cancel{Attempt: 1})
	j.claim(subject, msg.Reply(), broker.AckWait)
	j.ended(2, schemas.StatusOK)
}

func TestDeadline(t *testing.T) {
	r := newRig(t, nil)
	deadline := time.Now().Add(time.Second).UTC().Format(time.RFC3339Nano)
	j := r.submit("j1", "slow", chat, schemas.HeaderDeadline, deadline).run()
	_, body := j.ended(1, schemas.StatusExpired)
	if !strings.Contains(string(body), `"code":"deadline"`) {
		t.Errorf("end %s", body)
	}
}

func TestTimeoutOfAnAttempt(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit("j1", "slow", chat, schemas.HeaderTimeout, "1s", schemas.HeaderAttempts, "2").run()
	chunks, m := j.end(schemas.EventRetry, 1)
	if len(chunks) == 0 || !strings.Contains(string(m.Data), `"code":"deadline"`) {
		t.Errorf("%d chunks, retry %s", len(chunks), m.Data)
	}
	if d := j.done(); d.Code != schemas.Deadline || d.RetryMS < 100 || d.RetryMS > 150 {
		t.Errorf("done %+v", d)
	}
	j.run().ended(2, schemas.StatusError)
}

// saysNoMore stops the node, and expects that it said nothing of the job but
// chunks, and settled nothing.
func (j *job) saysNoMore() {
	j.t.Helper()
	j.stop() // whatever it had to say, it said
	for len(j.events) > 0 {
		if m := <-j.events; m.Header.Get(schemas.HeaderEvent) != string(schemas.EventChunk) {
			j.t.Errorf("event %v %s", m.Header, m.Data)
		}
	}
	if info, err := j.consumer.Info(j.t.Context()); err != nil || info.NumAckPending != 1 {
		j.t.Errorf("the delivery was settled: %+v (%v)", info, err)
	}
}

func TestVoidJobSaysNothingMore(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit("j1", "slow", chat).run()
	j.next(schemas.EventAccepted)
	j.next(schemas.EventChunk)
	r.cancel("j1", schemas.Cancel{Attempt: 1, Void: true})
	if d := j.done(); d.RetryMS != -1 || d.Code != schemas.Internal {
		t.Errorf("done %+v", d)
	}
	j.saysNoMore()
}

func TestLostLeaseSaysNothingMore(t *testing.T) {
	r := newRig(t, func(_ *Config, p *pace) { p.lease, p.margin = 500*time.Millisecond, 100*time.Millisecond })
	j := r.submit("j1", "slow", chat)
	msg := j.fetch()
	accepted := time.Now()
	j.claim(j.accept(msg), "nobody.hears.this", 500*time.Millisecond)
	d := j.done()
	if held := time.Since(accepted); d.Code != schemas.Internal || held < 300*time.Millisecond || held > 3*time.Second {
		t.Errorf("done %+v after %s", d, held)
	}
	j.next(schemas.EventAccepted)
	j.saysNoMore()
}

func TestLostLeaseStopsASilentJob(t *testing.T) {
	r := newRig(t, func(_ *Config, p *pace) { p.lease, p.margin = 500*time.Millisecond, 100*time.Millisecond })
	j := r.submit("j1", "silent", chat)
	j.claim(j.accept(j.fetch()), "nobody.hears.this", 500*time.Millisecond)
	if d := j.done(); d.Code != schemas.Internal || d.RetryMS != 0 {
		t.Errorf("done %+v", d)
	}
}

// TestSlotIsFreeBeforeTheAck: the backend is done, whatever the queue does.
func TestSlotIsFreeBeforeTheAck(t *testing.T) {
	r := newRig(t, nil)
	acks := make(chan *nats.Msg, 100)
	r.subscribe("ack.me", func(m *nats.Msg) { acks <- m })
	j := r.submit("j1", "quick", chat)
	j.claim(j.accept(j.fetch()), "ack.me", broker.AckWait)
	m := wait(t, acks)
	s := r.await(func(s *schemas.NodeState) bool { return modelOf(s, "quick").Busy == 0 })
	if len(s.Running) != 1 || s.Running[0] != (schemas.RunningJob{Job: "j1", Tenant: "acme", Attempt: 1, Model: "quick", Backend: "sim"}) {
		t.Errorf("running %+v", s.Running)
	}
	if err := m.Respond(nil); err != nil {
		t.Fatal(err)
	}
	r.await(func(s *schemas.NodeState) bool { return len(s.Running) == 0 })
}

func TestSeqOfAnAcceptedOffer(t *testing.T) {
	r := newRig(t, func(_ *Config, p *pace) { p.report, p.poll, p.devices = time.Hour, time.Hour, time.Hour })
	j := r.submit("j1", "quick", chat)
	msg := j.fetch()
	j.change = func(h nats.Header) { h.Set(schemas.HeaderBackend, "nobody") }
	before, _ := j.offer(msg)
	j.change = nil
	answer, reply := j.offer(msg)
	s := r.await(func(s *schemas.NodeState) bool { return s.Seq >= answer.Seq })
	if answer.Seq <= before.Seq || s.Seq != answer.Seq || modelOf(s, "quick").Busy != 1 {
		t.Errorf("seq %d after %d; state %+v", answer.Seq, before.Seq, s)
	}
	j.claim(reply.Reply, msg.Reply(), broker.AckWait)
	j.ended(1, schemas.StatusOK)
}

func TestLeaseIsExtended(t *testing.T) {
	r := newRig(t, func(_ *Config, p *pace) { p.lease, p.margin = 300*time.Millisecond, 50*time.Millisecond })
	words := make(chan string, 1000)
	r.subscribe("ack.me", func(m *nats.Msg) {
		words <- string(m.Data)
		_ = m.Respond(nil)
	})
	j := r.submit("j1", "slow", chat, schemas.HeaderTimeout, "1s")
	j.claim(j.accept(j.fetch()), "ack.me", 300*time.Millisecond)
	extensions := 0
	word := wait(t, words)
	for ; word == "+WPI"; word = wait(t, words) {
		extensions++
	}
	if extensions < 5 || extensions > 20 {
		t.Errorf("%d extensions in 1 s of leases of 300 ms", extensions)
	}
	j.end(schemas.EventRetry, 1)
	r.stop()
	if !strings.HasPrefix(word, "-NAK") || len(words) != 0 {
		t.Errorf("the last word was %q, and %d followed", word, len(words))
	}
}

func TestClientThatIsGone(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit("j1", "slow", chat, schemas.HeaderReply, "_INBOX.nobody").run()
	if d := j.done(); d.Code != schemas.Cancelled || d.BusyMS > 3000 {
		t.Errorf("done %+v", d)
	}
	j.gone()
	k := r.submit("k1", "quick", chat, schemas.HeaderReply, "_INBOX.nobody", schemas.HeaderAbandon, "finish")
	if _, err := r.nc.Request(schemas.NodeSubject("n1", "control"), []byte(`{"do":"unload","backend":"sim","model":"slow"}`), patience); err != nil {
		t.Fatal(err)
	}
	if d := k.run().done(); d.Code != "" {
		t.Errorf("a job that is to finish: done %+v", d)
	}
	k.gone()
}
