package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

type jobsShowCmd struct {
	ID   string `arg:"" help:"The job's id."`
	Body bool   `help:"Show the request as well: of a job that has not ended, or that died."`
}

// Help is shown below the command's summary.
func (*jobsShowCmd) Help() string {
	return `The request leaves the queue with the job; only dead letters keep it.

Examples:

    vramjet jobs show report-7
    vramjet jobs show report-7 --body --json
`
}

// A shownJob is all that is known of a job.
type shownJob struct {
	schemas.JobDetails
	Letters []uint64 `json:"dead_letters,omitempty"` // their sequences, where it died
}

// Run shows the job.
func (j *jobsShowCmd) Run(ctx context.Context, a *app) error {
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	d, err := c.Show(ctx, j.ID, j.Body)
	if err != nil {
		return err
	}
	shown := shownJob{JobDetails: d}
	if d.Failure != nil {
		letters, err := lettersOf(ctx, c, &d, j.Body)
		if err != nil {
			a.note("whether the job is a dead letter cannot be told: %v", err)
		}
		shown.add(letters)
	}
	switch object := shown.Headers[schemas.HeaderBody]; {
	case !j.Body || shown.Body != nil:
	case object != "":
		a.noteObject(object)
	default:
		a.note("the request of job %s is no longer known: it left the queue with the job", j.ID)
	}
	if a.asJSON() {
		return a.printJSON(shown)
	}
	return shown.print(a.out)
}

// lettersWithin is how long to look for dead letters that nobody asked for: a user
// that is not permitted to gets no answer.
const lettersWithin = 2 * time.Second

// lettersOf returns the dead letters of a job that ended.
func lettersOf(ctx context.Context, c *client.Client, d *schemas.JobDetails, bodies bool) (letters []client.Letter, err error) {
	ctx, cancel := context.WithTimeout(ctx, lettersWithin)
	defer cancel()
	f := client.LetterFilter{Job: d.Job, Bodies: bodies, Filter: schemas.Filter{Class: d.Class}}
	for l, err := range c.Letters(ctx, f) {
		if err != nil {
			return letters, err
		}
		letters = append(letters, l)
	}
	return letters, nil
}

// add adds what the dead letters of a job keep.
func (s *shownJob) add(letters []client.Letter) {
	for _, l := range letters {
		s.Letters = append(s.Letters, l.Seq)
		if s.Headers == nil {
			s.Headers = map[string]string{}
		}
		for key := range l.Header {
			if ofJob(key) {
				s.Headers[key] = l.Header.Get(key)
			}
		}
		if l.Body != nil && l.Header.Get(schemas.HeaderBody) == "" {
			s.Body = schemas.BodyJSON(l.Body)
		}
	}
}

func (s *shownJob) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(label, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", label, value)
		}
	}
	line("job", s.Job)
	line("state", string(s.State))
	line("class", string(s.Class))
	line("model", s.Model)
	line("node", s.Node)
	line("backend", s.Backend)
	if s.Attempt > 0 {
		line("attempt", strconv.FormatUint(s.Attempt, 10))
	}
	line("submitted", timeOf(s.Submitted))
	line("due", timeOf(s.Due))
	line("ended", timeOf(s.Ended))
	if r := s.Run; r != nil {
		line("times", fmt.Sprintf("queued %s, load %s, ttft %s, total %s", ms(r.QueuedMS), ms(r.LoadMS), ms(r.TTFTMS), ms(r.TotalMS)))
		if r.TokensPerSec > 0 {
			line("speed", fmt.Sprintf("%.1f tok/s", r.TokensPerSec))
		}
	}
	if s.Failure != nil {
		line("error", s.Failure.Error())
	}
	for _, seq := range s.Letters {
		line("dead letter", fmt.Sprintf("%d  (vramjet dead show %s, vramjet jobs retry %s)", seq, s.Job, s.Job))
	}
	for _, key := range slices.Sorted(maps.Keys(s.Headers)) {
		line(key, s.Headers[key])
	}
	if err := w.Flush(); err != nil || s.Body == nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%s\n", s.Body)
	return err
}

// timeOf writes a time as people read it; "" where there is none.
func timeOf(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

type jobsResultCmd struct {
	ID   string        `arg:"" help:"The job's id."`
	Wait time.Duration `placeholder:"DURATION" help:"How long to wait for a job that has not ended (default: not at all)."`
}

// Help is shown below the command's summary.
func (*jobsResultCmd) Help() string {
	return `The text of the answer goes to stdout; with --json, the whole end. The exit code is 1 where the job failed, 3 where it has not ended or nobody knows it, and 124 where --wait was too short.

Examples:

    vramjet jobs result report-7
    vramjet jobs result report-7 --wait 10m --json
`
}

// Run prints the answer.
func (j *jobsResultCmd) Run(ctx context.Context, a *app) error {
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	r, ended, err := c.Ended(ctx, j.ID)
	if !ended && err == nil {
		r, err = j.wait(ctx, c)
	}
	if r != nil && a.asJSON() {
		fmt.Fprintf(a.out, "%s\n", r.Body)
		return err
	}
	if err != nil {
		return err
	}
	shown := &answer{app: a}
	if r.Text() == "" { // embeddings, say
		shown.hidden = true
	}
	shown.end(r)
	a.note("%s", summary(r))
	return nil
}

// wait waits for the end of a job that has none yet, if it is to.
func (j *jobsResultCmd) wait(ctx context.Context, c *client.Client) (*client.Result, error) {
	info, err := c.Status(ctx, j.ID)
	switch {
	case errors.Is(err, client.ErrNotFound):
		return nil, err
	case j.Wait <= 0 && err != nil:
		return nil, &codedError{exitNotFound, fmt.Errorf("job %s has not ended, as far as is stored: %w", j.ID, err)}
	case j.Wait <= 0:
		return nil, &codedError{exitNotFound, fmt.Errorf("job %s has not ended: it is %s (--wait 5m waits for it)", j.ID, info.State)}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, j.Wait, errWait)
	defer cancel()
	r, err := c.Result(ctx, j.ID)
	if err != nil && errors.Is(context.Cause(ctx), errWait) && r == nil {
		err = errWait
	}
	return r, err
}
