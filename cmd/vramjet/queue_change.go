package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// flowsChosen say which flows to do something with: by model and class, or all.
type flowsChosen struct {
	flowFlags
	All bool `help:"All of the tenant."`
}

// choose returns what the flags say. Nobody means everything by saying nothing.
func (f *flowsChosen) choose() (schemas.Filter, error) {
	filter, err := f.filter()
	if err == nil && f.All == (filter != schemas.Filter{}) {
		err = usage(errors.New("say which: --model, --class or both of them, or --all"))
	}
	return filter, err
}

type queuePauseCmd struct{ flowsChosen }

// Help is shown below the command's summary.
func (*queuePauseCmd) Help() string {
	return `Nothing of what is paused begins until it is resumed, whichever dispatcher leads. Jobs that run go on, and jobs are still taken. vramjet jobs why says of a job that waits who paused it.

Examples:

    vramjet queue pause --model llama3.3:70b
    vramjet queue pause --class batch --tenant acme
    vramjet queue pause --all
`
}

// Run pauses flows.
func (q *queuePauseCmd) Run(ctx context.Context, a *app) error {
	return a.changePauses(ctx, &q.flowsChosen, func(c *client.Client, f schemas.Filter) ([]schemas.Pause, error) {
		return c.PauseFlows(ctx, f, a.operator())
	})
}

type queueResumeCmd struct{ flowsChosen }

// Help is shown below the command's summary.
func (*queueResumeCmd) Help() string {
	return `Ends the pause that was made with the same --model and --class, and with --all all pauses of the tenant. What is still paused is printed.

Examples:

    vramjet queue resume --model llama3.3:70b
    vramjet queue resume --all
`
}

// Run resumes flows.
func (q *queueResumeCmd) Run(ctx context.Context, a *app) error {
	return a.changePauses(ctx, &q.flowsChosen, func(c *client.Client, f schemas.Filter) ([]schemas.Pause, error) {
		return c.ResumeFlows(ctx, f)
	})
}

// changePauses changes what is paused, and prints what is then.
func (a *app) changePauses(ctx context.Context, flows *flowsChosen, change func(*client.Client, schemas.Filter) ([]schemas.Pause, error)) error {
	filter, err := flows.choose()
	if err != nil {
		return err
	}
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	pauses, err := change(c, filter)
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.printJSON(append([]schemas.Pause{}, pauses...))
	}
	if len(pauses) == 0 {
		fmt.Fprintln(a.out, "nothing is paused")
	}
	printPauses(a.out, pauses)
	return nil
}

// operator is who runs the command, for people: ana@desk.
func (a *app) operator() string {
	name := a.getenv("USER")
	if u, err := user.Current(); name == "" && err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil && name != "" {
		return name + "@" + host
	}
	return name
}

type queuePurgeCmd struct {
	flowsChosen
	Prefix  string `placeholder:"PREFIX" help:"Only jobs whose ids begin so."`
	Running bool   `help:"Cancel jobs that run as well."`
	consent
}

// Help is shown below the command's summary.
func (*queuePurgeCmd) Help() string {
	return `Each waiting job ends as cancelled, and leaves the queue. Jobs that run go on, unless --running is given; jobs that come meanwhile are not touched. Ctrl-C stops it: what was ended is, and the rest waits as before.

Examples:

    vramjet queue purge --class batch --dry-run
    vramjet queue purge --model llama3.3:70b --yes
    vramjet queue purge --all --prefix import-7- --running
`
}

// Run ends jobs that wait.
func (q *queuePurgeCmd) Run(ctx context.Context, a *app) error {
	filter, err := q.choose()
	if err == nil && q.Prefix != "" && !schemas.ValidToken(q.Prefix) {
		err = usage(fmt.Errorf("--prefix %q begins no id: these are 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'", q.Prefix))
	}
	if err != nil {
		return err
	}
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	req := schemas.PurgeRequest{Filter: filter, Prefix: q.Prefix, Running: q.Running, DryRun: true}
	found, err := c.Purge(ctx, req, nil)
	if err != nil {
		return err
	}
	if q.DryRun || found.Waiting+found.Running == 0 {
		return a.printPurged(found, "would be ")
	}
	if err := q.ask(a, found.Waiting+found.Running, "cancel "+purged(found)); err != nil {
		return err
	}
	req.DryRun, req.Through = false, found.Through
	done, err := c.Purge(ctx, req, nil)
	return errors.Join(a.printPurged(done, ""), err)
}

// A purgedJobs is how many jobs a purge ended.
type purgedJobs struct {
	Waiting int `json:"waiting"`
	Running int `json:"running"`
}

func (a *app) printPurged(p schemas.PurgeStep, would string) error {
	if a.asJSON() {
		return a.printJSON(purgedJobs{p.Waiting, p.Running})
	}
	_, err := fmt.Fprintf(a.out, "%s %scancelled\n", purged(p), would)
	return err
}

func purged(p schemas.PurgeStep) string {
	text := count(p.Waiting, "waiting job")
	if p.Running > 0 {
		text += " and " + count(p.Running, "running job")
	}
	return text
}
