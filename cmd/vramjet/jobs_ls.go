package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

type jobsLsCmd struct {
	State []string `enum:"delayed,queued,running,ok,error,cancelled,expired" placeholder:"STATE" help:"Only jobs in this state, or in one of several: delayed, queued, running, ok, error, cancelled or expired."`
	flowFlags
	Since time.Duration `placeholder:"DURATION" help:"Only jobs that were submitted or, where they ended, that ended no longer ago."`
	Limit int           `default:"50" help:"How many at most, up to 1000 (${default})."`
}

// Help is shown below the command's summary.
func (*jobsLsCmd) Help() string {
	return `The newest first. Jobs that ended are known for as long as their results are kept (24 hours). Those with a reply subject of their own leave no trace when they end. Without a dispatcher only ended ones can be listed: say so with --state.

Examples:

    vramjet jobs ls
    vramjet jobs ls --state error --state expired --since 1h
    vramjet jobs ls --model 'qwen3:*' --class batch --limit 1000 --json
`
}

// Run lists jobs.
func (j *jobsLsCmd) Run(ctx context.Context, a *app) error {
	filter, err := j.filter()
	if err != nil {
		return err
	}
	if j.Limit < 1 || j.Limit > schemas.MostJobs {
		return usage(fmt.Errorf("--limit is 1 to %d, not %d", schemas.MostJobs, j.Limit))
	}
	f := client.JobFilter{Filter: filter, Since: since(j.Since, time.Now()), Limit: j.Limit}
	for _, s := range j.State {
		f.States = append(f.States, schemas.JobState(s))
	}
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	jobs, err := c.Jobs(ctx, f)
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.printJSON(append([]schemas.JobEntry{}, jobs...))
	}
	return printJobs(a.out, jobs, time.Now())
}

func printJobs(out io.Writer, jobs []schemas.JobEntry, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "JOB\tSTATE\tWHY\tCLASS\tMODEL\tNODE\tATTEMPT\tWHEN")
	for i := range jobs {
		j := &jobs[i]
		attempt, when := "-", unknown
		if j.Attempt > 0 {
			attempt = strconv.FormatUint(j.Attempt, 10)
		}
		if !j.At.IsZero() {
			when = ago(now.Sub(j.At))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			j.Job, j.State, orDash(string(j.Code)), orUnnamed(string(j.Class)), orUnnamed(j.Model), orDash(j.Node), attempt, when)
	}
	return w.Flush()
}

// orUnnamed returns what nobody knows as such.
func orUnnamed(s string) string {
	if s == "" {
		return unknown
	}
	return s
}
