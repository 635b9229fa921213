package client

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/schemas"
)

// A shelf is a source of stored events.
type shelf struct{ events []Event }

func (s *shelf) next(context.Context) (Event, error) {
	if len(s.events) == 0 {
		return Event{}, errors.New("no more")
	}
	e := s.events[0]
	s.events = s.events[1:]
	e.unread = len(s.events) > 0
	return e, nil
}

func (*shelf) close() {}

// readStored reads events as Resume does from a sequence of the store on; 0: the first.
func readStored(events []Event, from uint64) (got []Event, err error) {
	s := &Stream{stored: true, onStore: true, order: order{open: from > 0}}
	if from > 0 {
		s.had = from - 1
	}
	s.src = &shelf{slices.DeleteFunc(slices.Clone(events), func(e Event) bool { return e.Stored < s.had })}
	for {
		e, err := s.Next(context.Background())
		if err != nil {
			return got, err
		}
		if e.Kind != Restarted {
			got = append(got, e)
		}
	}
}

// TestStoredOutOfOrder: whatever the order in which a job's events are stored, the end among
// them, its reader gets each once and in order. It may stop anywhere and resume: it gets none
// twice, and is told where that passed one by.
func TestStoredOutOfOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 3*aheadMost).Draw(t, "chunks")
		events := make([]Event, n)
		for i := range events {
			events[i] = Event{Kind: schemas.EventChunk, Attempt: 1, Seq: uint64(i)}
		}
		events = rapid.Permutation(events).Draw(t, "stored")
		if again := rapid.IntRange(0, n-1).Draw(t, "again"); again > 0 {
			events = append(events, events[:again]...)
		}
		behind := rapid.IntRange(0, n).Draw(t, "behind the end")
		events = slices.Insert(events, len(events)-behind, Event{Kind: schemas.EventEnd, Attempt: 1, Seq: uint64(n), Status: schemas.StatusOK})
		for i := range events {
			events[i].Stored = uint64(i + 1)
		}
		got, err := readStored(events, 0)
		if !errors.Is(err, io.EOF) {
			t.Fatalf("it ended with %v", err)
		}
		for i, e := range got {
			if e.Seq != uint64(i) {
				t.Fatalf("event %d is %d", i, e.Seq)
			}
		}
		if len(got) != n+1 {
			t.Fatalf("%d of %d events", len(got), n+1)
		}
		if behind > 0 {
			return // who resumes behind the end waits for it in vain
		}
		stop := rapid.IntRange(0, n).Draw(t, "stop")
		rest, err := readStored(events, got[stop].Stored+1)
		for i, e := range rest {
			if e.Seq <= got[stop].Seq || i > 0 && e.Seq <= rest[i-1].Seq {
				t.Fatalf("who stopped after %d gets %d again", got[stop].Seq, e.Seq)
			}
		}
		if missed := n - stop - len(rest); missed > 0 && !errors.Is(err, ErrGap) || missed == 0 && !errors.Is(err, io.EOF) {
			t.Fatalf("who stopped after %d and resumes from %d misses %d, and is told %v", got[stop].Seq, got[stop].Stored+1, missed, err)
		}
	})
}

// TestStoredWithGap: an event that was never stored is waited for as long as may be, and
// then is a gap.
func TestStoredWithGap(t *testing.T) {
	for _, c := range []struct {
		name    string
		after   int // chunks stored after the gap
		end     bool
		want    int
		wantErr error
	}{
		{"a few chunks, and it may still come", 3, false, 1, nil},
		{"the end, so it comes no more", 3, true, 5, ErrGap},
		{"too many chunks", aheadMost + 1, false, aheadMost + 2, nil},
	} {
		events := []Event{{Kind: schemas.EventChunk, Attempt: 1, Seq: 0, Stored: 1}}
		for i := range c.after {
			events = append(events, Event{Kind: schemas.EventChunk, Attempt: 1, Seq: uint64(i + 2), Stored: uint64(i + 2)})
		}
		if c.end {
			events = append(events, Event{Kind: schemas.EventEnd, Attempt: 1, Seq: uint64(c.after + 2), Stored: uint64(c.after + 2), Status: schemas.StatusOK})
		}
		got, err := readStored(events, 0)
		if len(got) != c.want || c.wantErr != nil && !errors.Is(err, c.wantErr) {
			t.Errorf("%s: %d events and %v, want %d and %v", c.name, len(got), err, c.want, c.wantErr)
		}
		if !slices.IsSortedFunc(got, func(a, b Event) int { return int(a.Seq) - int(b.Seq) }) {
			t.Errorf("%s: not in order: %v", c.name, got)
		}
	}
}

// TestNothingBehindTheEnd: where the server says that more is stored behind the end, and that
// is removed just then, the reader does not wait for ever.
func TestNothingBehindTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := []Event{
			{Kind: schemas.EventChunk, Attempt: 1, Seq: 0, Stored: 1, unread: true},
			{Kind: schemas.EventChunk, Attempt: 1, Seq: 2, Stored: 2, unread: true},
			{Kind: schemas.EventEnd, Attempt: 1, Seq: 3, Stored: 3, unread: true, Status: schemas.StatusOK},
		}
		s := &Stream{stored: true, onStore: true, src: &silent{events}}
		var got []uint64
		for {
			e, err := s.Next(t.Context())
			if errors.Is(err, ErrGap) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Seq)
		}
		if !slices.Equal(got, []uint64{0, 2, 3}) {
			t.Errorf("it got %v", got)
		}
	})
}

// silent is a source that says nothing more once its events are read.
type silent struct{ events []Event }

func (s *silent) next(ctx context.Context) (Event, error) {
	if len(s.events) == 0 {
		<-ctx.Done()
		return Event{}, ctx.Err()
	}
	e := s.events[0]
	s.events = s.events[1:]
	return e, nil
}

func (*silent) close() {}
