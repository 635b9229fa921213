package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

type jobsRetryCmd struct {
	ID string `arg:"" help:"The job's id."`
}

// Help is shown below the command's summary.
func (*jobsRetryCmd) Help() string {
	return `Only a job that used up its attempts can be retried: a dead letter keeps its request. That of any other leaves the queue with the job, so its submitter must submit it again. The job gets an id of its own, which is printed: see vramjet dead retry --help.

Examples:

    vramjet jobs retry report-7
`
}

// Run submits the job again.
func (j *jobsRetryCmd) Run(ctx context.Context, a *app) error {
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	var letter client.Letter // the newest
	for l, err := range c.Letters(ctx, client.LetterFilter{Job: j.ID}) {
		if err != nil {
			return err
		}
		letter = l
	}
	if letter.Seq == 0 {
		return cannotRetry(ctx, c, j.ID)
	}
	return (&deadRetryCmd{}).retry(ctx, a, c, []client.Letter{letter})
}

// cannotRetry says why a job that is no dead letter is not submitted again.
func cannotRetry(ctx context.Context, c *client.Client, id string) error {
	info, err := c.Status(ctx, id)
	switch {
	case err != nil:
		return err
	case info.State == schemas.JobQueued, info.State == schemas.JobRunning:
		return fmt.Errorf("job %s has not ended: it is %s", id, info.State)
	case info.State == schemas.JobState(schemas.StatusOK):
		return fmt.Errorf("job %s ended well: vramjet jobs result %s prints its answer", id, id)
	}
	if again := retriedAs(ctx, c, id); again != "" {
		return fmt.Errorf("job %s was submitted again as %s (vramjet jobs status %s): its dead letter is gone", id, again, again)
	}
	return fmt.Errorf("job %s ended as %s: only dead letters can be retried, and it is none, or none any more (was it submitted again already? vramjet jobs ls): its request left the queue with it, so its submitter must submit it again, under a new id", id, info.State)
}

// retriedAs is the id under which a dead letter of a job was submitted last; "" where
// none is known.
func retriedAs(ctx context.Context, c *client.Client, id string) string {
	jobs, err := c.Jobs(ctx, client.JobFilter{Limit: schemas.MostJobs})
	if err != nil {
		return "" // it makes an error clearer, and is none itself
	}
	for i := range jobs { // the newest first
		if seq, ok := strings.CutPrefix(jobs[i].Job, id+"-r"); ok && seq != "" && strings.Trim(seq, "0123456789") == "" {
			return jobs[i].Job
		}
	}
	return ""
}
