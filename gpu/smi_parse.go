package gpu

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// smiAppColumns are what is asked of a process that computes.
var smiAppColumns = []string{"gpu_uuid", "pid", "used_memory"}

// smiDevice is a device as nvidia-smi tells it.
type smiDevice struct {
	schemas.Device

	unified bool // its memory is the machine's own
}

// parseSMI reads nvidia-smi's CSV of the columns given.
func parseSMI(csv string, columns []string) ([]smiDevice, error) {
	var all []smiDevice
	for line := range strings.Lines(csv) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		d, err := parseSMILine(line, columns)
		if err != nil {
			return nil, fmt.Errorf("nvidia-smi's line %.200q: %w", line, err)
		}
		d.ID = cmp.Or(d.ID, fmt.Sprintf("cuda%d", len(all))) // a Jetson's says no more
		all = append(all, d)
	}
	return all, nil
}

// parseSMILine reads one device. A name may have commas in it: no other column has.
func parseSMILine(line string, columns []string) (smiDevice, error) {
	fields := strings.Split(line, ",")
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
	}
	name := slices.Index(columns, "name")
	more := len(fields) - len(columns)
	if more < 0 {
		return smiDevice{}, fmt.Errorf("want %d columns", len(columns))
	}
	fields = slices.Concat(fields[:name], []string{strings.Join(fields[name:name+more+1], ", ")}, fields[name+more+1:])
	d := smiDevice{Device: schemas.Device{Kind: "cuda"}, unified: true}
	var bus string
	for i, column := range columns {
		var err error
		switch value := fields[i]; column {
		case "uuid":
			d.ID, err = smiWord(value)
		case "pci.bus_id":
			bus, err = smiWord(value)
		case "name":
			d.Name = value
		default:
			err = d.read(column, value)
		}
		if err != nil {
			return smiDevice{}, fmt.Errorf("%s: %w", column, err)
		}
	}
	d.ID = cmp.Or(d.ID, bus)
	return d, nil
}

// read reads a figure.
func (d *smiDevice) read(column, value string) error {
	n, ok, err := smiNumber(value)
	if err != nil {
		return err
	}
	if strings.HasPrefix(column, "memory.") && (ok || !isAbsent(value)) {
		d.unified = false
	}
	if !ok {
		return nil
	}
	whole := int(math.Round(n))
	switch column {
	case "memory.total":
		d.Total = smiAmount(n)
	case "memory.used":
		d.Used = smiAmount(n)
	case "memory.free":
		d.Free = smiAmount(n)
	case "memory.reserved":
		d.Reserved = smiAmount(n)
	case "utilization.gpu":
		d.Utilization = percent(whole)
	case "temperature.gpu":
		d.Temperature = &whole
	case "power.draw":
		d.Power = &whole
	}
	return nil
}

func smiAmount(mib float64) schemas.Amount {
	if mib < 0 || mib != math.Trunc(mib) {
		return schemas.Amount{}
	}
	return schemas.Known(schemas.Bytes(mib) * schemas.MiB)
}

// smiWord returns a name, "" for one that isn't told.
func smiWord(value string) (string, error) {
	switch {
	case isUnknown(value):
		return "", nil
	case value == "" || strings.ContainsAny(value, " \t\"'"):
		return "", errors.New("that is no name")
	default:
		return value, nil
	}
}

// smiNumber returns a number; false for one that isn't told.
func smiNumber(value string) (float64, bool, error) {
	if isUnknown(value) {
		return 0, false, nil
	}
	n, err := strconv.ParseFloat(value, 64)
	if err != nil || math.IsNaN(n) || math.Abs(n) > 1e9 {
		return 0, false, errors.New("that is no figure")
	}
	return n, true, nil
}

// isUnknown reports whether a field is one of the words for what isn't told:
// "[N/A]", "[Not Supported]", "[Insufficient Permissions]", "[Unknown Error]".
func isUnknown(field string) bool {
	return field == "N/A" || strings.HasPrefix(field, "[") && strings.HasSuffix(field, "]")
}

// isAbsent reports whether it is one of the words for what the device hasn't got.
func isAbsent(field string) bool {
	return field == "N/A" || field == "[N/A]" || field == "[Not Supported]"
}

// parseSMIApps reads nvidia-smi's CSV of processes, by the devices' ids; false
// where it's something else.
func parseSMIApps(csv string) (map[string][]Process, bool) {
	all := map[string][]Process{}
	for line := range strings.Lines(csv) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		fields := strings.Split(line, ",")
		if len(fields) != len(smiAppColumns) {
			return nil, false
		}
		id := strings.TrimSpace(fields[0])
		pid, err := strconv.ParseInt(strings.TrimSpace(fields[1]), 10, 32)
		mib, told, bad := smiNumber(strings.TrimSpace(fields[2]))
		if err != nil || bad != nil || pid <= 0 || id == "" || isUnknown(id) {
			return nil, false
		}
		p := Process{PID: int(pid)}
		if told {
			p.Bytes = smiAmount(mib)
		}
		all[id] = append(all[id], p)
	}
	return all, true
}
