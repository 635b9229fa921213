package dispatcher

import (
	"testing"
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
			"count":  func(*rapid.T) { f.counted(queued+f.held, now) },
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
