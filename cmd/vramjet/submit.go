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

// submitCmd submits one job.
type submitCmd struct {
	Model       string        `short:"m" required:"" placeholder:"MODEL" help:"The model (required)."`
	Prompt      []string      `arg:"" optional:"" help:"The prompt; - reads it from stdin."`
	Class       string        `enum:"interactive,normal,batch" default:"normal" help:"How urgent it is: interactive, normal or batch (${default})."`
	Image       []string      `placeholder:"FILE" sep:"none" help:"An image that the prompt is about (several: --image A --image B)."`
	System      string        `placeholder:"TEXT" help:"A system message in front of the prompt."`
	MaxTokens   int           `placeholder:"N" help:"Most tokens of the answer."`
	Temperature *float64      `placeholder:"T" help:"Sampling temperature."`
	Embed       bool          `help:"Compute the embedding of the prompt and print it as JSON."`
	ID          string        `name:"id" placeholder:"ID" help:"The job's id: submitted again, it is not run twice."`
	Session     string        `placeholder:"NAME" help:"Jobs that begin alike, as turns of a chat do: they run where the last one ran, if it's free."`
	Local       bool          `help:"No hosted API may have it."`
	At          string        `placeholder:"TIME" help:"When it may begin: a time (RFC 3339) or a duration from now."`
	Keep        time.Duration `placeholder:"DURATION" help:"How long its answer is kept, up to 8760h (default: 24h)."`
	Deadline    string        `placeholder:"TIME" help:"When the answer is of no use any more: a time (RFC 3339) or a duration from now."`
	Timeout     time.Duration `placeholder:"DURATION" help:"Longest run of one attempt."`
	Wait        time.Duration `placeholder:"DURATION" help:"How long to wait for the answer; the job goes on then, and the exit code is 124 (default: for ever)."`
	NoWait      bool          `help:"Print the job's id and do not wait for the answer."`
}

// Help is shown below the command's summary.
func (*submitCmd) Help() string {
	return `The answer goes to stdout as it comes, a summary to stderr. Ctrl-C cancels the job.

Examples:

    vramjet submit -m llama3.2 "Why is the sky blue?"
    git diff | vramjet submit -m qwen3:8b --system "Review this change." -
    vramjet submit -m qwen2.5vl --image photo.jpg "What is on this photo?"
    vramjet submit -m llama3.2 --class batch --no-wait --id report-7 "Summarise …"
    vramjet submit -m llama3.2 --at 8h --keep 168h --no-wait "Good morning!"
    vramjet submit -m nomic-embed-text --embed "some text"
`
}

// errWait ends the wait for an answer.
var errWait = &codedError{exitTimeout, errors.New("timed out waiting for the answer")}

// Run submits the job and shows its answer.
func (s *submitCmd) Run(ctx context.Context, a *app) error {
	job, err := s.job(a.in, time.Now())
	if err != nil {
		return usage(err)
	}
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	if s.NoWait {
		ticket, err := c.Submit(ctx, job)
		if err != nil {
			return err
		}
		if a.asJSON() {
			return a.printJSON(ticket)
		}
		fmt.Fprintln(a.out, ticket.ID)
		return nil
	}
	began := time.Now()
	stream, err := c.Run(ctx, job)
	if err != nil {
		return err
	}
	defer stream.Close()
	wait := ctx
	if s.Wait > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeoutCause(ctx, s.Wait, errWait)
		defer cancel()
	}
	err = s.follow(wait, a, c, stream, began)
	switch {
	case ctx.Err() != nil:
		cancelJob(ctx, a, c, stream.ID())
		return ctx.Err()
	case wait.Err() != nil:
		a.note("job %s goes on: vramjet jobs status %s, vramjet jobs cancel %s", stream.ID(), stream.ID(), stream.ID())
		return context.Cause(wait)
	default:
		return err
	}
}

// follow shows the answer as it comes, and the summary, of a job that was submitted at
// began.
func (s *submitCmd) follow(ctx context.Context, a *app, c *client.Client, stream *client.Stream, began time.Time) error {
	shown := &answer{app: a, hidden: a.asJSON() || s.Embed}
	e, err := firstEvent(ctx, a, c, stream)
	for err == nil {
		if e.Kind == client.Restarted && shown.began {
			shown.finish()
			a.note("attempt %d begins from the start", e.Attempt)
		}
		shown.add(e.Text())
		e, err = stream.Next(ctx)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, client.ErrGap) {
		shown.finish()
		return err
	}
	result, failed := stream.Result(ctx)
	if failed != nil {
		shown.finish()
		return failed
	}
	if errors.Is(err, client.ErrGap) {
		shown.finish()
		a.note("some of the answer was lost on the way; here is all of it:")
		shown.began = false
	}
	shown.end(result)
	if took := time.Duration(result.Run.TotalMS) * time.Millisecond; stream.Ticket().Duplicate || took > time.Since(began)+clocksDiffer {
		a.note("job %s was submitted before: this is its answer from then", stream.ID())
	}
	a.note("%s", summary(result))
	return nil
}

// clocksDiffer is how far the clocks of a fleet are apart at most, as far as it matters: an
// answer that took longer than it was waited for is one from before.
const clocksDiffer = time.Second

// tellWhyAfter is how long a job shows no sign of life before its submitter is told what
// it waits for.
const tellWhyAfter = 3 * time.Second

// firstEvent waits for the first event, and says what it waits for.
func firstEvent(ctx context.Context, a *app, c *client.Client, stream *client.Stream) (client.Event, error) {
	short, cancel := context.WithTimeout(ctx, tellWhyAfter)
	defer cancel()
	e, err := stream.Next(short)
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return e, err
	}
	switch info, err := c.Status(ctx, stream.ID()); {
	case errors.Is(err, client.ErrNoDispatcher) && ctx.Err() == nil:
		a.note("job %s waits in the queue: no dispatcher is running", stream.ID())
	case err == nil && info.State == schemas.JobDelayed:
		a.note("job %s begins at %s at the earliest", stream.ID(), info.Due.Local().Format(time.RFC3339))
	case err == nil && info.State == schemas.JobQueued:
		if why, err := c.Why(ctx, stream.ID()); err == nil && why.Reason != "" {
			a.note("job %s waits: %s (more: vramjet jobs why %s)", stream.ID(), strings.Join(append([]string{why.Reason}, why.Why[:min(1, len(why.Why))]...), ": "), stream.ID())
		}
	}
	return stream.Next(ctx)
}

// cancelJob cancels a job that its submitter lost interest in.
func cancelJob(ctx context.Context, a *app, c *client.Client, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if info, err := c.Cancel(ctx, id); err != nil {
		a.note("job %s goes on: %v", id, err)
	} else {
		a.note("job %s %s", id, info.State)
	}
}

// job returns the job that the flags describe.
func (s *submitCmd) job(stdin io.Reader, now time.Time) (client.Job, error) {
	prompt, err := s.prompt(stdin)
	if err != nil {
		return client.Job{}, err
	}
	at, err := readTime("--at", s.At, now)
	if err != nil {
		return client.Job{}, err
	}
	deadline, err := readTime("--deadline", s.Deadline, now)
	if err != nil {
		return client.Job{}, err
	}
	body, err := s.body(prompt)
	return client.Job{
		Model: s.Model, Class: schemas.Class(s.Class), ID: s.ID, Body: body, Session: s.Session, Local: s.Local,
		At: at, Keep: s.Keep, Deadline: deadline, Timeout: s.Timeout,
	}, err
}
