package gpu

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/vramjet/vramjet/schemas"
)

// fakeBoard is one device of a fake NVML. A nil error is a call that works.
type fakeBoard struct {
	uuid       string
	memory     nvmlMemory
	lost       error // of the handle
	noV2, noV1 error
	mig        bool
	slices     []*fakeBoard // nil: nothing at that index
}

func (b *fakeBoard) device() nvmlDevice {
	return nvmlDevice{
		uuid:   func() (string, error) { return b.uuid, nil },
		name:   func() (string, error) { return "NVIDIA " + b.uuid, nil },
		memory: func() (nvmlMemory, error) { return b.memory, b.noV2 },
		memoryV1: func() (nvmlMemory, error) {
			m := b.memory
			m.reserved = 0
			return m, b.noV1
		},
		slices: func() (int, error) {
			if !b.mig {
				return 0, errUnsupported
			}
			return len(b.slices), nil
		},
		slice: func(i int) (nvmlDevice, error) {
			if b.slices[i] == nil {
				return nvmlDevice{}, errNotFound
			}
			return b.slices[i].device(), b.slices[i].lost
		},
	}
}

func fakeNVML(boards ...*fakeBoard) nvmlCalls {
	return nvmlCalls{
		driver:   func() (string, error) { return "580.159.04", nil },
		count:    func() (int, error) { return len(boards), nil },
		device:   func(i int) (nvmlDevice, error) { return boards[i].device(), boards[i].lost },
		shutdown: func() error { return nil },
	}
}

func readNVML(t *testing.T, boards ...*fakeBoard) ([]Device, error) {
	t.Helper()
	s, err := newNVML(fakeNVML(boards...))
	if err != nil {
		t.Fatal(err)
	}
	if s.name() != "nvml 580.159.04" {
		t.Errorf("the source is %q", s.name())
	}
	return s.read(t.Context())
}

func TestNVML(t *testing.T) {
	memory := nvmlMemory{total: 80, used: 20, free: 50, reserved: 10}
	got, err := readNVML(t,
		&fakeBoard{uuid: "GPU-new", memory: memory},
		&fakeBoard{uuid: "GPU-old", memory: memory, noV2: errUnsupported},
		&fakeBoard{uuid: "GPU-unified", memory: memory, noV2: errUnsupported, noV1: errUnsupported},
		&fakeBoard{uuid: "GPU-lost", lost: errors.New("GPU is lost")},
		&fakeBoard{uuid: "GPU-broken", noV2: errors.New("unknown error")},
		&fakeBoard{uuid: "GPU-sliced", memory: memory, mig: true, slices: []*fakeBoard{
			{uuid: "MIG-1", memory: nvmlMemory{total: 20, used: 1, free: 19}}, nil, {uuid: "MIG-3", memory: nvmlMemory{total: 40, free: 40}},
		}},
		&fakeBoard{uuid: "GPU-unsliced", memory: memory, mig: true},
	)
	if err != nil {
		t.Fatal(err)
	}
	k := schemas.Known
	wantDevices(t, []schemas.Device{
		{ID: "GPU-new", Name: "NVIDIA GPU-new", Kind: "cuda", Total: k(80), Used: k(20), Free: k(50), Reserved: k(10)},
		{ID: "GPU-old", Name: "NVIDIA GPU-old", Kind: "cuda", Total: k(80), Used: k(20), Free: k(50)},
		{ID: "GPU-unified", Name: "NVIDIA GPU-unified", Kind: "cuda"},
		{ID: "MIG-1", Name: "NVIDIA MIG-1", Kind: "cuda", Total: k(20), Used: k(1), Free: k(19), Reserved: k(0), MIG: true},
		{ID: "MIG-3", Name: "NVIDIA MIG-3", Kind: "cuda", Total: k(40), Used: k(0), Free: k(40), Reserved: k(0), MIG: true},
	}, got)
}

func TestNVMLFailsWhereAllDevicesAreLost(t *testing.T) {
	lost := errors.New("GPU is lost")
	if got, err := readNVML(t, &fakeBoard{lost: lost}, &fakeBoard{noV2: lost}); !errors.Is(err, lost) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestNVMLWithoutDevicesIsShutDown(t *testing.T) {
	calls := fakeNVML()
	down := false
	calls.shutdown = func() error {
		down = true
		return nil
	}
	if _, err := newNVML(calls); !errors.Is(err, errNoDevices) || !down {
		t.Errorf("got %v, shut down: %t", err, down)
	}
}

// A run on a real board, as NVML told it: nothing of it gets lost on the way.
func TestNVMLReplay(t *testing.T) {
	shared := os.Getenv("VRAMJET_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "shared")
	}
	file, err := os.Open(filepath.Join(shared, "data", "h100-nvml-trace.jsonl"))
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("no h100-nvml-trace.jsonl: set VRAMJET_SHARED to the directory above its data directory")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	board := &fakeBoard{uuid: "GPU-h100"}
	s, err := newNVML(fakeNVML(board))
	if err != nil {
		t.Fatal(err)
	}
	r := watch(s)
	lines, peak := 0, schemas.Bytes(0)
	for scanner := bufio.NewScanner(file); scanner.Scan(); lines++ {
		var want struct{ Total, Reserved, Free, Used schemas.Bytes }
		if err := json.Unmarshal(scanner.Bytes(), &want); err != nil {
			t.Fatal(err)
		}
		board.memory = nvmlMemory{uint64(want.Total), uint64(want.Used), uint64(want.Free), uint64(want.Reserved)}
		got, err := r.Devices(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		k := schemas.Known
		wantDevices(t, []schemas.Device{{
			ID: "GPU-h100", Name: "NVIDIA GPU-h100", Kind: "cuda", Total: k(want.Total), Used: k(want.Used), Free: k(want.Free), Reserved: k(want.Reserved),
		}}, got)
		if d := got[0]; d.Total.Bytes != d.Used.Bytes+d.Free.Bytes+d.Reserved.Bytes {
			t.Errorf("%+v does not add up", d)
		}
		peak = max(peak, got[0].Used.Bytes)
	}
	if lines < 100 || peak < 24*schemas.GiB {
		t.Errorf("read %d lines with a peak of %s, want over 100 and the 24 GiB that were taken", lines, peak)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
