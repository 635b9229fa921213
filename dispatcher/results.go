package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// Events say themselves how long the results keep them. Those that say nothing, of
// older workers or of a tenant's own, are removed after schemas.DefaultKeep.

// results is how far the leader has looked for them.
type results struct {
	from    uint64 // those before that sequence say how long
	looking bool
	looked  time.Time
}

const resultsEvery = time.Hour

// sweepResults looks for such events now and then.
func (t *term) sweepResults(now time.Time) {
	r := &t.results
	if r.looking || now.Sub(r.looked) < resultsEvery {
		return
	}
	r.looking = true
	from := r.from
	t.spawn(func() {
		next, err := t.clearResults(t.ctx, from, now.Add(-schemas.DefaultKeep))
		if err != nil && t.ctx.Err() == nil {
			t.cfg.Logger.Warn("old results were not looked for", "err", err)
		}
		t.post(func() { *r = results{from: next, looked: now} })
	})
}

// clearResults removes the events from a sequence on that were stored before a time
// and say nothing of how long they are kept. It returns where to go on.
func (t *term) clearResults(ctx context.Context, from uint64, before time.Time) (uint64, error) {
	stream, err := t.js.Stream(ctx, broker.StreamResults)
	if err != nil {
		return from, fmt.Errorf("open the results: %w", err)
	}
	purge := from == 0 // as long as all from the first on are to be removed
	for {
		last, old, err := t.oldResults(ctx, max(1, from), before)
		if err != nil || last == 0 {
			return from, err
		}
		if purge = purge && old.all; purge {
			err = stream.Purge(ctx, jetstream.WithPurgeSequence(last+1))
		} else {
			err = deleteEach(ctx, stream, old.seqs)
		}
		if err != nil {
			return from, fmt.Errorf("remove old results: %w", err)
		}
		from = last + 1
	}
}

// deleteEach deletes messages, of which some may be gone.
func deleteEach(ctx context.Context, stream jetstream.Stream, seqs []uint64) error {
	for _, seq := range seqs {
		if err := stream.DeleteMsg(ctx, seq); err != nil && !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
			return err //nolint:wrapcheck // the callers say what they were doing
		}
	}
	return nil
}

// oldEvents are events to be removed.
type oldEvents struct {
	seqs []uint64
	all  bool // no event stands between them that is kept
}

// oldResults looks through some events from a sequence on that were stored before a
// time. It returns the last one's sequence, 0 for none, and those to be removed.
func (t *term) oldResults(ctx context.Context, from uint64, before time.Time) (last uint64, old oldEvents, err error) {
	const page, pageBytes = 1000, 8 << 20
	msgs, err := jetstreamext.GetBatch(ctx, t.js, broker.StreamResults, page,
		jetstreamext.GetBatchSeq(from), jetstreamext.GetBatchSubject(schemas.ResultsPrefix+">"), jetstreamext.GetBatchMaxBytes(pageBytes))
	if err != nil {
		return 0, old, fmt.Errorf("read the results: %w", err)
	}
	old.all = true
	for m, err := range msgs {
		switch {
		case errors.Is(err, jetstreamext.ErrNoMessages):
			return last, old, nil
		case err != nil:
			return 0, old, fmt.Errorf("read the results: %w", err)
		case !m.Time.Before(before):
			return last, old, nil
		case m.Header.Get(schemas.HeaderTTL) == "":
			old.seqs = append(old.seqs, m.Sequence)
		default:
			old.all = false
		}
		last = m.Sequence
	}
	return last, old, nil
}
