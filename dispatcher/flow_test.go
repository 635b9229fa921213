package dispatcher

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/schemas"
)

// newFlow is a flow of a fleet without nodes.
func newFlow() *flow {
	f := newFleet()
	return &flow{Flow: f.place.Flow(schemas.Flow{Tenant: "t", Class: schemas.Normal, Model: "m"}, 1), fleet: f}
}

// TestFlowFindsEveryJob: whatever hints are lost or late, a flow that is counted
// and pulled from until it seems empty leaves no job behind.
func TestFlowFindsEveryJob(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now()
		f := newFlow()
		queued, late := 0, 0 // jobs in the stream that nobody has; hints on their way
		pull := func() {
			for f.Waiting() > 0 {
				f.wait(f.Waiting()-1, now)
				f.awaiting = append(f.awaiting, want{hints: f.hints, sent: now})
			}
		}
		answer := func() {
			if len(f.awaiting) == 0 {
				return
			}
			if queued > 0 {
				queued--
				f.delivered(queued, now)
				f.held++
			} else {
				f.empty(now)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"submit": func(t *rapid.T) {
				queued++
				switch rapid.IntRange(0, 2).Draw(t, "hint") {
				case 0:
					f.arrived(now)
				case 1:
					late++
				}
			},
			"hint": func(*rapid.T) {
				if late > 0 {
					late--
					f.arrived(now)
				}
			},
			"pull":   func(*rapid.T) { pull() },
			"answer": func(*rapid.T) { answer() },
			"lose": func(*rapid.T) { // the pull
				if waits := f.Waiting(); len(f.awaiting) > 0 {
					if f.unheard(now); f.Waiting() != waits+1 {
						t.Fatalf("%d jobs wait after a pull was lost, %d before", f.Waiting(), waits)
					}
				}
			},
			"count": func(*rapid.T) { f.counted(queued+f.held, now) },
			"": func(t *rapid.T) {
				if f.Waiting() < 0 || f.held < 0 {
					t.Fatalf("waiting %d, held %d", f.Waiting(), f.held)
				}
			},
		})
		for range 3 {
			f.counted(queued+f.held, now)
			for pull(); len(f.awaiting) > 0; pull() {
				answer()
			}
		}
		if queued > 0 {
			t.Fatalf("%d jobs are left behind", queued)
		}
	})
}

// TestLostPulls: a pull that was lost is noticed, also where others are under way all the
// time, and none is that was not.
func TestLostPulls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now()
		f := newFlow()
		f.consumer = &consumer{flow: f, ready: true}
		lost, noticed := 0, 0
		for i := range 400 { // 20 s
			now = now.Add(50 * time.Millisecond)
			f.awaiting = append(f.awaiting, make([]want, rapid.IntRange(0, 3).Draw(t, "sent"))...)
			if gone := rapid.IntRange(0, 40).Draw(t, "gone"); i < 200 && gone == 0 && len(f.awaiting) > lost-noticed {
				lost++
			}
			late := rapid.IntRange(0, 3).Draw(t, "late")
			if i%20 == 7 { // not when lost pulls are looked for
				late = 0 // whatever was not lost is answered now and then
			}
			for len(f.awaiting) > lost-noticed+late {
				f.empty(now)
			}
			n := f.lost(now)
			for range n {
				f.unheard(now)
			}
			if noticed += n; noticed > lost {
				t.Fatalf("%d of %d pulls are taken for lost", noticed, lost)
			}
		}
		if noticed != lost {
			t.Fatalf("%d of %d lost pulls are noticed", noticed, lost)
		}
	})
}

// TestUntilAnswered: a request that nothing answers, or that fails, is made again, ever
// slower, and not for ever.
func TestUntilAnswered(t *testing.T) {
	silent := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	broken := errors.New("broken")
	fails := func(context.Context) error { return broken }
	for _, c := range []struct {
		name    string
		answers []func(context.Context) error // the last one for ever
		want    error
		tries   int
		took    time.Duration
	}{
		{"at once", []func(context.Context) error{func(context.Context) error { return nil }}, nil, 1, 0},
		{"the second", []func(context.Context) error{silent, func(context.Context) error { return nil }}, nil, 2, firstTry},
		{"the third, the first two fail", []func(context.Context) error{fails, fails, func(context.Context) error { return nil }}, nil, 3, 3 * firstTry},
		{"never", []func(context.Context) error{silent}, context.DeadlineExceeded, 4, 2*lastTry - firstTry},
		{"fails for ever", []func(context.Context) error{fails}, broken, 4, lastTry - firstTry},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, tries := time.Now(), 0
				err := untilAnswered(t.Context(), func(ctx context.Context) error {
					tries++
					return c.answers[min(tries, len(c.answers))-1](ctx)
				})
				if took := time.Since(began); !errors.Is(err, c.want) || tries != c.tries || took != c.took {
					t.Errorf("%v after %d tries and %s, want %v after %d and %s", err, tries, took, c.want, c.tries, c.took)
				}
			})
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := untilAnswered(ctx, fails); !errors.Is(err, broken) {
		t.Errorf("of a term that is over: %v", err)
	}
}

func TestNearest(t *testing.T) {
	got := nearest("llama3.3", []string{"phi4", "qwen3", "llama3.2", "llama3.1:8b"}, 2)
	if len(got) != 2 || got[0] != "llama3.2" {
		t.Errorf("nearest = %v", got)
	}
}

// TestEmptyPullKeepsLaterHints: a pull that found nothing says nothing of jobs
// that came after it was sent.
func TestEmptyPullKeepsLaterHints(t *testing.T) {
	now := time.Now()
	f := newFlow()
	f.arrived(now)
	f.wait(f.Waiting()-1, now)
	f.awaiting = append(f.awaiting, want{hints: f.hints, sent: now})
	f.arrived(now)
	if f.empty(now); f.Waiting() != 1 {
		t.Errorf("%d jobs wait, want the one that came after the pull", f.Waiting())
	}
	f.wait(f.Waiting()-1, now)
	f.awaiting = append(f.awaiting, want{hints: f.hints, sent: now})
	if f.empty(now); f.Waiting() != 0 {
		t.Errorf("%d jobs wait, want none", f.Waiting())
	}
}
