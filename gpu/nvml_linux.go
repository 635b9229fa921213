//go:build cgo && linux

package gpu

import (
	"context"
	"errors"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// openNVML loads NVIDIA's library and finds out what it can do.
func openNVML(context.Context) (source, error) {
	lib := nvml.New()
	switch ret := lib.Init(); ret {
	case nvml.SUCCESS:
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return nil, errors.New("no NVIDIA driver found")
	default:
		return nil, fmt.Errorf("start the library: %w", nvmlError(ret))
	}
	return newNVML(libraryCalls(lib))
}

func libraryCalls(lib nvml.Interface) nvmlCalls {
	return nvmlCalls{
		driver: func() (string, error) {
			v, ret := lib.SystemGetDriverVersion()
			return v, nvmlError(ret)
		},
		count: func() (int, error) {
			n, ret := lib.DeviceGetCount()
			return n, nvmlError(ret)
		},
		device: func(i int) (nvmlDevice, error) {
			d, ret := lib.DeviceGetHandleByIndex(i)
			return deviceCalls(lib, d), nvmlError(ret)
		},
		shutdown: func() error { return nvmlError(lib.Shutdown()) },
	}
}

// deviceCalls wraps one device. A call of a function that an older library lacks
// ends the process, so those that came late are looked up first.
func deviceCalls(lib nvml.Interface, d nvml.Device) nvmlDevice {
	lacks := func(symbol string) bool { return lib.Extensions().LookupSymbol(symbol) != nil }
	return nvmlDevice{
		uuid: func() (string, error) {
			v, ret := d.GetUUID()
			return v, nvmlError(ret)
		},
		name: func() (string, error) {
			v, ret := d.GetName()
			return v, nvmlError(ret)
		},
		memory: func() (nvmlMemory, error) {
			if lacks("nvmlDeviceGetMemoryInfo_v2") {
				return nvmlMemory{}, errUnsupported
			}
			m, ret := d.GetMemoryInfo_v2()
			return nvmlMemory{m.Total, m.Used, m.Free, m.Reserved}, nvmlError(ret)
		},
		memoryV1: func() (nvmlMemory, error) {
			m, ret := d.GetMemoryInfo()
			return nvmlMemory{total: m.Total, used: m.Used, free: m.Free}, nvmlError(ret)
		},
		slices: func() (int, error) {
			if lacks("nvmlDeviceGetMigMode") || lacks("nvmlDeviceGetMaxMigDeviceCount") || lacks("nvmlDeviceGetMigDeviceHandleByIndex") {
				return 0, errUnsupported
			}
			if mode, _, ret := d.GetMigMode(); ret != nvml.SUCCESS || mode != nvml.DEVICE_MIG_ENABLE {
				return 0, errUnsupported
			}
			n, ret := d.GetMaxMigDeviceCount()
			return n, nvmlError(ret)
		},
		slice: func(i int) (nvmlDevice, error) {
			s, ret := d.GetMigDeviceHandleByIndex(i)
			return deviceCalls(lib, s), nvmlError(ret)
		},
	}
}

func nvmlError(ret nvml.Return) error {
	switch ret {
	case nvml.SUCCESS:
		return nil
	case nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_FUNCTION_NOT_FOUND, nvml.ERROR_ARGUMENT_VERSION_MISMATCH:
		return errUnsupported
	case nvml.ERROR_NOT_FOUND:
		return errNotFound
	default:
		return ret
	}
}
