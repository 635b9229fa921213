package gpu

import (
	"testing"

	"github.com/vramjet/vramjet/schemas"
)

const meminfo = `MemTotal:       134217728 kB
MemFree:         1048576 kB
MemAvailable:   125829120 kB
Buffers:          123456 kB
`

// A device whose memory NVML doesn't tell has the machine's, whatever else it
// tells: a DGX Spark.
func TestUnifiedMemoryByNVML(t *testing.T) {
	root := writeTree(t, map[string]string{"proc/meminfo": meminfo})
	spark := func(id string) *fakeBoard {
		return &fakeBoard{uuid: id, noV2: errUnsupported, noV1: errUnsupported, percent: 90, compute: []nvmlProcess{}}
	}
	k := schemas.Known
	want := schemas.Device{
		ID: "GPU-b0", Name: "NVIDIA GPU-b0", Kind: "cuda", Utilization: new(90),
		Total: k(128 * schemas.GiB), Used: k(8 * schemas.GiB), Free: k(120 * schemas.GiB),
	}
	card := &fakeBoard{uuid: "GPU-1", memory: nvmlMemory{total: 10, free: 10}}
	got := mustRead(t, openFakeNVML(t, root, card, spark("GPU-b0")))
	wantDevices(t, []schemas.Device{want}, got[1:])
	if got[0].Total != k(10) {
		t.Errorf("a card has %s", got[0].Total)
	}
	for _, d := range mustRead(t, openFakeNVML(t, root, spark("GPU-1"), spark("GPU-2"))) {
		if d.Total.Known || d.Free.Known {
			t.Errorf("%+v has a memory that two share", d)
		}
	}
	slice := spark("MIG-1")
	if got := mustRead(t, openFakeNVML(t, root, &fakeBoard{uuid: "GPU-1", mig: true, slices: []*fakeBoard{slice}})); got[0].Total.Known {
		t.Errorf("%+v has the machine's memory", got[0])
	}
	nameless := spark("")
	nameless.noUUID = errUnsupported
	if got := mustRead(t, openFakeNVML(t, root, nameless)); got[0].ID != "cuda0" || got[0].Total != want.Total {
		t.Errorf("without a uuid: %+v", got[0])
	}
}

func TestJetson(t *testing.T) {
	files := map[string]string{
		"proc/meminfo":                                 meminfo,
		"proc/device-tree/model":                       "NVIDIA Jetson AGX Orin Developer Kit\x00",
		"sys/devices/platform/gpu.0/load":              "437",
		"sys/class/thermal/thermal_zone0/type":         "cpu-thermal",
		"sys/class/thermal/thermal_zone0/temp":         "99000",
		"sys/class/thermal/thermal_zone1/type":         "gpu-thermal",
		"sys/class/thermal/thermal_zone1/temp":         "48531",
		"sys/class/thermal/thermal_zone2/unrelated":    "",
		"sys/devices/platform/gpu.0/unrelated/or/deep": "",
	}
	k := schemas.Known
	want := schemas.Device{
		ID: "cuda0", Name: "NVIDIA Jetson AGX Orin Developer Kit", Kind: "cuda", Utilization: new(43), Temperature: new(49),
		Total: k(128 * schemas.GiB), Used: k(8 * schemas.GiB), Free: k(120 * schemas.GiB),
	}
	s, err := openJetson(t.Context(), writeTree(t, files))
	if err != nil {
		t.Fatal(err)
	}
	wantDevices(t, []schemas.Device{want}, mustRead(t, s))

	// an older system, of which only the release is known
	s, err = openJetson(t.Context(), writeTree(t, map[string]string{"etc/nv_tegra_release": "# R32 (release), REVISION: 7.1"}))
	if err != nil {
		t.Fatal(err)
	}
	wantDevices(t, []schemas.Device{{ID: "cuda0", Name: "NVIDIA Jetson", Kind: "cuda"}}, mustRead(t, s))

	if _, err := openJetson(t.Context(), writeTree(t, map[string]string{"proc/device-tree/model": "Raspberry Pi 5", "proc/meminfo": meminfo})); err == nil {
		t.Error("another board passes for a Jetson")
	}
}

func FuzzParseMeminfo(f *testing.F) {
	f.Add(meminfo)
	f.Add("MemTotal: 1 kB\nMemAvailable: 2 kB")
	f.Add("MemTotal: 18446744073709551615 kB")
	f.Fuzz(func(t *testing.T, text string) {
		total, available := parseMeminfo(text)
		if total.Known && available.Known && available.Bytes > total.Bytes || !total.Known && total.Bytes != 0 {
			t.Fatalf("%q reads as %v, %v", text, total, available)
		}
	})
}
