package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

const (
	// apiTimeout is how long a question waits for its answer where ctx has no
	// earlier deadline: longer than another dispatcher needs to take over.
	apiTimeout = 5 * time.Second

	// apiTry is how long one try of it waits. The questions change nothing that
	// they did not change the first time.
	apiTry = time.Second
)

// times are how long a question and one try of it wait.
type times struct{ all, try time.Duration }

var (
	apiTimes   = times{apiTimeout, apiTry}
	purgeTimes = times{2 * apiTimeout, apiTimeout} // each step is work, and is told once
)

// Cancel stops a job, whether it waits, loads its model or runs, and returns what
// became of it. Its end, with the status cancelled, goes where its events go.
// Cancelling a job that ended changes nothing.
//
// The error is ErrNoDispatcher where nobody answers, within 5 s at most, and
// ErrNotFound where there is no such job.
func (c *Client) Cancel(ctx context.Context, jobID string) (schemas.JobInfo, error) {
	var info schemas.JobInfo
	err := c.ask(ctx, "cancel", schemas.JobRequest{Job: jobID}, &info)
	return info, err
}

// Status returns where a job is. Its errors are those of Cancel.
func (c *Client) Status(ctx context.Context, jobID string) (schemas.JobInfo, error) {
	var info schemas.JobInfo
	err := c.ask(ctx, "status", schemas.JobRequest{Job: jobID}, &info)
	return info, err
}

// Why returns where a job is and, for each place that serves its model, why it is
// not there. Its errors are those of Cancel.
func (c *Client) Why(ctx context.Context, jobID string) (schemas.Why, error) {
	var why schemas.Why
	err := c.ask(ctx, "why", schemas.JobRequest{Job: jobID}, &why)
	return why, err
}

// Flows returns how many of the tenant's jobs wait and run, by class and model.
// Its errors are those of Cancel.
func (c *Client) Flows(ctx context.Context) ([]schemas.FlowInfo, error) {
	var list schemas.FlowList
	err := c.ask(ctx, "list", struct{}{}, &list)
	return list.Flows, err
}

// ask asks the dispatcher and reads its answer into answer.
func (c *Client) ask(ctx context.Context, verb string, question, answer any) error {
	return c.askFor(ctx, apiTimes, verb, question, answer)
}

func (c *Client) askFor(ctx context.Context, wait times, verb string, question, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, wait.all)
	defer cancel()
	data, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	m, err := c.request(ctx, wait.try, schemas.APISubject(c.tenant, verb), data)
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	var failed schemas.APIError
	if err := json.Unmarshal(m.Data, &failed); err != nil {
		return fmt.Errorf("%s: the dispatcher's answer: %w", verb, err)
	}
	switch {
	case failed.Error == nil:
	case failed.Error.Code == schemas.JobNotFound:
		return fmt.Errorf("%s: %w: %s", verb, ErrNotFound, failed.Error.Message)
	default:
		return fmt.Errorf("%s: %w", verb, failed.Error)
	}
	if err := json.Unmarshal(m.Data, answer); err != nil {
		return fmt.Errorf("%s: the dispatcher's answer: %w", verb, err)
	}
	return nil
}

// request asks until somebody answers or ctx ends: between two leaders nobody
// does.
func (c *Client) request(ctx context.Context, wait time.Duration, subject string, data []byte) (*nats.Msg, error) {
	for {
		try, cancel := context.WithTimeout(ctx, wait)
		m, err := c.nc.RequestWithContext(try, subject, data)
		cancel()
		switch {
		case err == nil:
			return m, nil
		case errors.Is(err, nats.ErrNoResponders):
			return nil, fmt.Errorf("%w on %s: none is running", ErrNoDispatcher, subject)
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return nil, fmt.Errorf("%w on %s: %w", ErrNoDispatcher, subject, ctx.Err())
		case !errors.Is(err, context.DeadlineExceeded):
			return nil, err
		}
	}
}
