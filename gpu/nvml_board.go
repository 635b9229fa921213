package gpu

import (
	"errors"
	"fmt"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// lookEvery is how often that is read anew which no plan depends on, or which
// seldom changes: what a device does, and how a board is sliced. It is a little
// below the second at which a worker asks.
const lookEvery = 900 * time.Millisecond

// nvmlPart is what never changes of a board, or of a slice of one.
type nvmlPart struct {
	handle     nvmlDevice
	uuid, name string
	place      nvmlPlace // of a slice
}

// newNVMLPart asks for what names a board or a slice.
func newNVMLPart(h nvmlDevice) (nvmlPart, error) {
	uuid, err := h.uuid()
	if err != nil {
		return nvmlPart{}, err
	}
	return nvmlPart{handle: h, uuid: uuid, name: nvmlName(h)}, nil
}

func nvmlName(h nvmlDevice) string {
	name, err := h.name()
	if err != nil {
		return "NVIDIA GPU"
	}
	return name
}

// nvmlBoard is a board, and what is remembered of it.
type nvmlBoard struct {
	nvmlPart

	sliced   bool // nothing can run on it but on its slices
	slices   []nvmlPart
	arranged time.Time // when it was asked how it's sliced
	unified  bool      // its memory is the machine's own

	doing   nvmlDoing
	watched time.Time // when it was asked what it does

	seen   []Device // the last reading that worked
	failed bool     // the last reading did not
}

// nvmlDoing is what a board does.
type nvmlDoing struct{ utilization, temperature, power *int }

// read returns the board, or its slices in its place.
func (b *nvmlBoard) read(now time.Time) ([]Device, error) {
	asked := b.arranged
	all, err := b.readParts(now)
	if err != nil && b.sliced && b.arranged.Equal(asked) { // it may have been sliced anew
		b.arranged = time.Time{}
		all, err = b.readParts(now)
	}
	if err == nil {
		b.seen = all
	}
	return all, err
}

func (b *nvmlBoard) readParts(now time.Time) ([]Device, error) {
	if now.Sub(b.arranged) >= lookEvery {
		if err := b.arrange(); err != nil {
			return nil, err
		}
		b.arranged = now
	}
	if now.Sub(b.watched) >= lookEvery {
		b.doing = nvmlDoing{told(b.handle.utilization), told(b.handle.temperature), toldWatts(b.handle.power)}
		b.watched = now
	}
	if b.sliced {
		return b.readSlices()
	}
	d, err := b.nvmlPart.read()
	b.unified = errors.Is(err, errUnsupported)
	if err != nil && !b.unified {
		return nil, err
	}
	d.Utilization, d.Temperature, d.Power = b.doing.utilization, b.doing.temperature, b.doing.power
	return []Device{{Device: d, Processes: b.processes(b.handle)}}, nil
}

// arrange finds the board's slices. It has none where it can't tell.
func (b *nvmlBoard) arrange() error {
	most, err := b.handle.slices()
	if b.sliced = err == nil; !b.sliced {
		b.slices = nil
		return nil
	}
	b.slices = b.slices[:0]
	for i := range most {
		h, err := b.handle.slice(i)
		if errors.Is(err, errNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("slice %d: %w", i, err)
		}
		p, err := newNVMLPart(h)
		if err != nil {
			return fmt.Errorf("slice %d: %w", i, err)
		}
		if p.place, err = h.place(); err != nil {
			p.place = nvmlPlace{wholeBoard, wholeBoard}
		}
		b.slices = append(b.slices, p)
	}
	return nil
}

// readSlices reads the slices. They're as hot as the board; what it does and
// draws is of all of them together, so that is said of none.
func (b *nvmlBoard) readSlices() ([]Device, error) {
	all := make([]Device, 0, len(b.slices))
	for _, p := range b.slices {
		d, err := p.read()
		if err != nil && !errors.Is(err, errUnsupported) {
			return nil, err
		}
		d.MIG, d.Temperature = true, b.doing.temperature
		all = append(all, Device{Device: d, Processes: b.sliceProcesses(p)})
	}
	return all, nil
}

// read returns the memory of a board or a slice; errUnsupported, beside the rest,
// where it has none of its own.
func (p nvmlPart) read() (schemas.Device, error) {
	d := schemas.Device{ID: p.uuid, Name: p.name, Kind: "cuda"}
	m, err := p.handle.memory()
	reserved := err == nil
	if errors.Is(err, errUnsupported) {
		m, err = p.handle.memoryV1()
	}
	if err != nil {
		return d, err
	}
	d.Total, d.Used, d.Free = known(m.total), known(m.used), known(m.free)
	if reserved {
		d.Reserved = known(m.reserved)
	}
	return d, nil
}

// gone returns the board as it was seen last, without what is no longer known.
func (b *nvmlBoard) gone(err error) []Device {
	all := make([]Device, len(b.seen))
	for i, d := range b.seen {
		all[i].Device = schemas.Device{ID: d.ID, Name: d.Name, Kind: d.Kind, MIG: d.MIG, Error: err.Error()}
	}
	return all
}

// sliceProcesses returns the processes on a slice: as itself tells, or else those
// of the board that are on it.
func (b *nvmlBoard) sliceProcesses(p nvmlPart) []Process {
	if own := b.processes(p.handle); own != nil {
		return own
	}
	if p.place.gpu == wholeBoard {
		return nil // it isn't known which those are
	}
	return processesOn(b.handle, func(at nvmlPlace) bool {
		return at.gpu == p.place.gpu && (at.compute == p.place.compute || at.compute == wholeBoard)
	})
}

func (*nvmlBoard) processes(h nvmlDevice) []Process {
	return processesOn(h, func(nvmlPlace) bool { return true })
}

// processesOn returns the processes of the places wanted, each once and by their
// numbers; nil where it can't be told who computes. One that also draws is told
// twice, with the same memory.
func processesOn(h nvmlDevice, wanted func(nvmlPlace) bool) []Process {
	told, err := h.compute()
	if err != nil {
		return nil
	}
	if drawing, err := h.graphics(); err == nil {
		told = append(told, drawing...)
	}
	all := make([]Process, 0, len(told))
	for _, p := range told {
		if wanted(p.place) {
			all = append(all, p.Process)
		}
	}
	return mergeProcesses(all)
}

// told returns what a call says; nil where it can't.
func told(ask func() (int, error)) *int {
	n, err := ask()
	if err != nil {
		return nil
	}
	return &n
}

func toldWatts(ask func() (int, error)) *int {
	milliwatts, err := ask()
	if err != nil {
		return nil
	}
	return new((milliwatts + 500) / 1000)
}
