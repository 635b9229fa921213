// Package gpu reads the devices of this machine, their memory and who holds it:
// NVIDIA's by NVML or nvidia-smi, AMD's and Intel's by what their kernel drivers
// show, Apple's by the system's tools, or those that the configuration lists.
//
// It only reads. What a device or its driver doesn't tell is unknown, never 0. A
// device that has no memory of its own, as in a Jetson or a DGX Spark, has the
// machine's.
package gpu

import (
	"cmp"
	"context"
	"slices"

	"github.com/vramjet/vramjet/schemas"
)

// A Device is a device, and who uses it. Of the embedded one, Ours, Others,
// Promised and Available are left for the node to fill in.
//
// Error is set where the device is lost, or had an error that only a reset mends
// ("XID 79: the GPU has fallen off the bus"), which is told by NVML alone. A lost
// device is kept as it was last seen, its amounts unknown, and is whole again when
// it answers. An XID stays until the reader is closed: NVML tells when a device
// breaks, and not when it was mended.
type Device struct {
	schemas.Device

	// Processes are those that hold memory of the device, each once, by their
	// numbers. Empty: there are none; nil: the source does not tell. Where an AMD or
	// Intel driver tells them, it tells those of other users only to root.
	Processes []Process
}

// A Process is a process that holds memory of a device.
type Process struct {
	PID   int            // as the host counts: another number than inside a container
	Bytes schemas.Amount // unknown where the driver names the process alone
}

// mergeProcesses leaves one entry of each process, with the most that any said it
// holds, by their numbers.
func mergeProcesses(all []Process) []Process {
	slices.SortFunc(all, func(a, b Process) int {
		return cmp.Or(cmp.Compare(a.PID, b.PID), compareAmounts(b.Bytes, a.Bytes))
	})
	return slices.CompactFunc(all, func(a, b Process) bool { return a.PID == b.PID })
}

// compareAmounts orders an unknown amount before any known one.
func compareAmounts(a, b schemas.Amount) int {
	switch {
	case a.Known == b.Known:
		return cmp.Compare(a.Bytes, b.Bytes)
	case b.Known:
		return -1
	default:
		return 1
	}
}

// cloneDevices copies devices with all that hangs on them.
func cloneDevices(all []Device) []Device {
	all = slices.Clone(all)
	for i := range all {
		d := &all[i]
		d.Processes = slices.Clone(d.Processes)
		d.Utilization, d.Temperature, d.Power = cloneInt(d.Utilization), cloneInt(d.Temperature), cloneInt(d.Power)
	}
	return all
}

func cloneInt(n *int) *int {
	if n == nil {
		return nil
	}
	return new(*n)
}

// A Reader reads devices. Its methods may be called concurrently.
type Reader interface {
	// Devices returns the devices as they are now. A driver that hangs never
	// blocks it for longer than 2 s: then it returns the last reading, and an
	// error beside it where that is over 5 s old. No devices and no error means
	// that there are none.
	//
	// What it returns belongs to the caller.
	Devices(ctx context.Context) ([]Device, error)

	// Source says for people where the readings come from, and why not from what
	// would have been better: "nvml 580.159.04", "nvidia-smi (not nvml: no NVIDIA
	// driver found)", "fixed", or "none: " and why.
	Source() string

	// Close ends the reader. It's an error where a driver call still hangs after
	// 2 s: that call's goroutine cannot be ended.
	Close() error
}

// Fixed returns a reader of the devices given, which never change.
func Fixed(devices []schemas.Device) Reader {
	f := fixed{source: "fixed"}
	for _, d := range devices {
		f.devices = append(f.devices, Device{Device: d})
	}
	return f
}

// fixed is a Reader of devices that never change.
type fixed struct {
	source  string
	devices []Device
}

// Devices implements Reader.
func (f fixed) Devices(context.Context) ([]Device, error) {
	return cloneDevices(f.devices), nil
}

// Source implements Reader.
func (f fixed) Source() string { return f.source }

// Close implements Reader.
func (fixed) Close() error { return nil }
