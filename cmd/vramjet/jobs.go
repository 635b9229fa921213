package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// jobsCmd looks at jobs.
type jobsCmd struct {
	Ls     jobsLsCmd     `cmd:"" help:"List jobs: those that wait, run and have ended."`
	Show   jobsShowCmd   `cmd:"" help:"Show all that is known of a job."`
	Status jobsStatusCmd `cmd:"" help:"Show where a job is."`
	Why    jobsWhyCmd    `cmd:"" help:"Show why a job waits, or failed."`
	Watch  jobsWatchCmd  `cmd:"" help:"Show the changes of a job, or of all, as they come."`
	Result jobsResultCmd `cmd:"" help:"Print the answer of a job."`
	Cancel jobsCancelCmd `cmd:"" help:"Cancel jobs, whether they wait or run."`
	Retry  jobsRetryCmd  `cmd:"" help:"Submit a job again that died."`
}

type jobsStatusCmd struct {
	ID string `arg:"" help:"The job's id."`
}

// Help is shown below the command's summary.
func (*jobsStatusCmd) Help() string {
	return `Examples:

    vramjet jobs status report-7
    vramjet jobs status report-7 --json
`
}

// Run shows where the job is.
func (j *jobsStatusCmd) Run(ctx context.Context, a *app) error {
	return a.askAbout(ctx, []string{j.ID}, (*client.Client).Status)
}

type jobsCancelCmd struct {
	IDs []string `arg:"" name:"id" help:"The jobs' ids."`
}

// Help is shown below the command's summary.
func (*jobsCancelCmd) Help() string {
	return `Examples:

    vramjet jobs cancel report-7
    vramjet jobs cancel report-7 report-8

Many at once: vramjet queue purge --help
`
}

// Run cancels the jobs.
func (j *jobsCancelCmd) Run(ctx context.Context, a *app) error {
	return a.askAbout(ctx, j.IDs, (*client.Client).Cancel)
}

type jobsWhyCmd struct {
	ID string `arg:"" help:"The job's id."`
}

// Help is shown below the command's summary.
func (*jobsWhyCmd) Help() string {
	return `Examples:

    vramjet jobs why report-7
`
}

// Run shows why the job waits, or failed.
func (j *jobsWhyCmd) Run(ctx context.Context, a *app) error {
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	why, err := c.Why(ctx, j.ID)
	if err != nil {
		return err
	}
	if why.State != schemas.JobQueued && why.State != schemas.JobRunning && why.State != schemas.JobDelayed && why.Reason == "" {
		if _, err := c.Result(ctx, j.ID); err != nil {
			why.Reason = err.Error()
		}
	}
	if a.asJSON() {
		return a.printJSON(why)
	}
	printWhy(a.out, &why)
	return nil
}

// printWhy prints why a job waits, what happens next and what one could do.
func printWhy(out io.Writer, w *schemas.Why) {
	line := jobLine(&w.JobInfo)
	if w.Class != "" {
		line += "  class " + string(w.Class)
	}
	if w.WaitedMS > 0 {
		line += "  waiting " + inWords(w.WaitedMS)
	}
	if w.Before > 0 {
		line += fmt.Sprintf("  %d of its kind before it", w.Before)
	}
	fmt.Fprintln(out, line)
	lines := w.Why
	if w.Reason != "" {
		lines = append([]string{w.Reason}, lines...)
	}
	for i, l := range lines {
		label := "     "
		if i == 0 {
			label = "why  "
		}
		fmt.Fprintln(out, label+" "+l)
	}
	if w.Next != "" {
		fmt.Fprintln(out, "next  "+w.Next)
	}
	if w.ETAMS != nil {
		fmt.Fprintln(out, "eta   about "+inWords(*w.ETAMS))
	}
	for _, f := range w.Fix {
		fmt.Fprintln(out, "fix   "+f)
	}
}

// inWords writes ms as a duration that people read: 4m12s.
func inWords(ms int64) string {
	d := (time.Duration(ms) * time.Millisecond).Round(time.Second)
	return max(d, time.Second).String()
}

// askAbout asks the dispatcher about each job and prints what it says. What goes wrong
// with one keeps it from none of the others.
func (a *app) askAbout(ctx context.Context, ids []string, ask func(*client.Client, context.Context, string) (schemas.JobInfo, error)) error {
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	var failed error
	for _, id := range ids {
		info, err := ask(c, ctx, id)
		switch {
		case ctx.Err() != nil:
			return err
		case err != nil:
			failed = errors.Join(failed, err)
		case a.asJSON():
			failed = errors.Join(failed, a.printJSON(info))
		default:
			fmt.Fprintln(a.out, jobLine(&info))
		}
	}
	return failed
}

func jobLine(info *schemas.JobInfo) string {
	parts := []string{"job " + info.Job, string(info.State)}
	for _, p := range []struct{ name, value string }{
		{"model", info.Model}, {"node", info.Node}, {"backend", info.Backend},
	} {
		if p.value != "" {
			parts = append(parts, p.name+" "+p.value)
		}
	}
	if !info.Due.IsZero() {
		parts = append(parts, "due "+info.Due.Format(time.RFC3339))
	}
	if info.Attempt > 0 {
		parts = append(parts, fmt.Sprintf("attempt %d", info.Attempt))
	}
	return strings.Join(parts, "  ")
}
