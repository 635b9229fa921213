package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/vramjet/vramjet/cmd/vramjet/bench"
	"github.com/vramjet/vramjet/schemas"
)

// printBench prints what was measured, and on what.
func printBench(out io.Writer, r *bench.Report) error {
	for _, line := range benchHead(r) {
		fmt.Fprintf(out, "%-10s  %s\n", line[0], line[1])
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nMODE\tFIGURE\tIN FLIGHT\tVALUE\tBESIDE\tRATIO\tWHICH IS")
	for _, m := range r.Results {
		for i := range m.Figures {
			cells := benchCells(&m.Figures[i])
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Mode, cells[0], cells[1], cells[2], cells[3], cells[4], cells[5])
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, m := range r.Results {
		if why := cmp.Or(m.Skipped, m.Failed); why != "" {
			fmt.Fprintf(out, "\n%s was not measured: %s\n", m.Mode, why)
		}
	}
	if r.Interrupted {
		fmt.Fprintln(out, "\ninterrupted: this is what was measured until then")
	}
	return nil
}

// benchHead says on what it was measured, and how.
func benchHead(r *bench.Report) [][2]string {
	d := r.Durability
	sync := map[string]string{
		"always": "each message is on the disk before it is acknowledged", "interval": "messages are on the disk within 2 minutes",
		"unknown": "what the server's sync_interval says",
	}[d.Sync]
	return [][2]string{
		{"measured", fmt.Sprintf("%s, %gs for each point", r.At.Format("2006-01-02 15:04 MST"), r.Seconds)},
		{"machine", fmt.Sprintf("%s, %s, %s", cmp.Or(r.Machine.CPU, "an unknown processor"), count(r.Machine.Cores, "core"), r.Machine.OS)},
		{"versions", fmt.Sprintf("vramjet %s, %s, nats-server %s (%s)", r.Version, r.Machine.Go, cmp.Or(r.Machine.NATS, unknown), r.Server)},
		{"durability", fmt.Sprintf("sync %s: %s; %s store, %s", cmp.Or(d.Sync, unknown), cmp.Or(sync, "nothing was measured"), cmp.Or(d.Storage, unknown), replicas(d.Replicas))},
	}
}

func replicas(n int) string {
	if n == 1 {
		return "1 replica"
	}
	return known(n) + " replicas"
}

// benchCells are the cells of a figure: its name, how many in flight, its value, what it
// is beside, their ratio, and what that is.
func benchCells(f *bench.Figure) [6]string {
	cells := [6]string{f.Name, "", benchValue(f.Value, f.Unit)}
	if f.InFlight > 0 {
		cells[1] = strconv.Itoa(f.InFlight)
	}
	if f.Beside == nil {
		return cells
	}
	cells[3], cells[5] = benchValue(f.Beside.Value, f.Unit), f.Beside.Name
	if f.Beside.Ratio != 0 {
		cells[4] = strconv.FormatFloat(f.Beside.Ratio, 'f', 2, 64)
	}
	return cells
}

// benchValue writes a number with its unit: three digits, or all where there are more.
func benchValue(v float64, unit bench.Unit) string {
	switch unit {
	case bench.Bytes:
		return schemas.Bytes(v).String()
	case bench.BytesPerSecond:
		return schemas.Bytes(v).String() + "/s"
	case bench.Plain:
		return strconv.FormatFloat(v, 'f', 4, 64)
	case bench.PerSecond, bench.Milliseconds, bench.Microseconds, bench.Percent:
	}
	digits := 0
	switch {
	case v < 10:
		digits = 2
	case v < 100:
		digits = 1
	}
	text := strconv.FormatFloat(v, 'f', digits, 64)
	if unit == bench.PerSecond {
		return text + "/s"
	}
	return text + " " + string(unit)
}
