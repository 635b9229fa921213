package containers

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// An event is one of a job, as it was seen.
type event struct {
	job          string
	kind         schemas.EventKind
	attempt, seq int
	node         string // of an accepted
	status       schemas.Status
	why          string // of an end that is not ok
	at           time.Time
}

// readEvent reads a message on a subject of results.
func readEvent(h nats.Header, body []byte, at time.Time) event {
	e := event{job: h.Get(schemas.HeaderJob), kind: schemas.EventKind(h.Get(schemas.HeaderEvent)), status: schemas.Status(h.Get(schemas.HeaderStatus)), at: at}
	e.attempt, _ = strconv.Atoi(h.Get(schemas.HeaderAttempt))
	e.seq, _ = strconv.Atoi(h.Get(schemas.HeaderSeq))
	if e.kind == schemas.EventEnd && e.status != schemas.StatusOK {
		e.why = string(body)
	}
	var acc schemas.Accepted
	if e.kind == schemas.EventAccepted && json.Unmarshal(body, &acc) == nil {
		e.node = acc.Node
	}
	return e
}

// A wire collects the events that come by.
type wire struct {
	mu   sync.Mutex
	seen []event
}

func (s *site) listen() *wire {
	s.Helper()
	w := &wire{}
	sub, err := s.nc.Subscribe(schemas.ResultsPrefix+schemas.DefaultTenant+".>", func(m *nats.Msg) {
		e := readEvent(m.Header, m.Data, time.Now())
		w.mu.Lock()
		defer w.mu.Unlock()
		w.seen = append(w.seen, e)
	})
	if err != nil {
		s.Fatal(err)
	}
	sub.SetPendingLimits(-1, -1)
	return w
}

// take returns what came since it was called last.
func (w *wire) take() []event {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

// stored reads the events that were stored after a sequence.
func (s *site) stored(after uint64) (events []event) {
	s.Helper()
	last := s.stream(broker.StreamResults).State.LastSeq
	if last <= after {
		return nil
	}
	within(s, patience, "all results are read", func() bool {
		events = nil
		c, err := s.js.OrderedConsumer(s.Context(), broker.StreamResults, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1})
		if err != nil {
			return false
		}
		msgs, err := c.Messages(jetstream.PullMaxMessages(5000))
		if err != nil {
			return false
		}
		defer msgs.Stop()
		for {
			m, err := msgs.Next(jetstream.NextMaxWait(5 * time.Second))
			if err != nil {
				return false
			}
			meta, err := m.Metadata()
			if err != nil {
				return false
			}
			events = append(events, readEvent(m.Headers(), m.Data(), meta.Timestamp))
			if meta.Sequence.Stream >= last {
				return true
			}
		}
	})
	return events
}

// A window is what is known of the jobs that were submitted in a while.
type window struct {
	accepted     int // by the queue, as its sequence tells
	acked        []string
	stored, seen []event  // in VJ_RESULTS, and on the wire
	runs         []string // the jobs that model servers began with
	misread      int      // as in a tally
}

// A tally is what a window comes to.
type tally struct {
	Jobs    int // that the queue accepted
	Chunks  int // that came by or are stored, each of an attempt once
	Lost    int // without an end
	Twice   int // with two ends that are stored
	Echoes  int // ends that came by again, and were not stored
	Failed  int // whose end is not ok
	Again   int // runs at model servers beyond one for each job
	Gaps    int // chunks that neither came by nor are stored
	Reorder int // chunks out of order, or twice, in what is stored
	Misread int // jobs of which a reader does not get what is stored, in order and each chunk once
}

// count counts.
func (w window) count() (t tally) {
	t.Jobs = w.accepted
	ends := map[string]int{}
	chunks := events{}
	for _, e := range w.stored {
		if e.kind == schemas.EventEnd {
			ends[e.job]++
			if e.status != schemas.StatusOK {
				t.Failed++
			}
		}
		chunks.add(fmt.Sprint(e.job, " ", e.attempt), e)
	}
	for _, late := range w.disorder() {
		t.Reorder += len(late)
	}
	t.Misread = w.misread
	echoes := map[string]int{}
	for _, e := range w.seen {
		if e.kind == schemas.EventEnd {
			echoes[e.job]++
		}
		chunks.add(fmt.Sprint(e.job, " ", e.attempt), e)
	}
	for _, n := range ends {
		t.Twice += n - 1
	}
	for job, n := range echoes {
		t.Echoes += max(0, n-max(1, ends[job]))
	}
	t.Lost = max(0, t.Jobs-len(ends))
	for _, id := range w.acked {
		if ends[id] == 0 {
			t.Lost = max(t.Lost, 1)
		}
	}
	for _, seqs := range chunks {
		highest := 0
		for n, chunk := range seqs {
			highest = max(highest, n)
			if chunk {
				t.Chunks++
			}
		}
		t.Gaps += highest + 1 - len(seqs)
	}
	begun := map[string]bool{}
	for _, id := range w.runs {
		if ends[id] > 0 && begun[id] {
			t.Again++
		}
		begun[id] = true
	}
	return t
}

// events are those of each job and attempt by their numbers; true are chunks.
type events map[string]map[int]bool

func (all events) add(key string, e event) {
	if all[key] == nil {
		all[key] = map[int]bool{}
	}
	all[key][e.seq] = e.kind == schemas.EventChunk
}

// failures lists why jobs did not end well.
func (w window) failures() (all []string) {
	for _, e := range w.stored {
		if e.kind == schemas.EventEnd && e.status != schemas.StatusOK {
			all = append(all, fmt.Sprintf("%s, attempt %d: %s", e.job, e.attempt, e.why))
		}
	}
	return all
}

// disorder lists the stored chunks, by their jobs, that come after later ones, or again.
func (w window) disorder() map[string][]event {
	all, last := map[string][]event{}, map[string]int{}
	for _, e := range w.stored {
		if e.kind == schemas.EventEnd {
			continue
		}
		key := fmt.Sprint(e.job, " ", e.attempt)
		if n, ok := last[key]; ok && e.seq <= n {
			all[e.job] = append(all[e.job], e)
		}
		last[key] = e.seq
	}
	return all
}

// misread reads the jobs whose chunks are stored out of order, as any client does, and
// counts those of which it does not get what is stored, each chunk once and in order.
func (s *site) misread(w window) (n int) {
	s.Helper()
	for job, chunks := range w.disorder() {
		stored := events{}
		highest := 0
		for _, e := range w.stored {
			if e.job == job {
				highest = max(highest, e.attempt)
				stored.add(fmt.Sprint(e.attempt), e)
			}
		}
		var want, got []int
		for seq, chunk := range stored[fmt.Sprint(highest)] {
			if chunk {
				want = append(want, seq)
			}
		}
		slices.Sort(want)
		stream, err := s.api.Resume(s.Context(), job, 0)
		if err != nil {
			s.Fatal(err)
		}
		for e, err := range stream.All(s.Context()) {
			if err == nil && e.Kind == schemas.EventChunk && e.Attempt == uint64(highest) {
				got = append(got, int(e.Seq))
			}
		}
		first := chunks[0]
		s.Logf("%s, attempt %d: %d chunks are stored out of order or twice, the first is %d, at %s", job, first.attempt, len(chunks), first.seq, first.at.Format("15:04:05.000"))
		if !slices.Equal(got, want) {
			n++
			s.Logf("its reader gets %v of %v", got, want)
		}
	}
	return n
}

// accepts returns the first sighting of each attempt that a node took, the earliest first.
func (w window) accepts() []event {
	first := map[string]event{}
	for _, e := range slices.Concat(w.seen, w.stored) {
		key := fmt.Sprint(e.job, " ", e.attempt)
		if f, ok := first[key]; e.kind == schemas.EventAccepted && (!ok || e.at.Before(f.at)) {
			first[key] = e
		}
	}
	var all []event
	for _, e := range first {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b event) int { return a.at.Compare(b.at) })
	return all
}

// moved returns how long after a fault each job ran elsewhere that ran on a node then.
func (w window) moved(node string, fault time.Time) (took []time.Duration) {
	all := w.accepts()
	for _, e := range all {
		if e.node != node || e.at.After(fault) {
			continue
		}
		for _, next := range all {
			if next.job == e.job && next.attempt == e.attempt+1 && next.at.After(fault) {
				took = append(took, next.at.Sub(fault))
			}
		}
	}
	return took
}

// stall returns the longest time after a fault in which no job began, up to a time.
func (w window) stall(fault, until time.Time) (longest time.Duration) {
	last := fault
	for _, e := range w.accepts() {
		if e.at.After(fault) && last.Before(until) {
			longest = max(longest, e.at.Sub(last))
			last = e.at
		}
	}
	return longest
}

// TestCount: what must not happen is seen where it happens.
func TestCount(t *testing.T) {
	at := time.Unix(100, 0)
	ev := func(job string, kind schemas.EventKind, attempt, seq int, after time.Duration) event {
		e := event{job: job, kind: kind, attempt: attempt, seq: seq, at: at.Add(after)}
		if kind == schemas.EventAccepted {
			e.node = fmt.Sprint("n", attempt)
		}
		if kind == schemas.EventEnd {
			e.status = schemas.StatusOK
		}
		return e
	}
	one := []event{ev("a", schemas.EventAccepted, 1, 0, 0), ev("a", schemas.EventChunk, 1, 1, 1), ev("a", schemas.EventEnd, 1, 2, 2)}
	for _, c := range []struct {
		name string
		w    window
		want tally
	}{
		{"well", window{accepted: 1, acked: []string{"a"}, stored: one, seen: one, runs: []string{"a"}}, tally{Jobs: 1, Chunks: 1}},
		{"lost", window{accepted: 2, stored: one}, tally{Jobs: 2, Chunks: 1, Lost: 1}},
		{"lost, though another was not told of", window{accepted: 1, acked: []string{"b"}, stored: one}, tally{Jobs: 1, Chunks: 1, Lost: 1}},
		{"ended twice", window{accepted: 1, stored: append(one, one[2])}, tally{Jobs: 1, Chunks: 1, Twice: 1}},
		{"ended twice on the wire", window{accepted: 1, stored: one, seen: append(one, one[2])}, tally{Jobs: 1, Chunks: 1, Echoes: 1}},
		{"run again", window{accepted: 1, stored: one, runs: []string{"a", "a", "a"}}, tally{Jobs: 1, Chunks: 1, Again: 2}},
		{"a gap", window{accepted: 1, stored: []event{one[0], one[2]}}, tally{Jobs: 1, Gaps: 1}},
		{"a gap that came by", window{accepted: 1, stored: []event{one[0], one[2]}, seen: one[1:2]}, tally{Jobs: 1, Chunks: 1}},
		{"out of order", window{accepted: 1, stored: []event{one[1], one[0], one[2]}}, tally{Jobs: 1, Chunks: 1, Reorder: 1}},
	} {
		if got := c.w.count(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	w := window{seen: append(one[:1:1], ev("a", schemas.EventAccepted, 2, 0, 3*time.Second))}
	if took := w.moved("n1", at.Add(time.Second)); len(took) != 1 || took[0] != 2*time.Second {
		t.Errorf("moved after %v", took)
	}
	if took := w.moved("n2", at.Add(time.Second)); took != nil {
		t.Errorf("moved after %v from a node that it never ran on", took)
	}
	if d := w.stall(at.Add(time.Second), at.Add(time.Minute)); d != 2*time.Second {
		t.Errorf("stalled for %s", d)
	}
}

// quiet stops the client, and returns when every job has ended.
func (s *site) quiet() {
	s.Helper()
	s.client.stop()
	within(s, 3*patience, "every job has ended", func() bool { return s.stream(broker.StreamJobs).State.Msgs == 0 })
	time.Sleep(200 * time.Millisecond) // what is on its way here
}

// observe stops the client, and returns what there is of its jobs since the position.
func (s *site) observe(p position, w *wire) window {
	s.Helper()
	s.quiet()
	out := window{
		accepted: int(s.stream(broker.StreamJobs).State.LastSeq - p.jobs),
		stored:   s.stored(p.results), seen: w.take(),
	}
	printed, _ := s.client.logs(p.at)
	out.acked = lines(printed, "ack")
	for _, b := range s.backends {
		printed, _ := b.logs(p.at)
		out.runs = append(out.runs, lines(printed, "run")...)
	}
	out.misread = s.misread(out)
	return out
}

// A position is where a window begins.
type position struct {
	at            time.Time
	jobs, results uint64
}

func (s *site) position() position {
	s.Helper()
	return position{time.Now(), s.stream(broker.StreamJobs).State.LastSeq, s.stream(broker.StreamResults).State.LastSeq}
}

// short writes a duration as a table has it.
func short(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return strings.TrimSuffix(d.Round(100*time.Millisecond).String(), ".0s")
}
