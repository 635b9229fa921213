package gpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// amdSource reads devices from the files of AMD's kernel driver.
type amdSource struct {
	root string // "/sys", or a tree like it
}

// openAMD returns a source that reads below root.
func openAMD(ctx context.Context, root string) (source, error) {
	s := amdSource{root}
	devices, err := s.read(ctx)
	if err == nil && len(devices) == 0 {
		err = errNoDevices
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (amdSource) name() string { return "amdgpu sysfs" }

func (amdSource) close() error { return nil }

var card = regexp.MustCompile(`^card[0-9]+$`) // and not card0-DP-1, which is a plug of it

func (s amdSource) read(context.Context) ([]Device, error) {
	cards := filepath.Join(s.root, "class", "drm")
	entries, err := os.ReadDir(cards)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list graphics cards: %w", err)
	}
	var all []Device
	for _, e := range entries {
		dir := filepath.Join(cards, e.Name(), "device")
		if !card.MatchString(e.Name()) || readLine(dir, "vendor") != "0x1002" {
			continue
		}
		if d, ok := readAMD(dir); ok {
			all = append(all, Device{Device: d})
		}
	}
	return all, nil
}

// smallCarveOut is what the memory of a graphics chip inside a processor stays
// below: it works in the machine's own memory then, the GTT.
const smallCarveOut = 4 * schemas.GiB

// readAMD reads one device, and not one that another driver has, for a virtual
// machine say.
func readAMD(dir string) (schemas.Device, bool) {
	total, used := amount(dir, "mem_info_vram_total"), amount(dir, "mem_info_vram_used")
	id := deviceID(dir)
	if !total.Known || id == "" {
		return schemas.Device{}, false
	}
	if gtt := amount(dir, "mem_info_gtt_total"); gtt.Known && total.Bytes < smallCarveOut && gtt.Bytes > total.Bytes {
		total, used = gtt, amount(dir, "mem_info_gtt_used")
	}
	d := schemas.Device{ID: id, Name: readLine(dir, "product_name"), Kind: "rocm", Total: total, Used: used}
	if d.Name == "" {
		d.Name = strings.TrimSpace("AMD GPU " + readLine(dir, "device"))
	}
	if used.Known {
		d.Free = schemas.Known(total.Bytes.Minus(used.Bytes))
	}
	return d, true
}

// deviceID returns what names a device for good: its own number, which ROCm
// shows as GPU-… too, or else its place on the bus.
func deviceID(dir string) string {
	if id := strings.TrimPrefix(readLine(dir, "unique_id"), "0x"); strings.Trim(id, "0") != "" {
		return "GPU-" + id
	}
	for field := range strings.Lines(readText(dir, "uevent")) {
		if slot, ok := strings.CutPrefix(strings.TrimSpace(field), "PCI_SLOT_NAME="); ok {
			return slot
		}
	}
	return ""
}

func amount(dir, file string) schemas.Amount {
	n, err := strconv.ParseUint(readLine(dir, file), 10, 64)
	if err != nil {
		return schemas.Amount{}
	}
	return schemas.Known(schemas.Bytes(n))
}

func readLine(dir, file string) string { return strings.TrimSpace(readText(dir, file)) }

// readText returns the text of a file, and "" where it can't be read: what a device
// doesn't tell is unknown.
func readText(dir, file string) string {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return ""
	}
	return string(text)
}
