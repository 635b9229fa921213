package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// deadCmd looks after dead letters.
type deadCmd struct {
	Ls     deadLsCmd     `cmd:"" default:"withargs" help:"List dead letters, or count them by what they died of."`
	Show   deadShowCmd   `cmd:"" help:"Show the dead letters of a job."`
	Retry  deadRetryCmd  `cmd:"" help:"Submit the jobs of dead letters again."`
	Rm     deadRmCmd     `cmd:"" help:"Remove dead letters for good."`
	Export deadExportCmd `cmd:"" help:"Write dead letters as lines of JSON."`
}

// letterFlags say which dead letters are meant.
type letterFlags struct {
	flowFlags
	Code  string        `placeholder:"CODE" help:"Only jobs that died of this: upstream_error, out_of_memory, …"`
	Job   string        `placeholder:"ID" help:"Only this job."`
	Since time.Duration `placeholder:"DURATION" help:"Only jobs that died no longer ago."`
}

func (f *letterFlags) letters(now time.Time) (client.LetterFilter, error) {
	filter, err := f.filter()
	if err == nil && f.Code != "" && !schemas.Code(f.Code).Valid() {
		err = usage(fmt.Errorf("--code: there is no code %q (docs/protocol.md lists them)", f.Code))
	}
	return client.LetterFilter{Filter: filter, Code: schemas.Code(f.Code), Job: f.Job, Since: since(f.Since, now)}, err
}

// A letter is a dead letter as it is printed.
type letter struct {
	Seq     uint64            `json:"seq"`
	Job     string            `json:"job"`
	Class   schemas.Class     `json:"class,omitempty"`
	Model   string            `json:"model,omitempty"`
	Code    schemas.Code      `json:"code"`
	Message string            `json:"message"`
	At      time.Time         `json:"at"`
	Subject string            `json:"subject"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    json.RawMessage   `json:"body,omitempty"` // as it is where it is JSON, else as a string
}

func shownLetter(l *client.Letter) letter {
	s := letter{Seq: l.Seq, Job: l.Job, Class: l.Flow.Class, Model: l.Flow.Model, Code: l.Code, Message: l.Message, At: l.At, Subject: l.Subject, Headers: map[string]string{}}
	for key := range l.Header {
		s.Headers[key] = l.Header.Get(key)
	}
	if l.Body != nil && s.Headers[schemas.HeaderBody] == "" {
		s.Body = schemas.BodyJSON(l.Body)
	}
	return s
}

type deadLsCmd struct {
	letterFlags
	By    string `enum:",code,model" default:"" placeholder:"WHAT" help:"Count them by code or by model instead."`
	Limit int    `default:"50" help:"How many of the newest at most (${default})."`
}

// Help is shown below the command's summary.
func (*deadLsCmd) Help() string {
	return `A job that used up its attempts, or that no node could ever run, ends with its last error and is kept, as it was, for 30 days.

Examples:

    vramjet dead
    vramjet dead ls --by code --since 24h
    vramjet dead ls --model 'qwen3:*' --code out_of_memory --json
`
}

// Run lists dead letters.
func (d *deadLsCmd) Run(ctx context.Context, a *app) error {
	f, err := d.letters(time.Now())
	if err != nil {
		return err
	}
	if d.Limit < 1 {
		return usage(fmt.Errorf("--limit is at least 1, not %d", d.Limit))
	}
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	if d.By != "" {
		return d.tally(ctx, a, c, f)
	}
	var newest []letter
	all := 0
	for l, err := range c.Letters(ctx, f) {
		if err != nil {
			return err
		}
		if all++; len(newest) == 2*d.Limit {
			newest = append(newest[:0], newest[d.Limit:]...)
		}
		shown := shownLetter(&l)
		shown.Headers = nil
		newest = append(newest, shown)
	}
	newest = newest[max(0, len(newest)-d.Limit):]
	slices.Reverse(newest)
	if a.asJSON() {
		return a.printJSON(append([]letter{}, newest...))
	}
	if all > len(newest) {
		a.note("the newest %d of %d: --limit shows more, --by code and --by model count them", len(newest), all)
	}
	return printLetters(a.out, newest, time.Now())
}

func printLetters(out io.Writer, letters []letter, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LETTER\tJOB\tCODE\tCLASS\tMODEL\tDIED\tMESSAGE")
	for i := range letters {
		l := &letters[i]
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Seq, orUnnamed(l.Job), l.Code, orUnnamed(string(l.Class)), orUnnamed(l.Model), ago(now.Sub(l.At)), excerpt(l.Message))
	}
	return w.Flush()
}

// excerpt bounds what of a message stands in a table.
func excerpt(message string) string {
	const most = 60
	letters := []rune(oneLine(message))
	if len(letters) > most {
		return strings.TrimSpace(string(letters[:most-1])) + "…"
	}
	return string(letters)
}

// A tally is how many dead letters have something in common.
type tally struct {
	Code   schemas.Code `json:"code,omitempty"`
	Model  string       `json:"model,omitempty"`
	Count  int          `json:"count"`
	Newest time.Time    `json:"newest"`
}

// tally counts dead letters by what they have in common, the most frequent first.
func (d *deadLsCmd) tally(ctx context.Context, a *app, c *client.Client, f client.LetterFilter) error {
	tallies := map[tally]*tally{}
	for l, err := range c.Letters(ctx, f) {
		if err != nil {
			return err
		}
		key := tally{Code: l.Code}
		if d.By == "model" {
			key = tally{Model: l.Flow.Model}
		}
		if tallies[key] == nil {
			tallies[key] = &tally{Code: key.Code, Model: key.Model}
		}
		tallies[key].Count++
		tallies[key].Newest = l.At
	}
	sorted := slices.SortedFunc(maps.Values(tallies), func(x, y *tally) int {
		return cmp.Or(y.Count-x.Count, strings.Compare(string(x.Code)+x.Model, string(y.Code)+y.Model))
	})
	if a.asJSON() {
		return a.printJSON(append([]*tally{}, sorted...))
	}
	return printTallies(a.out, d.By, sorted, time.Now())
}

func printTallies(out io.Writer, by string, tallies []*tally, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\tLETTERS\tNEWEST\n", strings.ToUpper(by))
	for _, x := range tallies {
		fmt.Fprintf(w, "%s\t%d\t%s\n", orUnnamed(string(x.Code)+x.Model), x.Count, ago(now.Sub(x.Newest)))
	}
	return w.Flush()
}

type deadShowCmd struct {
	ID   string `arg:"" help:"The job's id."`
	Body bool   `help:"Show the request as well."`
}

// Help is shown below the command's summary.
func (*deadShowCmd) Help() string {
	return `Examples:

    vramjet dead show report-7
    vramjet dead show report-7 --body --json
`
}

// Run shows the dead letters of the job.
func (d *deadShowCmd) Run(ctx context.Context, a *app) error {
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	var letters []letter
	for l, err := range c.Letters(ctx, client.LetterFilter{Job: d.ID, Bodies: d.Body}) {
		if err != nil {
			return err
		}
		letters = append(letters, shownLetter(&l))
		if object := l.Header.Get(schemas.HeaderBody); object != "" && d.Body {
			a.noteObject(object)
		}
	}
	if len(letters) == 0 {
		return noLetters("there is no dead letter of job " + d.ID)
	}
	if a.asJSON() {
		return a.printJSON(letters)
	}
	for i := range letters {
		if err := letters[i].print(a.out); err != nil {
			return err
		}
	}
	return nil
}

func (l *letter) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "letter\t%d\njob\t%s\nclass\t%s\nmodel\t%s\ndied\t%s\nof\t%s: %s\n",
		l.Seq, orUnnamed(l.Job), orUnnamed(string(l.Class)), orUnnamed(l.Model), timeOf(l.At), l.Code, l.Message)
	for _, key := range slices.Sorted(maps.Keys(l.Headers)) {
		if ofJob(key) {
			fmt.Fprintf(w, "%s\t%s\n", key, l.Headers[key])
		}
	}
	if l.Body == nil && l.Headers[schemas.HeaderBody] == "" {
		fmt.Fprintln(w, "request\t--body shows it")
	}
	if err := w.Flush(); err != nil || l.Body == nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%s\n", l.Body)
	return err
}

// ofJob reports whether a header of a dead letter is one that its submitter set, but
// for its id.
func ofJob(key string) bool {
	return key != schemas.HeaderMsgID && key != schemas.HeaderLater && key != schemas.HeaderJob && !strings.HasPrefix(key, "Vj-Dead-")
}

// noteObject says where a request is that is too large to be shown.
func (a *app) noteObject(name string) {
	a.note("the request is too large for a message: nats object get %s %s", schemas.BucketBodies, name)
}

func noLetters(what string) error { return &codedError{exitNotFound, errors.New(what)} }
