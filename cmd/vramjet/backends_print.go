package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// shownModels is how many models are printed of a backend: hosted APIs have
// hundreds.
const shownModels = 20

// printChecked prints what was found out.
func printChecked(out io.Writer, found []checkedBackend) error {
	for i := range found {
		b := &found[i]
		if b.Result == resultSkipped { // nobody is there
			fmt.Fprintf(out, "%s  %s\n", b.URL, b.Findings[len(b.Findings)-1].Text)
			continue
		}
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := b.print(out); err != nil {
			return err
		}
		if i+1 < len(found) && found[i+1].Result == resultSkipped {
			fmt.Fprintln(out)
		}
	}
	return nil
}

func (b *checkedBackend) print(out io.Writer) error {
	fmt.Fprintln(out, strings.TrimSpace(b.Name+"  "+b.URL))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range b.Findings {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", f.Step, f.Result, f.Text)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := printModels(out, b.Models); err != nil {
		return err
	}
	for _, h := range b.Hints {
		fmt.Fprintf(out, "  hint: %s\n", h.Text)
	}
	return nil
}

func printModels(out io.Writer, models []checkedModel) error {
	if len(models) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  MODEL\tKINDS\tABILITIES\tSTATE\tVRAM\tNEED\tSLOTS\tCONTEXT")
	for _, m := range models[:min(shownModels, len(models))] {
		abilities := "unknown"
		if m.Abilities != nil {
			abilities = orDash(join(m.Abilities))
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			m.Name, orDash(join(m.Kinds)), abilities, m.State, m.VRAM, m.Need, orUnknown(m.Slots), orUnknown(m.Context))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if more := len(models) - shownModels; more > 0 {
		fmt.Fprintf(out, "  and %d more: --json lists all\n", more)
	}
	return nil
}

// join joins words of any type.
func join[T ~string](words []T) string {
	text := make([]string, len(words))
	for i, w := range words {
		text[i] = string(w)
	}
	return strings.Join(text, ", ")
}

// orUnknown prints a number of which 0 means that nobody tells it.
func orUnknown(n int) string {
	if n == 0 {
		return "unknown"
	}
	return strconv.Itoa(n)
}

// count prints how many there are of something: 1 model, 2 models.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// short prints a short time as people read it: 0.4ms, 180ms, 1.2s.
func short(d time.Duration) string {
	if d < 10*time.Millisecond {
		return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 1, 64) + "ms"
	}
	return ms(d.Milliseconds())
}

// took prints a measured time in ms.
func took(n int64) string {
	if n == 0 {
		return "less than 1ms"
	}
	return ms(n)
}

// shownModel is a model as it is shown. slots are the configured ones, if any.
func shownModel(m *providers.Model, slots int) checkedModel {
	return checkedModel{
		Name: m.Name, Kinds: m.Kinds, Abilities: m.Abilities, State: m.State, VRAM: m.VRAM, Need: m.Need,
		Slots: cmp.Or(slots, m.Slots), Context: m.Context,
	}
}

func shownPressure(model string, p providers.Pressure) *checkedPressure {
	shown := &checkedPressure{Model: model, Slots: p.Slots}
	if p.Running >= 0 {
		shown.Running = &p.Running
	}
	if p.Waiting >= 0 {
		shown.Waiting = &p.Waiting
	}
	if p.KVUsed >= 0 {
		shown.KVUsed = &p.KVUsed
	}
	return shown
}

// text says how busy a model is: what is not known is left out.
func (p *checkedPressure) text() string {
	var parts []string
	if p.Running != nil {
		parts = append(parts, fmt.Sprintf("%d running", *p.Running))
	}
	if p.Waiting != nil {
		parts = append(parts, fmt.Sprintf("%d waiting", *p.Waiting))
	}
	if p.Slots > 0 {
		parts = append(parts, count(p.Slots, "slot"))
	}
	if p.KVUsed != nil {
		parts = append(parts, fmt.Sprintf("key-value cache %.0f %% full", *p.KVUsed*100))
	}
	return p.Model + ": " + orDash(strings.Join(parts, ", "))
}

// text says how a trial went that went well.
func (t *trial) text() string {
	load := ""
	if t.LoadMS > 0 {
		load = "loaded in " + took(t.LoadMS) + ", "
	}
	if t.Kind == schemas.Embedding {
		return fmt.Sprintf("%s: %san embedding of %s in %s", t.Model, load, count(t.Dimensions, "number"), took(t.FirstTokenMS))
	}
	rate := ""
	if t.TokensPerSec > 0 {
		rate = fmt.Sprintf(" at %.1f tokens/s", t.TokensPerSec)
	}
	return fmt.Sprintf("%s: %sfirst token after %s, %s%s, with its final marker", t.Model, load, took(t.FirstTokenMS), count(t.Tokens, "token"), rate)
}
