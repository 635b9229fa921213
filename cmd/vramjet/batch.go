package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client/batch"
	"github.com/vramjet/vramjet/schemas"
)

// batchCmd runs files of requests.
type batchCmd struct {
	Run         batchRunCmd    `cmd:"" help:"Run a file of requests and write the answers to another one; again, to go on."`
	Resume      batchResumeCmd `cmd:"" help:"Go on with the batch that a file of answers is of."`
	RetryErrors batchRetryCmd  `cmd:"" name:"retry-errors" help:"Run the lines of a finished batch again that failed."`
	Submit      batchSubmitCmd `cmd:"" help:"Put a file of requests in the queue, and wait for no answer."`
	Status      batchStatusCmd `cmd:"" help:"Show how far a batch is."`
	Fetch       batchFetchCmd  `cmd:"" help:"Write the answers that there are of a batch, on any machine."`
	Cancel      batchCancelCmd `cmd:"" help:"Have nothing more of a batch run."`
	Ls          batchLsCmd     `cmd:"" help:"List the batches."`
}

// errFailedLines means that a batch is finished, and lines of it failed.
var errFailedLines = errors.New("lines failed")

// batchFlags are what commands have in common that submit lines.
type batchFlags struct {
	InFlight int    `placeholder:"N" default:"1000" help:"How many lines wait in the queue or run at once (${default})."`
	Deadline string `placeholder:"TIME" help:"When answers are of no use any more: a time (RFC 3339) or a duration from now."`
}

func (f *batchFlags) config(a *app, p *batchProgress) (batch.Config, error) {
	deadline, err := readTime("--deadline", f.Deadline, time.Now())
	if err != nil {
		return batch.Config{}, usage(err)
	}
	if f.InFlight < 1 {
		return batch.Config{}, usage(errors.New("--in-flight: it takes a number from 1"))
	}
	return batch.Config{Tenant: a.tenant(), InFlight: f.InFlight, Deadline: deadline, Progress: p.show}, nil
}

type newBatchFlags struct {
	Class string        `enum:"interactive,normal,batch" default:"batch" help:"How urgent it is: interactive, normal or batch (${default})."`
	Keep  time.Duration `placeholder:"DURATION" default:"168h" help:"How long the results are kept in the queue's store (${default})."`
}

func (f *newBatchFlags) set(cfg *batch.Config) {
	cfg.Class, cfg.Keep = schemas.Class(f.Class), f.Keep
}

type batchRunCmd struct {
	In     string `arg:"" help:"The requests: a line of JSON each, in the format of OpenAI's batches."`
	Out    string `short:"o" name:"out" required:"" placeholder:"FILE" help:"Where the answers go (required); lines that failed go to FILE.errors."`
	DryRun bool   `help:"Check the file and submit nothing."`
	batchFlags
	newBatchFlags
}

// Help is shown below the command's summary.
func (*batchRunCmd) Help() string {
	return `The file is checked as a whole before anything is submitted. Whenever this is stopped, by whatever, the same command goes on: no line is answered twice, and none is forgotten. Ctrl-C leaves what is in the queue to end there. Several models may stand in one file, and these urls: /v1/chat/completions, /v1/completions, /v1/embeddings.

Exit codes: 0 all lines were answered; 4 some failed, and stand in FILE.errors.

Examples:

    vramjet batch run prompts.jsonl -o answers.jsonl
    vramjet batch run prompts.jsonl -o answers.jsonl --dry-run
    vramjet batch run prompts.jsonl -o answers.jsonl --in-flight 4000 --deadline 12h

A line: {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "llama3.2", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}}
`
}

// Run runs the batch.
func (c *batchRunCmd) Run(ctx context.Context, a *app) error {
	if c.DryRun {
		f, err := batch.Check(c.In)
		if err != nil {
			return badBatch(err)
		}
		if a.asJSON() {
			return a.printJSON(map[string]any{"path": f.Path, "sha256": f.SHA256, "lines": f.Lines, "jobs": f.Jobs, "models": f.Models})
		}
		fmt.Fprintf(a.out, "%s: %d requests for %s\n", f.Path, f.Jobs, inModels(f.Models))
		return nil
	}
	p := a.newBatchProgress("done")
	cfg, err := c.config(a, p)
	if err != nil {
		return err
	}
	c.set(&cfg)
	return a.runBatch(ctx, p, c.Out, func(nc *nats.Conn) (batch.Progress, error) { return batch.Run(ctx, nc, c.In, c.Out, cfg) })
}

type batchResumeCmd struct {
	Out string `arg:"" placeholder:"FILE" help:"The answers, as far as there are any."`
	batchFlags
}

// Help is shown below the command's summary.
func (*batchResumeCmd) Help() string {
	return `It is what run does when it is run again; the file of requests must be where it was.

Examples:

    vramjet batch resume answers.jsonl
`
}

// Run goes on with the batch.
func (c *batchResumeCmd) Run(ctx context.Context, a *app) error {
	p := a.newBatchProgress("done")
	cfg, err := c.config(a, p)
	if err != nil {
		return err
	}
	return a.runBatch(ctx, p, c.Out, func(nc *nats.Conn) (batch.Progress, error) { return batch.Resume(ctx, nc, c.Out, cfg) })
}

type batchRetryCmd struct {
	Out   string   `arg:"" placeholder:"FILE" help:"The answers of the batch."`
	Codes []string `placeholder:"CODE" help:"Only lines that failed with one of these codes."`
	batchFlags
}

// Help is shown below the command's summary.
func (*batchRetryCmd) Help() string {
	return `Lines that were at fault themselves can be corrected in the file of requests first, each in its place.

Examples:

    vramjet batch retry-errors answers.jsonl
    vramjet batch retry-errors answers.jsonl --codes out_of_memory,upstream_error
`
}

// Run runs failed lines again.
func (c *batchRetryCmd) Run(ctx context.Context, a *app) error {
	p := a.newBatchProgress("done")
	cfg, err := c.config(a, p)
	if err != nil {
		return err
	}
	var codes []schemas.Code
	for _, code := range c.Codes {
		codes = append(codes, schemas.Code(code))
		if !schemas.Code(code).Valid() {
			return usage(fmt.Errorf("--codes: there is no code %q", code))
		}
	}
	return a.runBatch(ctx, p, c.Out, func(nc *nats.Conn) (batch.Progress, error) {
		return batch.RetryErrors(ctx, nc, c.Out, codes, cfg)
	})
}

// runBatch runs a batch and tells what came of it.
func (a *app) runBatch(ctx context.Context, p *batchProgress, out string, do func(*nats.Conn) (batch.Progress, error)) error {
	nc, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	came, err := do(nc)
	p.end()
	switch {
	case err != nil && ctx.Err() != nil:
		a.note("%s: %d of %d lines are done; what is in the queue goes on. The same command goes on from there; vramjet batch cancel %s stops it",
			came.Batch, came.Done(), came.Jobs, came.Batch)
		return err
	case err != nil:
		return badBatch(err)
	}
	if a.asJSON() {
		err = a.printJSON(came)
	} else {
		fmt.Fprintf(a.out, "%s  %d lines  %d answered in %s%s\n", came.Batch, came.Jobs, came.OK, out, failures(&came, " in "+out+".errors"))
		a.noteExamples(&came, out)
	}
	if err == nil && came.Failed > 0 {
		return &codedError{exitFailedLines, fmt.Errorf("%d %w", came.Failed, errFailedLines)}
	}
	return err
}

// badBatch gives a file that is no batch the exit code of wrong usage.
func badBatch(err error) error {
	var problems *batch.Problems
	switch {
	case errors.As(err, &problems), errors.Is(err, fs.ErrNotExist):
		return usage(err)
	case errors.Is(err, batch.ErrNotFound):
		return &codedError{exitNotFound, err}
	default:
		return err
	}
}

type batchSubmitCmd struct {
	In string `arg:"" help:"The requests, as for run."`
	batchFlags
	newBatchFlags
}

// Help is shown below the command's summary.
func (*batchSubmitCmd) Help() string {
	return `Prints the batch's id. It returns once the queue has all of it; where the queue is full, that takes until there is room. When it is stopped before, the same command goes on.

Examples:

    vramjet batch submit prompts.jsonl
    vramjet batch status batch_k2j5…
    vramjet batch fetch batch_k2j5… -o answers.jsonl
`
}

// Run submits the batch.
func (c *batchSubmitCmd) Run(ctx context.Context, a *app) error {
	p := a.newBatchProgress("submitted")
	cfg, err := c.config(a, p)
	if err != nil {
		return err
	}
	c.set(&cfg)
	nc, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	rec, err := batch.Submit(ctx, nc, c.In, cfg)
	p.end()
	if err != nil {
		return badBatch(err)
	}
	if a.asJSON() {
		return a.printJSON(rec)
	}
	fmt.Fprintln(a.out, rec.Batch)
	return nil
}

type batchStatusCmd struct {
	ID string `arg:"" help:"The batch's id."`
}

// Help is shown below the command's summary.
func (*batchStatusCmd) Help() string {
	return `Examples:

    vramjet batch status batch_k2j5…
    vramjet batch status batch_k2j5… --json
`
}

// Run shows how far the batch is.
func (c *batchStatusCmd) Run(ctx context.Context, a *app) error {
	return a.showBatch(ctx, func(nc *nats.Conn) (*schemas.BatchRecord, error) { return batch.Status(ctx, nc, a.tenant(), c.ID) })
}

type batchCancelCmd struct {
	ID string `arg:"" help:"The batch's id."`
}

// Help is shown below the command's summary.
func (*batchCancelCmd) Help() string {
	return `What has its answer keeps it; the other lines end with batch_cancelled.

Examples:

    vramjet batch cancel batch_k2j5…
`
}

// Run cancels the batch.
func (c *batchCancelCmd) Run(ctx context.Context, a *app) error {
	return a.showBatch(ctx, func(nc *nats.Conn) (*schemas.BatchRecord, error) { return batch.Cancel(ctx, nc, a.tenant(), c.ID) })
}

func (a *app) showBatch(ctx context.Context, ask func(*nats.Conn) (*schemas.BatchRecord, error)) error {
	nc, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	rec, err := ask(nc)
	if err != nil {
		return badBatch(err)
	}
	if a.asJSON() {
		return a.printJSON(rec)
	}
	fmt.Fprintf(a.out, "%s  %s  %s  %d lines for %s\n", rec.Batch, rec.State, rec.Input, rec.Jobs, inModels(rec.Models))
	fmt.Fprintf(a.out, "ok %d  failed %d  left %d  (as of %s)\n", rec.OK, rec.Failed, rec.Jobs-rec.OK-rec.Failed, rec.At.Local().Format(time.DateTime))
	return nil
}

type batchFetchCmd struct {
	ID  string `arg:"" help:"The batch's id."`
	Out string `short:"o" name:"out" required:"" placeholder:"FILE" help:"Where the answers go (required); lines that failed go to FILE.errors."`
}

// Help is shown below the command's summary.
func (*batchFetchCmd) Help() string {
	return `It needs nothing but the id, as the results are in the queue's store. Fetched again, what is new is added.

Examples:

    vramjet batch fetch batch_k2j5… -o answers.jsonl
`
}

// Run writes the answers.
func (c *batchFetchCmd) Run(ctx context.Context, a *app) error {
	nc, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	p, err := batch.Fetch(ctx, nc, a.tenant(), c.ID, c.Out)
	if err != nil {
		return badBatch(err)
	}
	if a.asJSON() {
		return a.printJSON(p)
	}
	fmt.Fprintf(a.out, "%s  %d of %d lines  %d answered in %s%s\n", p.Batch, p.Done(), p.Jobs, p.OK, c.Out, failures(&p, " in "+c.Out+".errors"))
	a.noteExamples(&p, c.Out)
	return nil
}

type batchLsCmd struct{}

// Help is shown below the command's summary.
func (*batchLsCmd) Help() string {
	return `Examples:

    vramjet batch ls
    vramjet batch ls --json
`
}

// Run lists the batches.
func (*batchLsCmd) Run(ctx context.Context, a *app) error {
	nc, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	all, err := batch.List(ctx, nc, a.tenant())
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.printJSON(append([]schemas.BatchRecord{}, all...))
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BATCH\tSTATE\tLINES\tOK\tFAILED\tCREATED\tINPUT")
	for i := range all {
		b := &all[i]
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%s\n", b.Batch, b.State, b.Jobs, b.OK, b.Failed, b.Created.Local().Format(time.DateTime), b.Input)
	}
	return w.Flush()
}
