package gpu

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// intelSource reads discrete devices from the files of Intel's kernel drivers, and
// by xpu-smi where there is that. The drivers tell how much memory there is, the
// newer ones; only xpu-smi tells how much is used.
type intelSource struct {
	root    string // "/", or a tree like it
	command string // xpu-smi's path; "": there is none
	clients *drmScan
	told    map[string]*xpuTold // by the cards' places on the bus
}

// xpuTold is what xpu-smi has said of a card.
type xpuTold struct {
	xpuCard
	xpuStats
	at time.Time // of the stats
}

// openIntel returns a source that reads below root, and runs command, a path or a
// name in PATH.
func openIntel(ctx context.Context, root, command string) (source, error) {
	path, err := exec.LookPath(command)
	if err != nil {
		path = ""
	}
	return opened(ctx, intelSource{root, path, &drmScan{root: root}, map[string]*xpuTold{}})
}

func (s intelSource) name() string {
	if s.command == "" {
		return "intel sysfs"
	}
	return "intel sysfs and xpu-smi"
}

func (intelSource) close() error { return nil }

// integratedSlot is where the graphics of Intel's processors are, which have no
// memory of their own.
const integratedSlot = "0000:00:02.0"

func (s intelSource) read(ctx context.Context) ([]Device, error) {
	found, err := cards(s.root, "0x8086")
	if err != nil {
		return nil, err
	}
	var all []Device
	now := time.Now()
	for _, dir := range found {
		slot, driver := uevent(dir, "PCI_SLOT_NAME"), uevent(dir, "DRIVER")
		if driver != "xe" && driver != "i915" || slot == "" || slot == integratedSlot {
			continue
		}
		d := schemas.Device{ID: slot, Kind: "intel", Total: intelTotal(dir)}
		d.Temperature, d.Power = readSensors(dir)
		s.ask(ctx, slot, now).complete(&d)
		if d.Name == "" {
			d.Name = strings.TrimSpace("Intel GPU " + readLine(dir, "device"))
		}
		all = append(all, Device{Device: d, Processes: s.clients.look(now).on(slot, cardMemory)})
	}
	return all, nil
}

// intelTotal returns the memory that a card's driver tells of, over all its tiles.
func intelTotal(dir string) schemas.Amount {
	for _, of := range []string{dir, filepath.Dir(dir)} { // i915, by its version
		if total := amount(of, "lmem_total_bytes"); total.Known {
			return total
		}
	}
	tiles, _ := filepath.Glob(filepath.Join(dir, "tile*")) // the pattern is good
	var total schemas.Amount
	for _, tile := range tiles {
		of := amount(tile, "physical_vram_size_bytes")
		if !of.Known {
			of = amount(tile, "memory/physical_vram_size_bytes")
		}
		if !of.Known {
			return schemas.Amount{}
		}
		total = sum(total, of)
	}
	return total
}

// xpuEvery is how often xpu-smi is run for a card, which takes it about a second
// of a processor.
const xpuEvery = 3 * time.Second

// ask returns what xpu-smi says of a card: nothing, where it doesn't.
func (s intelSource) ask(ctx context.Context, slot string, now time.Time) xpuTold {
	if s.command == "" {
		return xpuTold{}
	}
	t := s.told[slot]
	if t == nil {
		t = &xpuTold{}
		if out, err := output(ctx, s.command, "discovery", "-d", slot, "-j"); err == nil {
			t.xpuCard = parseXPUCard(out)
		}
		s.told[slot] = t
	}
	if now.Sub(t.at) >= xpuEvery {
		t.xpuStats, t.at = xpuStats{}, now
		if out, err := output(ctx, s.command, "stats", "-d", slot, "-j"); err == nil {
			t.xpuStats = parseXPUStats(out)
		}
	}
	return *t
}

// complete adds what is known to a device. What a driver tells itself is newer.
func (t xpuTold) complete(d *schemas.Device) {
	d.Name, d.Used, d.Utilization = t.name, t.used, t.utilization
	if !d.Total.Known {
		d.Total = t.total
	}
	if d.Total.Known && d.Used.Known {
		d.Free = schemas.Known(d.Total.Bytes.Minus(d.Used.Bytes))
	}
	if d.Temperature == nil {
		d.Temperature = t.temperature
	}
	if d.Power == nil {
		d.Power = t.power
	}
}
