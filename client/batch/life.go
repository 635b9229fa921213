package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// Codes of JetStream's errors.
const (
	codeStreamFull jetstream.ErrorCode = 10077
	codeNoMemory   jetstream.ErrorCode = 10023
	codeNoStorage  jetstream.ErrorCode = 10047
)

func codeOf(err error) jetstream.ErrorCode {
	var js jetstream.JetStreamError
	if errors.As(err, &js) && js.APIError() != nil {
		return js.APIError().ErrorCode
	}
	return 0
}

// isFull reports whether the queue takes no more for now.
func isFull(err error) bool {
	if errors.Is(err, client.ErrFull) {
		return true
	}
	switch codeOf(err) {
	case codeStreamFull, codeNoMemory, codeNoStorage:
		return true
	default:
		return false
	}
}

func isTooLarge(err error) bool {
	return codeOf(err) == jetstream.JSErrCodeStreamMessageExceedsMaximum
}

// cancelledEnd is the result of a line that was not submitted before somebody
// cancelled the batch.
func cancelledEnd(name jobName, customID string) *ended {
	return localEnd(name, customID, schemas.StatusCancelled, schemas.Errorf(schemas.Cancelled, "the batch was cancelled before it was submitted"))
}

// refusedEnd is the result of a line that the queue does not take.
func refusedEnd(f *flight, err error) *ended {
	return localEnd(f.name, f.msg.Header.Get(schemas.HeaderCustomID), schemas.StatusError,
		schemas.Errorf(schemas.InvalidRequest, "the queue takes no job of its size, %s: %s", schemas.Bytes(len(f.msg.Data)), err))
}

func localEnd(name jobName, customID string, status schemas.Status, err *schemas.Error) *ended {
	body, bad := json.Marshal(schemas.Failure{Error: err})
	if bad != nil {
		panic(fmt.Sprintf("marshal a failure: %v", bad)) // plain members
	}
	return &ended{name: name, job: name.String(), customID: customID, status: status, body: body}
}

// announce stores the record of the batch, unless it is there, and tells that it began.
func (r *runner) announce(ctx context.Context) error {
	old, revision, err := r.store.get(ctx, r.m.Batch)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return err
	case old.State == schemas.BatchCancelled:
		r.stopped = true
		return nil
	}
	r.m.State, r.m.OK, r.m.Failed, r.m.At = schemas.BatchInProgress, r.out.answered, r.out.failed, time.Now().UTC()
	if err := r.store.put(ctx, &r.m.BatchRecord, revision); err != nil {
		return err
	}
	if old == nil {
		r.event("started")
	}
	return nil
}

// tell updates the record, and hears whether somebody cancelled the batch.
func (r *runner) tell(ctx context.Context) {
	err := r.store.change(ctx, r.m.Batch, func(rec *schemas.BatchRecord) {
		r.stopped = r.stopped || rec.State == schemas.BatchCancelled
		rec.OK, rec.Failed, rec.At, rec.Round = r.out.answered, r.out.failed, time.Now().UTC(), r.m.Round
	})
	if err != nil && !isConflict(err) {
		r.trouble = err
	}
}

// complete notes that each line has its result.
func (r *runner) complete(ctx context.Context) error {
	if err := r.out.flush(time.Now()); err != nil {
		return err
	}
	if done := r.out.answered + r.out.failed; done != r.m.Jobs {
		return fmt.Errorf("%d of %d lines have a result: the batch or its output was changed by somebody else", done, r.m.Jobs)
	}
	state := schemas.BatchCompleted
	var err error
	const tries = 5
	for range tries {
		err = r.store.change(ctx, r.m.Batch, func(rec *schemas.BatchRecord) {
			if rec.State == schemas.BatchCancelled {
				state = schemas.BatchCancelled
			}
			rec.State, rec.OK, rec.Failed, rec.At, rec.Round = state, r.out.answered, r.out.failed, time.Now().UTC(), r.m.Round
		})
		if !isConflict(err) {
			break
		}
	}
	if err != nil {
		return err
	}
	if state == schemas.BatchCompleted {
		r.event("completed")
	}
	return nil
}

// event tells other programs, if any listen, what became of the batch.
func (r *runner) event(what string) {
	publishEvent(r.conn, what, &r.m.BatchRecord, r.out.answered, r.out.failed)
}

func publishEvent(c *conn, what string, rec *schemas.BatchRecord, ok, failed int) {
	data, err := json.Marshal(schemas.BatchEvent{
		Event: what, Batch: rec.Batch, Input: rec.Input, Jobs: rec.Jobs, OK: ok, Failed: failed, At: time.Now().UTC(),
	})
	if err != nil {
		panic(fmt.Sprintf("marshal an event: %v", err)) // plain members
	}
	_ = c.nc.Publish(schemas.BatchEventSubject(c.tenant, rec.Batch), data) // fails only where the connection is gone
}
