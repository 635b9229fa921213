package client

import (
	"context"

	"github.com/vramjet/vramjet/schemas"
)

// Queue returns how many of the tenant's jobs wait and run, by class and model, and
// what of them is paused. Its errors are those of Cancel.
func (c *Client) Queue(ctx context.Context) (schemas.FlowList, error) {
	var list schemas.FlowList
	err := c.ask(ctx, "list", struct{}{}, &list)
	return list, err
}

// PauseFlows keeps what f matches from being served until it is resumed, whichever
// dispatcher leads. Jobs that run go on, and jobs are still taken. by says to people
// who paused it; nobody checks that. What is paused by the same f already stays so
// since then.
//
// It returns all that is paused of the tenant. Its errors are those of Cancel.
func (c *Client) PauseFlows(ctx context.Context, f schemas.Filter, by string) ([]schemas.Pause, error) {
	return c.changePauses(ctx, "pause", schemas.PauseRequest{Filter: f, By: by})
}

// ResumeFlows ends the pause that was made with the same f, and with the zero Filter all of
// the tenant. It is no error if there is none. It returns what is still paused: what f
// matches may be among it, paused by another filter. Its errors are those of Cancel.
func (c *Client) ResumeFlows(ctx context.Context, f schemas.Filter) ([]schemas.Pause, error) {
	return c.changePauses(ctx, "resume", schemas.PauseRequest{Filter: f})
}

func (c *Client) changePauses(ctx context.Context, verb string, req schemas.PauseRequest) ([]schemas.Pause, error) {
	var list schemas.PauseList
	err := c.ask(ctx, verb, req, &list)
	return list.Pauses, err
}

// Purge ends the waiting jobs that req matches as cancelled, and cancels those that
// run where req says so. Jobs that are submitted after the call are not touched. It
// asks the dispatcher for a step after the other, and returns what they came to; after
// an error, or where ctx ended, that is what was done until then, and the rest waits as
// before: to call it again is safe.
//
// progress is called after each step with what was done so far; it may be nil. The
// errors are those of Cancel.
func (c *Client) Purge(ctx context.Context, req schemas.PurgeRequest, progress func(schemas.PurgeStep)) (total schemas.PurgeStep, err error) {
	for {
		var step schemas.PurgeStep
		if err := c.askFor(ctx, purgeTimes, "purge", req, &step); err != nil {
			return total, err
		}
		total.Waiting += step.Waiting
		total.Running += step.Running
		total.Next, total.Through = step.Next, step.Through
		if progress != nil {
			progress(total)
		}
		if step.Next == 0 {
			return total, nil
		}
		req.From, req.Through = step.Next, step.Through
	}
}
