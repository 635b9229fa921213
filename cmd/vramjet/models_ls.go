package main

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/vramjet/vramjet/schemas"
)

type modelsLsCmd struct {
	Model string `arg:"" optional:"" help:"The model, or a pattern (default: all)."`
	patience
}

// Help is shown below the command's summary.
func (*modelsLsCmd) Help() string {
	return `One line for each model. NEED is the device memory that a load takes, and who says so: config, learned (from earlier loads), estimate or server. Where places differ, all values are shown. "?" is what nobody knows; "-" is what there is none of.

Examples:

    vramjet models
    vramjet models ls 'llama3*'
    vramjet models ls llama3.1:8b --json
`
}

// A listedModel is a model and where it is.
type listedModel struct {
	Name   string        `json:"name"`
	Places []listedPlace `json:"places"`
}

// A listedPlace is what a backend says of a model.
type listedPlace struct {
	Node    string        `json:"node"`
	Backend string        `json:"backend"`
	Healthy bool          `json:"healthy"`
	Loads   bool          `json:"loads"` // can be told to load and unload
	Model   schemas.Model `json:"model"`
}

// Run lists the models.
func (m *modelsLsCmd) Run(ctx context.Context, a *app) error {
	if _, err := path.Match(m.Model, ""); err != nil {
		return usage(fmt.Errorf("%q is no pattern: %w", m.Model, err))
	}
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	nodes, err := everyNode(ctx, c, m.Wait)
	if err != nil {
		return err
	}
	all := placesOf(nodes)
	wanted := slices.DeleteFunc(slices.Clone(all), func(p modelAt) bool { return !m.wants(p.model.Name) })
	if m.Model != "" && len(wanted) == 0 {
		return notFound("no node has the model "+m.Model, m.Model, modelNames(all))
	}
	if a.asJSON() {
		return a.printJSON(listed(wanted))
	}
	return printModelTable(a.out, wanted)
}

func (m *modelsLsCmd) wants(name string) bool {
	ok, err := path.Match(m.Model, name)
	return m.Model == "" || m.Model == name || ok && err == nil
}

// byModel sorts places by their models' names, and says for each model where it is.
func byModel(places []modelAt) (models [][]modelAt) {
	places = slices.Clone(places)
	slices.SortStableFunc(places, func(a, b modelAt) int { return strings.Compare(a.model.Name, b.model.Name) })
	for i, p := range places {
		if i == 0 || p.model.Name != places[i-1].model.Name {
			models = append(models, nil)
		}
		models[len(models)-1] = append(models[len(models)-1], p)
	}
	return models
}

func listed(places []modelAt) []listedModel {
	list := []listedModel{}
	for _, at := range byModel(places) {
		m := listedModel{Name: at[0].model.Name}
		for _, p := range at {
			m.Places = append(m.Places, listedPlace{p.node.Node, p.backend.Name, p.backend.Healthy, p.backend.Loads, *p.model})
		}
		list = append(list, m)
	}
	return list
}

func printModelTable(out io.Writer, places []modelAt) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MODEL\tSTATE\tWHERE\tNEED\tESTIMATE\tLEARNED\tVRAM\tLOAD TIME\tSLOTS\tPINNED")
	for _, at := range byModel(places) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", at[0].model.Name, states(at), where(at),
			each(at, needs),
			each(at, func(m *schemas.Model) string { return ours(m, amount(m.Estimate)) }),
			each(at, func(m *schemas.Model) string { return ours(m, amount(m.Learned)) }),
			each(at, func(m *schemas.Model) string { return inMemory(m, amount(m.VRAM)) }),
			each(at, func(m *schemas.Model) string { return ours(m, loadTime(m.LoadMS)) }),
			modelSlots(at), pins(at))
	}
	return w.Flush()
}

// states says in which states a model is, and at how many places where there are
// several: resident on 2, installed on 1.
func states(at []modelAt) string {
	var words []string
	on := map[string]int{}
	for _, p := range at {
		word := string(p.model.State)
		if !p.backend.Healthy {
			word = "down"
		}
		if on[word]++; on[word] == 1 {
			words = append(words, word)
		}
	}
	if len(at) == 1 {
		return words[0]
	}
	for i, word := range words {
		words[i] = fmt.Sprintf("%s on %d", word, on[word])
	}
	return strings.Join(words, ", ")
}

// shownPlaces is how many places of a model are named.
const shownPlaces = 4

func where(at []modelAt) string {
	if more := len(at) - shownPlaces; more > 0 {
		return fmt.Sprintf("%s and %d more", names(at[:shownPlaces]), more)
	}
	return names(at)
}

// each returns what is told of a model at each place: the same only once, and what
// there is none of only where there is nothing else.
func each(at []modelAt, tell func(*schemas.Model) string) string {
	var told []string
	for _, p := range at {
		if text := tell(p.model); text != "-" && !slices.Contains(told, text) {
			told = append(told, text)
		}
	}
	return orDash(strings.Join(told, ", "))
}

// modelSlots sums a model's slots where it could be used now: busy/all.
func modelSlots(at []modelAt) string {
	backends := make([]schemas.Backend, len(at))
	for i, p := range at {
		backends[i].Models = []schemas.Model{*p.model}
	}
	return slots(backends)
}

func pins(at []modelAt) string {
	n := 0
	for _, p := range at {
		if p.model.Pinned {
			n++
		}
	}
	switch {
	case n == 0:
		return "-"
	case n < len(at):
		return fmt.Sprintf("on %d", n)
	default:
		return "yes"
	}
}
