//go:build cgo && linux

package gpu

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/schemas"
)

// fakeLibrary is NVIDIA's library as far as it's used, with BOARDS boards in it.
// OLD is a driver without the calls that came late, MIG one with two slices, and
// SICK one that tells of an error at the second reading and loses its board at the
// third.
const fakeLibrary = `
#include <string.h>
#ifndef BOARDS
#define BOARDS 1
#endif
typedef void *dev;
static char board[BOARDS], slice[2], events;
static int readings;
struct v1 { unsigned long long total, free, used; };
struct v2 { unsigned version; unsigned long long total, reserved, free, used; };
struct process { unsigned pid; unsigned long long used; unsigned gpu, compute; };
struct event { dev d; unsigned long long type, data; unsigned gpu, compute; };
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int r) { return r == 15 ? "GPU is lost" : "fake"; }
int nvmlSystemGetDriverVersion(char *v, unsigned n) { strncpy(v, "1.2.3", n); return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = BOARDS; readings++; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, dev *d) { *d = &board[i]; return 0; }
int nvmlDeviceGetName(dev d, char *v, unsigned n) { strncpy(v, "Fake", n); return 0; }
int nvmlDeviceGetUUID(dev d, char *v, unsigned n) {
	strncpy(v, d == &slice[0] ? "MIG-1" : d == &slice[1] ? "MIG-2" : "GPU-1", n);
	if (d > (dev)board && d < (dev)(board + BOARDS)) v[4] = '1' + ((char *)d - board);
	return 0;
}
int nvmlDeviceGetMemoryInfo(dev d, struct v1 *m) { m->total = 100; m->free = 60; m->used = 40; return 0; }
#ifdef OLD
int nvmlDeviceGetComputeRunningProcesses(dev d, unsigned *n, void *v) { *n = 0; return 0; }
#else
int nvmlDeviceGetMemoryInfo_v2(dev d, struct v2 *m) {
	if (m->version != (sizeof *m | 2 << 24)) return 25;
#ifdef SICK
	if (readings > 3) return 15;
#endif
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
int nvmlDeviceGetGpuInstanceId(dev d, unsigned *id) { *id = d == &slice[0] ? 1 : 2; return 0; }
int nvmlDeviceGetComputeInstanceId(dev d, unsigned *id) { *id = 0; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(dev d, unsigned *n, struct process *p) {
	if (d == &slice[0] || d == &slice[1]) return 3;
	if (*n < 3) return 7;
	p[0] = (struct process){ 100, 20, 1, 0 };
	p[1] = (struct process){ 200, -1, 2, 0 };
	p[2] = (struct process){ 300, 10, 2, 0 };
	*n = 3;
	return 0;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(dev d, unsigned *n, struct process *p) {
	p[0] = (struct process){ 300, 10, 2, 0 };
	*n = 1;
	return 0;
}
int nvmlDeviceGetUtilizationRates(dev d, unsigned *u) { u[0] = 42; u[1] = 7; return 0; }
int nvmlDeviceGetTemperature(dev d, int sensor, unsigned *t) { *t = 55; return 0; }
int nvmlDeviceGetPowerUsage(dev d, unsigned *p) { *p = 123456; return 0; }
int nvmlEventSetCreate(dev *set) { *set = &events; return 0; }
int nvmlEventSetFree(dev set) { return 0; }
int nvmlDeviceRegisterEvents(dev d, unsigned long long types, dev set) { return types == 8 && set == &events ? 0 : 2; }
int nvmlEventSetWait_v2(dev set, struct event *e, unsigned timeout) {
	static int told;
	if (timeout) return 999;
#ifdef SICK
	if (readings > 2 && !told++) {
		*e = (struct event){ &board[0], 8, 79, -1, -1 };
		return 0;
	}
#endif
	return 10;
}
#endif
`

func buildLibrary(tb testing.TB, defines ...string) string {
	tb.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		tb.Skip("no gcc to build the fake library with")
	}
	dir := tb.TempDir()
	source := filepath.Join(dir, "nvml.c")
	if err := os.WriteFile(source, []byte(fakeLibrary), 0o644); err != nil {
		tb.Fatal(err)
	}
	args := []string{"-shared", "-fPIC", "-o", filepath.Join(dir, "libnvidia-ml.so.1"), source}
	for _, d := range defines {
		args = append(args, "-D"+d)
	}
	if out, err := exec.CommandContext(tb.Context(), gcc, args...).CombinedOutput(); err != nil {
		tb.Fatalf("build the fake library: %v: %s", err, out)
	}
	return dir
}

// The real binding against a fake library, each in a process of its own: a call
// of a missing function would end it.
func TestNVMLLibrary(t *testing.T) {
	k := schemas.Known
	whole := Device{
		schemas.Device{
			ID: "GPU-1", Name: "Fake", Kind: "cuda", Total: k(100), Used: k(30), Free: k(60), Reserved: k(10),
			Utilization: new(42), Temperature: new(55), Power: new(123),
		},
		[]Process{{100, k(20)}, {200, schemas.Amount{}}, {300, k(10)}},
	}
	old := Device{schemas.Device{ID: "GPU-1", Name: "Fake", Kind: "cuda", Total: k(100), Used: k(40), Free: k(60)}, []Process{}}
	slice := func(id string, processes ...Process) Device {
		d := whole
		d.ID, d.MIG, d.Processes, d.Utilization, d.Power = id, true, processes, nil, nil
		return d
	}
	broken, lost := whole, Device{Device: schemas.Device{ID: "GPU-1", Name: "Fake", Kind: "cuda"}}
	broken.Error = "XID 79: the GPU has fallen off the bus"
	lost.Error = broken.Error
	cases := map[string][][]Device{ // what each reading finds
		"NEW":  {{whole}},
		"OLD":  {{old}},
		"MIG":  {{slice("MIG-1", Process{100, k(20)}), slice("MIG-2", Process{200, schemas.Amount{}}, Process{300, k(10)})}},
		"SICK": {{whole}, {broken}, {lost}, {lost}},
	}
	if variant := os.Getenv("VRAMJET_TEST_NVML"); variant != "" {
		r := Open(slog.New(slog.DiscardHandler))
		for i, want := range cases[variant] {
			got, err := r.Devices(t.Context())
			if err != nil || r.Source() != "nvml 1.2.3" {
				t.Fatalf("%s: %v", r.Source(), err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("reading %d (-want +got):\n%s", i, diff)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		return
	}
	for variant := range cases {
		t.Run(variant, func(t *testing.T) {
			dir := buildLibrary(t, variant)
			again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNVMLLibrary$", "-test.v")
			again.Env = append(os.Environ(), "LD_LIBRARY_PATH="+dir, "VRAMJET_TEST_NVML="+variant)
			out, err := again.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "PASS: TestNVMLLibrary") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// What a reading costs of this program's own: the library's work is no more than
// writing the answers, and each tells of three processes. Once in a second a
// reading asks for all, and in between only for memory and processes.
func BenchmarkNVML(b *testing.B) {
	const boards = 8
	lib := nvml.New(nvml.WithLibraryPath(filepath.Join(buildLibrary(b, "BOARDS=8"), "libnvidia-ml.so.1")))
	s, err := openLibrary(lib, b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	read := func(b *testing.B, prepare func()) {
		b.Helper()
		for b.Loop() {
			prepare()
			if got, err := s.read(b.Context()); err != nil || len(got) != boards || len(got[7].Processes) != 3 {
				b.Fatal(got, err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1e3/float64(b.N)/boards, "µs/device")
	}
	b.Run("all", func(b *testing.B) {
		read(b, func() {
			for _, board := range s.(*nvmlSource).boards {
				if board != nil {
					board.arranged, board.watched = time.Time{}, time.Time{}
				}
			}
		})
	})
	b.Run("memory", func(b *testing.B) { read(b, func() {}) })
	if err := s.close(); err != nil {
		b.Error(err)
	}
}
