package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/vramjet/vramjet/schemas"
)

// queueCmd shows the queue, and holds and empties it.
type queueCmd struct {
	Ls     queueLsCmd     `cmd:"" default:"withargs" help:"Show how many jobs wait and run, by class and model."`
	Pause  queuePauseCmd  `cmd:"" help:"Have jobs wait until they are resumed."`
	Resume queueResumeCmd `cmd:"" help:"Let jobs begin again that were paused."`
	Purge  queuePurgeCmd  `cmd:"" help:"End jobs that wait."`
}

type queueLsCmd struct{}

// Help is shown below the command's summary.
func (*queueLsCmd) Help() string {
	return `Examples:

    vramjet queue
    vramjet queue ls --tenant acme --json
`
}

// Run shows the queue.
func (*queueLsCmd) Run(ctx context.Context, a *app) error {
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	list, err := c.Queue(ctx)
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.printJSON(append([]schemas.FlowInfo{}, list.Flows...))
	}
	if err := printQueue(a.out, list.Flows); err != nil || len(list.Pauses) == 0 {
		return err
	}
	fmt.Fprintln(a.out)
	printPauses(a.out, list.Pauses)
	return nil
}

func printQueue(out io.Writer, flows []schemas.FlowInfo) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CLASS\tMODEL\tWAITING\tRUNNING\tOLDEST\tBEGINS IN\tWHY IT WAITS")
	for _, f := range flows {
		oldest, eta := "-", "-"
		if f.OldestMS > 0 {
			oldest = inWords(f.OldestMS)
		}
		if f.ETAMS != nil {
			eta = inWords(*f.ETAMS)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t%s\n", f.Class, f.Model, f.Waiting, f.Running, oldest, eta, cmp.Or(f.Reason, "-"))
	}
	return w.Flush()
}

// printPauses prints what is paused, who did it and when.
func printPauses(out io.Writer, pauses []schemas.Pause) {
	for _, p := range pauses {
		line := "paused: " + p.Describe()
		if p.By != "" {
			line += ", by " + p.By
		}
		fmt.Fprintln(out, line+", since "+timeOf(p.Since))
	}
}
