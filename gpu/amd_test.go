package gpu

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vramjet/vramjet/schemas"
)

// writeTree writes files by their paths below a new root.
func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestAMD(t *testing.T) {
	root := writeTree(t, map[string]string{
		// a graphics card
		"class/drm/card1/device/vendor":              "0x1002",
		"class/drm/card1/device/device":              "0x744c",
		"class/drm/card1/device/unique_id":           "a1b2c3d4e5f60718",
		"class/drm/card1/device/product_name":        "AMD Radeon RX 7900 XTX",
		"class/drm/card1/device/mem_info_vram_total": "25753026560",
		"class/drm/card1/device/mem_info_vram_used":  "1073741824",
		"class/drm/card1/device/mem_info_gtt_total":  "67108864000",
		"class/drm/card1-DP-1/device/vendor":         "0x1002", // a plug of it
		// a chip in the processor: its memory is the machine's
		"class/drm/card2/device/vendor":              "0x1002",
		"class/drm/card2/device/device":              "0x1586",
		"class/drm/card2/device/uevent":              "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:c5:00.0\nX=y",
		"class/drm/card2/device/mem_info_vram_total": "536870912",
		"class/drm/card2/device/mem_info_vram_used":  "400000000",
		"class/drm/card2/device/mem_info_gtt_total":  "64424509440",
		"class/drm/card2/device/mem_info_gtt_used":   "4294967296",
		// one that doesn't tell what is used
		"class/drm/card3/device/vendor":              "0x1002",
		"class/drm/card3/device/unique_id":           "0x77",
		"class/drm/card3/device/mem_info_vram_total": "17179869184",
		"class/drm/card3/device/mem_info_vram_used":  "?",
		// given to a virtual machine
		"class/drm/card4/device/vendor": "0x1002",
		// another maker's
		"class/drm/card5/device/vendor":              "0x8086",
		"class/drm/card5/device/mem_info_vram_total": "1",
		"class/drm/renderD128/device/vendor":         "0x1002",
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
		},
		{
			ID: "0000:c5:00.0", Name: "AMD GPU 0x1586", Kind: "rocm",
			Total: schemas.Known(60 * schemas.GiB), Used: schemas.Known(4 * schemas.GiB), Free: schemas.Known(56 * schemas.GiB),
		},
		{ID: "GPU-77", Name: "AMD GPU", Kind: "rocm", Total: schemas.Known(16 * schemas.GiB)},
	}, got)
}

func TestAMDWithoutDevices(t *testing.T) {
	for _, root := range []string{t.TempDir(), writeTree(t, map[string]string{"class/drm/card0/device/vendor": "0x10de"})} {
		if s, err := openAMD(t.Context(), root); err == nil {
			t.Errorf("opened %v", s)
		}
	}
}
