package main

import (
	"bytes"
	"fmt"
	"math"
	"os"

	"github.com/vramjet/vramjet/dispatcher/simulate"
)

// isTerminal reports whether somebody looks at what is written there, or types what is
// read.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// A figure is a number of a report that is drawn.
type figure struct {
	label string // of the axis
	name  string // of the line, beside others on one axis
	of    func(*simulate.Report) float64
}

var (
	goodput  = figure{label: "goodput, % of the fleet's slot-seconds", of: func(r *simulate.Report) float64 { return 100 * r.Goodput }}
	loads    = figure{label: "loads", of: func(r *simulate.Report) float64 { return float64(r.Loads) }}
	waitings = []figure{
		{"wait p50, s", "p50", func(r *simulate.Report) float64 { return r.WaitP50 }},
		{"wait p99, s", "p99", func(r *simulate.Report) float64 { return r.WaitP99 }},
		{"wait p99 of the rarest model, s", "rarest model p99", func(r *simulate.Report) float64 { return r.RarestP99 }},
	}
)

// lagPlot draws runs over their affinity lag. What has no number for one is the same
// at all of them.
func lagPlot(s *simulation, done []finishedRun) simulate.Plot {
	p := simulate.Plot{
		Title: fmt.Sprintf("%d jobs, by the affinity lag", len(s.jobs)),
		X:     simulate.Axis{Label: "affinity lag, slot-seconds", Log: true},
	}
	alone := true
	for _, r := range done {
		alone = alone && r.Lag.amount() >= 0
	}
	figures := []figure{goodput, loads}
	if !alone { // a panel for each figure, with a line for each policy
		figures = append(figures, waitings...)
	}
	for _, f := range figures {
		p.Panels = append(p.Panels, simulate.Panel{Y: simulate.Axis{Label: f.label}, Lines: lagLines(f, done)})
	}
	if alone {
		panel := simulate.Panel{Y: simulate.Axis{Label: "wait, s"}}
		for _, f := range waitings {
			for _, line := range lagLines(f, done) {
				line.Name = f.name
				panel.Lines = append(panel.Lines, line)
			}
		}
		p.Panels = append(p.Panels, panel)
	}
	return p
}

// lagLines draws a figure: a line of the runs with a lag, and a level one for each of
// the others.
func lagLines(f figure, done []finishedRun) []simulate.Line {
	over := simulate.Line{Name: simulate.Vramjet}
	first, last := math.Inf(1), math.Inf(-1)
	for _, r := range done {
		if lag := r.Lag.amount(); lag >= 0 {
			over.Points = append(over.Points, simulate.Point{X: lag, Y: f.of(r.Report)})
			first, last = min(first, lag), max(last, lag)
		}
	}
	lines := []simulate.Line{over}
	for _, r := range done {
		if r.Lag.amount() < 0 {
			y := f.of(r.Report)
			lines = append(lines, simulate.Line{Name: variant{r.Policy, r.Lag}.name(2), Points: []simulate.Point{{X: first, Y: y}, {X: last, Y: y}}})
		}
	}
	if len(lines) == 1 {
		lines[0].Name = "" // there's nothing to tell it from
	}
	return lines
}

// writePlot writes a plot to a file.
func writePlot(path string, p simulate.Plot) error {
	var svg bytes.Buffer
	if err := p.WriteSVG(&svg); err != nil {
		return err
	}
	if err := os.WriteFile(path, svg.Bytes(), 0o644); err != nil { //nolint:gosec // an image, for everybody
		return fmt.Errorf("--plot: %w", err)
	}
	return nil
}
