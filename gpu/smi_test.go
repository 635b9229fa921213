package gpu

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vramjet/vramjet/schemas"
)

const smiOutput = `GPU-8a6f0d1c-0000-1111-2222-333344445555, NVIDIA H100 80GB HBM3, 81559, 1, 81078, 480
GPU-b0, NVIDIA GB10, [N/A], [N/A], [N/A], [N/A]
`

var smiDevices = []schemas.Device{
	{
		ID: "GPU-8a6f0d1c-0000-1111-2222-333344445555", Name: "NVIDIA H100 80GB HBM3", Kind: "cuda",
		Total: mib(81559), Used: mib(1), Free: mib(81078), Reserved: mib(480),
	},
	{ID: "GPU-b0", Name: "NVIDIA GB10", Kind: "cuda"},
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
"--query-gpu=uuid,name,memory.total,memory.used,memory.free,memory.reserved --format=csv,noheader,nounits") ;;
*) echo "unknown: $*"; exit 2 ;;
esac
cat <<END
`+smiOutput+`END
`)
	s, err := openSMI(t.Context(), command)
	if err != nil {
		t.Fatal(err)
	}
	r := watch(s)
	got, err := r.Devices(t.Context())
	if err != nil || r.Source() != "nvidia-smi" {
		t.Fatal(r.Source(), err)
	}
	wantDevices(t, smiDevices, got)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestSMIOfAnOldDriver(t *testing.T) {
	s, err := openSMI(t.Context(), fakeSMI(t, `case "$1" in
*reserved*) echo 'Field "memory.reserved" is not a valid field to query.'; exit 2 ;;
esac
echo "GPU-1, Tesla K80, 11441, 0, 11441"
`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantDevices(t, []schemas.Device{{ID: "GPU-1", Name: "Tesla K80", Kind: "cuda", Total: mib(11441), Used: mib(0), Free: mib(11441)}}, got)
}

func TestSMIRefuses(t *testing.T) {
	for script, says := range map[string]string{
		"echo \"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\"\nexit 9\n": "couldn't communicate",
		"exit 0\n":                   "no devices",
		"echo No devices were found": "want a uuid",
	} {
		if _, err := openSMI(t.Context(), fakeSMI(t, script)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", script, err, says)
		}
	}
	if _, err := openSMI(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a command that does not exist was opened")
	}
}

func TestParseSMI(t *testing.T) {
	got, err := parseSMI("\r\n" + strings.ReplaceAll(smiOutput, "\n", "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	wantDevices(t, smiDevices, got)
	got, err = parseSMI("GPU-1, Board, Rev 2, 100, [Not Supported], [Unknown Error], N/A")
	if err != nil {
		t.Fatal(err)
	}
	wantDevices(t, []schemas.Device{{ID: "GPU-1", Name: "Board, Rev 2", Kind: "cuda", Total: mib(100)}}, got)
	for _, line := range []string{
		"x", "GPU-1", "GPU-1, name", "GPU-1, name, 1, 2", ", name, 1, 2, 3, 4", "[Unknown Error], name, 1, 2, 3, 4",
		"GPU-1, name, -1, 2, x, 4", "1, 2, 3", "GPU-1, name, 99999999999999999999, 1, 1, x",
	} {
		if got, err := parseSMI(line); err == nil {
			t.Errorf("%q reads as %+v, want an error", line, got)
		}
	}
}

func FuzzParseSMI(f *testing.F) {
	f.Add(smiOutput)
	f.Add("GPU-1, a, b, 1, 2, 3\n\n,,,,,")
	f.Fuzz(func(t *testing.T, csv string) {
		devices, err := parseSMI(csv)
		for _, d := range devices {
			if err != nil || d.ID == "" || d.Kind != "cuda" || d.Total.Bytes%schemas.MiB != 0 || !d.Total.Known && d.Total.Bytes != 0 {
				t.Fatalf("%q reads as %+v, %v", csv, d, err)
			}
		}
	})
}
