package simulate

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// A Plot is a line chart: panels, one below the other, over one x axis. What has
// another unit has a panel of its own, and so an axis of its own.
type Plot struct {
	Title  string
	X      Axis
	Panels []Panel
}

// A Panel is the part of a plot whose lines have one y axis.
type Panel struct {
	Y     Axis // from 0, unless it's logarithmic or something is below 0
	Lines []Line
}

// An Axis is how numbers are placed. On any, +Inf stands at the far end; on a
// logarithmic one, 0 and what is below stand at the near end, apart from the rest.
type Axis struct {
	Label string // what the numbers are, and their unit
	Log   bool   // logarithmic
}

// A Line is a series of points, which are joined in their order.
type Line struct {
	Name   string // in the legend; "": not there
	Points []Point
}

// A Point is one measurement. A point with a NaN interrupts its line.
type Point struct{ X, Y float64 }

// Sizes in a plot, in pixels.
const (
	plotWidth    = 840
	panelHeight  = 200
	panelGap     = 34 // between panels; the label of the lower one is in it
	plotLeft     = 70
	plotTop      = 64 // room for the title, and the label of the first panel
	plotBottom   = 52
	legendIndent = 14
	letterWidth  = 7  // of a letter of 12 px, about
	nameLetters  = 32 // a legend cuts what is longer
	plotColours  = 6  // lines beyond have the first colours again
)

// maxDots is how many points of a line are drawn as dots too.
const maxDots = 60

// plotStyle has the colours of Okabe and Ito but for yellow, which colour-blind people
// can tell apart. They are lighter where it's dark.
const plotStyle = `
.vj{font:12px system-ui,sans-serif;--bg:#fff;--ink:#1f2328;--dim:#59636e;--grid:#e4e7eb;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#e69f00;--c5:#56b4e9}
@media (prefers-color-scheme:dark){.vj{--bg:#0d1117;--ink:#e6edf3;--dim:#9198a1;--grid:#2b313a;--c0:#4aa8e0;--c1:#ff8a3d;--c2:#2fcf9f;--c3:#e9a3c9;--c4:#f5bd3d;--c5:#8fd0f5}}
.vj .bg{fill:var(--bg)}.vj text{fill:var(--ink)}.vj .tick{fill:var(--dim)}.vj .title{font-size:16px;font-weight:600}.vj .label{font-weight:600}
.vj .grid{stroke:var(--grid)}.vj .line{fill:none;stroke-width:2;stroke-linejoin:round}
.vj .end{text-anchor:end}.vj .mid{text-anchor:middle}
`

// WriteSVG writes the plot as an SVG image that needs no other file, runs no script, and
// is light or dark as its reader has it. The same plot is always the same bytes.
func (p Plot) WriteSVG(w io.Writer) error {
	d := &drawing{right: plotWidth - p.legendWidth()}
	height := plotTop + plotBottom + len(p.Panels)*(panelHeight+panelGap) - panelGap
	d.add(`<svg xmlns="http://www.w3.org/2000/svg" class="vj" role="img" viewBox="0 0 %d %d" width="%d" height="%d">`, plotWidth, height, plotWidth, height)
	d.add(`<title>%s</title><style>%s`, escape(p.Title), plotStyle)
	for i := range plotColours {
		d.add(`.vj .c%d{stroke:var(--c%d)}.vj .p%d{fill:var(--c%d)}`, i, i, i, i)
	}
	d.add(`</style><rect class="bg" width="100%%" height="100%%"/>`)
	d.text(plotLeft, 26, "title", p.Title)
	d.x = p.scale(d.right)
	for i, panel := range p.Panels {
		d.panel(panel, float64(plotTop+i*(panelHeight+panelGap)))
	}
	for _, t := range d.x.ticks {
		d.text(t.at, float64(height-plotBottom+18), "tick mid", t.name)
	}
	d.text((plotLeft+d.right)/2, float64(height-12), "label mid", p.X.Label)
	d.add(`</svg>`)
	_, err := w.Write(d.svg.Bytes())
	return err
}

// scale is the x axis of all panels.
func (p Plot) scale(right float64) scale {
	var values []float64
	for _, panel := range p.Panels {
		for _, l := range panel.Lines {
			for _, point := range l.Points {
				values = append(values, point.X)
			}
		}
	}
	return p.X.scale(values, plotLeft, right)
}

// legendWidth is the room beside the panels.
func (p Plot) legendWidth() float64 {
	letters := 0
	for _, panel := range p.Panels {
		for _, l := range panel.Lines {
			letters = max(letters, utf8.RuneCountInString(cut(l.Name)))
		}
	}
	if letters == 0 {
		return 2 * legendIndent
	}
	return float64(3*legendIndent + 10 + letters*letterWidth)
}

// cut shortens a name to what the legend has room for.
func cut(name string) string {
	if letters := []rune(name); len(letters) > nameLetters {
		return string(letters[:nameLetters-1]) + "…"
	}
	return name
}

// A drawing is an SVG image in the making.
type drawing struct {
	svg   bytes.Buffer
	right float64 // where the panels end
	x     scale
}

func (d *drawing) add(format string, args ...any) { fmt.Fprintf(&d.svg, format+"\n", args...) }

func (d *drawing) text(x, y float64, class, text string) {
	d.add(`<text x="%s" y="%s" class="%s">%s</text>`, pixels(x), pixels(y), class, escape(text))
}

// panel draws a panel whose upper edge is at top.
func (d *drawing) panel(p Panel, top float64) {
	bottom := top + panelHeight
	values := []float64{}
	for _, l := range p.Lines {
		for _, point := range l.Points {
			values = append(values, point.Y)
		}
	}
	if !p.Y.Log {
		values = append(values, 0)
	}
	y := p.Y.scale(values, bottom, top)
	d.text(plotLeft, top-8, "label", p.Y.Label)
	for _, t := range y.ticks {
		d.add(`<line class="grid" x1="%d" x2="%s" y1="%s" y2="%s"/>`, plotLeft, pixels(d.right), pixels(t.at), pixels(t.at))
		d.text(plotLeft-8, t.at+4, "tick end", t.name)
	}
	for _, t := range d.x.ticks {
		d.add(`<line class="grid" x1="%s" x2="%s" y1="%s" y2="%s"/>`, pixels(t.at), pixels(t.at), pixels(top), pixels(bottom))
	}
	for i, l := range p.Lines {
		d.line(l, y, i)
	}
	d.legend(p.Lines, top)
}

// line draws a line, and its points as dots where they aren't too many.
func (d *drawing) line(l Line, y scale, index int) {
	colour := index % plotColours
	var path, dots strings.Builder
	joined := false
	for _, p := range l.Points {
		px, py := d.x.place(p.X), y.place(p.Y)
		if math.IsNaN(px + py) {
			joined = false
			continue
		}
		verb := "M"
		if joined {
			verb = "L"
		}
		joined = true
		fmt.Fprintf(&path, "%s%s %s", verb, pixels(px), pixels(py))
		fmt.Fprintf(&dots, `<circle class="p%d" cx="%s" cy="%s" r="3"/>`+"\n", colour, pixels(px), pixels(py))
	}
	if path.Len() > 0 {
		d.add(`<path class="line c%d" d="%s"/>`, colour, path.String())
	}
	if len(l.Points) <= maxDots {
		d.svg.WriteString(dots.String())
	}
}

// legend names lines beside their panel.
func (d *drawing) legend(lines []Line, top float64) {
	row := 0
	for i, l := range lines {
		if l.Name == "" {
			continue
		}
		x, y := d.right+legendIndent, top+10+float64(row*18)
		d.add(`<rect class="p%d" x="%s" y="%s" width="10" height="10" rx="2"/>`, i%plotColours, pixels(x), pixels(y-9))
		d.text(x+legendIndent+2, y, "", cut(l.Name))
		row++
	}
}

// pixels writes a coordinate, to a tenth, which is the same on every machine.
func pixels(x float64) string {
	s := fmt.Sprintf("%.1f", x)
	return strings.TrimSuffix(s, ".0")
}

// escape makes text part of an XML document, without what XML can't hold.
func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder takes everything
	return b.String()
}
