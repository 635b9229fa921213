package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// streams are what the program reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// cli is the command line.
type cli struct {
	globals

	Up         upCmd         `cmd:"" help:"Run all of it on this machine: NATS, the dispatcher and a worker."`
	Dispatcher dispatcherCmd `cmd:"" help:"Run a dispatcher: one of any number, of which one leads."`
	Worker     workerCmd     `cmd:"" help:"Run a worker: one for each machine with model servers."`

	Submit submitCmd `cmd:"" help:"Submit a job and stream its answer."`
	Batch  batchCmd  `cmd:"" help:"Run files of requests."`
	Jobs   jobsCmd   `cmd:"" help:"Look at jobs, read their answers, and cancel them."`
	Queue  queueCmd  `cmd:"" help:"Show how many jobs wait and run, and pause, resume and purge them."`
	Dead   deadCmd   `cmd:"" help:"Look at dead letters, and retry, remove and export them."`
	Nodes  nodesCmd  `cmd:"" help:"Show the nodes: devices, models and slots."`
	Models modelsCmd `cmd:"" help:"Show, load and pin models, and estimate what they need."`

	Top      topCmd      `cmd:"" help:"Show nodes, flows and running jobs on a terminal, drawn anew once a second."`
	Doctor   doctorCmd   `cmd:"" help:"Check all of it: NATS, streams, dispatchers, nodes and the queue."`
	Backends backendsCmd `cmd:"" help:"Check model servers."`
	Simulate simulateCmd `cmd:"" help:"Replay a workload on a virtual clock, and show what the placement makes of it."`
	Bench    benchCmd    `cmd:"" help:"Measure what vramjet does here, beside what NATS alone does."`

	Auth    authCmd    `cmd:"" help:"Keep the users of the NATS servers, and what each may do."`
	Health  healthCmd  `cmd:"" help:"Ask a dispatcher or worker on this machine whether it is well."`
	Config  configCmd  `cmd:"" help:"Show or check the configuration."`
	Version versionCmd `cmd:"" help:"Show the version."`
}

const description = `A durable job queue for LLM inference on NATS JetStream.

Exit codes: 0 ok; 1 a job or a check failed; 2 wrong usage or configuration; 3 not found; 4 lines of a batch failed; 5 NATS cannot be reached; 6 no dispatcher or no worker; 124 timed out waiting; 130 interrupted.`

// run runs the command line and returns the program's exit code. ctx ends when
// the user wants the program to end.
func run(ctx context.Context, args []string, getenv func(string) string, std streams) int {
	err := parseAndRun(ctx, args, getenv, std)
	code := exitCode(err)
	switch {
	case errors.Is(err, errHelp), err == nil:
		return exitOK
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return exitInterrupted
	}
	fmt.Fprintf(std.err, "vramjet: %v\n", err)
	return code
}

func parseAndRun(ctx context.Context, args []string, getenv func(string) string, std streams) error {
	var c cli
	parser, err := kong.New(&c,
		kong.Name("vramjet"),
		kong.Description(description),
		kong.Writers(std.out, std.err),
		kong.NoDefaultHelp(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.ExplicitGroups([]kong.Group{{Key: globalGroup, Title: "Global flags:"}}),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		return fmt.Errorf("the command line's definition: %w", err)
	}
	parsed, err := parser.Parse(spelled(args))
	if errors.Is(err, errHelp) {
		return err
	}
	if err != nil {
		unit := ""
		if strings.Contains(err.Error(), "missing unit in duration") {
			unit = ", as in 5s, 10m or 2h"
		}
		return usage(fmt.Errorf("%w%s (see %s --help)", err, unit, commandOf(err)))
	}
	a := &app{globals: &c.globals, getenv: getenv, streams: std}
	stop, err := a.startTracing(ctx)
	if err != nil {
		return err
	}
	defer stop()
	return parsed.Run(a)
}

// spelled is a command line as the parser knows it: with what other programs call help
// and version.
func spelled(args []string) []string {
	switch {
	case len(args) == 0:
		return []string{"--help"}
	case args[0] == "help":
		return append(slices.Clone(args[1:]), "--help")
	case len(args) == 1 && args[0] == "--version":
		return []string{"version"}
	default:
		return args
	}
}

// commandOf is the command whose arguments could not be parsed.
func commandOf(err error) string {
	var parse *kong.ParseError
	if !errors.As(err, &parse) || parse.Context == nil {
		return "vramjet"
	}
	var words []string
	for n := parse.Context.Selected(); n != nil; n = n.Parent {
		if n.Type != kong.ArgumentNode {
			words = append(words, n.Name)
		}
	}
	if len(words) == 0 {
		return "vramjet"
	}
	slices.Reverse(words)
	return strings.Join(words, " ")
}

// errHelp ends the parsing once the help was shown.
var errHelp = errors.New("help was asked for")

// helpFlag shows the help of the command that it stands behind.
type helpFlag bool

// BeforeReset is called by kong before anything is checked. Of a command that is
// only a group's default, and was not named, the group's help is shown: what else
// is in it would be found nowhere.
func (helpFlag) BeforeReset(parsed *kong.Context) error {
	parsed.Path = slices.DeleteFunc(parsed.Path, func(p *kong.Path) bool {
		return p.Command != nil && p.Command.Parent.DefaultCmd == p.Command && !slices.Contains(parsed.Args, p.Command.Name)
	})
	if err := parsed.PrintUsage(false); err != nil {
		return err
	}
	return errHelp
}
