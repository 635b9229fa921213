package gpu

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// jetsonSource reads the device of an NVIDIA Jetson whose system has neither NVML
// nor nvidia-smi. Such a machine has one, and its memory is the machine's.
type jetsonSource struct {
	root  string // "/", or a tree like it
	model string
}

// openJetson returns a source where the machine says that it's a Jetson.
func openJetson(ctx context.Context, root string) (source, error) {
	model := strings.Trim(readText(filepath.Join(root, "proc", "device-tree"), "model"), "\x00\n ")
	release := readText(filepath.Join(root, "etc"), "nv_tegra_release")
	switch {
	case strings.Contains(model, "NVIDIA Jetson"):
	case release != "":
		model = "NVIDIA Jetson"
	default:
		return nil, errors.New("not a Jetson")
	}
	return opened(ctx, jetsonSource{root, model})
}

func (jetsonSource) name() string { return "jetson" }

func (jetsonSource) close() error { return nil }

func (s jetsonSource) read(context.Context) ([]Device, error) {
	d := schemas.Device{ID: "cuda0", Name: s.model, Kind: "cuda"}
	useHostMemory(&d, s.root)
	for _, dir := range []string{"sys/devices/gpu.0", "sys/devices/platform/gpu.0"} {
		if permille, err := strconv.Atoi(readLine(filepath.Join(s.root, dir), "load")); err == nil && d.Utilization == nil {
			d.Utilization = percent(permille / 10)
		}
	}
	zones, _ := filepath.Glob(filepath.Join(s.root, "sys/class/thermal/thermal_zone*")) // the pattern is good
	for _, zone := range zones {
		if strings.HasPrefix(strings.ToLower(readLine(zone, "type")), "gpu") {
			d.Temperature = milli(zone, "temp")
		}
	}
	return []Device{{Device: d}}, nil
}
