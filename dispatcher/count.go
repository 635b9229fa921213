package dispatcher

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// countTimeout bounds one count.
const countTimeout = 3 * time.Second

// count asks the stream how many jobs each subject holds. It finds the flows at a
// takeover, and heals what hints missed.
func (t *term) count() {
	t.counting = true
	before := make(map[string]uint64, len(t.flows))
	for subject, f := range t.flows {
		before[subject] = f.hints
	}
	t.spawn(func() {
		ctx, cancel := context.WithTimeout(t.ctx, countTimeout)
		defer cancel()
		var subjects map[string]uint64
		var stream jetstream.Stream
		err := untilAnswered(ctx, func(ctx context.Context) (err error) {
			stream, err = t.js.Stream(ctx, broker.StreamJobs)
			return err //nolint:wrapcheck // for the log alone
		})
		if err == nil {
			var info *jetstream.StreamInfo
			if info, err = stream.Info(ctx, jetstream.WithSubjectFilter(schemas.JobsPrefix+">")); err == nil {
				subjects = info.State.Subjects
			}
		}
		t.post(func() {
			now := time.Now()
			t.counting, t.counted = false, now
			if err != nil {
				t.cfg.Logger.Warn("the queue was not counted", "err", err)
				return
			}
			t.recount(subjects, before, now)
			t.restoreShares()
		})
	})
}

// recount corrects the flows by the counts of the stream. A flow that changed
// while it was counted is corrected the next time, unless it seems empty: then a
// pull too many is the cheaper mistake.
func (t *term) recount(subjects, before map[string]uint64, now time.Time) {
	for subject, n := range subjects {
		f := t.flows[subject]
		if f == nil {
			key, err := schemas.ParseJobSubject(subject)
			if err != nil {
				t.clearPoison("")
				continue
			}
			f = t.flowOf(subject, key)
		}
		if f.hints == before[subject] || f.Waiting() == 0 {
			f.counted(int(n), now)
		}
	}
	for subject, f := range t.flows {
		if subjects[subject] == 0 && f.hints == before[subject] {
			f.wait(0, now)
		}
	}
}
