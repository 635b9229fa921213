package main

import (
	"context"
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
	Cancel jobsCancelCmd `cmd:"" help:"Cancel a job, whether it waits or runs."`
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
	return a.askAbout(ctx, j.ID, (*client.Client).Status)
}

type jobsCancelCmd struct {
	ID string `arg:"" help:"The job's id."`
}

// Help is shown below the command's summary.
func (*jobsCancelCmd) Help() string {
	return `Examples:

    vramjet jobs cancel report-7
`
}

// Run cancels the job.
func (j *jobsCancelCmd) Run(ctx context.Context, a *app) error {
	return a.askAbout(ctx, j.ID, (*client.Client).Cancel)
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

// askAbout asks the dispatcher about a job and prints what it says.
func (a *app) askAbout(ctx context.Context, id string, ask func(*client.Client, context.Context, string) (schemas.JobInfo, error)) error {
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	info, err := ask(c, ctx, id)
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.printJSON(info)
	}
	fmt.Fprintln(a.out, jobLine(&info))
	return nil
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
