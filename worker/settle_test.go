package worker

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/schemas"
)

func TestSettle(t *testing.T) {
	later := schemas.Errorf(schemas.RateLimited, "slow down")
	asked := schemas.Errorf(schemas.RateLimited, "slow down")
	asked.RetryAfter = 7 * time.Second
	oom := schemas.Errorf(schemas.OutOfMemory, "no room")
	broken := schemas.Errorf(schemas.StreamBroken, "cut")
	invalid := schemas.Errorf(schemas.InvalidRequest, "no messages")
	drain := schemas.Errorf(schemas.Overloaded, "%s", errDraining)
	slow := schemas.Errorf(schemas.Deadline, "%s", errTimeout)

	type in = outcome
	type want = settlement
	tests := map[string]struct {
		in   outcome
		want settlement
	}{
		"ok":                  {in{attempt: 1, attempts: 4}, want{event: schemas.EventEnd, status: schemas.StatusOK, word: ack}},
		"ok, late":            {in{attempt: 9, attempts: 4, began: true}, want{event: schemas.EventEnd, status: schemas.StatusOK, word: ack}},
		"lost":                {in{err: errLost, attempt: 9, attempts: 4, began: true}, want{}},
		"void":                {in{err: errVoid, attempt: 1, attempts: 4, began: true}, want{delay: -1}},
		"cancelled":           {in{err: errCancelled, attempt: 1, attempts: 4}, want{event: schemas.EventEnd, status: schemas.StatusCancelled, err: schemas.Errorf(schemas.Cancelled, "%s", errCancelled), word: ack}},
		"client gone":         {in{err: errGone, attempt: 4, attempts: 4, began: true}, want{event: schemas.EventEnd, status: schemas.StatusCancelled, err: schemas.Errorf(schemas.Cancelled, "%s", errGone), word: ack}},
		"expired":             {in{err: errExpired, attempt: 1, attempts: 4}, want{event: schemas.EventEnd, status: schemas.StatusExpired, err: schemas.Errorf(schemas.Deadline, "%s", errExpired), word: ack}},
		"never":               {in{err: fmt.Errorf("x: %w", invalid), attempt: 1, attempts: 4}, want{event: schemas.EventEnd, status: schemas.StatusError, err: invalid, word: ack}},
		"draining":            {in{err: errDraining, attempt: 3, attempts: 4}, want{err: drain, word: nak}},
		"draining, began":     {in{err: errDraining, attempt: 3, attempts: 4, began: true}, want{event: schemas.EventRetry, err: drain, word: nak}},
		"draining, used up":   {in{err: errDraining, attempt: 1, attempts: 1}, want{event: schemas.EventEnd, status: schemas.StatusError, err: drain, word: term, dead: true}},
		"timeout":             {in{err: errTimeout, attempt: 1, attempts: 4}, want{err: slow, word: nak, delay: 100 * time.Millisecond}},
		"timeout, used up":    {in{err: errTimeout, attempt: 4, attempts: 4}, want{event: schemas.EventEnd, status: schemas.StatusError, err: slow, word: term, dead: true}},
		"broken, silent":      {in{err: broken, attempt: 1, attempts: 4}, want{err: broken, word: nak, delay: 100 * time.Millisecond}},
		"broken, began":       {in{err: broken, attempt: 3, attempts: 4, began: true}, want{event: schemas.EventRetry, err: broken, word: nak, delay: 400 * time.Millisecond}},
		"broken, long":        {in{err: broken, attempt: 60, attempts: 100}, want{err: broken, word: nak, delay: 5 * time.Second}},
		"broken, used up":     {in{err: broken, attempt: 4, attempts: 4, began: true}, want{event: schemas.EventEnd, status: schemas.StatusError, err: broken, word: term, dead: true}},
		"broken, spread":      {in{err: broken, attempt: 1, attempts: 4, luck: 1}, want{err: broken, word: nak, delay: 150 * time.Millisecond}},
		"later":               {in{err: later, attempt: 2, attempts: 4}, want{err: later, word: nak, delay: 2 * time.Second}},
		"later, long":         {in{err: later, attempt: 99, attempts: 100}, want{err: later, word: nak, delay: time.Minute}},
		"later, as asked":     {in{err: asked, attempt: 1, attempts: 4}, want{err: asked, word: nak, delay: 7 * time.Second}},
		"no room":             {in{err: oom, attempt: 3, attempts: 4}, want{err: oom, word: nak, delay: 500 * time.Millisecond}},
		"unknown":             {in{err: errors.New("what"), attempt: 1, attempts: 4}, want{err: schemas.Errorf(schemas.Internal, "what"), word: nak, delay: 100 * time.Millisecond}},
		"no attempts allowed": {in{err: broken, attempt: 1, attempts: -1}, want{event: schemas.EventEnd, status: schemas.StatusError, err: broken, word: term, dead: true}},
		"provider's deadline": {in{err: context.DeadlineExceeded, attempt: 1, attempts: 4}, want{err: schemas.Errorf(schemas.Deadline, "out of time"), word: nak, delay: 100 * time.Millisecond}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := settle(tt.in)
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(settlement{})); diff != "" {
				t.Errorf("settle (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSettlementTellsTheDispatcher(t *testing.T) {
	for _, tt := range []struct {
		err   error
		code  schemas.Code
		retry time.Duration
	}{
		{nil, "", -1},
		{errLost, schemas.Internal, 0},
		{errVoid, schemas.Internal, -1},
		{errCancelled, schemas.Cancelled, -1},
		{schemas.Errorf(schemas.Unreachable, "down"), schemas.Unreachable, 100 * time.Millisecond},
	} {
		s := settle(outcome{err: tt.err, attempt: 1, attempts: 4})
		if s.code() != tt.code || s.retry() != tt.retry {
			t.Errorf("%v: code %q, retry %s; want %q, %s", tt.err, s.code(), s.retry(), tt.code, tt.retry)
		}
	}
}

func TestWhoHearsOfAnError(t *testing.T) {
	for err, ours := range map[error]bool{
		errCancelled: false,
		errGone:      false,
		errExpired:   false,
		schemas.Errorf(schemas.InvalidRequest, "x"):  false,
		schemas.Errorf(schemas.ContextOverflow, "x"): false,
		schemas.Errorf(schemas.StreamBroken, "x"):    true,
		schemas.Errorf(schemas.OutOfMemory, "x"):     true,
		errors.New("x"):                              true, // a defect
		nil:                                          false,
	} {
		if got := settle(outcome{err: err, attempt: 1, attempts: 4}).ours(); got != ours {
			t.Errorf("%v: %t", err, got)
		}
	}
}
