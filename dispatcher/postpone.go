package dispatcher

import (
	"context"
	"fmt"
	"time"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// early reports whether a job that was put into the queue itself is not due.
func (t *term) early(j *job, now time.Time) bool {
	_, marked := t.marks[j.key()]
	return !marked && dueOf(j.msg.Header.Get).After(now)
}

// dueOf returns when a job in the queue may begin: the zero time for one that came
// there because it was due. Clocks of dispatchers differ; none sends it back.
func dueOf(h schemas.Header) time.Time {
	if h(schemas.HeaderLater) != "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, h(schemas.HeaderAt))
	if err != nil {
		return time.Time{}
	}
	return at
}

// postpone moves a job out of the queue that is not due. It is stored with the
// others, then acknowledged here: the way back is dueMessage's.
func (t *term) postpone(j *job, now time.Time) {
	t.release(j, now)
	j.postponed = true
	m := movedMessage(schemas.LaterSubject(j.flow.subject), j.msg.Header, j.msg.Data, j.ID)
	m.Header.Set(schemas.HeaderMsgID, fmt.Sprintf("jobs.%d.%d", j.seq, j.at.UnixNano()))
	t.settle(j, func(ctx context.Context) error {
		switch err := broker.PublishStored(ctx, t.nc, m); {
		case broker.Full(err):
			if err := t.endDelayed(ctx, j.Job, schemas.Errorf(schemas.Overloaded, "as many jobs are delayed as may be: submit it again when there are fewer")); err != nil {
				return err
			}
		case broker.TooLarge(err):
			if err := t.endDelayed(ctx, j.Job, schemas.Errorf(schemas.InvalidRequest, "the job leaves no room for one more header: %s", err)); err != nil {
				return err
			}
		case err != nil:
			return err
		}
		return broker.Ack(ctx, t.nc, j.ack)
	})
}
