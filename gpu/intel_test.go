package gpu

import (
	"testing"

	"github.com/vramjet/vramjet/schemas"
)

func intelHost(t *testing.T) string {
	t.Helper()
	root := writeTree(t, map[string]string{
		// the processor's own graphics
		"sys/class/drm/card0/device/vendor":           "0x8086",
		"sys/class/drm/card0/device/uevent":           "DRIVER=i915\nPCI_SLOT_NAME=0000:00:02.0",
		"sys/class/drm/card0/device/lmem_total_bytes": "1",
		"sys/class/drm/card5/lmem_total_bytes":        "17179869184",
		"sys/class/drm/card5/device/vendor":           "0x8086",
		"sys/class/drm/card5/device/uevent":           "DRIVER=i915\nPCI_SLOT_NAME=0000:06:00.0",
		// a card by the new driver, with two tiles
		"sys/class/drm/card1/device/vendor":                         "0x8086",
		"sys/class/drm/card1/device/device":                         "0xe20b",
		"sys/class/drm/card1/device/uevent":                         "DRIVER=xe\nPCI_SLOT_NAME=0000:03:00.0",
		"sys/class/drm/card1/device/tile0/physical_vram_size_bytes": "12884901888",
		"sys/class/drm/card1/device/tile1/physical_vram_size_bytes": "12884901888",
		"sys/class/drm/card1/device/hwmon/hwmon2/temp2_input":       "51000",
		// one by the old driver, which doesn't tell
		"sys/class/drm/card2/device/vendor": "0x8086",
		"sys/class/drm/card2/device/device": "0x56a0",
		"sys/class/drm/card2/device/uevent": "DRIVER=i915\nPCI_SLOT_NAME=0000:04:00.0",
		// given to a virtual machine
		"sys/class/drm/card3/device/vendor": "0x8086",
		"sys/class/drm/card3/device/uevent": "DRIVER=vfio-pci\nPCI_SLOT_NAME=0000:05:00.0",
		"proc/100/fdinfo/3":                 "drm-client-id: 1\ndrm-pdev: 0000:03:00.0\ndrm-resident-vram0: 1 MiB\ndrm-resident-gtt: 9 MiB",
	})
	link(t, root, "proc/100/fd/3", "/dev/dri/renderD128")
	return root
}

func TestIntel(t *testing.T) {
	s, err := openIntel(t.Context(), intelHost(t), "/nonexistent/xpu-smi")
	if err != nil {
		t.Fatal(err)
	}
	if s.name() != "intel sysfs" {
		t.Errorf("the source is %q", s.name())
	}
	got := mustRead(t, s)
	wantDevices(t, []schemas.Device{
		{ID: "0000:03:00.0", Name: "Intel GPU 0xe20b", Kind: "intel", Total: schemas.Known(24 * schemas.GiB), Temperature: new(51)},
		{ID: "0000:04:00.0", Name: "Intel GPU 0x56a0", Kind: "intel"},
		{ID: "0000:06:00.0", Name: "Intel GPU", Kind: "intel", Total: schemas.Known(16 * schemas.GiB)},
	}, got)
	wantProcesses(t, []Process{{100, schemas.Known(schemas.MiB)}}, got[0])
	wantProcesses(t, nil, got[1])
}

const (
	xpuDiscovery = `{"device_id": 1, "device_name": "Intel(R) Arc(TM) A770 Graphics", "memory_physical_size_byte": "17179869184", "pci_bdf_address": "0000:04:00.0"}`
	xpuMeasures  = `{"device_id": 1, "device_level": [{"metrics_type": "XPUM_STATS_MEMORY_USED", "value": 2048.4},
		{"metrics_type": "XPUM_STATS_GPU_UTILIZATION", "value": 12.5}, {"metrics_type": "XPUM_STATS_POWER", "value": 41.7},
		{"metrics_type": "XPUM_STATS_GPU_CORE_TEMPERATURE", "value": 48}, {"metrics_type": "XPUM_STATS_EU_ACTIVE"}]}`
)

func TestIntelByXPUSMI(t *testing.T) {
	command := fakeSMI(t, `case "$*" in
"discovery -d 0000:04:00.0 -j") echo '`+xpuDiscovery+`' ;;
"stats -d 0000:04:00.0 -j") echo '`+xpuMeasures+`' ;;
*) echo "Error: device not found"; exit 1 ;;
esac
`)
	s, err := openIntel(t.Context(), intelHost(t), command)
	if err != nil {
		t.Fatal(err)
	}
	if s.name() != "intel sysfs and xpu-smi" {
		t.Errorf("the source is %q", s.name())
	}
	k := schemas.Known
	wantDevices(t, []schemas.Device{
		{ID: "0000:03:00.0", Name: "Intel GPU 0xe20b", Kind: "intel", Total: k(24 * schemas.GiB), Temperature: new(51)},
		{
			ID: "0000:04:00.0", Name: "Intel(R) Arc(TM) A770 Graphics", Kind: "intel", Total: k(16 * schemas.GiB), Used: k(2 * schemas.GiB),
			Free: k(14 * schemas.GiB), Utilization: new(13), Temperature: new(48), Power: new(42),
		},
		{ID: "0000:06:00.0", Name: "Intel GPU", Kind: "intel", Total: k(16 * schemas.GiB)},
	}, mustRead(t, s))
}

func TestParseXPU(t *testing.T) {
	number := parseXPUCard([]byte(`{"device_name": "x", "memory_physical_size_byte": 17179869184}`))
	if want := (xpuCard{"x", schemas.Known(16 * schemas.GiB)}); number != want {
		t.Errorf("got %+v, want %+v", number, want)
	}
	tile := parseXPUStats([]byte(`{"device_level": [], "tile_level": [{"tile_id": 0, "data_list": [{"metrics_type": "XPUM_STATS_MEMORY_USED", "value": 5}]}]}`))
	if tile.used != schemas.Known(5*schemas.MiB) || tile.utilization != nil || tile.power != nil {
		t.Errorf("got %+v", tile)
	}
	for _, bad := range []string{"", "[]", "null", `{"memory_physical_size_byte": "12 GB"}`, `{"device_level": [{"metrics_type": "XPUM_STATS_MEMORY_USED", "value": -1}]}`} {
		if c, s := parseXPUCard([]byte(bad)), parseXPUStats([]byte(bad)); c != (xpuCard{}) || s != (xpuStats{}) {
			t.Errorf("%q reads as %+v, %+v", bad, c, s)
		}
	}
}

func FuzzParseXPU(f *testing.F) {
	f.Add([]byte(xpuDiscovery))
	f.Add([]byte(xpuMeasures))
	f.Add([]byte(`{"tile_level": [{"data_list": [{"metrics_type": "XPUM_STATS_MEMORY_USED", "value": 1e300}]}]}`))
	f.Fuzz(func(t *testing.T, out []byte) {
		c, s := parseXPUCard(out), parseXPUStats(out)
		if !c.total.Known && c.total.Bytes != 0 || !s.used.Known && s.used.Bytes != 0 || s.utilization != nil && (*s.utilization < 0 || *s.utilization > 100) {
			t.Fatalf("%q reads as %+v, %+v", out, c, s)
		}
	})
}
