package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

type modelsLoadCmd struct {
	target
	Timeout time.Duration `default:"15m" help:"How long to wait until it is loaded (${default})."`
	patience
}

// Help is shown below the command's summary.
func (*modelsLoadCmd) Help() string {
	return `Loads the model where there is room for it, as a job would, and waits until it is in memory. Where several backends have it, say which one. A load that nobody waits for any more, after ctrl-C or --timeout, goes on at the node.

Examples:

    vramjet models load llama3.1:8b
    vramjet models load llama3.1:8b --node gpu-1 --backend ollama --timeout 30m
`
}

// Run loads the model.
func (m *modelsLoadCmd) Run(ctx context.Context, a *app) error {
	return a.control(ctx, &m.target, &loading, m.Wait, m.Timeout)
}

type modelsUnloadCmd struct {
	target
	Timeout time.Duration `default:"2m" help:"How long to wait until it is unloaded (${default})."`
	patience
}

// Help is shown below the command's summary.
func (*modelsUnloadCmd) Help() string {
	return `Unloads the model wherever it is in memory, or only where --node and --backend say. One that runs jobs takes no more, and goes when these have ended.

Examples:

    vramjet models unload llama3.1:8b
    vramjet models unload llama3.1:8b --node gpu-1
`
}

// Run unloads the model.
func (m *modelsUnloadCmd) Run(ctx context.Context, a *app) error {
	return a.control(ctx, &m.target, &unloading, m.Wait, m.Timeout)
}

type modelsPinCmd struct {
	target
	Timeout time.Duration `default:"1m" help:"How long to wait until it is pinned (${default})."`
	patience
}

// Help is shown below the command's summary.
func (*modelsPinCmd) Help() string {
	return `A pinned model is never unloaded to make room for others. It is pinned on all backends that have it, or only where --node and --backend say.

Examples:

    vramjet models pin llama3.1:8b
    vramjet models pin llama3.1:8b --node gpu-1
`
}

// Run pins the model.
func (m *modelsPinCmd) Run(ctx context.Context, a *app) error {
	return a.control(ctx, &m.target, &pinning, m.Wait, m.Timeout)
}

type modelsUnpinCmd struct {
	target
	Timeout time.Duration `default:"1m" help:"How long to wait until it is no longer pinned (${default})."`
	patience
}

// Help is shown below the command's summary.
func (*modelsUnpinCmd) Help() string {
	return `The model may be unloaded again to make room for others: wherever it is pinned, or only where --node and --backend say.

Examples:

    vramjet models unpin llama3.1:8b
`
}

// Run unpins the model.
func (m *modelsUnpinCmd) Run(ctx context.Context, a *app) error {
	return a.control(ctx, &m.target, &unpinning, m.Wait, m.Timeout)
}

// A deed is what can be done with a model at a place.
type deed struct {
	do   string // as nodes are told
	one  bool   // only at one place at a time
	done string // what is said when it was done
	idle string // what is said where there is nothing to do

	isDone func(m *schemas.Model) bool // whether there is nothing to do, or no more
	cannot func(p modelAt) string      // why it cannot be done there; "": it may be
}

var (
	loading = deed{
		do: "load", one: true, done: "loaded", idle: "is in memory already",
		isDone: func(m *schemas.Model) bool { return m.State == schemas.Resident },
		cannot: func(p modelAt) string {
			switch {
			case p.node.Draining:
				return "the node takes no more jobs (vramjet nodes undrain " + p.node.Node + ")"
			case !p.backend.Healthy:
				return "the backend is down: " + oneLine(p.backend.Error)
			default:
				return unmovable(p)
			}
		},
	}
	unloading = deed{
		do: "unload", done: "unloaded", idle: "is not in memory",
		isDone: func(m *schemas.Model) bool { return m.State == schemas.Installed },
		cannot: unmovable,
	}
	pinning = deed{
		do: "pin", done: "pinned", idle: "is pinned already",
		isDone: func(m *schemas.Model) bool { return m.Pinned },
		cannot: unmovable,
	}
	unpinning = deed{
		do: "unpin", done: "no longer pinned", idle: "is not pinned",
		isDone: func(m *schemas.Model) bool { return !m.Pinned },
		cannot: func(modelAt) string { return "" },
	}
)

// unmovable says why a model is neither loaded nor unloaded at a place.
func unmovable(p modelAt) string {
	switch {
	case p.model.State == schemas.Remote:
		return "a hosted API has it: it takes no memory of ours"
	case !p.backend.Loads:
		return "the server (" + p.backend.Kind + ") cannot be told what to load"
	default:
		return ""
	}
}

// A deedDone is what became of a deed at one place.
type deedDone struct {
	Node    string         `json:"node"`
	Backend string         `json:"backend"`
	Result  string         `json:"result"`          // for people
	Model   *schemas.Model `json:"model"`           // as it is then; null where that is not known
	Error   *schemas.Error `json:"error,omitempty"` // why not
}

// control does something with a model wherever a target means it, and prints a line
// for each place.
func (a *app) control(ctx context.Context, t *target, d *deed, wait, timeout time.Duration) error {
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	nodes, err := everyNode(ctx, c, wait)
	if err != nil {
		return err
	}
	places, err := t.find(nodes)
	if err != nil {
		return err
	}
	todo, rest, err := d.choose(t.Model, places)
	if err != nil {
		return err
	}
	all := make([]deedDone, 0, len(todo)+len(rest))
	for _, p := range rest {
		all = append(all, a.report(p, deedDone{Result: d.idle, Model: p.model}))
	}
	var problems []error
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, p := range todo {
		result, err := a.doAt(limited, c, p, d)
		all = append(all, a.report(p, result))
		if err != nil && limited.Err() != nil {
			problems = append(problems, a.givenUp(ctx, p, d, timeout))
			break
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", p, err))
		}
	}
	if a.asJSON() {
		problems = append(problems, a.printJSON(all))
	}
	return errors.Join(problems...)
}

// choose returns at which places to do it, and at which there is nothing to do.
// That there are neither is an error, and so is a choice that only the user can make.
func (d *deed) choose(model string, places []modelAt) (todo, rest []modelAt, err error) {
	var reasons []string
	for _, p := range places {
		why := d.cannot(p)
		switch {
		case why != "":
			reasons = append(reasons, p.String()+": "+why)
		case d.isDone(p.model):
			rest = append(rest, p)
		default:
			todo = append(todo, p)
		}
	}
	possible := slices.Concat(todo, rest)
	switch {
	case len(possible) == 0:
		return nil, nil, fmt.Errorf("cannot %s %s:\n  %s", d.do, model, strings.Join(reasons, "\n  "))
	case d.one && len(possible) > 1:
		var b strings.Builder
		fmt.Fprintf(&b, "several backends have %s: say which one", model)
		for _, p := range possible {
			fmt.Fprintf(&b, "\n  vramjet models %s %s --node %s --backend %s   (%s)", d.do, model, p.node.Node, p.backend.Name, p.model.State)
		}
		return nil, nil, usage(errors.New(b.String()))
	}
	return todo, rest, nil
}

// doAt does it at one place and waits until it is done.
func (a *app) doAt(ctx context.Context, c *client.Client, p modelAt, d *deed) (deedDone, error) {
	w := watch{client: c, place: p, do: d.do, note: a.note}
	state, err := w.wait(ctx)
	if err != nil {
		return deedDone{Result: "failed: " + err.Error(), Error: schemas.AsError(err)}, err
	}
	m := modelIn(&state, p.backend.Name, p.model.Name)
	switch {
	case m == nil:
		return deedDone{Result: "done; the node does not list the model now"}, nil
	case !d.isDone(m):
		return deedDone{Result: "asked; it is " + string(m.State), Model: m}, nil
	case d.do == loading.do:
		return deedDone{Result: fmt.Sprintf("%s, %s, took %s", d.done, amount(m.VRAM), loadTime(m.LoadMS)), Model: m}, nil
	default:
		return deedDone{Result: d.done, Model: m}, nil
	}
}

// report prints what became of it at a place, where a table was asked for.
func (a *app) report(p modelAt, r deedDone) deedDone {
	r.Node, r.Backend = p.node.Node, p.backend.Name
	if !a.asJSON() && r.Error == nil { // an error is told at the end
		fmt.Fprintf(a.out, "%s  %s  %s\n", p, p.model.Name, r.Result)
	}
	return r
}

// givenUp is the error where nobody waited any longer.
func (a *app) givenUp(ctx context.Context, p modelAt, d *deed, timeout time.Duration) error {
	on := fmt.Sprintf("%s goes on: see vramjet models ls %s", p, p.model.Name)
	if ctx.Err() != nil {
		a.note("%s", on)
		return ctx.Err()
	}
	return &codedError{exitTimeout, fmt.Errorf("%s: no answer to %s within %s; %s", p, d.do, timeout, on)}
}

// modelIn returns a model of a backend; nil where the node does not list it.
func modelIn(n *schemas.NodeState, backend, model string) *schemas.Model {
	for _, p := range placesOf([]schemas.NodeState{*n}) {
		if p.backend.Name == backend && p.model.Name == model {
			return p.model
		}
	}
	return nil
}
