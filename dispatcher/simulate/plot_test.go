package simulate

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

// lag is a plot as that of the affinity lag is: figures of the table in facts.
func lag() Plot {
	x := []float64{0, 200, 800, 3200, math.Inf(1)}
	line := func(name string, y ...float64) Line {
		l := Line{Name: name}
		for i := range x {
			l.Points = append(l.Points, Point{x[i], y[i]})
		}
		return l
	}
	return Plot{
		Title: "Goodput, loads and waits <over> the affinity lag",
		X:     Axis{Label: "affinity_lag (slot-seconds)", Log: true},
		Panels: []Panel{
			{Axis{Label: "goodput & fairness"}, []Line{
				line("goodput", 0.58, 0.65, 0.70, 0.79, 0.96),
				line("Jain", 0.999, 0.9995, 0.998, 0.992, 0.999),
			}},
			{Axis{Label: "loads an hour"}, []Line{line("", 145, 129, 114, 76, 12)}},
			{Axis{Label: "wait of the light tenants (s)", Log: true}, []Line{
				line("p50", 22, 30, 34, 57, math.NaN()),
				line("p99, by a name that is longer than the legend has room for", 109, 116, 139, 390, math.NaN()),
			}},
		},
	}
}

func svg(t *testing.T, p Plot) string {
	t.Helper()
	var b strings.Builder
	if err := p.WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPlot(t *testing.T) {
	dots := Line{Name: "many"}
	for i := range 200 {
		dots.Points = append(dots.Points, Point{float64(i) * 90, 1000 * math.Sin(float64(i)/20)})
	}
	for name, p := range map[string]Plot{
		"lag.svg":    lag(),
		"linear.svg": {Title: "Below zero", X: Axis{Label: "s"}, Panels: []Panel{{Axis{Label: "y"}, []Line{dots}}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, path := svg(t, p), filepath.Join("testdata", name)
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s differs (-want +got):\n%s", path, diff)
			}
		})
	}
}

func TestTicks(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		values []float64
		log    bool
		want   string
	}{
		{nil, false, "0 0.2 0.4 0.6 0.8 1.0"},
		{nil, true, "1 2 5 10"},
		{[]float64{0, 0.96}, false, "0 0.2 0.4 0.6 0.8 1.0"},
		{[]float64{0, 145}, false, "0 50 100 150"},
		{[]float64{-3, 8}, false, "-5 0 5 10"},
		{[]float64{0, 3200, inf}, false, "0 1000 2000 3000 4000 ∞"},
		{[]float64{0, 1e5}, false, "0 20k 40k 60k 80k 100k"},
		{[]float64{7}, false, "2 4 6 8 10 12"},
		{[]float64{0, math.Copysign(0, -1)}, false, "0 0.2 0.4 0.6 0.8 1.0"},
		{[]float64{0, 200, 800, 3200, inf}, true, "0 200 500 1000 2000 5000 ∞"},
		{[]float64{1000}, true, "1000 2000"},
		{[]float64{0.003, 20000}, true, "0.001 0.01 0.1 1 10 100 1000 10k 100k"},
		{[]float64{1e-12, 1e12}, true, "1e-12 1e-09 1e-06 0.001 1 1000 1M 1G 1e+12"},
		{[]float64{-5, math.NaN(), inf}, true, "0 1 2 5 10 ∞"},
	} {
		s := Axis{Log: c.log}.scale(c.values, 0, 100)
		var names []string
		for _, tick := range s.ticks {
			names = append(names, tick.name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("ticks of %v (log: %t): %s, want %s", c.values, c.log, got, c.want)
		}
	}
}

// Whatever is plotted, the image is a well-formed document without scripts, and
// nothing in it is outside of it.
func TestPlotIsWellFormed(t *testing.T) {
	number := rapid.OneOf(
		rapid.Float64(), rapid.Float64Range(0, 1000),
		rapid.SampledFrom([]float64{0, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64, 1e17, 1e17 + 16}),
	)
	point := rapid.Custom(func(t *rapid.T) Point { return Point{number.Draw(t, "x"), number.Draw(t, "y")} })
	axis := rapid.Custom(func(t *rapid.T) Axis {
		return Axis{rapid.String().Draw(t, "label"), rapid.Bool().Draw(t, "log")}
	})
	line := rapid.Custom(func(t *rapid.T) Line {
		return Line{rapid.String().Draw(t, "name"), rapid.SliceOfN(point, 0, 6).Draw(t, "points")}
	})
	panel := rapid.Custom(func(t *rapid.T) Panel {
		return Panel{axis.Draw(t, "y"), rapid.SliceOfN(line, 0, 8).Draw(t, "lines")}
	})
	rapid.Check(t, func(t *rapid.T) {
		p := Plot{rapid.String().Draw(t, "title"), axis.Draw(t, "x"), rapid.SliceOfN(panel, 0, 3).Draw(t, "panels")}
		var b strings.Builder
		if err := p.WriteSVG(&b); err != nil {
			t.Fatal(err)
		}
		if err := wellFormed(b.String()); err != nil {
			t.Fatalf("%v in\n%s", err, b.String())
		}
	})
}

// wellFormed returns what is wrong with an SVG image.
func wellFormed(image string) error {
	decoder := xml.NewDecoder(strings.NewReader(image))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if start.Name.Local == "script" {
			return errors.New("there is a script")
		}
		for _, a := range start.Attr {
			var x float64
			switch a.Name.Local {
			case "x", "y", "cx", "cy", "x1", "x2", "y1", "y2":
				if _, err := fmt.Sscan(a.Value, &x); err != nil || !(x >= 0 && x <= plotWidth) {
					return fmt.Errorf("%s of %s is %q", a.Name.Local, start.Name.Local, a.Value)
				}
			case "d":
				if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
					return fmt.Errorf("a line leads nowhere: %s", a.Value)
				}
			}
		}
	}
}

func TestPlotSaysThatItCouldNotWrite(t *testing.T) {
	full := errors.New("the disk is full")
	if err := lag().WriteSVG(broken{full}); !errors.Is(err, full) {
		t.Errorf("%v, want %v", err, full)
	}
}

// broken is a file that can't be written.
type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }
