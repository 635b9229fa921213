package dispatcher

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// Poison is a message in the queue that no consumer can be made for: its subject
// has a wildcard that the server stored literally, or bytes that a filter never
// matches. It's answered with an end and deleted by its sequence. It is never
// touched by a filter, which would match other jobs.

// clearPoison removes poison. sequence says where one is, "" that it is to be
// looked for.
func (t *term) clearPoison(sequence string) {
	if seq, err := strconv.ParseUint(sequence, 10, 64); err == nil {
		t.spawn(func() {
			ctx, cancel := context.WithTimeout(t.ctx, settleTimeout)
			defer cancel()
			t.clearOne(ctx, seq, false)
		})
		return
	}
	if t.clearing {
		return
	}
	t.clearing = true
	t.spawn(func() {
		t.search()
		t.post(func() { t.clearing = false })
	})
}

// search walks the whole queue for poison.
func (t *term) search() {
	ctx, cancel := context.WithTimeout(t.ctx, time.Minute)
	defer cancel()
	for seq := uint64(1); seq > 0; {
		seq = t.clearOne(ctx, seq, true)
	}
}

// clearOne removes the message at seq if it is poison, or with next the one that
// follows. It returns the sequence after that, or 0 at the end.
func (t *term) clearOne(ctx context.Context, seq uint64, next bool) uint64 { //nolint:revive // flag-parameter: the two ways to read one message
	stream, err := t.js.Stream(ctx, broker.StreamJobs)
	if err != nil {
		t.cfg.Logger.Warn("poison was not removed", "err", err)
		return 0
	}
	var opts []jetstream.GetMsgOpt
	if next {
		opts = append(opts, jetstream.WithGetMsgSubject(schemas.JobsPrefix+">"))
	}
	m, err := stream.GetMsg(ctx, seq, opts...)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return 0
	case err != nil:
		t.cfg.Logger.Warn("poison was not removed", "err", err)
		return 0
	}
	flow, bad := schemas.ParseJobSubject(m.Subject)
	if bad == nil {
		return m.Sequence + 1
	}
	if flow.Tenant == "" {
		flow.Tenant = schemas.DefaultTenant
	}
	why := schemas.Errorf(schemas.InvalidRequest, "the subject %.200q is no job's: %s", m.Subject, bad)
	if _, err := t.endWaiting(ctx, stream, t.endingOf(m, flow, why)); err != nil {
		t.cfg.Logger.Warn("poison was not removed", "seq", m.Sequence, "err", err)
	} else {
		t.cfg.Logger.Warn("poison was removed from the queue", "seq", m.Sequence, "subject", m.Subject)
	}
	return m.Sequence + 1
}
