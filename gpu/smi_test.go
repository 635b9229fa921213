package gpu

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/schemas"
)

// What nvidia-smi says of two devices; the second's memory is the machine's.
const smiOutput = `GPU-8a6f0d1c-0000-1111-2222-333344445555, 00000000:04:00.0, NVIDIA H100 80GB HBM3, 81559, 1, 81078, 480, 12, 34, 70.57
GPU-b0, 0000000F:01:00.0, NVIDIA GB10, [N/A], [N/A], [N/A], [N/A], 0, 41, 4.49
`

var smiDevices = []schemas.Device{
	{
		ID: "GPU-8a6f0d1c-0000-1111-2222-333344445555", Name: "NVIDIA H100 80GB HBM3", Kind: "cuda",
		Total: mib(81559), Used: mib(1), Free: mib(81078), Reserved: mib(480),
		Utilization: new(12), Temperature: new(34), Power: new(71),
	},
	{ID: "GPU-b0", Name: "NVIDIA GB10", Kind: "cuda", Utilization: new(0), Temperature: new(41), Power: new(4)},
}

func mib(n schemas.Bytes) schemas.Amount { return schemas.Known(n * schemas.MiB) }

// fakeSMI writes a command that behaves as script says.
func fakeSMI(t *testing.T, script string) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the fake nvidia-smi is a shell script")
	}
	path := filepath.Join(t.TempDir(), "nvidia-smi")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSMI(t *testing.T) {
	command := fakeSMI(t, `case "$1 $2" in
"--query-gpu=uuid,pci.bus_id,name,memory.total,memory.used,memory.free,memory.reserved,utilization.gpu,temperature.gpu,power.draw --format=csv,noheader,nounits")
cat <<END
`+smiOutput+`END
;;
"--query-compute-apps=gpu_uuid,pid,used_memory --format=csv,noheader,nounits")
cat <<END
GPU-b0, 300, [N/A]
GPU-8a6f0d1c-0000-1111-2222-333344445555, 200, 16000
GPU-8a6f0d1c-0000-1111-2222-333344445555, 100, 5
END
;;
*) echo "unknown: $*"; exit 2 ;;
esac
`)
	root := writeTree(t, map[string]string{"proc/meminfo": meminfo})
	s, err := openSMI(t.Context(), command, root)
	if err != nil {
		t.Fatal(err)
	}
	r := watch(s)
	got, err := r.Devices(t.Context())
	if err != nil || r.Source() != "nvidia-smi" {
		t.Fatal(r.Source(), err)
	}
	unified := smiDevices[1]
	unified.Total, unified.Used, unified.Free = schemas.Known(128*schemas.GiB), schemas.Known(8*schemas.GiB), schemas.Known(120*schemas.GiB)
	wantDevices(t, []schemas.Device{smiDevices[0], unified}, got)
	wantProcesses(t, []Process{{100, mib(5)}, {200, mib(16000)}}, got[0])
	wantProcesses(t, []Process{{300, schemas.Amount{}}}, got[1])
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func wantProcesses(t *testing.T, want []Process, d Device) {
	t.Helper()
	if diff := cmp.Diff(want, d.Processes); diff != "" {
		t.Errorf("processes of %s (-want +got):\n%s", d.ID, diff)
	}
}

// Who computes is empty where nobody does, and unknown where it can't be told.
func TestSMIProcesses(t *testing.T) {
	for script, want := range map[string][]Process{
		"":                             {},
		"echo":                         {},
		"echo no such option; exit 2":  nil,
		"echo 'GPU-1, 1'":              nil,
		"echo 'GPU-1, x, 1'":           nil,
		"echo '[N/A], 1, 1'":           nil,
		"echo 'GPU-1, 5, [Not Found]'": {{PID: 5}},
		"echo 'GPU-2, 5, 1'":           {},
	} {
		s, err := openSMI(t.Context(), fakeSMI(t, `case "$1" in
--query-compute-apps=*) `+script+"\n exit $? ;;\n*name,memory.total,memory.used,memory.free) echo 'GPU-1, Board, 1, 0, 1' ;;\n*) exit 1 ;;\nesac"), "/")
		if err != nil {
			t.Fatal(err)
		}
		t.Log(script)
		wantProcesses(t, want, mustRead(t, s)[0])
	}
}

func TestSMIOfAnOldDriver(t *testing.T) {
	for unknown, want := range map[string]schemas.Device{
		"reserved": {ID: "GPU-1", Name: "Tesla K80", Kind: "cuda", Total: mib(11441), Used: mib(0), Free: mib(11441), Temperature: new(40)},
		"power":    {ID: "GPU-1", Name: "Tesla K80", Kind: "cuda", Total: mib(11441), Used: mib(0), Free: mib(11441)},
	} {
		s, err := openSMI(t.Context(), fakeSMI(t, `case "$1" in
*`+unknown+`*) echo 'Field "`+unknown+`" is not a valid field to query.'; exit 2 ;;
*power*) echo "GPU-1, 0000:04:00.0, Tesla K80, 11441, 0, 11441, [Not Supported], 40, [N/A]" ;;
*) echo "GPU-1, Tesla K80, 11441, 0, 11441" ;;
esac
`), "/")
		if err != nil {
			t.Fatal(err)
		}
		wantDevices(t, []schemas.Device{want}, mustRead(t, s))
	}
}

func TestSMIRefuses(t *testing.T) {
	for script, says := range map[string]string{
		"echo \"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\"\nexit 9\n": "couldn't communicate",
		"exit 0\n":                   "no devices",
		"echo No devices were found": "want 5 columns",
	} {
		if _, err := openSMI(t.Context(), fakeSMI(t, script), "/"); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", script, err, says)
		}
	}
	if _, err := openSMI(t.Context(), filepath.Join(t.TempDir(), "none"), "/"); err == nil {
		t.Error("a command that does not exist was opened")
	}
}

func TestParseSMI(t *testing.T) {
	all, few := smiColumns[0], smiColumns[2]
	plain := func(csv string, columns []string) (devices []schemas.Device, unified []bool) {
		found, err := parseSMI(csv, columns)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			devices, unified = append(devices, f.Device), append(unified, f.unified)
		}
		return devices, unified
	}
	got, unified := plain("\r\n"+strings.ReplaceAll(smiOutput, "\n", "\r\n"), all)
	if diff := cmp.Diff(smiDevices, got); diff != "" || unified[0] || !unified[1] {
		t.Errorf("%v (-want +got):\n%s", unified, diff)
	}
	got, unified = plain(`GPU-1, Board, Rev 2, 100, [Not Supported], [Unknown Error]
[N/A], Orin (nvgpu), [Not Supported], [N/A], N/A
GPU-3, hidden, [Insufficient Permissions], [Insufficient Permissions], [Insufficient Permissions]`, few)
	if diff := cmp.Diff([]schemas.Device{
		{ID: "GPU-1", Name: "Board, Rev 2", Kind: "cuda", Total: mib(100)},
		{ID: "cuda1", Name: "Orin (nvgpu)", Kind: "cuda"},
		{ID: "GPU-3", Name: "hidden", Kind: "cuda"},
	}, got); diff != "" || unified[0] || !unified[1] || unified[2] {
		t.Errorf("%v (-want +got):\n%s", unified, diff)
	}
	if got, _ = plain("[N/A], 0000:01:00.0, x, 1, 1, 1, 1, 101, [N/A], [N/A]", all); got[0].ID != "0000:01:00.0" || got[0].Utilization != nil {
		t.Errorf("got %+v", got)
	}
	for _, line := range []string{
		"x", "GPU-1", "GPU-1, name", "GPU-1, name, 1, 2", ", name, 1, 2, 3", "GPU-1, name, -1, 2, x", "1, 2, 3",
		"GPU-1, name, 99999999999999999999, 1, 1", "GPU-1, name, 1, NaN, 1", "No devices, were, found, 1, 2",
	} {
		if got, err := parseSMI(line, few); err == nil {
			t.Errorf("%q reads as %+v, want an error", line, got)
		}
	}
}

func FuzzParseSMI(f *testing.F) {
	f.Add(smiOutput, uint8(0))
	f.Add("GPU-1, a, b, 1, 2, 3\n\n,,,,,", uint8(2))
	f.Fuzz(func(t *testing.T, csv string, columns uint8) {
		devices, err := parseSMI(csv, smiColumns[int(columns)%len(smiColumns)])
		for _, d := range devices {
			if err != nil || d.ID == "" || d.Kind != "cuda" || d.Total.Bytes%schemas.MiB != 0 || !d.Total.Known && d.Total.Bytes != 0 ||
				d.unified && (d.Total.Known || d.Used.Known) || d.Utilization != nil && (*d.Utilization < 0 || *d.Utilization > 100) {
				t.Fatalf("%q reads as %+v, %v", csv, d, err)
			}
		}
	})
}

func FuzzParseSMIApps(f *testing.F) {
	f.Add("GPU-1, 5, 100\nGPU-1, 6, [N/A]\n")
	f.Fuzz(func(t *testing.T, csv string) {
		apps, ok := parseSMIApps(csv)
		for id, all := range apps {
			for _, p := range all {
				if !ok || id == "" || p.PID <= 0 || !p.Bytes.Known && p.Bytes.Bytes != 0 {
					t.Fatalf("%q reads as %v, %t", csv, apps, ok)
				}
			}
		}
	})
}
