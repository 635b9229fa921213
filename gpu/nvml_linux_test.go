//go:build cgo && linux

package gpu

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vramjet/vramjet/schemas"
)

// fakeLibrary is NVIDIA's library as far as it's used, with one board in it.
// OLD is a driver without the calls that came late, MIG one with two slices.
const fakeLibrary = `
#include <string.h>
typedef void *dev;
static char board, slice[2];
struct v1 { unsigned long long total, free, used; };
struct v2 { unsigned version; unsigned long long total, reserved, free, used; };
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int r) { return "fake"; }
int nvmlSystemGetDriverVersion(char *v, unsigned n) { strncpy(v, "1.2.3", n); return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, dev *d) { *d = &board; return 0; }
int nvmlDeviceGetName(dev d, char *v, unsigned n) { strncpy(v, "Fake", n); return 0; }
int nvmlDeviceGetUUID(dev d, char *v, unsigned n) { strncpy(v, d == &board ? "GPU-1" : d == &slice[0] ? "MIG-1" : "MIG-2", n); return 0; }
int nvmlDeviceGetMemoryInfo(dev d, struct v1 *m) { m->total = 100; m->free = 60; m->used = 40; return 0; }
#ifndef OLD
int nvmlDeviceGetMemoryInfo_v2(dev d, struct v2 *m) {
	if (m->version != (sizeof *m | 2 << 24)) return 25;
	m->total = 100; m->reserved = 10; m->free = 60; m->used = 30;
	return 0;
}
#ifdef MIG
int nvmlDeviceGetMigMode(dev d, unsigned *now, unsigned *pending) { *now = 1; return 0; }
#else
int nvmlDeviceGetMigMode(dev d, unsigned *now, unsigned *pending) { return 3; }
#endif
int nvmlDeviceGetMaxMigDeviceCount(dev d, unsigned *n) { *n = 3; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(dev d, unsigned i, dev *s) {
	if (i == 1) return 6;
	*s = &slice[i / 2];
	return 0;
}
#endif
`

// The real binding against a fake library, each in a process of its own: a call
// of a missing function would end it.
func TestNVMLLibrary(t *testing.T) {
	k := schemas.Known
	whole := schemas.Device{ID: "GPU-1", Name: "Fake", Kind: "cuda", Total: k(100), Used: k(30), Free: k(60), Reserved: k(10)}
	old := schemas.Device{ID: "GPU-1", Name: "Fake", Kind: "cuda", Total: k(100), Used: k(40), Free: k(60)}
	first, second := whole, whole
	first.ID, first.MIG, second.ID, second.MIG = "MIG-1", true, "MIG-2", true
	cases := map[string][]schemas.Device{"NEW": {whole}, "OLD": {old}, "MIG": {first, second}}

	if variant := os.Getenv("VRAMJET_TEST_NVML"); variant != "" {
		r := Open(slog.New(slog.DiscardHandler))
		got, err := r.Devices(t.Context())
		if err != nil || r.Source() != "nvml 1.2.3" {
			t.Fatalf("%s: %v", r.Source(), err)
		}
		wantDevices(t, cases[variant], got)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		return
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc to build the fake library with")
	}
	for variant := range cases {
		t.Run(variant, func(t *testing.T) {
			dir := t.TempDir()
			source := filepath.Join(dir, "nvml.c")
			if err := os.WriteFile(source, []byte(fakeLibrary), 0o644); err != nil {
				t.Fatal(err)
			}
			build := exec.CommandContext(t.Context(), gcc, "-shared", "-fPIC", "-D"+variant, "-o", filepath.Join(dir, "libnvidia-ml.so.1"), source)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("build the fake library: %v: %s", err, out)
			}
			again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNVMLLibrary$", "-test.v")
			again.Env = append(os.Environ(), "LD_LIBRARY_PATH="+dir, "VRAMJET_TEST_NVML="+variant)
			out, err := again.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "PASS: TestNVMLLibrary") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
