package client

import (
	"testing"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/schemas"
)

// history draws what the nodes of one job publish: some attempts, each but the
// last cut off somewhere, and an end.
func history(t *rapid.T) []Event {
	var events []Event
	attempts := rapid.Uint64Range(1, 4).Draw(t, "attempts")
	for a := range attempts {
		n := rapid.Uint64Range(0, 6).Draw(t, "events")
		for seq := range n {
			events = append(events, Event{Kind: schemas.EventChunk, Attempt: a + 1, Seq: seq})
		}
		if a+1 == attempts {
			events = append(events, Event{Kind: schemas.EventEnd, Attempt: a + 1, Seq: n})
		}
	}
	return events
}

// feed gives events to an order as a Stream does that has no store.
func feed(o *order, events []Event) (got []Event) {
	for i := range events {
		if o.look(&events[i]) == drop {
			continue
		}
		if o.take(&events[i]) {
			got = append(got, Event{Kind: Restarted, Attempt: events[i].Attempt})
		}
		got = append(got, events[i])
	}
	return got
}

// Whatever comes, in whatever order: attempts never go back, what belongs to one
// comes once and in order, the end is the last, and a gap is known.
func TestOrderHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent := history(t)
		n := rapid.IntRange(0, 3*len(sent)).Draw(t, "messages")
		var arrived []Event
		for range n { // any event, any number of times, in any order
			arrived = append(arrived, rapid.SampledFrom(sent).Draw(t, "event"))
		}
		var o order
		got := feed(&o, arrived)

		var attempt, next uint64
		gap, ended := false, false
		for i, e := range got {
			if ended {
				t.Fatalf("%v comes after the end", e)
			}
			ended = e.Kind == schemas.EventEnd
			switch {
			case e.Kind == Restarted:
				if i == 0 || e.Attempt <= attempt || i+1 == len(got) || got[i+1].Attempt != e.Attempt {
					t.Fatalf("restarted at %d: %v", i, got)
				}
				continue
			case e.Attempt < attempt:
				t.Fatalf("attempt %d comes after %d: %v", e.Attempt, attempt, got)
			case e.Attempt > attempt:
				if !ended && attempt > 0 && got[i-1].Kind != Restarted {
					t.Fatalf("attempt %d begins without a word: %v", e.Attempt, got)
				}
				attempt, next, gap = e.Attempt, 0, false
			case e.Seq < next:
				t.Fatalf("%d comes after %d: %v", e.Seq, next-1, got)
			}
			gap = gap || e.Seq != next
			next = e.Seq + 1
		}
		if o.gap != gap {
			t.Fatalf("a gap is %v, but known as %v: %v", gap, o.gap, got)
		}
		if o.ended != ended {
			t.Fatalf("ended is %v, but known as %v", ended, o.ended)
		}
	})
}

// What comes in order comes through whole, however often each message comes.
func TestOrderLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent := history(t)
		var arrived []Event
		for i := range sent {
			arrived = append(arrived, sent[i])
			for range rapid.IntRange(0, 2).Draw(t, "doubles") {
				arrived = append(arrived, sent[rapid.IntRange(0, i).Draw(t, "double")])
			}
		}
		var o order
		var got []Event
		for _, e := range feed(&o, arrived) {
			if e.Kind != Restarted {
				got = append(got, e)
			}
		}
		if len(got) != len(sent) || o.gap || !o.ended {
			t.Fatalf("%d of %d events came through, gap %v, ended %v", len(got), len(sent), o.gap, o.ended)
		}
	})
}

func TestOrder(t *testing.T) {
	chunk := func(attempt, seq uint64) Event {
		return Event{Kind: schemas.EventChunk, Attempt: attempt, Seq: seq}
	}
	end := func(attempt, seq uint64) Event { return Event{Kind: schemas.EventEnd, Attempt: attempt, Seq: seq} }
	for _, c := range []struct {
		name   string
		order  order
		events []Event
		want   []step
		gap    bool
	}{
		{"in order", order{}, []Event{chunk(1, 0), chunk(1, 1), end(1, 2)}, []step{fresh, fresh, fresh}, false},
		{"double", order{}, []Event{chunk(1, 0), chunk(1, 0)}, []step{fresh, drop}, false},
		{"gap", order{}, []Event{chunk(1, 0), chunk(1, 2)}, []step{fresh, lost}, true},
		{"the first is missing", order{}, []Event{chunk(1, 1)}, []step{lost}, true},
		{"gap before the end", order{}, []Event{chunk(1, 0), end(1, 2)}, []step{fresh, lost}, true},
		{"next attempt", order{}, []Event{chunk(1, 0), chunk(2, 0), chunk(1, 1)}, []step{fresh, fresh, drop}, false},
		{"a new attempt forgets the gap", order{}, []Event{chunk(1, 5), chunk(2, 0)}, []step{lost, fresh}, false},
		{"end of nobody", order{}, []Event{end(0, 0), chunk(1, 0)}, []step{fresh, drop}, false},
		{"end of an earlier attempt", order{}, []Event{chunk(2, 0), end(1, 7)}, []step{fresh, fresh}, false},
		{"the dispatcher's end counts nothing", order{}, []Event{chunk(1, 0), chunk(1, 1), end(1, 0)}, []step{fresh, fresh, fresh}, false},
		{"one end", order{}, []Event{end(1, 0), end(2, 0)}, []step{fresh, drop}, false},
		{"joined in the middle", order{open: true}, []Event{chunk(2, 7), chunk(2, 8), chunk(2, 10)}, []step{fresh, fresh, lost}, true},
	} {
		o := c.order
		for i := range c.events {
			got := o.look(&c.events[i])
			if got != c.want[i] {
				t.Errorf("%s: event %d is %v, want %v", c.name, i, got, c.want[i])
			}
			if got != drop {
				o.take(&c.events[i])
			}
		}
		if o.gap != c.gap {
			t.Errorf("%s: gap is %v", c.name, o.gap)
		}
	}
}

func FuzzReadEvent(f *testing.F) {
	f.Add("chunk", "1", "0", "", []byte(`{"choices":[{"index":0,"delta":{"content":"a"}}]}`))
	f.Add("end", "2", "7", "ok", []byte(`{"choices":[{"message":{"content":"a"}}],"usage":{"total_tokens":1},"vramjet":{}}`))
	f.Add("end", "", "", "error", []byte(`{"error":{"message":"x","code":"internal"}}`))
	f.Add("retry", "1", "-1", "", []byte(`{"error":null}`))
	f.Add("accepted", "1", "99999999999999999999", "", []byte(`[]`))
	f.Fuzz(func(t *testing.T, kind, attempt, seq, status string, body []byte) {
		h := nats.Header{schemas.HeaderEvent: {kind}, schemas.HeaderAttempt: {attempt}, schemas.HeaderSeq: {seq}, schemas.HeaderStatus: {status}}
		e, ok := readEvent(h, body)
		if !ok {
			return
		}
		if e.Kind == Restarted {
			t.Error("restarted travels")
		}
		_ = e.Text()
		_, _ = e.Accepted()
		if failure, err := e.Failure(); err == nil && failure.Error == nil {
			t.Error("a failure without an error")
		}
		r, err := readResult("j", &e)
		if r == nil {
			t.Fatal("no result")
		}
		if err == nil && e.Status != schemas.StatusOK {
			t.Errorf("the status %q is no error", e.Status)
		}
		_ = r.Text()
		var o order
		if o.look(&e) == drop {
			t.Error("the first event is dropped")
		}
		o.take(&e)
	})
}
