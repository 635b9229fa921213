// Package gpu reads the devices of this machine and their memory: NVIDIA's by
// NVML or nvidia-smi, AMD's by sysfs, or those that the configuration lists.
//
// It only reads. An amount that a device or its driver doesn't tell is unknown,
// never 0: boards whose memory is the machine's own tell none.
package gpu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// A Device is a device, and who uses it.
type Device struct {
	schemas.Device

	// Processes are those that hold memory of the device; nil: the source does not
	// tell.
	Processes []Process
}

// A Process is a process that holds memory of a device.
type Process struct {
	PID   int // as the host counts: another number than inside a container
	Bytes schemas.Amount
}

// A Reader reads devices. Its methods may be called concurrently.
type Reader interface {
	// Devices returns the devices as they are now. A driver that hangs never
	// blocks it for longer than 2 s: then it returns the last reading, and an
	// error beside it where that is over 5 s old. No devices and no error means
	// that there are none.
	//
	// The slice belongs to the caller.
	Devices(ctx context.Context) ([]Device, error)

	// Source says for people where the readings come from: "nvml 580.159.04",
	// "nvidia-smi", "amdgpu sysfs", "fixed", or "none: " and why.
	Source() string

	// Close ends the reader. It's an error where a driver call still hangs after
	// 2 s: that call's goroutine cannot be ended.
	Close() error
}

// A source reads devices from one place. One goroutine at a time calls it, and
// may hang in it.
type source interface {
	name() string
	read(ctx context.Context) ([]Device, error)
	close() error
}

// Open returns a reader of the first of NVML, nvidia-smi and AMD's sysfs that
// finds a device, and one of no devices where none does. It takes up to 10 s for
// each of them. The caller closes it.
func Open(log *slog.Logger) Reader {
	return open(log, []opener{
		{"nvml", openNVML},
		{"nvidia-smi", func(ctx context.Context) (source, error) { return openSMI(ctx, "nvidia-smi") }},
		{"amdgpu", func(ctx context.Context) (source, error) { return openAMD(ctx, "/sys") }},
	})
}

// An opener opens a source that has at least one device, or says why it can't.
type opener struct {
	name string
	open func(context.Context) (source, error)
}

const openTimeout = 10 * time.Second

func open(log *slog.Logger, openers []opener) Reader {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var reasons []string
	for _, o := range openers {
		s, err := openWithin(ctx, o, openTimeout)
		if err == nil {
			log.Info("devices found", "source", s.name())
			return watch(s)
		}
		reasons = append(reasons, fmt.Sprintf("%s: %s", o.name, err))
	}
	why := strings.Join(reasons, "; ")
	log.Info("no devices found", "reason", why)
	return fixed{source: "none: " + why}
}

// openWithin opens a source on a goroutine of its own, since a driver may hang
// at its very first call. One that comes too late is closed again.
func openWithin(ctx context.Context, o opener, limit time.Duration) (source, error) {
	type result struct {
		source source
		err    error
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	opened := make(chan result)
	go func() {
		s, err := o.open(ctx)
		select {
		case opened <- result{s, err}:
		case <-ctx.Done():
			if err == nil {
				_ = s.close() // nobody is there to hear of it
			}
		}
	}()
	select {
	case r := <-opened:
		return r.source, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer within %s", limit)
	}
}

var errNoDevices = errors.New("no devices")

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
	return slices.Clone(f.devices), nil
}

// Source implements Reader.
func (f fixed) Source() string { return f.source }

// Close implements Reader.
func (fixed) Close() error { return nil }
