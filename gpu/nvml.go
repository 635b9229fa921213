package gpu

import (
	"context"
	"errors"
	"fmt"

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
}

// nvmlDevice is what is used of one device, whole or a slice.
type nvmlDevice struct {
	uuid     func() (string, error)
	name     func() (string, error)
	memory   func() (nvmlMemory, error)
	memoryV1 func() (nvmlMemory, error) // without Reserved, for older drivers

	// slices returns how many MIG slices the device can have at most;
	// errUnsupported where it isn't in MIG mode.
	slices func() (int, error)
	slice  func(index int) (nvmlDevice, error)
}

type nvmlMemory struct{ total, used, free, reserved uint64 }

// nvmlSource reads devices by NVML.
type nvmlSource struct {
	calls  nvmlCalls
	driver string
}

// newNVML returns a source over a library that has been initialized. It shuts
// the library down where that has no device.
func newNVML(calls nvmlCalls) (source, error) {
	driver, err := calls.driver()
	if err != nil {
		driver = "(unknown driver)"
	}
	s := nvmlSource{calls, driver}
	n, err := calls.count()
	if err == nil && n == 0 {
		err = errNoDevices
	}
	if err != nil {
		return nil, errors.Join(err, calls.shutdown())
	}
	return s, nil
}

func (s nvmlSource) name() string { return "nvml " + s.driver }

func (s nvmlSource) close() error { return s.calls.shutdown() }

// read leaves out a device that has been lost: the others go on. It fails where
// all have.
func (s nvmlSource) read(context.Context) ([]Device, error) {
	n, err := s.calls.count()
	if err != nil {
		return nil, fmt.Errorf("count devices: %w", err)
	}
	var all []Device
	var lost []error
	for i := range n {
		found, err := s.readIndex(i)
		if err != nil {
			lost = append(lost, fmt.Errorf("device %d: %w", i, err))
			continue
		}
		all = append(all, found...)
	}
	if len(lost) == n {
		return nil, errors.Join(lost...)
	}
	return all, nil
}

// readIndex returns the device, or its slices in its place: nothing can run on a
// device in MIG mode but on them.
func (s nvmlSource) readIndex(index int) ([]Device, error) {
	h, err := s.calls.device(index)
	if err != nil {
		return nil, err
	}
	most, err := h.slices()
	if err != nil { // also where it can't be told: then it's none
		d, err := readNVMLDevice(h)
		return []Device{{Device: d}}, err
	}
	var all []Device
	for i := range most {
		slice, err := h.slice(i)
		if errors.Is(err, errNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("slice %d: %w", i, err)
		}
		d, err := readNVMLDevice(slice)
		if err != nil {
			return nil, fmt.Errorf("slice %d: %w", i, err)
		}
		d.MIG = true
		all = append(all, Device{Device: d})
	}
	return all, nil
}

func readNVMLDevice(h nvmlDevice) (schemas.Device, error) {
	uuid, err := h.uuid()
	if err != nil {
		return schemas.Device{}, fmt.Errorf("uuid: %w", err)
	}
	d := schemas.Device{ID: uuid, Kind: "cuda"}
	if d.Name, err = h.name(); err != nil {
		d.Name = "NVIDIA GPU"
	}
	m, err := h.memory()
	reserved := err == nil
	if errors.Is(err, errUnsupported) {
		m, err = h.memoryV1()
	}
	if errors.Is(err, errUnsupported) {
		return d, nil // its memory is the machine's own
	}
	if err != nil {
		return schemas.Device{}, fmt.Errorf("memory of %s: %w", uuid, err)
	}
	d.Total, d.Used, d.Free = known(m.total), known(m.used), known(m.free)
	if reserved {
		d.Reserved = known(m.reserved)
	}
	return d, nil
}

func known(bytes uint64) schemas.Amount { return schemas.Known(schemas.Bytes(bytes)) }
