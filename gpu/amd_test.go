package gpu

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/schemas"
)

// writeTree writes files by their paths below a new root.
func writeTree(tb testing.TB, files map[string]string) string {
	tb.Helper()
	root := tb.TempDir()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	return root
}

func TestAMD(t *testing.T) {
	root := writeTree(t, map[string]string{
		// a graphics card
		"sys/class/drm/card1/device/vendor":                      "0x1002",
		"sys/class/drm/card1/device/device":                      "0x744c",
		"sys/class/drm/card1/device/unique_id":                   "a1b2c3d4e5f60718",
		"sys/class/drm/card1/device/product_name":                "AMD Radeon RX 7900 XTX",
		"sys/class/drm/card1/device/mem_info_vram_total":         "25753026560",
		"sys/class/drm/card1/device/mem_info_vram_used":          "1073741824",
		"sys/class/drm/card1/device/mem_info_gtt_total":          "67108864000",
		"sys/class/drm/card1/device/gpu_busy_percent":            "87",
		"sys/class/drm/card1/device/hwmon/hwmon3/temp1_input":    "63500",
		"sys/class/drm/card1/device/hwmon/hwmon3/power1_average": "212600000",
		"sys/class/drm/card1/device/hwmon/hwmon3/power1_input":   "1",
		"sys/class/drm/card1-DP-1/device/vendor":                 "0x1002", // a plug of it
		// a chip in the processor: its memory is the machine's
		"sys/class/drm/card2/device/vendor":                    "0x1002",
		"sys/class/drm/card2/device/device":                    "0x1586",
		"sys/class/drm/card2/device/uevent":                    "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:c5:00.0\nX=y",
		"sys/class/drm/card2/device/mem_info_vram_total":       "536870912",
		"sys/class/drm/card2/device/mem_info_vram_used":        "400000000",
		"sys/class/drm/card2/device/mem_info_gtt_total":        "64424509440",
		"sys/class/drm/card2/device/mem_info_gtt_used":         "4294967296",
		"sys/class/drm/card2/device/gpu_busy_percent":          "0",
		"sys/class/drm/card2/device/hwmon/hwmon4/temp1_input":  "?",
		"sys/class/drm/card2/device/hwmon/hwmon4/power1_input": "9400000",
		// one that doesn't tell what is used
		"sys/class/drm/card3/device/vendor":              "0x1002",
		"sys/class/drm/card3/device/unique_id":           "0x77",
		"sys/class/drm/card3/device/mem_info_vram_total": "17179869184",
		"sys/class/drm/card3/device/mem_info_vram_used":  "?",
		// given to a virtual machine
		"sys/class/drm/card4/device/vendor": "0x1002",
		// another maker's
		"sys/class/drm/card5/device/vendor":              "0x8086",
		"sys/class/drm/card5/device/mem_info_vram_total": "1",
		"sys/class/drm/renderD128/device/vendor":         "0x1002",
	})
	s, err := openAMD(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantDevices(t, []schemas.Device{
		{
			ID: "GPU-a1b2c3d4e5f60718", Name: "AMD Radeon RX 7900 XTX", Kind: "rocm",
			Total: schemas.Known(25753026560), Used: schemas.Known(schemas.GiB), Free: schemas.Known(25753026560 - schemas.GiB),
			Utilization: new(87), Temperature: new(64), Power: new(213),
		},
		{
			ID: "0000:c5:00.0", Name: "AMD GPU 0x1586", Kind: "rocm",
			Total: schemas.Known(60 * schemas.GiB), Used: schemas.Known(4 * schemas.GiB), Free: schemas.Known(56 * schemas.GiB),
			Utilization: new(0), Power: new(9),
		},
		{ID: "GPU-77", Name: "AMD GPU", Kind: "rocm", Total: schemas.Known(16 * schemas.GiB)},
	}, got)
}

func TestAMDWithoutDevices(t *testing.T) {
	for _, root := range []string{t.TempDir(), writeTree(t, map[string]string{"sys/class/drm/card0/device/vendor": "0x10de"})} {
		if s, err := openAMD(t.Context(), root); err == nil {
			t.Errorf("opened %v", s)
		}
	}
}

// link makes a link in a tree, as the kernel does for open files.
func link(tb testing.TB, root, path, to string) {
	tb.Helper()
	path = filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.Symlink(to, path); err != nil {
		tb.Skip(err)
	}
}

// amdHost is a machine with a card and a chip, and processes that have them open.
func amdHost(tb testing.TB) string {
	tb.Helper()
	root := writeTree(tb, map[string]string{
		"sys/class/drm/card1/device/vendor":              "0x1002",
		"sys/class/drm/card1/device/uevent":              "PCI_SLOT_NAME=0000:03:00.0",
		"sys/class/drm/card1/device/mem_info_vram_total": "25753026560",
		"sys/class/drm/card2/device/vendor":              "0x1002",
		"sys/class/drm/card2/device/uevent":              "PCI_SLOT_NAME=0000:c5:00.0",
		"sys/class/drm/card2/device/mem_info_vram_total": "536870912",
		"sys/class/drm/card2/device/mem_info_gtt_total":  "64424509440",
		"proc/meminfo":       meminfo,
		"proc/100/fdinfo/3":  "drm-driver:\tamdgpu\ndrm-client-id:\t7\ndrm-pdev:\t0000:03:00.0\ndrm-memory-vram:\t2048 KiB\ndrm-memory-gtt:\t512 KiB",
		"proc/100/fdinfo/4":  "drm-client-id:\t7\ndrm-pdev:\t0000:03:00.0\ndrm-memory-vram:\t2048 KiB", // the same again
		"proc/100/fdinfo/5":  "drm-client-id:\t8\ndrm-pdev:\t0000:03:00.0\ndrm-total-vram:\t3 MiB\ndrm-resident-vram:\t1 MiB",
		"proc/100/fdinfo/6":  "pos:\t0",
		"proc/200/fdinfo/9":  "drm-client-id:\t9\ndrm-pdev:\t0000:c5:00.0\ndrm-memory-vram:\t1 MiB\ndrm-memory-gtt:\t2 MiB",
		"proc/300/fd/unused": "",
	})
	for fd, to := range map[string]string{
		"100/fd/3": "/dev/dri/renderD128", "100/fd/4": "/dev/dri/renderD128", "100/fd/5": "/dev/dri/card1", "100/fd/6": "/dev/null",
		"200/fd/9": "/dev/dri/renderD129", "self/ns/pid": firstNamespace,
	} {
		link(tb, root, "proc/"+fd, to)
	}
	return root
}

func TestAMDProcessesByOpenFiles(t *testing.T) {
	root := amdHost(t)
	s, err := openAMD(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	got := mustRead(t, s)
	wantProcesses(t, []Process{{100, schemas.Known(3 * schemas.MiB)}}, got[0])
	wantProcesses(t, []Process{{200, schemas.Known(3 * schemas.MiB)}}, got[1])
}

// What it can't see it doesn't count as nothing.
func TestAMDProcessesThatMayBeHidden(t *testing.T) {
	for _, c := range []struct {
		namespace string
		want      []Process
	}{{firstNamespace, []Process{}}, {"pid:[4026532000]", nil}, {"", nil}} {
		root := writeTree(t, map[string]string{
			"sys/class/drm/card1/device/vendor":              "0x1002",
			"sys/class/drm/card1/device/uevent":              "PCI_SLOT_NAME=0000:03:00.0",
			"sys/class/drm/card1/device/mem_info_vram_total": "25753026560",
			"proc/100/fd/unused":                             "",
		})
		if c.namespace != "" {
			link(t, root, "proc/self/ns/pid", c.namespace)
		}
		s, err := openAMD(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		wantProcesses(t, c.want, mustRead(t, s)[0])
	}
}

func TestAMDProcessesByKFD(t *testing.T) {
	root := amdHost(t)
	for path, text := range map[string]string{
		"topology/nodes/0/gpu_id":     "0", // the processor
		"topology/nodes/0/properties": "cpu_cores_count 16\nlocation_id 0\ndomain 0",
		"topology/nodes/1/gpu_id":     "51545",
		"topology/nodes/1/properties": "simd_count 192\nlocation_id 768\ndomain 0",
		"proc/100/vram_51545":         "1048576", // less than its open files say
		"proc/400/vram_51545":         "8589934592",
		"proc/500/vram_51545":         "0",
		"proc/600/vram_99":            "5",
	} {
		path = filepath.Join(root, "sys/class/kfd/kfd", path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := openAMD(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	got := mustRead(t, s)
	wantProcesses(t, []Process{{100, schemas.Known(3 * schemas.MiB)}, {400, schemas.Known(8 * schemas.GiB)}}, got[0])
	wantProcesses(t, []Process{{200, schemas.Known(3 * schemas.MiB)}}, got[1])
}

// Looking through all open files is done seldom: what has changed shows later.
func TestOpenFilesAreLookedThroughSeldom(t *testing.T) {
	root := amdHost(t)
	scan := &drmScan{root: root}
	now := time.Now()
	before := scan.look(now)
	if err := os.RemoveAll(filepath.Join(root, "proc/200")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before.on("0000:c5:00.0", chipMemory), scan.look(now.Add(scanEvery-1)).on("0000:c5:00.0", chipMemory)); diff != "" {
		t.Errorf("it has looked again: %s", diff)
	}
	if got := scan.look(now.Add(scanEvery)).on("0000:c5:00.0", chipMemory); len(got) != 0 {
		t.Errorf("it has not looked again: %v", got)
	}
}

// Two devices, and the open files of all processes every 5 s.
func BenchmarkAMD(b *testing.B) {
	root := amdHost(b)
	s, err := openAMD(b.Context(), root)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if got, err := s.read(b.Context()); err != nil || len(got) != 2 {
			b.Fatal(got, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1e3/float64(b.N)/2, "µs/device")
}

func BenchmarkScanDRM(b *testing.B) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		b.Skip("no /proc")
	}
	for b.Loop() {
		scanDRM("/")
	}
	pids, _ := readPIDs("/")
	b.ReportMetric(float64(len(pids)), "processes")
}

func TestParseFdinfo(t *testing.T) {
	k := schemas.Known
	for text, want := range map[string]drmClient{
		"drm-pdev: a\ndrm-client-id: 1\ndrm-total-local0: 5 MiB\ndrm-resident-local0: 4 MiB": {"a", "1", drmMemory{card: k(4 * schemas.MiB)}},
		"drm-pdev: a\ndrm-resident-vram0: 4096\ndrm-resident-vram1: 4096":                    {"a", "", drmMemory{card: k(8192)}},
		"drm-pdev: a\ndrm-total-vram: 0\ndrm-resident-gtt: 1 KiB":                            {"a", "", drmMemory{card: k(0), gtt: k(1024)}},
		"drm-pdev: a\ndrm-total-vram: 1 GiB\ndrm-total-gtt: x KiB\ndrm-shared-vram: 1":       {slot: "a"},
		"pos: 0": {},
	} {
		if got := parseFdinfo(text); got != want {
			t.Errorf("%q reads as %+v, want %+v", text, got, want)
		}
	}
}

func FuzzParseFdinfo(f *testing.F) {
	f.Add("drm-pdev:\t0000:03:00.0\ndrm-client-id:\t8\ndrm-memory-vram:\t2048 KiB\ndrm-total-gtt: 1 MiB")
	f.Add("drm-total-vram: 1152921504606846975\ndrm-total-vram0: 1152921504606846975 KiB")
	f.Fuzz(func(t *testing.T, text string) {
		c := parseFdinfo(text)
		if !c.card.Known && c.card.Bytes != 0 || !c.gtt.Known && c.gtt.Bytes != 0 {
			t.Fatalf("%q reads as %+v", text, c)
		}
	})
}

func FuzzKFDSlot(f *testing.F) {
	f.Add("location_id 768\ndomain 0")
	f.Fuzz(func(t *testing.T, properties string) {
		slot := kfdSlot(properties)
		if slot != "" && len(slot) < len("0000:00:00.0") {
			t.Fatalf("%q reads as %q", properties, slot)
		}
	})
}
