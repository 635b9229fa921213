package gpu

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// The columns that are asked for. Older drivers don't know the last of them.
const (
	smiColumns    = "uuid,name,memory.total,memory.used,memory.free"
	smiAllColumns = smiColumns + ",memory.reserved"
)

// smiSource reads devices by nvidia-smi. It doesn't see MIG slices: that takes
// NVML.
type smiSource struct {
	command string
	columns string
}

// openSMI returns a source that runs command, a path or a name in PATH.
func openSMI(ctx context.Context, command string) (source, error) {
	path, err := exec.LookPath(command)
	if err != nil {
		return nil, errors.New("no such command")
	}
	var devices []Device
	for _, columns := range []string{smiAllColumns, smiColumns} {
		s := smiSource{path, columns}
		if devices, err = s.read(ctx); err == nil && len(devices) > 0 {
			return s, nil
		}
	}
	if err == nil {
		err = errNoDevices
	}
	return nil, err
}

func (smiSource) name() string { return "nvidia-smi" }

func (smiSource) close() error { return nil }

func (s smiSource) read(ctx context.Context) ([]Device, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.command, "--query-gpu="+s.columns, "--format=csv,noheader,nounits")
	cmd.WaitDelay = time.Second // for a child that keeps its output open
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run nvidia-smi: %w: %s", err, firstLine(out))
	}
	return parseSMI(string(out))
}

// firstLine bounds what of an output is repeated in an error.
func firstLine(out []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line[:min(len(line), 200)]
}

// parseSMI reads nvidia-smi's CSV, amounts in MiB. A name may have commas in it.
func parseSMI(csv string) ([]Device, error) {
	var all []Device
	for line := range strings.Lines(csv) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		d, err := parseSMILine(line)
		if err != nil {
			return nil, fmt.Errorf("nvidia-smi's line %.200q: %w", line, err)
		}
		all = append(all, Device{Device: d})
	}
	return all, nil
}

func parseSMILine(line string) (schemas.Device, error) {
	fields := strings.Split(line, ",")
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
	}
	amounts := len(fields) // the index of the first amount
	for amounts > 0 && len(fields)-amounts < 4 && isAmount(fields[amounts-1]) {
		amounts--
	}
	n := len(fields) - amounts
	if amounts < 2 || n < 3 || fields[0] == "" || strings.HasPrefix(fields[0], "[") {
		return schemas.Device{}, errors.New("want a uuid, a name and three or four amounts")
	}
	d := schemas.Device{ID: fields[0], Name: strings.Join(fields[1:amounts], ", "), Kind: "cuda"}
	for i, to := range []*schemas.Amount{&d.Total, &d.Used, &d.Free, &d.Reserved}[:n] {
		if mib, err := strconv.ParseUint(fields[amounts+i], 10, 40); err == nil {
			*to = schemas.Known(schemas.Bytes(mib) * schemas.MiB)
		}
	}
	return d, nil
}

// isAmount reports whether a field is a number, or one of the words for an
// unknown one: "[N/A]", "[Not Supported]", "[Unknown Error]", "N/A".
func isAmount(field string) bool {
	if _, err := strconv.ParseUint(field, 10, 40); err == nil {
		return true
	}
	return field == "N/A" || strings.HasPrefix(field, "[") && strings.HasSuffix(field, "]")
}
