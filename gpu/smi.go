package gpu

import (
	"context"
	"errors"
	"os/exec"
	"strings"
)

// The columns that are asked for, the most first: drivers know the fewer of them
// the older they are, and one that they don't know fails the whole question.
var smiColumns = [][]string{
	{"uuid", "pci.bus_id", "name", "memory.total", "memory.used", "memory.free", "memory.reserved", "utilization.gpu", "temperature.gpu", "power.draw"},
	{"uuid", "pci.bus_id", "name", "memory.total", "memory.used", "memory.free", "utilization.gpu", "temperature.gpu", "power.draw"},
	{"uuid", "name", "memory.total", "memory.used", "memory.free"},
}

// smiSource reads devices by nvidia-smi. It doesn't see MIG slices, nor who draws:
// that takes NVML.
type smiSource struct {
	command string
	root    string // "/", or a tree like it
	columns []string
}

// openSMI returns a source that runs command, a path or a name in PATH.
func openSMI(ctx context.Context, command, root string) (source, error) {
	path, err := exec.LookPath(command)
	if err != nil {
		return nil, errors.New("no such command")
	}
	var s source
	for _, columns := range smiColumns {
		if s, err = opened(ctx, smiSource{path, root, columns}); err == nil || errors.Is(err, errNoDevices) {
			return s, err
		}
	}
	return nil, err
}

func (smiSource) name() string { return "nvidia-smi" }

func (smiSource) close() error { return nil }

// read runs the command twice. Where it can't tell who computes, the devices are
// told without.
func (s smiSource) read(ctx context.Context) ([]Device, error) {
	out, err := s.ask(ctx, "--query-gpu=", s.columns)
	if err != nil {
		return nil, err
	}
	found, err := parseSMI(out, s.columns)
	if err != nil {
		return nil, err
	}
	all := make([]Device, len(found))
	var unified []int
	for i, f := range found {
		all[i].Device = f.Device
		if f.unified {
			unified = append(unified, i)
		}
	}
	unify(all, unified, s.root)
	if out, err = s.ask(ctx, "--query-compute-apps=", smiAppColumns); err != nil {
		return all, nil //nolint:nilerr // who computes stays unknown
	}
	if apps, ok := parseSMIApps(out); ok {
		for i := range all {
			all[i].Processes = mergeProcesses(append([]Process{}, apps[all[i].ID]...))
		}
	}
	return all, nil
}

// ask asks for columns of a table.
func (s smiSource) ask(ctx context.Context, table string, columns []string) (string, error) {
	out, err := output(ctx, s.command, table+strings.Join(columns, ","), "--format=csv,noheader,nounits")
	return string(out), err
}
