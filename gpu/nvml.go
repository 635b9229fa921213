package gpu

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// What NVML says no with, where that is no failure.
var (
	errUnsupported = errors.New("not supported")
	errNotFound    = errors.New("not found")
)

// nvmlCalls is what is used of NVML. Its errors are errUnsupported where the
// device, the driver or the library can't tell, errNotFound where there's
// nothing at an index, and others where a call failed.
type nvmlCalls struct {
	driver   func() (string, error)
	count    func() (int, error)
	device   func(index int) (nvmlDevice, error)
	shutdown func() error

	// event returns the next error that a watched device has had, and any error
	// where there is none by now. It doesn't wait.
	event func() (nvmlEvent, error)
}

// nvmlDevice is what is used of one device, whole or a slice.
type nvmlDevice struct {
	uuid     func() (string, error)
	name     func() (string, error)
	memory   func() (nvmlMemory, error)
	memoryV1 func() (nvmlMemory, error) // without Reserved, for older drivers

	compute  func() ([]nvmlProcess, error) // who computes on it
	graphics func() ([]nvmlProcess, error) // who draws on it

	utilization func() (int, error) // in percent
	temperature func() (int, error) // in degrees Celsius
	power       func() (int, error) // in milliwatts

	// watch has event tell of the device's errors, under the name given.
	watch func(name string) error

	// slices returns how many MIG slices the device can have at most;
	// errUnsupported where it isn't in MIG mode.
	slices func() (int, error)
	slice  func(index int) (nvmlDevice, error)
	place  func() (nvmlPlace, error) // of a slice, on its board
}

type nvmlMemory struct{ total, used, free, reserved uint64 }

// nvmlPlace says which slice of a board, by its instances.
type nvmlPlace struct{ gpu, compute uint32 }

// wholeBoard is the number of an instance where none is meant.
const wholeBoard = ^uint32(0)

type nvmlProcess struct {
	Process
	place nvmlPlace // of the slice it's on; wholeBoard where it's on no slice
}

// nvmlEvent is an error that a board had.
type nvmlEvent struct {
	board    string // as it's watched; "": not told
	instance uint32 // of the board's slices, the GPU instance
	xid      uint64
}

// nvmlSource reads devices by NVML. Boards are looked up once, as what names
// them never changes.
type nvmlSource struct {
	calls  nvmlCalls
	driver string
	root   string // "/", or a tree like it
	boards []*nvmlBoard
	faults faults
}

// newNVML returns a source over a library that has been initialized. It shuts
// the library down where that has no device.
func newNVML(calls nvmlCalls, root string) (source, error) {
	driver, err := calls.driver()
	if err != nil {
		driver = "(unknown driver)"
	}
	s := &nvmlSource{calls: calls, driver: driver, root: root, faults: faults{}}
	n, err := calls.count()
	if err == nil && n == 0 {
		err = errNoDevices
	}
	if err != nil {
		return nil, errors.Join(err, calls.shutdown())
	}
	return s, nil
}

func (s *nvmlSource) name() string { return "nvml " + s.driver }

func (s *nvmlSource) close() error { return s.calls.shutdown() }

// read fails where there are boards and none of them has ever told its name.
func (s *nvmlSource) read(context.Context) ([]Device, error) {
	n, err := s.calls.count()
	if err != nil {
		return nil, fmt.Errorf("count devices: %w", err)
	}
	if n != len(s.boards) {
		s.boards = make([]*nvmlBoard, n)
	}
	now := time.Now()
	var all []Device
	var lost []error
	var unified []int // in all
	for i := range s.boards {
		found, err := s.readBoard(i, now)
		if err != nil {
			lost = append(lost, fmt.Errorf("device %d: %w", i, err))
			continue
		}
		if s.boards[i].unified {
			unified = append(unified, len(all))
		}
		all = append(all, found...)
	}
	if len(lost) == n {
		return nil, errors.Join(lost...)
	}
	unify(all, unified, s.root)
	s.collectFaults()
	s.faults.mark(s.boards, all)
	return all, nil
}

// readBoard returns what a board has now. One that doesn't answer is kept as it
// was, and looked up anew at each reading until it does.
func (s *nvmlSource) readBoard(index int, now time.Time) ([]Device, error) {
	b := s.boards[index]
	if b == nil || b.failed {
		met, err := s.meet(index)
		switch {
		case err != nil && b == nil:
			return nil, err
		case err != nil:
			return b.gone(err), nil
		case b != nil && b.uuid == met.uuid:
			b.handle, b.arranged = met.handle, time.Time{}
		default:
			b = met
		}
		s.boards[index] = b
	}
	found, err := b.read(now)
	b.failed = err != nil
	if err == nil {
		return found, nil
	}
	if b.seen == nil {
		s.boards[index] = nil
		return nil, err
	}
	return b.gone(err), nil
}

// meet looks a board up, and has its errors told from here on.
func (s *nvmlSource) meet(index int) (*nvmlBoard, error) {
	h, err := s.calls.device(index)
	if err != nil {
		return nil, err
	}
	p, err := newNVMLPart(h)
	if errors.Is(err, errUnsupported) { // a Jetson's have none
		p, err = nvmlPart{handle: h, uuid: fmt.Sprintf("cuda%d", index), name: nvmlName(h)}, nil
	}
	if err != nil {
		return nil, err
	}
	_ = h.watch(p.uuid) // a board that can't tell of its errors works without
	return &nvmlBoard{nvmlPart: p}, nil
}

// collectFaults takes the errors that boards have had since the last reading. It
// stops at a number that no healthy driver reaches, so as to end at all.
func (s *nvmlSource) collectFaults() {
	for range 64 {
		e, err := s.calls.event()
		if err != nil {
			return
		}
		s.faults.add(e)
	}
}

func known(bytes uint64) schemas.Amount { return schemas.Known(schemas.Bytes(bytes)) }
