package bench

import (
	"bufio"
	"os"
	"runtime"
	"strings"
	"time"
)

// A Report is what a run measured, and on what.
type Report struct {
	Version     string     `json:"version"` // of vramjet
	At          time.Time  `json:"at"`
	Machine     Machine    `json:"machine"`
	Server      string     `json:"server"` // embedded, or a URL
	Durability  Durability `json:"durability"`
	Seconds     float64    `json:"point_s"` // how long each point was measured
	Results     []Result   `json:"results"`
	Interrupted bool       `json:"interrupted"`
}

// A Machine is where it was measured.
type Machine struct {
	CPU   string `json:"cpu"` // "" where nobody says
	Cores int    `json:"cores"`
	OS    string `json:"os"`
	Go    string `json:"go"`
	NATS  string `json:"nats"` // the server's version
}

// A Durability is what an accepted job survives.
type Durability struct {
	Sync     string `json:"sync"`    // always, interval, or unknown: only a server itself knows
	Storage  string `json:"storage"` // file or memory
	Replicas int    `json:"replicas"`
}

// A Result is what a mode measured.
type Result struct {
	Mode    string   `json:"mode"`
	Figures []Figure `json:"figures"`
	Skipped string   `json:"skipped,omitempty"` // why it did not run
	Failed  string   `json:"failed,omitempty"`  // why it came to no more
}

// A Figure is one number of vramjet, and what NATS alone came to.
type Figure struct {
	Name     string  `json:"name"`
	InFlight int     `json:"in_flight,omitempty"` // how many at a time; 0: that says nothing of it
	Value    float64 `json:"value"`
	Unit     Unit    `json:"unit"`
	Beside   *Beside `json:"beside,omitempty"`
}

// A Beside is what a figure is compared with: a limit, where it is one of NATS.
type Beside struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"` // in the unit of the figure

	// Ratio is the figure divided by Value; 0 where that is 0.
	Ratio float64 `json:"ratio"`
}

// A Unit is what a number counts.
type Unit string

// The units.
const (
	PerSecond      Unit = "/s"
	BytesPerSecond Unit = "B/s"
	Milliseconds   Unit = "ms"
	Microseconds   Unit = "us"
	Percent        Unit = "%"
	Bytes          Unit = "B"
	Plain          Unit = ""
)

// add adds a figure without anything beside it.
func (r *Result) add(name string, inFlight int, value float64, unit Unit) *Figure {
	r.Figures = append(r.Figures, Figure{Name: name, InFlight: inFlight, Value: value, Unit: unit})
	return &r.Figures[len(r.Figures)-1]
}

// beside says what the figure is compared with.
func (f *Figure) beside(name string, value float64) {
	f.Beside = &Beside{Name: name, Value: value}
	if value != 0 {
		f.Beside.Ratio = f.Value / value
	}
}

// thisMachine describes the machine. Which NATS server there is only a connection says.
func thisMachine() Machine {
	system := runtime.GOOS
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		system += " " + strings.TrimSpace(string(release))
	}
	return Machine{CPU: processor(), Cores: runtime.NumCPU(), OS: system + " " + runtime.GOARCH, Go: runtime.Version()}
}

// processor is what the processor is called; "" where the system does not say.
func processor() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func millis(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
