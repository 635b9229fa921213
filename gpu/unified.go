package gpu

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// unify gives a device that has no memory of its own the machine's. alone are the
// indices of such devices in all: where there are several they share one memory,
// which none of them can be said to have.
func unify(all []Device, alone []int, root string) {
	if len(alone) == 1 {
		useHostMemory(&all[alone[0]].Device, root)
	}
}

// useHostMemory writes the machine's memory into a device: all of it, and what
// the kernel says can be had without swapping.
func useHostMemory(d *schemas.Device, root string) {
	total, free := parseMeminfo(readText(filepath.Join(root, "proc"), "meminfo"))
	d.Total, d.Free = total, free
	if total.Known && free.Known {
		d.Used = schemas.Known(total.Bytes.Minus(free.Bytes))
	}
}

// parseMeminfo reads /proc/meminfo; unknown is what it doesn't say, or says in
// another way than the kernel does.
func parseMeminfo(text string) (total, available schemas.Amount) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "MemTotal":
			total = parseKiB(value)
		case "MemAvailable":
			available = parseKiB(value)
		}
	}
	if total.Known && available.Known && available.Bytes > total.Bytes {
		available = schemas.Amount{}
	}
	return total, available
}

// parseKiB reads "123 kB", which the kernel says for KiB.
func parseKiB(value string) schemas.Amount {
	digits, ok := strings.CutSuffix(strings.TrimSpace(value), " kB")
	n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 53)
	if !ok || err != nil {
		return schemas.Amount{}
	}
	return schemas.Known(schemas.Bytes(n) * schemas.KiB)
}
