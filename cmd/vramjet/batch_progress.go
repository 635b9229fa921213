package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vramjet/vramjet/client/batch"
)

// A batchProgress shows how far a batch is: a bar on a terminal, and else a line now
// and then.
type batchProgress struct {
	a     *app
	what  string // "done"
	bar   bool
	began time.Time

	shown   time.Time
	trouble string
	marks   []mark // of the last half minute, by which the rate goes
	wrote   bool
}

// A mark is how many lines were done at a time.
type mark struct {
	at   time.Time
	done int
}

const (
	plainEvery = 10 * time.Second
	rateOver   = 30 * time.Second
)

func (a *app) newBatchProgress(what string) *batchProgress {
	return &batchProgress{a: a, what: what, bar: isTerminal(a.err), began: time.Now()}
}

// show is what a batch calls.
func (b *batchProgress) show(p batch.Progress) { b.at(&p, time.Now()) }

func (b *batchProgress) at(p *batch.Progress, now time.Time) {
	done := p.Done()
	if b.what != "done" {
		done = p.InFlight
	}
	b.marks = append(b.marks, mark{now, done})
	for len(b.marks) > 2 && now.Sub(b.marks[0].at) > rateOver {
		b.marks = b.marks[1:]
	}
	if !b.bar && now.Sub(b.shown) < plainEvery && p.Trouble == b.trouble {
		return
	}
	b.shown, b.trouble = now, p.Trouble
	line := b.line(p, done)
	if b.bar {
		fmt.Fprintf(b.a.err, "\r\x1b[K%s %s", meter(done, p.Jobs), line)
		b.wrote = true
		b.a.within.Store(true)
		return
	}
	b.a.note("%s", line)
}

// line is "1200/10000 done  12 %  40/s  3m40s left  12 failed: rate_limited 12".
func (b *batchProgress) line(p *batch.Progress, done int) string {
	text := fmt.Sprintf("%d/%d %s  %d %%", done, p.Jobs, b.what, 100*done/max(1, p.Jobs))
	first, last := b.marks[0], b.marks[len(b.marks)-1]
	if seconds := last.at.Sub(first.at).Seconds(); seconds > 0 && last.done > first.done {
		rate := float64(last.done-first.done) / seconds
		left := time.Duration(float64(p.Jobs-done) / rate * float64(time.Second))
		text += fmt.Sprintf("  %.*f/s  %s left", map[bool]int{true: 1}[rate < 10], rate, left.Round(time.Second))
	}
	text += failures(p, "")
	if p.Trouble != "" {
		text += "  (waits: " + p.Trouble + ")"
	}
	return text
}

// failures is "" or "  12 failed: rate_limited 10, deadline 2".
func failures(p *batch.Progress, where string) string {
	if p.Failed == 0 {
		return ""
	}
	var parts []string
	for _, c := range frequent(p.Codes) {
		parts = append(parts, fmt.Sprintf("%s %d", c, p.Codes[c]))
	}
	return fmt.Sprintf("  %d failed%s: %s", p.Failed, where, strings.Join(parts, ", "))
}

// noteExamples shows a line for each of the codes that most lines failed with, and how to
// run them again.
func (a *app) noteExamples(p *batch.Progress, out string) {
	const most = 5
	codes := frequent(p.Codes)
	for _, c := range codes[:min(most, len(codes))] {
		e := p.Examples[c]
		a.note("  line %d, custom_id %q: %s: %s", e.Line, e.CustomID, c, oneLine(e.Message))
	}
	if p.Failed > 0 && p.Done() == p.Jobs {
		a.note("run them again, corrected where they were at fault: vramjet batch retry-errors %s", out)
	}
}

// frequent sorts what was counted, the most frequent first.
func frequent[K ~string](counts map[K]int) []K {
	return slices.SortedFunc(maps.Keys(counts), func(a, b K) int {
		return cmp.Or(counts[b]-counts[a], strings.Compare(string(a), string(b)))
	})
}

// meter is a bar of 20 characters.
func meter(done, all int) string {
	const width = 20
	n := width * done / max(1, all)
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", width-n) + "]"
}

// end leaves the bar behind.
func (b *batchProgress) end() {
	if b.wrote && b.a.within.Swap(false) {
		fmt.Fprintln(b.a.err)
	}
}

// inModels is "llama3.2 (12), qwen3:8b (3)", the models with the most requests first.
func inModels(models map[string]int) string {
	names := frequent(models)
	const most = 5
	var parts []string
	for i, name := range names {
		if i == most {
			parts = append(parts, fmt.Sprintf("%d more models", len(names)-most))
			break
		}
		parts = append(parts, fmt.Sprintf("%s (%d)", name, models[name]))
	}
	return strings.Join(parts, ", ")
}
