package dispatcher

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/schemas"
)

const laterFlow = "vj.v1.later.default.normal.m"

func in(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339Nano) }

// wantStored waits until a stream holds n messages.
func (s *system) wantStored(stream string, n uint64) {
	s.Helper()
	var last uint64
	for stop := time.Now().Add(patience); time.Now().Before(stop); time.Sleep(5 * time.Millisecond) {
		st, err := s.js.Stream(s.Context(), stream)
		if err != nil {
			s.Fatal(err)
		}
		if last = st.CachedInfo().State.Msgs; last == n {
			return
		}
	}
	s.Fatalf("%s holds %d messages, want %d", stream, last, n)
}

func (s *system) wantDelayed(n uint64) { s.Helper(); s.wantStored(broker.StreamLater, n) }

// TestDelayedJobs: a job begins when it is due and no earlier, with its id and its
// headers, whether it names itself or not, and wherever it was published.
func TestDelayedJobs(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	due := time.Now().Add(500 * time.Millisecond)
	at := due.UTC().Format(time.RFC3339Nano)
	seq := s.publish(laterFlow, "", schemas.HeaderAt, at, "X-Own", "1")
	s.publish(laterFlow, "named", schemas.HeaderAt, at, "X-Own", "2", "Nats-Expected-Stream", broker.StreamLater)
	queued := s.submit("m", "", schemas.HeaderAt, at, "X-Own", "3")
	want := map[string]string{schemas.UnnamedLater(seq): "1", "named": "2", fmt.Sprint(queued): "3"}
	s.wantDelayed(3)
	s.wantQueued(0)
	for range 3 {
		r := n.next()
		if early := time.Until(due); early > 0 {
			t.Errorf("%s began %s before it was due", r.job(), early)
		}
		if own := want[r.job()]; own == "" || own != r.offer.Header.Get("X-Own") || r.attempt() != "1" || r.offer.Header.Get(schemas.HeaderAt) != at {
			t.Errorf("ran %s with the headers %v", r.job(), r.offer.Header)
		}
		delete(want, r.job())
		n.finish(r)
	}
	s.wantQueued(0)
	s.wantDelayed(0)
}

// TestDueJobIsNotSentBack: what one leader moved into the queue, another whose clock is
// behind takes as due.
func TestDueJobIsNotSentBack(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	s.submit("m", "later.1.2", schemas.HeaderLater, "j1", schemas.HeaderAt, in(time.Hour))
	r := n.next()
	if r.job() != "j1" {
		t.Errorf("ran %s", r.job())
	}
	n.finish(r)
	s.wantQueued(0)
	s.wantDelayed(0)
}

// TestDelayedModelIsNotNeededYet: a job that was queued before it is due waits for its
// time, also where no node has its model yet.
func TestDelayedModelIsNotNeededYet(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: 10 * time.Millisecond})
	s.submit("m", "j1", schemas.HeaderAt, in(time.Hour))
	for range 20 { // on its way, too
		var info schemas.JobInfo
		s.ask("status", "j1", &info)
		if info.State != schemas.JobDelayed || time.Until(info.Due) < 50*time.Minute {
			t.Errorf("the job is %+v", info)
		}
		var why schemas.Why
		s.ask("why", "j1", &why)
		if !strings.Contains(why.Reason, "not to begin before") {
			t.Errorf("why: %+v", why)
		}
	}
	s.wantDelayed(1)
	s.wantQueued(0)
	s.submit("m", "j2", schemas.HeaderAt, in(time.Hour))
	s.ask("cancel", "j2", &schemas.JobInfo{})
	if status, _ := s.end("j2"); status != schemas.StatusCancelled {
		t.Errorf("it ended %s", status)
	}
}

func TestBadDelayedJobsEnd(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	for id, header := range map[string][]string{
		"missing":  nil,
		"tomorrow": {schemas.HeaderAt, "tomorrow"},
		"number":   {schemas.HeaderAt, "1767366245"},
		"deadline": {schemas.HeaderAt, in(time.Hour), schemas.HeaderDeadline, in(time.Minute)},
		"keep":     {schemas.HeaderAt, in(time.Hour), schemas.HeaderKeep, "1ms"},
	} {
		s.publish(laterFlow, id, header...)
		if status, err := s.end(id); status != schemas.StatusError || err.Code != schemas.InvalidRequest {
			t.Errorf("%s ended %s: %v; want invalid_request", id, status, err)
		}
	}
	s.publish(laterFlow, "reply", schemas.HeaderAt, in(time.Hour), schemas.HeaderReply, "$JS.API.x")
	if _, err := s.end("reply"); err.Code != schemas.Refused {
		t.Errorf("reply ended with %v, want refused", err)
	}
	s.publish("vj.v1.later.default.normal.*", "poison", schemas.HeaderAt, in(time.Hour))
	if _, err := s.end("poison"); err.Code != schemas.InvalidRequest || !strings.Contains(err.Message, "subject") {
		t.Errorf("poison ended with %v, want invalid_request for its subject", err)
	}
	for _, subject := range []string{laterFlow, "vj.v1.jobs.default.normal.m"} {
		s.publish(subject, "past"+subject[6:7], schemas.HeaderAt, "1969-07-20T20:17:40Z")
		n.finish(n.next())
	}
	s.publish(laterFlow, "far", schemas.HeaderAt, "9999-12-31T23:59:59Z")
	s.wantDelayed(1)
	s.wantQueued(0)
}

// TestDelayedJobIsKnown: where it is, why it waits, and that it can be cancelled.
func TestDelayedJobIsKnown(t *testing.T) {
	s := newSystem(t)
	s.publish(laterFlow, "before", schemas.HeaderAt, "2126-01-02T15:04:05Z") // when nobody leads
	s.dispatch(Config{})
	inbox, err := s.nc.SubscribeSync(s.nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	s.publish(laterFlow, "after", schemas.HeaderAt, "2126-01-02T15:04:05Z", schemas.HeaderReply, inbox.Subject, schemas.HeaderCustomID, "№ 7")
	s.publish("vj.v1.later.other.normal.m", "elsewhere", schemas.HeaderAt, "2126-01-02T15:04:05Z")
	due := time.Date(2126, 1, 2, 15, 4, 5, 0, time.UTC)
	for _, id := range []string{"before", "after"} {
		var info schemas.JobInfo
		s.ask("status", id, &info)
		if want := (schemas.JobInfo{Job: id, State: schemas.JobDelayed, Model: "m", Due: due}); info != want {
			t.Errorf("%s is %+v, want %+v", id, info, want)
		}
		var why schemas.Why
		s.ask("why", id, &why)
		if why.State != schemas.JobDelayed || why.Class != schemas.Normal || !strings.Contains(why.Reason, "2126-01-02T15:04:05Z") {
			t.Errorf("why of %s: %+v", id, why)
		}
		s.ask("cancel", id, &info)
		if info.State != schemas.JobState(schemas.StatusCancelled) {
			t.Errorf("cancelled, %s is %+v", id, info)
		}
	}
	if status, err := s.end("before"); status != schemas.StatusCancelled || err.Code != schemas.Cancelled {
		t.Errorf("it ended %s: %v", status, err)
	}
	m, err := inbox.NextMsg(patience)
	if err != nil || m.Header.Get(schemas.HeaderStatus) != string(schemas.StatusCancelled) || m.Header.Get(schemas.HeaderCustomID) != "№ 7" {
		t.Errorf("the inbox got %v, %v", m, err)
	}
	s.wantDelayed(1)
	var info schemas.APIError
	s.ask("cancel", "elsewhere", &info)
	if info.Error == nil || info.Error.Code != schemas.JobNotFound {
		t.Errorf("another tenant's job: %v", info.Error)
	}
	s.wantDelayed(1)
}

// TestDelayedJobsPushBack: jobs that are due wait where they are while the queue is
// full for their flow, and hold up no other flow.
func TestDelayedJobsPushBack(t *testing.T) {
	s := newSystem(t)
	if err := broker.Setup(t.Context(), s.js, broker.StreamsConfig{MaxJobsPerFlow: 3}); err != nil {
		t.Fatal(err)
	}
	s.dispatch(Config{})
	for range 3 {
		s.submit("m", "")
	}
	at := in(50 * time.Millisecond)
	for i := range 3 {
		s.publish(laterFlow, fmt.Sprint("m", i), schemas.HeaderAt, at)
	}
	s.wantQueued(3)
	other := s.node("b", nil, "n")
	s.publish("vj.v1.later.default.normal.n", "n", schemas.HeaderAt, in(100*time.Millisecond))
	other.finish(other.next())
	s.wantDelayed(3)
	var info schemas.JobInfo
	s.ask("status", "m1", &info)
	if info.State != schemas.JobQueued {
		t.Errorf("a job that is due and finds no room is %s, want queued", info.State)
	}
	n := s.node("a", nil, "m")
	for range 6 {
		n.finish(n.next())
	}
	s.wantQueued(0)
	s.wantDelayed(0)
}

// TestTooManyDelayedJobs: who publishes one too many is told so, also by an end.
func TestTooManyDelayedJobs(t *testing.T) {
	s := newSystem(t)
	if err := broker.Setup(t.Context(), s.js, broker.StreamsConfig{MaxLater: 1}); err != nil {
		t.Fatal(err)
	}
	s.dispatch(Config{})
	s.node("a", nil, "m")
	s.publish(laterFlow, "j1", schemas.HeaderAt, in(time.Hour))
	m := nats.NewMsg(laterFlow)
	if _, err := s.js.PublishMsg(t.Context(), m); !broker.Full(err) {
		t.Errorf("a delayed job too many: %v", err)
	}
	s.submit("m", "j2", schemas.HeaderAt, in(time.Hour))
	if _, err := s.end("j2"); err.Code != schemas.Overloaded {
		t.Errorf("it ended with %v, want overloaded", err)
	}
	s.wantQueued(0)
}

// TestDelayedJobsAreMovedOnce: ids are a tenant's, also of jobs that are due at the same
// time; and a job that was moved already is not moved twice.
func TestDelayedJobsAreMovedOnce(t *testing.T) {
	s := newSystem(t)
	at := in(0)
	s.publish(laterFlow, "same", schemas.HeaderAt, at)
	m := nats.NewMsg("vj.v1.later.other.normal.m")
	m.Data, m.Header = []byte("hi"), nats.Header{schemas.HeaderMsgID: {"other"}, schemas.HeaderLater: {"same"}, schemas.HeaderAt: {at}}
	if _, err := s.js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	// A leader is killed when the queue has the job and it was not removed yet.
	later, err := s.js.Stream(t.Context(), broker.StreamLater)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := later.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.PublishStored(t.Context(), s.nc, dueMessage(stored, "same")); err != nil {
		t.Fatal(err)
	}
	s.dispatch(Config{})
	s.wantDelayed(0)
	n := s.node("a", nil, "m")
	tenants := map[string]int{}
	for range 2 {
		r := n.next()
		tenants[r.offer.Header.Get(schemas.HeaderTenant)]++
		if r.job() != "same" {
			t.Errorf("ran %s", r.job())
		}
		n.finish(r)
	}
	if tenants["default"] != 1 || tenants["other"] != 1 {
		t.Errorf("ran %v", tenants)
	}
	s.wantQueued(0)
	if len(n.jobs) > 0 {
		t.Error("a job ran twice")
	}
}

// TestDelayedJobsOutliveLeaders: leaders are killed while jobs come due, one after the
// other, and each job runs exactly once.
func TestDelayedJobsOutliveLeaders(t *testing.T) {
	s := newSystem(t)
	const jobs, leaders = 300, 2
	n := s.node("a", nil, "m")
	var kills sync.WaitGroup
	for i := range leaders {
		nc := brokertest.Connect(t, s.srv)
		d, err := New(nc, Config{ID: fmt.Sprint(i), Logger: brokertest.Log(t)})
		if err != nil {
			t.Fatal(err)
		}
		kills.Go(func() { _ = d.Run(t.Context()) }) // killed, it says that the connection is closed
		published := 0
		for i == 0 && published < jobs {
			s.publish(laterFlow, fmt.Sprint("j", published), schemas.HeaderAt, in(1500*time.Millisecond))
			published++
		}
		for s.delayed() > uint64(jobs-(i+1)*jobs/(leaders+1)) {
			time.Sleep(time.Millisecond)
		}
		nc.Close() // as kill -9 does
	}
	s.dispatch(Config{ID: "last"})
	ran := map[string]int{}
	for range jobs {
		r := n.next()
		ran[r.job()]++
		n.finish(r)
	}
	s.wantQueued(0)
	s.wantDelayed(0)
	if len(ran) != jobs || len(n.jobs) > 0 {
		t.Errorf("%d of %d jobs ran, and %d once more", len(ran), jobs, len(n.jobs))
	}
	kills.Wait()
}

func (s *system) delayed() uint64 {
	s.Helper()
	st, err := s.js.Stream(s.Context(), broker.StreamLater)
	if err != nil {
		s.Fatal(err)
	}
	return st.CachedInfo().State.Msgs
}

// TestLaterHandsOutEachJobOnce: whatever comes, fails and is cancelled, a job is handed
// out when it is due, once at a time, until it was moved.
func TestLaterHandsOutEachJobOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLater()
		now := time.Unix(1_000_000, 0)
		left := map[uint64]time.Time{} // by sequence: when it is due
		out := map[uint64]bool{}
		seq := uint64(0)
		round := func(flows int) {
			l.become(now)
			for flow := range uint32(flows) {
				for l.due[flow] != nil {
					jobs := l.take(flow, 3, now)
					if len(jobs) == 0 {
						break
					}
					for _, d := range jobs {
						if due, ok := left[d.seq]; !ok || due.After(now) || out[d.seq] {
							t.Fatalf("job %d is handed out: due %s, now %s, known %v, out %v", d.seq, due, now, ok, out[d.seq])
						}
						out[d.seq] = true
						if _, ok := l.remove(d.seq); ok {
							t.Fatalf("job %d was cancelled as it was moved", d.seq)
						}
					}
					failed := rapid.IntRange(0, len(jobs)).Draw(t, "failed")
					for i, d := range jobs {
						delete(out, d.seq)
						if i < len(jobs)-failed {
							delete(left, d.seq)
						}
					}
					l.moved(flow, jobs, failed, now.Add(time.Second))
				}
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				seq++
				due := now.Add(time.Duration(rapid.IntRange(-2, 5).Draw(t, "due")) * time.Second)
				left[seq] = due
				l.read(delayed{due: due.UnixNano(), seq: seq, flow: uint32(rapid.IntRange(0, 2).Draw(t, "flow"))})
			case 1:
				now = now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "pause")) * time.Second)
			case 2:
				if seq > 0 {
					s := rapid.Uint64Range(1, seq).Draw(t, "cancel")
					_, known := left[s]
					if _, ok := l.remove(s); ok != known {
						t.Fatalf("job %d: removed %v, known %v", s, ok, known)
					}
					delete(left, s)
				}
			case 3:
				round(3)
			}
		}
		for range 100 {
			now = now.Add(10 * time.Second)
			round(3)
			if len(left) == 0 {
				break
			}
		}
		if n := len(l.waiting); n > 0 || len(l.moving) > 0 {
			t.Fatalf("%d jobs wait, %d are being moved", n, len(l.moving))
		}
	})
}
