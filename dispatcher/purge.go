package dispatcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"golang.org/x/sync/errgroup"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// A purge ends waiting jobs where they are, in the queue. It goes in steps: each
// request is answered with what one step did and where the next begins. So no step
// keeps anybody waiting, who asks sets the pace, and nothing has to be remembered:
// any leader goes on where another stopped.
const (
	stepJobs   = 256                    // ended in a step at most
	stepWithin = 300 * time.Millisecond // for looking
	stepAtOnce = 8                      // ends that are stored at a time

	// reportWithin is how long it takes until every node has said what it runs, and
	// what it has run and not settled yet.
	reportWithin = 1500 * time.Millisecond
)

// An ending is a job in the queue that is to end there, and its end.
type ending struct {
	key    jobKey
	job    *schemas.Job // without its body
	flow   schemas.Flow
	seq    uint64
	why    *schemas.Error
	end    *nats.Msg
	stored bool // the end goes to the result subjects
	tried  bool // it was fetched before, and perhaps is being settled
}

// endingOf prepares the end of a job as it stands in the queue. A reply subject that
// it may not have is told on the result subjects, and why says that instead.
func (t *term) endingOf(m *jetstream.RawStreamMsg, flow schemas.Flow, why *schemas.Error) ending {
	j, err := schemas.ReadJob(m.Header.Get, m.Data, flow, m.Sequence, t.cfg.Replies)
	if err != nil && schemas.AsError(err).Code == schemas.Refused {
		why = schemas.AsError(err)
	}
	j.Body = nil
	waited := time.Since(m.Time).Milliseconds()
	return ending{
		key: jobKey{flow.Tenant, j.ID}, job: j, why: why, flow: flow, seq: m.Sequence, stored: j.Reply == "",
		end: endMessage(j, 0, why, schemas.Run{QueuedMS: waited, TotalMS: waited}),
	}
}

// endWaiting ends a job in the queue, and then takes it out. It reports false where
// the job had ended before.
func (t *term) endWaiting(ctx context.Context, queue jetstream.Stream, e ending) (first bool, err error) {
	if !e.stored { // nothing holds a second end back: that of a job which was over before it was claimed
		if waits, err := broker.HasSeq(ctx, t.nc, broker.StreamJobs, e.seq); err != nil || !waits {
			return false, err
		}
	}
	if first, err = publishEnd(ctx, t.nc, e.end, e.stored); err != nil {
		return false, err
	}
	if first {
		t.tellEnd(e.job, 0, e.why)
	}
	switch err := queue.DeleteMsg(ctx, e.seq); {
	case errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful): // somebody else did, and clears the rest away
	case err != nil:
		return first, fmt.Errorf("take it out of the queue: %w", err)
	default:
		t.deleteBody(ctx, e.job)
	}
	return first, nil
}

// purge does one step of a purge.
func (t *term) purge(tenant string, r micro.Request) {
	var req schemas.PurgeRequest
	err := json.Unmarshal(r.Data(), &req)
	switch {
	case err != nil, req.Prefix != "" && !schemas.ValidToken(req.Prefix):
		err = errors.New(`the body is not {"class", "model", "prefix", "running", "dry_run", "from", "through"}, all of them optional`)
	default:
		err = req.Check()
	}
	if err != nil {
		respond(r, schemas.APIError{Error: schemas.Errorf(schemas.InvalidRequest, "%s", err)})
		return
	}
	t.spawn(func() {
		ctx, cancel := context.WithTimeout(t.ctx, settleTimeout)
		defer cancel()
		step, err := t.purgeStep(ctx, tenant, &req)
		if err != nil {
			respond(r, unreadable("the purge stopped", err))
			return
		}
		respond(r, step)
	})
}

func (t *term) purgeStep(ctx context.Context, tenant string, req *schemas.PurgeRequest) (schemas.PurgeStep, error) {
	if err := wait(ctx, t.began); err != nil {
		return schemas.PurgeStep{}, err
	}
	found, step, err := t.findToPurge(ctx, tenant, req)
	if err != nil {
		return step, err
	}
	var mine []ending
	claimed := time.Now()
	if !t.do(func() { mine = t.claim(found, req, &step) }) { //nolint:contextcheck // what it begins goes on after the step
		return step, errTermOver
	}
	if req.DryRun {
		step.Waiting += len(mine)
		return step, nil
	}
	defer t.post(func() { t.unclaim(mine) })
	fresh, tried := split(mine)
	ended, err := t.endAll(ctx, fresh)
	if step.Waiting += ended; err != nil || len(tried) == 0 {
		return step, err
	}
	if err := wait(ctx, claimed); err != nil {
		return step, err
	}
	t.do(func() {
		tried = slices.DeleteFunc(tried, func(e ending) bool { info, _ := t.whereIs(e.key); return info.State == schemas.JobRunning })
	})
	ended, err = t.endAll(ctx, tried)
	step.Waiting += ended
	return step, err
}

// wait waits until the nodes have said what they ran at a time.
func wait(ctx context.Context, at time.Time) error {
	select {
	case <-time.After(time.Until(at.Add(reportWithin))):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// split splits jobs into those that were never fetched, and the others.
func split(all []ending) (fresh, tried []ending) {
	for _, e := range all {
		if e.tried {
			tried = append(tried, e)
		} else {
			fresh = append(fresh, e)
		}
	}
	return fresh, tried
}

// endAll ends jobs in the queue, a few at a time, and returns how many had not ended
// before.
func (t *term) endAll(ctx context.Context, all []ending) (int, error) {
	queue, err := t.js.Stream(ctx, broker.StreamJobs)
	if err != nil {
		return 0, fmt.Errorf("open the queue: %w", err)
	}
	var ended atomic.Int64
	var group errgroup.Group
	group.SetLimit(stepAtOnce)
	for _, e := range all {
		group.Go(func() error {
			first, err := t.endWaiting(ctx, queue, e)
			if first {
				ended.Add(1)
			}
			return err
		})
	}
	err = group.Wait()
	return int(ended.Load()), err
}

// findToPurge looks for the jobs of a step, in the order of the queue.
func (t *term) findToPurge(ctx context.Context, tenant string, req *schemas.PurgeRequest) (found []ending, step schemas.PurgeStep, err error) {
	step.Through = req.Through
	if step.Through == 0 {
		stream, err := t.js.Stream(ctx, broker.StreamJobs)
		if err != nil {
			return nil, step, fmt.Errorf("open the queue: %w", err)
		}
		step.Through = stream.CachedInfo().State.LastSeq
	}
	began := time.Now()
	for m, err := range t.queued(ctx, tenant, req.From) {
		if err != nil {
			return nil, step, err
		}
		if m.Sequence > step.Through {
			break
		}
		if len(found) == stepJobs || time.Since(began) > stepWithin {
			step.Next = m.Sequence
			break
		}
		id, _ := schemas.JobID(m.Header.Get, m.Sequence)
		flow, err := schemas.ParseJobSubject(m.Subject)
		if dueOf(m.Header.Get).After(began) {
			continue // it doesn't wait for its turn, and is about to be put with those that are not due
		}
		if err == nil && req.Match(flow.Class, flow.Model) && strings.HasPrefix(id, req.Prefix) {
			found = append(found, t.endingOf(m, flow, schemas.Errorf(schemas.Cancelled, "cancelled while it waited")))
		}
	}
	return found, step, nil
}

// claim takes the jobs that wait for the purge: what is delivered of them from now on
// is left to it. Those that were fetched are cancelled as anybody's, or left alone.
func (t *term) claim(found []ending, req *schemas.PurgeRequest, step *schemas.PurgeStep) (mine []ending) {
	if !t.closing.IsZero() {
		step.Next = max(1, req.From) // it's the next leader's
		return nil
	}
	for _, e := range found {
		info, j := t.whereIs(e.key)
		switch {
		case info.State == schemas.JobRunning && !req.Running:
		case info.State == schemas.JobRunning:
			step.Running++
			if !req.DryRun {
				t.broadcastCancel(e.key)
			}
		case j != nil:
			step.Waiting++
			if !req.DryRun {
				t.cancelFetched(j, time.Now())
			}
		case req.DryRun:
			mine = append(mine, e)
		case !t.claimed[e.key]:
			f := t.byKey[e.flow]
			e.tried = f != nil && e.seq <= f.fetched
			t.claimed[e.key] = true
			mine = append(mine, e)
		}
	}
	return mine
}

// unclaim lets go of the jobs of a step: they are gone, or wait as before.
func (t *term) unclaim(mine []ending) {
	for _, e := range mine {
		delete(t.claimed, e.key)
	}
	t.counted = time.Time{} // the next sweep counts what is left
}
