package gpu

import (
	"context"
	"strings"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// amdSource reads devices from the files of AMD's kernel driver.
type amdSource struct {
	root    string // "/", or a tree like it
	clients *drmScan
	kfdIDs  map[string]string // that the compute driver has for cards, by their places on the bus
}

// openAMD returns a source that reads below root.
func openAMD(ctx context.Context, root string) (source, error) {
	return opened(ctx, amdSource{root, &drmScan{root: root}, map[string]string{}})
}

func (amdSource) name() string { return "amdgpu sysfs" }

func (amdSource) close() error { return nil }

func (s amdSource) read(context.Context) ([]Device, error) {
	found, err := cards(s.root, "0x1002")
	if err != nil {
		return nil, err
	}
	clients := s.clients.look(time.Now())
	var all []Device
	for _, dir := range found {
		d, of, ok := readAMD(dir)
		if !ok {
			continue
		}
		slot := uevent(dir, "PCI_SLOT_NAME")
		all = append(all, Device{d, joinProcesses(s.kfdProcesses(slot), clients.on(slot, of))})
	}
	return all, nil
}

// smallCarveOut is what the memory of a graphics chip inside a processor stays
// below: it works in the machine's own memory then, the GTT.
const smallCarveOut = 4 * schemas.GiB

// readAMD reads one device, and which of the memory that processes hold counts for
// it. It doesn't read one that another driver has, for a virtual machine say.
func readAMD(dir string) (schemas.Device, func(drmMemory) schemas.Amount, bool) {
	total, used, of := amount(dir, "mem_info_vram_total"), amount(dir, "mem_info_vram_used"), cardMemory
	id := amdID(dir)
	if !total.Known || id == "" {
		return schemas.Device{}, nil, false
	}
	if gtt := amount(dir, "mem_info_gtt_total"); gtt.Known && total.Bytes < smallCarveOut && gtt.Bytes > total.Bytes {
		total, used, of = gtt, amount(dir, "mem_info_gtt_used"), chipMemory
	}
	d := schemas.Device{ID: id, Name: readLine(dir, "product_name"), Kind: "rocm", Total: total, Used: used}
	if d.Name == "" {
		d.Name = strings.TrimSpace("AMD GPU " + readLine(dir, "device"))
	}
	if used.Known {
		d.Free = schemas.Known(total.Bytes.Minus(used.Bytes))
	}
	if busy, ok := number(dir, "gpu_busy_percent"); ok {
		d.Utilization = percent(int(busy))
	}
	d.Temperature, d.Power = readSensors(dir)
	return d, of, true
}

// amdID returns what names a device for good: its own number, which ROCm shows as
// GPU-… too, or else its place on the bus.
func amdID(dir string) string {
	if id := strings.TrimPrefix(readLine(dir, "unique_id"), "0x"); strings.Trim(id, "0") != "" {
		return "GPU-" + id
	}
	return uevent(dir, "PCI_SLOT_NAME")
}
