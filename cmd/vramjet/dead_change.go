package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vramjet/vramjet/client"
)

// chosen says which dead letters to do something with: of jobs by their ids, or all
// that the filters leave.
type chosen struct {
	IDs []string `arg:"" optional:"" name:"id" help:"Ids of jobs."`
	All bool     `help:"All dead letters of the tenant, as far as the filters leave them."`
	letterFlags
	consent
}

// choose returns the dead letters that are meant, without their bodies.
func (ch *chosen) choose(ctx context.Context, c *client.Client) ([]client.Letter, error) {
	f, err := ch.letters(time.Now())
	switch {
	case err != nil:
		return nil, err
	case ch.All == (len(ch.IDs) > 0):
		return nil, usage(errors.New("say the ids of jobs, or --all, with or without filters"))
	}
	var found []client.Letter
	for l, err := range c.Letters(ctx, f) {
		if err != nil {
			return nil, err
		}
		if ch.All || slices.Contains(ch.IDs, l.Job) {
			l.Header = nil
			found = append(found, l)
		}
	}
	for _, id := range ch.IDs {
		if !slices.ContainsFunc(found, func(l client.Letter) bool { return l.Job == id }) {
			return nil, noLetters(fmt.Sprintf("there is no dead letter of job %s: nothing was done (vramjet dead ls shows which there are)", id))
		}
	}
	return found, nil
}

// A letterDone is what became of a dead letter.
type letterDone struct {
	Seq   uint64 `json:"seq"`
	Job   string `json:"job"`
	NewID string `json:"new_id,omitempty"` // under which it was submitted again
	Error string `json:"error,omitempty"`
}

type deadRetryCmd struct{ chosen }

// Help is shown below the command's summary.
func (*deadRetryCmd) Help() string {
	return `Each job goes to its own place in the queue again, with its old request and headers, and its letter is removed once the queue has it. It gets an id of its own, made of the old one and the letter's number (report-7-r12), which is printed: the old id has ended, and what has ended is not run again. A letter always makes the same id, so that a retry that broke off can be repeated. A deadline that has passed is left out, and so is an inbox: read the answer with vramjet jobs result.

It needs the right to submit, and an operator's to remove messages of VJ_DEAD.

Examples:

    vramjet dead retry report-7
    vramjet dead retry --all --code out_of_memory --since 1h --dry-run
    vramjet dead retry --all --model 'qwen3:*' --yes
`
}

// Run submits jobs again.
func (d *deadRetryCmd) Run(ctx context.Context, a *app) error {
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	letters, err := d.choose(ctx, c)
	if err != nil {
		return err
	}
	return d.retry(ctx, a, c, letters)
}

func (d *deadRetryCmd) retry(ctx context.Context, a *app, c *client.Client, letters []client.Letter) error {
	return a.eachLetter(ctx, letters, &d.consent, "retry", func(l *client.Letter, done *letterDone) error {
		ticket, err := c.RetryLetter(ctx, l.Seq)
		done.NewID = ticket.ID
		return err
	})
}

type deadRmCmd struct{ chosen }

// Help is shown below the command's summary.
func (*deadRmCmd) Help() string {
	return `What is removed is gone: vramjet dead export keeps a copy. It needs an operator's right to remove messages of VJ_DEAD.

Examples:

    vramjet dead rm report-7
    vramjet dead rm --all --code context_overflow --dry-run
    vramjet dead rm --all --yes
`
}

// Run removes dead letters.
func (d *deadRmCmd) Run(ctx context.Context, a *app) error {
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	letters, err := d.choose(ctx, c)
	if err != nil {
		return err
	}
	return a.eachLetter(ctx, letters, &d.consent, "remove", func(l *client.Letter, _ *letterDone) error {
		return c.RemoveLetter(ctx, l.Seq)
	})
}

// eachLetter does something with each letter, after the user agreed, and prints what
// became of it. It stops at an error that is not the letter's own.
func (a *app) eachLetter(ctx context.Context, letters []client.Letter, agreed *consent, verb string, do func(*client.Letter, *letterDone) error) error {
	if len(letters) == 0 {
		return noLetters("there is no such dead letter")
	}
	if !agreed.DryRun {
		if err := agreed.ask(a, len(letters), verb+" "+count(len(letters), "dead letter")); err != nil {
			return err
		}
	}
	var all []letterDone
	var failed error
	for i := range letters {
		l := &letters[i]
		done := letterDone{Seq: l.Seq, Job: l.Job}
		if !agreed.DryRun {
			if err := do(l, &done); err != nil {
				done.Error, failed = err.Error(), err
			}
		}
		all = append(all, done)
		if !a.asJSON() {
			fmt.Fprintln(a.out, done.line(verb, agreed.DryRun))
		}
		if failed != nil && (ctx.Err() != nil || !errors.Is(failed, client.ErrNotFound)) {
			break
		}
	}
	if a.asJSON() {
		return errors.Join(a.printJSON(all), failed)
	}
	return failed
}

func (l *letterDone) line(verb string, dryRun bool) string {
	parts := []string{fmt.Sprintf("letter %d", l.Seq), "job " + orUnnamed(l.Job)}
	switch {
	case dryRun:
		parts = append(parts, "would be "+past(verb))
	case l.Error != "":
		parts = append(parts, "failed: "+l.Error)
	case l.NewID != "":
		parts = append(parts, "submitted again as "+l.NewID)
	default:
		parts = append(parts, past(verb))
	}
	return strings.Join(parts, "  ")
}

func past(verb string) string {
	if verb == "retry" {
		return "retried"
	}
	return verb + "d"
}
