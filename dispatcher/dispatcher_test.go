package dispatcher

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

func TestJobIsHandedOver(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	n := s.node("a", nil, "llama3.1:8b")
	s.submit("llama3.1:8b", "j1", "X-Own", "kept")

	r := n.next()
	for k, want := range map[string]string{
		schemas.HeaderJob: "j1", schemas.HeaderTenant: "default", schemas.HeaderModel: "llama3.1:8b",
		schemas.HeaderBackend: "sim", schemas.HeaderAttempt: "1", schemas.HeaderKind: "chat", "X-Own": "kept",
		schemas.HeaderFlow: "vj.v1.jobs.default.normal.llama3.1:8b",
	} {
		if got := r.offer.Header.Get(k); got != want {
			t.Errorf("the offer's %s is %q, want %q", k, got, want)
		}
	}
	if ms, err := strconv.Atoi(r.lease); err != nil || ms < 25_000 || ms > 30_000 {
		t.Errorf("the go's lease is %q ms, want a little under 30000", r.lease)
	}
	n.finish(r)
	s.wantQueued(0)
}

// TestNoMoreThanTheSlots: jobs stay in the queue until there is a slot for them.
func TestNoMoreThanTheSlots(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	for i := range 5 {
		s.submit("m", fmt.Sprint("j", i))
	}
	first, second := n.next(), n.next()
	c, err := s.js.Consumer(t.Context(), broker.StreamJobs, broker.ConsumerName("vj.v1.jobs.default.normal.m"))
	if err != nil {
		t.Fatal(err)
	}
	if p := c.CachedInfo().NumAckPending; p != 2 {
		t.Errorf("%d jobs were fetched for two slots", p)
	}
	n.finish(first)
	n.finish(second)
	for range 3 {
		n.finish(n.next())
	}
	s.wantQueued(0)
}

func TestRefusedJobGoesElsewhere(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	s.node("a", func(*nats.Msg) string { return "no room" }, "m")
	b := s.node("b", nil, "m")
	for i := range 4 {
		s.submit("m", fmt.Sprint("j", i))
	}
	for range 4 {
		r := b.next()
		if r.attempt() != "1" {
			t.Errorf("job %s is at attempt %s: a refusal counted", r.job(), r.attempt())
		}
		b.finish(r)
	}
	s.wantQueued(0)
}

func TestSilentOfferGoesElsewhere(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	s.node("a", func(*nats.Msg) string { return "-" }, "m")
	b := s.node("b", nil, "m")
	s.submit("m", "j1")
	s.submit("m", "j2")
	b.finish(b.next())
	b.finish(b.next())
	s.wantQueued(0)
}

func TestUnknownModelEnds(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: 300 * time.Millisecond})
	s.node("a", nil, "llama3.2", "qwen3")
	s.submit("llama3.3", "j1")
	status, err := s.end("j1")
	if status != schemas.StatusError || err.Code != schemas.ModelNotFound || !strings.Contains(err.Message, "llama3.2") {
		t.Errorf("ended %s: %v; want model_not_found that names llama3.2", status, err)
	}
	s.wantQueued(0)
}

func TestUnknownModelWaitsForItsNode(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Minute})
	s.submit("m", "j1")
	n := s.node("a", nil, "m")
	n.finish(n.next())
}

// The last node that had a model is gone: its jobs wait for it longer than those of a
// model that nobody ever had.
func TestLostModelIsWaitedFor(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: 100 * time.Millisecond})
	n := s.node("a", nil, "m")
	s.submit("m", "j1")
	n.finish(n.next())
	s.wantQueued(0)
	n.kill()
	s.submit("m", "j2")
	s.submit("other", "j3")
	if _, err := s.end("j3"); err.Code != schemas.ModelNotFound {
		t.Errorf("a job of a model that nobody ever had ended with %v", err)
	}
	time.Sleep(500 * time.Millisecond)
	s.wantQueued(1)
	n = s.node("a", nil, "m")
	n.finish(n.next())
	s.wantQueued(0)
}

func TestBadJobsEnd(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	for id, tt := range map[string]struct {
		header []string
		status schemas.Status
		code   schemas.Code
	}{
		"reply":    {[]string{schemas.HeaderReply, "$JS.API.STREAM.DELETE.VJ_JOBS"}, schemas.StatusError, schemas.Refused},
		"deadline": {[]string{schemas.HeaderDeadline, "2020-01-01T00:00:00Z"}, schemas.StatusExpired, schemas.Deadline},
		"tomorrow": {[]string{schemas.HeaderDeadline, "tomorrow"}, schemas.StatusError, schemas.InvalidRequest},
		"kind":     {[]string{schemas.HeaderKind, "song"}, schemas.StatusError, schemas.InvalidRequest},
	} {
		s.submit("m", id, tt.header...)
		if status, err := s.end(id); status != tt.status || err.Code != tt.code {
			t.Errorf("%s ended %s: %v; want %s, %s", id, status, err, tt.status, tt.code)
		}
	}
	seq := s.submit("m", "a.b c") // no id: it goes by its sequence
	if _, err := s.end(strconv.FormatUint(seq, 10)); err.Code != schemas.InvalidRequest {
		t.Errorf("the job with a bad id ended with %v", err)
	}
	s.wantQueued(0)
	if len(n.jobs) > 0 {
		t.Errorf("%d bad jobs reached a node", len(n.jobs))
	}
}

// TestPoison: what the server stored under a subject that is no job's ends, and
// touches no other job.
func TestPoison(t *testing.T) {
	for name, before := range map[string]bool{"while leading": false, "before a takeover": true} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t)
			if !before {
				s.dispatch(Config{UnknownModelWait: time.Hour})
				n := s.node("a", nil, "first")
				s.submit("first", "first")
				n.finish(n.next()) // it leads now
			}
			s.submit("waits", "healthy")
			for id, subject := range map[string]string{
				"star": "vj.v1.jobs.default.normal.*", "tail": "vj.v1.jobs.default.normal.>",
				"del": "vj.v1.jobs.default.normal.a\x7fb", "bytes": "vj.v1.jobs.default.normal.a\xff",
				"long": "vj.v1.jobs.default.normal." + strings.Repeat("x", 3900), "class": "vj.v1.jobs.default.urgent.m",
			} {
				s.publish(subject, id)
			}
			if before {
				s.dispatch(Config{UnknownModelWait: time.Hour})
			}
			for _, id := range []string{"star", "tail", "del", "bytes", "long", "class"} {
				if _, err := s.end(id); err.Code != schemas.InvalidRequest {
					t.Errorf("%s ended with %v", id, err)
				}
			}
			s.wantQueued(1)
			n := s.node("b", nil, "waits")
			if r := n.next(); r.job() != "healthy" {
				t.Errorf("ran %s", r.job())
			}
		})
	}
}

// TestEndedJobIsNotRunAgain: an id whose end exists is dropped.
func TestEndedJobIsNotRunAgain(t *testing.T) {
	s := newSystem(t)
	end := nats.NewMsg(schemas.EndSubject("default", "old"))
	end.Data = []byte(`{}`)
	if _, err := broker.PublishEnd(t.Context(), s.nc, end); err != nil {
		t.Fatal(err)
	}
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	s.submit("m", "old")
	s.submit("m", "new")
	if r := n.next(); r.job() != "new" {
		t.Errorf("ran %s", r.job())
	} else {
		n.finish(r)
	}
	s.wantQueued(0)
}

func TestLostNode(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	a := s.node("a", nil, "m")
	s.submit("m", "j1")
	a.next()
	b := s.node("b", nil, "m")
	died := time.Now()
	a.kill()
	r := b.next()
	if r.job() != "j1" || r.attempt() != "2" {
		t.Errorf("node b got %s, attempt %s", r.job(), r.attempt())
	}
	if took := time.Since(died); took > 5*time.Second {
		t.Errorf("the job ran again after %s, want 5s at most", took)
	}
}

// TestReturnedNodeIsTold: a node that comes back with a job that was given away
// is told to stop it.
func TestReturnedNodeIsTold(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	a := s.node("a", nil, "m")
	s.submit("m", "j1")
	a.next()
	a.kill()
	s.node("b", nil, "m").next()
	told, err := s.nc.SubscribeSync(schemas.CancelSubject("default", "j1"))
	if err != nil {
		t.Fatal(err)
	}
	back := s.node("a", nil, "m")
	back.state.Running = []schemas.RunningJob{{Job: "j1", Tenant: "default", Attempt: 1, Model: "m", Backend: "sim"}}
	back.report()
	m, err := told.NextMsg(patience)
	if err != nil {
		t.Fatal(err)
	}
	var c schemas.Cancel
	if err := json.Unmarshal(m.Data, &c); err != nil || !c.Void || c.Attempt != 1 {
		t.Errorf("told %s (%v), want void, attempt 1", m.Data, err)
	}
}

// TestAttemptsRunOut: a job that each of its nodes dies of becomes a dead letter.
func TestAttemptsRunOut(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	s.submit("m", "j1", schemas.HeaderAttempts, "2")
	for range 2 {
		r := n.next()
		if err := broker.Nak(t.Context(), n.nc, r.ack, 0); err != nil {
			t.Fatal(err)
		}
		n.free(r, schemas.StreamBroken, 0)
	}
	status, err := s.end("j1")
	if status != schemas.StatusError || !strings.Contains(err.Message, "given out 2 times") {
		t.Errorf("ended %s: %v", status, err)
	}
	if ok, err := broker.Has(t.Context(), s.nc, broker.StreamDead, "vj.v1.dead.default.normal.m"); !ok || err != nil {
		t.Errorf("a dead letter: %v, %v", ok, err)
	}
	s.wantQueued(0)
}

// TestJobThatKillsItsNodes: a job that may be why its nodes die takes three at most,
// however often it may be tried.
func TestJobThatKillsItsNodes(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	s.submit("m", "j1", schemas.HeaderAttempts, "100")
	for _, name := range []string{"a", "b", "c"} {
		n := s.node(name, nil, "m")
		n.next()
		n.kill()
	}
	d := s.node("d", nil, "m")
	status, err := s.end("j1")
	if status != schemas.StatusError || err.Code != schemas.UpstreamError || !strings.Contains(err.Message, "lost 3 times") {
		t.Errorf("ended %s: %v", status, err)
	}
	if ok, err := broker.Has(t.Context(), s.nc, broker.StreamDead, "vj.v1.dead.default.normal.m"); !ok || err != nil {
		t.Errorf("a dead letter: %v, %v", ok, err)
	}
	s.submit("m", "j2")
	if r := d.next(); r.job() != "j2" {
		t.Errorf("node d got %s, want j2", r.job())
	}
}

// TestNodesSpeakForThemselves: what a node says on its own subject ends no job of
// another, under whichever name it says it.
func TestNodesSpeakForThemselves(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	a, b := s.node("a", nil, "m"), s.node("b", nil, "other")
	told, err := s.nc.SubscribeSync(schemas.JobEventSubject("default", "j1"))
	if err != nil {
		t.Fatal(err)
	}
	s.submit("m", "j1")
	r := a.next()
	a.tokens = 3
	for _, name := range []string{"a", "b"} {
		_ = b.nc.Publish(schemas.NodeSubject("b", "done"), encode(schemas.JobDone{
			Node: name, Boot: "b1", Tenant: "default", Job: "j1", Attempt: 1, RetryMS: -1, Status: schemas.StatusOK,
		}))
	}
	if err := b.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	a.finish(r)
	for {
		m, err := told.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		var e schemas.JobEvent
		if err := json.Unmarshal(m.Data, &e); err != nil {
			t.Fatal(err)
		}
		if e.Event != schemas.JobEventEnded {
			continue
		}
		if e.Node != "a" || e.Tokens != 3 {
			t.Errorf("another node ended it: %+v", e)
		}
		return
	}
}

// TestBlockedFlowBlocksNobody: a flow whose model is busy holds up no other.
func TestBlockedFlowBlocksNobody(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Hour})
	n := s.node("a", nil, "busy", "free")
	for i := range 20 {
		s.submit("busy", fmt.Sprint("b", i))
		s.submit("nobody", fmt.Sprint("n", i))
	}
	n.next()
	n.next() // both slots of busy are taken, for good
	for i := range 10 {
		s.submit("free", fmt.Sprint("f", i))
		r := n.next()
		if r.job() != fmt.Sprint("f", i) {
			t.Fatalf("got %s, want f%d", r.job(), i)
		}
		n.finish(r)
	}
}

func TestFailover(t *testing.T) {
	s := newSystem(t)
	stop := s.dispatch(Config{ID: "one"})
	n := s.node("a", nil, "m", "n")
	s.submit("m", "j1")
	running := n.next()
	s.dispatch(Config{ID: "two"})
	stop()
	s.submit("m", "j2")
	began := time.Now()
	r := n.next()
	if r.job() != "j2" || time.Since(began) > 3*time.Second {
		t.Errorf("got %s after %s, want j2 within 3s", r.job(), time.Since(began))
	}
	n.finish(running)
	n.finish(r)
	s.wantQueued(0)
}

// ask asks about a job until a leader answers.
func (s *system) ask(verb, job string, into any) {
	s.Helper()
	s.asks(verb, schemas.JobRequest{Job: job}, into)
}

// asks sends an api request until a leader answers.
func (s *system) asks(verb string, req, into any) {
	s.Helper()
	within := time.Second
	if verb == "purge" { // a step is work, and told once
		s.asks("list", struct{}{}, &schemas.FlowList{}) // somebody leads
		within = patience / 2
	}
	for stop := time.Now().Add(patience); ; {
		m, err := s.nc.Request(schemas.APISubject("default", verb), encode(req), within)
		if err == nil {
			if err := json.Unmarshal(m.Data, into); err != nil {
				s.Fatal(err)
			}
			return
		}
		if time.Now().After(stop) {
			s.Fatalf("%s %s: %v", verb, encode(req), err)
		}
	}
}

func TestCancelAndStatus(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Hour})
	n := s.node("a", nil, "m")
	for i := range 4 {
		s.submit("m", fmt.Sprint("j", i))
	}
	first, second := n.next(), n.next()

	var info schemas.JobInfo
	s.ask("status", first.job(), &info)
	if info.State != schemas.JobRunning || info.Node != "a" {
		t.Errorf("the running job: %+v", info)
	}
	s.ask("status", "j3", &info)
	if info.State != schemas.JobQueued {
		t.Errorf("the queued job: %+v", info)
	}
	var why schemas.Why
	s.ask("why", "j3", &why)
	if len(why.Why) != 1 || !strings.Contains(why.Why[0], "all 2 slots are busy") {
		t.Errorf("why: %q", why.Why)
	}
	s.ask("cancel", "j3", &info)
	if status, err := s.end("j3"); status != schemas.StatusCancelled || err.Code != schemas.Cancelled {
		t.Errorf("the cancelled job ended %s: %v", status, err)
	}
	s.ask("status", "j3", &info)
	if info.State != schemas.JobState(schemas.StatusCancelled) {
		t.Errorf("the cancelled job: %+v", info)
	}
	told, err := s.nc.SubscribeSync(schemas.CancelSubject("default", first.job()))
	if err != nil {
		t.Fatal(err)
	}
	s.ask("cancel", first.job(), &info)
	if _, err := told.NextMsg(patience); err != nil || info.Node != "a" {
		t.Errorf("the node was not told to cancel: %v, %+v", err, info)
	}
	var unknown schemas.APIError
	s.ask("status", "nobody", &unknown)
	if unknown.Error == nil || unknown.Error.Code != schemas.JobNotFound {
		t.Errorf("the status of no job: %v", unknown.Error)
	}
	s.ask("cancel", "nobody", &unknown)
	if unknown.Error == nil || unknown.Error.Code != schemas.JobNotFound {
		t.Errorf("cancelling no job: %v", unknown.Error)
	}
	n.finish(first)
	n.finish(second)
	if r := n.next(); r.job() != "j2" {
		t.Errorf("ran %s", r.job())
	} else {
		n.finish(r)
	}
	s.wantQueued(0) // the cancelled one was dropped when its turn came
}

// TestCancelledReplyJob: a queued job with a reply subject ends there, as
// cancelled, when its turn comes.
func TestCancelledReplyJob(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Hour})
	inbox, err := s.nc.SubscribeSync(s.nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	s.submit("m", "j1", schemas.HeaderReply, inbox.Subject)
	var info schemas.JobInfo
	s.ask("cancel", "j1", &info)
	n := s.node("a", nil, "m")
	m, err := inbox.NextMsg(patience)
	if err != nil || m.Header.Get(schemas.HeaderStatus) != string(schemas.StatusCancelled) {
		t.Errorf("the inbox got %v, %v", m, err)
	}
	s.wantQueued(0)
	if len(n.jobs) > 0 {
		t.Error("a cancelled job ran")
	}
}

// TestJobThatFillsAMessage: a job that the queue took and that leaves no room for
// an offer's headers ends, and does not go round in circles.
func TestJobThatFillsAMessage(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	s.node("a", nil, "m")
	m := nats.NewMsg("vj.v1.jobs.default.normal.m")
	m.Header.Set(schemas.HeaderMsgID, "full")
	const head = `{"messages":[{"role":"user","content":"`
	m.Data = []byte(head + strings.Repeat("x", int(s.nc.MaxPayload())-len(head)-60) + `"}]}`)
	if _, err := s.js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if _, err := s.end("full"); err.Code != schemas.InvalidRequest || !strings.Contains(err.Message, "max_payload") {
		t.Errorf("ended with %v", err)
	}
	s.wantQueued(0)
}

// TestFlowsTakeTurns: more flows than consumers may live are all served.
func TestFlowsTakeTurns(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{Consumers: 2})
	n := s.node("a", nil, "m1", "m2", "m3", "m4")
	for round := range 2 {
		for i := range 4 {
			s.submit(fmt.Sprint("m", i+1), fmt.Sprintf("j%d-%d", round, i))
		}
		for range 4 {
			n.finish(n.next())
		}
		s.wantQueued(0)
	}
	live := 0 // one that gave way is deleted while the next is made
	for stop := time.Now().Add(patience); time.Now().Before(stop); time.Sleep(5 * time.Millisecond) {
		st, err := s.js.Stream(t.Context(), broker.StreamJobs)
		if err != nil {
			t.Fatal(err)
		}
		if live = st.CachedInfo().State.Consumers; live <= 2 {
			return
		}
	}
	t.Errorf("%d consumers live, want 2 at most", live)
}

// TestConsumerIsGone: a consumer that somebody deleted, or that was not used for too long,
// is made anew.
func TestConsumerIsGone(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	for round := range 3 {
		for i := range 4 {
			s.submit("m", fmt.Sprintf("j%d-%d", round, i))
		}
		for range 4 {
			n.finish(n.next())
		}
		s.wantQueued(0)
		s.within(func() {
			for name := range s.d.term.consumers.live {
				if err := s.js.DeleteConsumer(t.Context(), broker.StreamJobs, name); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestReusedID: an id that is used again while its job runs, after the stream's
// window of deduplication, is the same job: it is not run twice.
func TestReusedID(t *testing.T) {
	s := newSystem(t)
	if err := broker.Setup(t.Context(), s.js, broker.StreamsConfig{DedupWindow: 100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	first := s.submit("m", "j1")
	r := n.next()
	var again uint64
	for again <= first { // a duplicate is told the first one's sequence
		time.Sleep(20 * time.Millisecond)
		again = s.submit("m", "j1")
	}
	s.wantQueued(1) // the second is gone, the first runs
	if len(n.jobs) > 0 {
		t.Error("the job was given to the node twice")
	}
	n.finish(r)
	s.wantQueued(0)
}
