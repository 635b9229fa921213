package client

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// A JobFilter says which jobs of the tenant are meant. The zero JobFilter means the
// newest schemas.DefaultJobs of all.
type JobFilter struct {
	schemas.Filter

	// States are those that a job may be in: delayed, queued, running, or a Status.
	// None means all.
	States []schemas.JobState

	// Since is the earliest time at which the queue took a job that has not ended, or
	// at which one ended. Zero means any time.
	Since time.Time

	// Limit is how many jobs there are at most, schemas.MostJobs at most. 0 means
	// schemas.DefaultJobs.
	Limit int
}

// wants reports whether a job in a state is meant.
func (f *JobFilter) wants(s schemas.JobState) bool {
	return len(f.States) == 0 || slices.Contains(f.States, s)
}

// Jobs lists jobs of the tenant, the newest first: by when the queue took them or,
// where they ended, by when they did. Jobs that ended are known for as long as their
// results are kept, and not at all where they answered to a reply subject. Of one whose
// end an older vramjet wrote, the class and the model are not known.
//
// Jobs that have not ended are asked of the dispatcher: the error is ErrNoDispatcher
// where none answers, and only ended ones can be listed then. Those that ended are
// read from the stream of results, backwards and without their bodies, until there are
// enough; no more than Limit are ever in memory.
func (c *Client) Jobs(ctx context.Context, f JobFilter) ([]schemas.JobEntry, error) {
	if f.Limit == 0 {
		f.Limit = schemas.DefaultJobs
	}
	if f.Limit < 0 || f.Limit > schemas.MostJobs {
		return nil, fmt.Errorf("jobs: the limit %d is not 1 to %d", f.Limit, schemas.MostJobs)
	}
	if err := f.Check(); err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	var all, live []schemas.JobEntry
	for _, state := range f.live() {
		found, err := c.liveJobs(ctx, &f, state)
		if err != nil {
			return nil, err
		}
		live = append(live, found...)
	}
	if slices.ContainsFunc([]schemas.Status{schemas.StatusOK, schemas.StatusError, schemas.StatusCancelled, schemas.StatusExpired},
		func(s schemas.Status) bool { return f.wants(schemas.JobState(s)) }) {
		ended, err := c.endedJobs(ctx, &f)
		if err != nil {
			return nil, fmt.Errorf("jobs: %w", err)
		}
		all = ended
	}
	for _, j := range live { // one that ended may not be settled yet, and one may begin between two answers
		if !slices.ContainsFunc(all, func(k schemas.JobEntry) bool { return k.Job == j.Job }) {
			all = append(all, j)
		}
	}
	slices.SortStableFunc(all, func(a, b schemas.JobEntry) int { return b.At.Compare(a.At) })
	return all[:min(len(all), f.Limit)], nil
}

// live says what to ask the dispatcher for.
func (f *JobFilter) live() (states []schemas.JobState) {
	switch queued, running := f.wants(schemas.JobQueued), f.wants(schemas.JobRunning); {
	case queued && running:
		states = append(states, "")
	case queued:
		states = append(states, schemas.JobQueued)
	case running:
		states = append(states, schemas.JobRunning)
	}
	if f.wants(schemas.JobDelayed) {
		states = append(states, schemas.JobDelayed)
	}
	return states
}

// liveJobs lists jobs that have not ended.
func (c *Client) liveJobs(ctx context.Context, f *JobFilter, state schemas.JobState) ([]schemas.JobEntry, error) {
	req := schemas.JobsRequest{Filter: f.Filter, State: state, Since: f.Since, Limit: f.Limit}
	var all []schemas.JobEntry
	for {
		var list schemas.JobList
		if err := c.ask(ctx, "jobs", req, &list); err != nil {
			return nil, err
		}
		all = append(all, list.Jobs...)
		if list.Next == 0 || len(all) >= f.Limit {
			return all, nil
		}
		req.Before = list.Next
	}
}

// Show returns all that is known of a job. With body it has the request, too, as long
// as the queue has it: until the job ends. Its errors are those of Cancel.
func (c *Client) Show(ctx context.Context, jobID string, body bool) (schemas.JobDetails, error) {
	var d schemas.JobDetails
	err := c.ask(ctx, "show", schemas.JobRequest{Job: jobID, Body: body}, &d)
	return d, err
}
