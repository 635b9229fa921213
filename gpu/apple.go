package gpu

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// appleSource reads the device of an Apple chip, whose memory is the machine's.
type appleSource struct {
	vmStat string // a command
	chip   string
	ram    schemas.Bytes
	total  schemas.Bytes // that the system lets the device have
}

// openApple returns a source that runs the commands given, paths or names in PATH.
func openApple(ctx context.Context, sysctl, vmStat string) (source, error) {
	chip, err := output(ctx, sysctl, "-n", "machdep.cpu.brand_string")
	if err != nil {
		return nil, err
	}
	name := strings.TrimSpace(string(chip))
	if !strings.HasPrefix(name, "Apple ") {
		return nil, fmt.Errorf("%.100q is no chip of Apple's", name)
	}
	out, err := output(ctx, sysctl, "-n", "hw.memsize")
	if err != nil {
		return nil, err
	}
	ram, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 60)
	if err != nil || ram == 0 {
		return nil, errors.New("the machine does not tell how much memory it has")
	}
	limit, err := output(ctx, sysctl, "-n", "iogpu.wired_limit_mb")
	if err != nil {
		limit = nil // an older system, which has no such setting
	}
	s := appleSource{vmStat: vmStat, chip: name, ram: schemas.Bytes(ram)}
	s.total = appleBudget(s.ram, strings.TrimSpace(string(limit)))
	return s, nil
}

func (appleSource) name() string { return "metal" }

func (appleSource) close() error { return nil }

func (s appleSource) read(ctx context.Context) ([]Device, error) {
	d := schemas.Device{ID: "metal0", Name: s.chip, Kind: "metal", Total: schemas.Known(s.total)}
	if out, err := output(ctx, s.vmStat); err == nil {
		if available := parseVMStat(string(out)); available.Known {
			d.Free = schemas.Known(min(available.Bytes, s.total))
			d.Used = schemas.Known(s.total.Minus(d.Free.Bytes))
		}
	}
	return []Device{{Device: d}}, nil
}

// appleBudget returns how much of the machine's memory its device may have: the
// limit in MiB that was set, or else what Metal recommends, two thirds of a small
// memory and three quarters of a large one.
func appleBudget(ram schemas.Bytes, limit string) schemas.Bytes {
	if n, err := strconv.ParseUint(limit, 10, 40); err == nil && n > 0 {
		return min(schemas.Bytes(n)*schemas.MiB, ram)
	}
	if ram < 36*schemas.GiB {
		return ram / 3 * 2
	}
	return ram / 4 * 3
}

// parseVMStat reads how much memory can be had without swapping: what is free, and
// what was not used lately.
func parseVMStat(text string) schemas.Amount {
	_, head, _ := strings.Cut(text, "page size of ")
	digits, _, _ := strings.Cut(head, " ")
	page, err := strconv.ParseUint(digits, 10, 24)
	if err != nil || page == 0 {
		return schemas.Amount{}
	}
	var pages uint64
	missing := map[string]bool{"Pages free": true, "Pages inactive": true}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "Pages free", "Pages inactive", "Pages speculative":
			n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), "."), 10, 32)
			if err != nil {
				return schemas.Amount{}
			}
			pages += n
			delete(missing, key)
		}
	}
	if len(missing) > 0 {
		return schemas.Amount{}
	}
	return schemas.Known(schemas.Bytes(pages * page))
}
