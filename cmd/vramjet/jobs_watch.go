package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

type jobsWatchCmd struct {
	ID string `arg:"" optional:"" help:"The job's id (default: all jobs of the tenant)."`
}

// Help is shown below the command's summary.
func (*jobsWatchCmd) Help() string {
	return `A line for each change: of one job until it ends, or of all until ctrl-C. With --json, a JSON object on each line. Changes may be missing, while no dispatcher leads, say.

Examples:

    vramjet jobs watch report-7
    vramjet jobs watch --json
`
}

// Run shows the changes as they come.
func (j *jobsWatchCmd) Run(ctx context.Context, a *app) error {
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	changes := c.WatchAll(ctx)
	if j.ID != "" {
		changes = c.Watch(ctx, j.ID)
	}
	for e, err := range changes {
		if err != nil {
			return err
		}
		if err := a.printChange(&e); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printChange(e *schemas.JobEntry) error {
	if a.asJSON() {
		return json.NewEncoder(a.out).Encode(e)
	}
	shown := *e
	if shown.State == "" {
		shown.State = "over: its end went to its reply subject"
	}
	line := e.At.Format(time.TimeOnly) + "  " + jobLine(&shown.JobInfo)
	if e.Class != "" {
		line += "  class " + string(e.Class)
	}
	if e.Code != "" && string(e.Code) != string(e.State) {
		line += "  " + string(e.Code)
	}
	_, err := fmt.Fprintln(a.out, line)
	return err
}
