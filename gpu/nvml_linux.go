//go:build cgo && linux

package gpu

import (
	"context"
	"errors"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/vramjet/vramjet/schemas"
)

// openNVML loads NVIDIA's library and finds out what it can do.
func openNVML(context.Context) (source, error) {
	return openLibrary(nvml.New(), "/")
}

func openLibrary(lib nvml.Interface, root string) (source, error) {
	switch ret := lib.Init(); ret {
	case nvml.SUCCESS:
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return nil, errors.New("no NVIDIA driver found")
	default:
		return nil, fmt.Errorf("start the library: %w", nvmlError(ret))
	}
	return newNVML(newLibrary(lib).calls(), root)
}

// library is NVIDIA's. A call of a function that an older one lacks ends the
// process, so each that came late is looked up first, once.
type library struct {
	nvml.Interface

	lacking map[string]bool
	events  nvml.EventSet          // nil where it can't tell of errors
	watched map[nvml.Device]string // what a device's errors are told under
}

func newLibrary(lib nvml.Interface) *library {
	l := &library{Interface: lib, lacking: map[string]bool{}, watched: map[nvml.Device]string{}}
	if l.lacks("nvmlEventSetCreate", "nvmlEventSetFree", "nvmlDeviceRegisterEvents") || l.lacksAll("nvmlEventSetWait", "nvmlEventSetWait_v2") {
		return l
	}
	if set, ret := lib.EventSetCreate(); ret == nvml.SUCCESS {
		l.events = set
	}
	return l
}

// lacks reports whether the library has not all of the functions.
func (l *library) lacks(symbols ...string) bool {
	for _, s := range symbols {
		lacking, asked := l.lacking[s]
		if !asked {
			lacking = l.Extensions().LookupSymbol(s) != nil
			l.lacking[s] = lacking
		}
		if lacking {
			return true
		}
	}
	return false
}

// lacksAll reports whether the library has none of the versions of a function, of
// which go-nvml calls the newest that is there.
func (l *library) lacksAll(versions ...string) bool {
	for _, s := range versions {
		if !l.lacks(s) {
			return false
		}
	}
	return true
}

func (l *library) calls() nvmlCalls {
	return nvmlCalls{
		driver: func() (string, error) {
			v, ret := l.SystemGetDriverVersion()
			return v, nvmlError(ret)
		},
		count: func() (int, error) {
			n, ret := l.DeviceGetCount()
			return n, nvmlError(ret)
		},
		device: func(i int) (nvmlDevice, error) {
			d, ret := l.DeviceGetHandleByIndex(i)
			return l.device(d), nvmlError(ret)
		},
		event: l.event,
		shutdown: func() error {
			var err error
			if l.events != nil {
				err = nvmlError(l.events.Free())
			}
			return errors.Join(err, nvmlError(l.Shutdown()))
		},
	}
}

// event returns an error that has been told of by now: it waits for none.
func (l *library) event() (nvmlEvent, error) {
	if l.events == nil {
		return nvmlEvent{}, errUnsupported
	}
	e, ret := l.events.Wait(0)
	if ret != nvml.SUCCESS {
		return nvmlEvent{}, nvmlError(ret)
	}
	if e.EventType != nvml.EventTypeXidCriticalError {
		return nvmlEvent{}, errNotFound
	}
	if l.lacks("nvmlEventSetWait_v2") {
		e.GpuInstanceId = wholeBoard // the first version leaves it as it was
	}
	return nvmlEvent{board: l.watched[e.Device], instance: e.GpuInstanceId, xid: e.EventData}, nil
}

// device wraps a device, whole or a slice.
func (l *library) device(d nvml.Device) nvmlDevice {
	w := nvmlDevice{
		uuid: func() (string, error) {
			v, ret := d.GetUUID()
			return v, nvmlError(ret)
		},
		name: func() (string, error) {
			v, ret := d.GetName()
			return v, nvmlError(ret)
		},
		memory: func() (nvmlMemory, error) {
			if l.lacks("nvmlDeviceGetMemoryInfo_v2") {
				return nvmlMemory{}, errUnsupported
			}
			m, ret := d.GetMemoryInfo_v2()
			return nvmlMemory{m.Total, m.Used, m.Free, m.Reserved}, nvmlError(ret)
		},
		memoryV1: func() (nvmlMemory, error) {
			m, ret := d.GetMemoryInfo()
			return nvmlMemory{total: m.Total, used: m.Used, free: m.Free}, nvmlError(ret)
		},
		watch: func(name string) error {
			if l.events == nil {
				return errUnsupported
			}
			l.watched[d] = name
			return nvmlError(d.RegisterEvents(nvml.EventTypeXidCriticalError, l.events))
		},
	}
	l.addProcesses(&w, d)
	l.addDoing(&w, d)
	l.addSlices(&w, d)
	return w
}

func (l *library) addProcesses(w *nvmlDevice, d nvml.Device) {
	list := func(symbol string, get func() ([]nvml.ProcessInfo, nvml.Return)) func() ([]nvmlProcess, error) {
		return func() ([]nvmlProcess, error) {
			if l.lacksAll(symbol, symbol+"_v2", symbol+"_v3") {
				return nil, errUnsupported
			}
			told, ret := get()
			all := make([]nvmlProcess, len(told))
			for i, p := range told {
				all[i] = nvmlProcess{Process{PID: int(p.Pid)}, nvmlPlace{p.GpuInstanceId, p.ComputeInstanceId}}
				if p.UsedGpuMemory != ^uint64(0) { // else it's not available
					all[i].Bytes = schemas.Known(schemas.Bytes(p.UsedGpuMemory))
				}
			}
			return all, nvmlError(ret)
		}
	}
	w.compute = list("nvmlDeviceGetComputeRunningProcesses", d.GetComputeRunningProcesses)
	w.graphics = list("nvmlDeviceGetGraphicsRunningProcesses", d.GetGraphicsRunningProcesses)
}

func (l *library) addDoing(w *nvmlDevice, d nvml.Device) {
	w.utilization = func() (int, error) {
		if l.lacks("nvmlDeviceGetUtilizationRates") {
			return 0, errUnsupported
		}
		u, ret := d.GetUtilizationRates()
		return int(u.Gpu), nvmlError(ret)
	}
	w.temperature = func() (int, error) {
		if l.lacks("nvmlDeviceGetTemperature") {
			return 0, errUnsupported
		}
		// What is to come after this function is not in most drivers.
		t, ret := d.GetTemperature(nvml.TEMPERATURE_GPU)
		return int(t), nvmlError(ret)
	}
	w.power = func() (int, error) {
		if l.lacks("nvmlDeviceGetPowerUsage") {
			return 0, errUnsupported
		}
		p, ret := d.GetPowerUsage()
		return int(p), nvmlError(ret)
	}
}

func (l *library) addSlices(w *nvmlDevice, d nvml.Device) {
	w.slices = func() (int, error) {
		if l.lacks("nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex") {
			return 0, errUnsupported
		}
		if mode, _, ret := d.GetMigMode(); ret != nvml.SUCCESS || mode != nvml.DEVICE_MIG_ENABLE {
			return 0, errUnsupported
		}
		n, ret := d.GetMaxMigDeviceCount()
		return n, nvmlError(ret)
	}
	w.slice = func(i int) (nvmlDevice, error) {
		s, ret := d.GetMigDeviceHandleByIndex(i)
		return l.device(s), nvmlError(ret)
	}
	w.place = func() (nvmlPlace, error) {
		if l.lacks("nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId") {
			return nvmlPlace{}, errUnsupported
		}
		g, ret := d.GetGpuInstanceId()
		if ret != nvml.SUCCESS {
			return nvmlPlace{}, nvmlError(ret)
		}
		c, ret := d.GetComputeInstanceId()
		return nvmlPlace{uint32(g), uint32(c)}, nvmlError(ret)
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
