package dispatcher

import (
	"fmt"
	"testing"
	"time"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

const laterFlow = "vj.v1.later.default.normal.m"

func in(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339Nano) }

// wantDelayed waits until n jobs are delayed.
func (s *system) wantDelayed(n uint64) {
	s.Helper()
	s.wantStored(broker.StreamLater, n)
}

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

// TestDelayedJobs: a job begins when it is due and no earlier, with its id and its
// headers, whether it names itself or not, and wherever it was published.
func TestDelayedJobs(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	due := time.Now().Add(400 * time.Millisecond)
	at := due.UTC().Format(time.RFC3339Nano)
	seq := s.publish(laterFlow, "", schemas.HeaderAt, at, "X-Own", "1")
	s.publish(laterFlow, "named", schemas.HeaderAt, at, "X-Own", "2")
	queued := s.submit("m", "", schemas.HeaderAt, at, "X-Own", "3")
	want := map[string]string{schemas.UnnamedLater(seq): "1", "named": "2", fmt.Sprint(queued): "3"}
	s.wantDelayed(3)
	s.wantQueued(0)
	for range 3 {
		r := n.next()
		if early := time.Until(due); early > 0 {
			t.Errorf("%s began %s before it was due", r.job(), early)
		} else {
			t.Logf("%s began %s after it was due", r.job(), -early)
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
