package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// unknown is shown for what nobody knows. It is never 0, and never "-", which is
// for what there is none of.
const unknown = "?"

// amount returns an amount of memory as it is shown.
func amount(a schemas.Amount) string {
	if !a.Known {
		return unknown
	}
	return a.Bytes.String()
}

// reading returns what a device measures of itself, with its unit.
func reading(n *int, unit string) string {
	if n == nil {
		return unknown
	}
	return strconv.Itoa(*n) + unit
}

// offBy says how far an estimate is from what was measured: +14.3%.
func offBy(estimate, measured schemas.Amount) string {
	if !estimate.Known || !measured.Known || measured.Bytes == 0 {
		return unknown
	}
	return fmt.Sprintf("%+.1f%%", 100*(float64(estimate.Bytes)/float64(measured.Bytes)-1))
}

// loadTime returns how long something took, in ms; 0 means that nobody knows.
func loadTime(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case ms <= 0:
		return unknown
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	default:
		return d.Round(time.Second).String()
	}
}

// known returns a number of which 0 means that nobody knows.
func known(n int) string {
	if n == 0 {
		return unknown
	}
	return strconv.Itoa(n)
}

// oneLine returns a text as a cell of a table can hold it.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
