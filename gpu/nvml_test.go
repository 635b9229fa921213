package gpu

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/schemas"
)

// fakeBoard is one device of a fake NVML. A nil error is a call that works.
type fakeBoard struct {
	uuid       string
	noUUID     error
	memory     nvmlMemory
	lost       error // of all calls
	noV2, noV1 error
	mig        bool
	slices     []*fakeBoard // nil: nothing at that index

	place             nvmlPlace
	compute, graphics []nvmlProcess // nil: not supported
	percent, celsius  int           // 0: not supported
	milliwatts        int
	asked             map[string]int // how often
}

// ask counts a call, and returns its value or why there's none.
func ask[T any](b *fakeBoard, call string, value T, why ...error) (T, error) {
	if b.asked == nil {
		b.asked = map[string]int{}
	}
	b.asked[call]++
	return value, cmp.Or(append([]error{b.lost}, why...)...)
}

func unlessZero[T comparable](value T) error {
	if value == *new(T) {
		return errUnsupported
	}
	return nil
}

func (b *fakeBoard) device() nvmlDevice {
	return nvmlDevice{
		uuid:   func() (string, error) { return ask(b, "uuid", b.uuid, b.noUUID) },
		name:   func() (string, error) { return ask(b, "name", "NVIDIA "+b.uuid) },
		memory: func() (nvmlMemory, error) { return ask(b, "memory", b.memory, b.noV2) },
		memoryV1: func() (nvmlMemory, error) {
			m := b.memory
			m.reserved = 0
			return ask(b, "memoryV1", m, b.noV1)
		},
		compute:     func() ([]nvmlProcess, error) { return ask(b, "compute", b.compute, unlessZero(b.compute != nil)) },
		graphics:    func() ([]nvmlProcess, error) { return ask(b, "graphics", b.graphics, unlessZero(b.graphics != nil)) },
		utilization: func() (int, error) { return ask(b, "utilization", b.percent, unlessZero(b.percent)) },
		temperature: func() (int, error) { return ask(b, "temperature", b.celsius, unlessZero(b.celsius)) },
		power:       func() (int, error) { return ask(b, "power", b.milliwatts, unlessZero(b.milliwatts)) },
		watch:       func(string) error { return nil },
		place:       func() (nvmlPlace, error) { return ask(b, "place", b.place, unlessZero(b.place)) },
		slices:      func() (int, error) { return ask(b, "slices", len(b.slices), unlessZero(b.mig)) },
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
		event:    func() (nvmlEvent, error) { return nvmlEvent{}, errNotFound },
		shutdown: func() error { return nil },
	}
}

func openFakeNVML(t *testing.T, root string, boards ...*fakeBoard) source {
	t.Helper()
	s, err := newNVML(fakeNVML(boards...), root)
	if err != nil {
		t.Fatal(err)
	}
	if s.name() != "nvml 580.159.04" {
		t.Errorf("the source is %q", s.name())
	}
	return s
}

func mustRead(t *testing.T, s source) []Device {
	t.Helper()
	got, err := s.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestNVML(t *testing.T) {
	memory := nvmlMemory{total: 80, used: 20, free: 50, reserved: 10}
	got := mustRead(t, openFakeNVML(t, t.TempDir(),
		&fakeBoard{uuid: "GPU-new", memory: memory, percent: 97, celsius: 61, milliwatts: 349_600},
		&fakeBoard{uuid: "GPU-old", memory: memory, noV2: errUnsupported},
		&fakeBoard{uuid: "GPU-unified", memory: memory, noV2: errUnsupported, noV1: errUnsupported},
		&fakeBoard{uuid: "GPU-lost", lost: errors.New("GPU is lost")},
		&fakeBoard{uuid: "GPU-broken", noV2: errors.New("unknown error")},
		&fakeBoard{uuid: "GPU-sliced", memory: memory, mig: true, percent: 50, celsius: 70, milliwatts: 1000, slices: []*fakeBoard{
			{uuid: "MIG-1", memory: nvmlMemory{total: 20, used: 1, free: 19}}, nil, {uuid: "MIG-3", memory: nvmlMemory{total: 40, free: 40}},
		}},
		&fakeBoard{uuid: "GPU-unsliced", memory: memory, mig: true},
	))
	k := schemas.Known
	wantDevices(t, []schemas.Device{
		{
			ID: "GPU-new", Name: "NVIDIA GPU-new", Kind: "cuda", Total: k(80), Used: k(20), Free: k(50), Reserved: k(10),
			Utilization: new(97), Temperature: new(61), Power: new(350),
		},
		{ID: "GPU-old", Name: "NVIDIA GPU-old", Kind: "cuda", Total: k(80), Used: k(20), Free: k(50)},
		{ID: "GPU-unified", Name: "NVIDIA GPU-unified", Kind: "cuda"},
		{ID: "MIG-1", Name: "NVIDIA MIG-1", Kind: "cuda", Total: k(20), Used: k(1), Free: k(19), Reserved: k(0), MIG: true, Temperature: new(70)},
		{ID: "MIG-3", Name: "NVIDIA MIG-3", Kind: "cuda", Total: k(40), Used: k(0), Free: k(40), Reserved: k(0), MIG: true, Temperature: new(70)},
	}, got)
}

func TestNVMLFailsWhereAllDevicesAreLostFromTheStart(t *testing.T) {
	lost := errors.New("GPU is lost")
	s := openFakeNVML(t, t.TempDir(), &fakeBoard{uuid: "GPU-1", lost: lost}, &fakeBoard{uuid: "GPU-2", noV2: lost})
	if got, err := s.read(t.Context()); !errors.Is(err, lost) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestLostDeviceIsKeptAsItWasSeen(t *testing.T) {
	board := &fakeBoard{uuid: "GPU-1", memory: nvmlMemory{total: 80, free: 80}, percent: 5, compute: []nvmlProcess{}}
	other := &fakeBoard{uuid: "GPU-2", memory: nvmlMemory{total: 80, free: 80}}
	s := openFakeNVML(t, t.TempDir(), board, other)
	before := mustRead(t, s)
	for _, b := range []*fakeBoard{board, other} {
		b.lost = errors.New("GPU is lost")
	}
	for range 2 {
		got := mustRead(t, s)
		if got[0].Processes != nil {
			t.Errorf("a lost device tells of processes: %v", got[0].Processes)
		}
		wantDevices(t, []schemas.Device{
			{ID: "GPU-1", Name: "NVIDIA GPU-1", Kind: "cuda", Error: "GPU is lost"},
			{ID: "GPU-2", Name: "NVIDIA GPU-2", Kind: "cuda", Error: "GPU is lost"},
		}, []Device{got[0], {Device: got[1].Device}})
	}
	board.lost, other.lost = nil, nil
	if diff := gocmp.Diff(before, mustRead(t, s)); diff != "" {
		t.Errorf("after it has come back (-want +got):\n%s", diff)
	}
}

// A board that is lost may come back under another handle, and as another board.
func TestLostDeviceIsLookedUpAnew(t *testing.T) {
	now := &fakeBoard{uuid: "GPU-1", memory: nvmlMemory{total: 80, free: 80}}
	calls := fakeNVML(now)
	calls.device = func(int) (nvmlDevice, error) { return now.device(), now.lost }
	s, err := newNVML(calls, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, uuid := range []string{"GPU-1", "GPU-2"} {
		mustRead(t, s)
		now.lost = errors.New("GPU is lost")
		if got := mustRead(t, s); got[0].Error == "" {
			t.Errorf("got %+v", got)
		}
		now = &fakeBoard{uuid: uuid, memory: nvmlMemory{total: 80, free: 80}}
		if got := mustRead(t, s); got[0].ID != uuid || got[0].Error != "" || !got[0].Total.Known {
			t.Errorf("got %+v", got)
		}
	}
}

func TestSlicesAreFoundAnewWhereTheOldOnesAreGone(t *testing.T) {
	slice := func(uuid string) *fakeBoard { return &fakeBoard{uuid: uuid, memory: nvmlMemory{total: 10, free: 10}} }
	old := slice("MIG-old")
	board := &fakeBoard{uuid: "GPU-1", mig: true, slices: []*fakeBoard{old}}
	s := openFakeNVML(t, t.TempDir(), board)
	if got := mustRead(t, s); len(got) != 1 || got[0].ID != "MIG-old" {
		t.Fatalf("got %v", got)
	}
	old.lost = errors.New("invalid argument")
	board.slices = []*fakeBoard{slice("MIG-a"), slice("MIG-b")}
	if got := mustRead(t, s); len(got) != 2 || got[0].ID != "MIG-a" || got[0].Error != "" {
		t.Errorf("got %v", got)
	}
}

func TestNVMLProcesses(t *testing.T) {
	k := schemas.Known
	on := func(pid int, bytes schemas.Amount, gpu, compute uint32) nvmlProcess {
		return nvmlProcess{Process{pid, bytes}, nvmlPlace{gpu, compute}}
	}
	none := wholeBoard
	parent := []nvmlProcess{on(50, k(5), 1, 0), on(51, k(6), 2, 0), on(52, k(7), 2, 1), on(53, k(8), 2, none)}
	memory := nvmlMemory{total: 80, free: 80}
	got := mustRead(t, openFakeNVML(t, t.TempDir(),
		&fakeBoard{
			uuid: "GPU-both", memory: memory, compute: []nvmlProcess{on(9, k(100), none, none), on(7, schemas.Amount{}, none, none)},
			graphics: []nvmlProcess{on(7, k(3), none, none), on(9, schemas.Amount{}, none, none), on(8, schemas.Amount{}, none, none)},
		},
		&fakeBoard{uuid: "GPU-idle", memory: memory, compute: []nvmlProcess{}},
		&fakeBoard{uuid: "GPU-silent", memory: memory, graphics: []nvmlProcess{on(1, k(1), none, none)}},
		&fakeBoard{uuid: "GPU-sliced", mig: true, compute: parent, slices: []*fakeBoard{
			{uuid: "MIG-own", place: nvmlPlace{1, 0}, compute: []nvmlProcess{on(60, k(1), 1, 0)}},
			{uuid: "MIG-parents", place: nvmlPlace{2, 1}},
			{uuid: "MIG-empty", place: nvmlPlace{3, 0}},
			{uuid: "MIG-somewhere"},
		}},
	))
	want := [][]Process{
		{{7, k(3)}, {8, schemas.Amount{}}, {9, k(100)}},
		{},
		nil,
		{{60, k(1)}},
		{{52, k(7)}, {53, k(8)}},
		{},
		nil,
	}
	for i, d := range got {
		if diff := gocmp.Diff(want[i], d.Processes); diff != "" {
			t.Errorf("%s (-want +got):\n%s", d.ID, diff)
		}
	}
}

func TestXIDsStay(t *testing.T) {
	boards := []*fakeBoard{
		{uuid: "GPU-1", memory: nvmlMemory{total: 80, free: 80}},
		{uuid: "GPU-2", mig: true, slices: []*fakeBoard{{uuid: "MIG-1", place: nvmlPlace{1, 0}}, {uuid: "MIG-2", place: nvmlPlace{2, 0}}}},
	}
	calls := fakeNVML(boards...)
	var events []nvmlEvent
	calls.event = func() (nvmlEvent, error) {
		if len(events) == 0 {
			return nvmlEvent{}, errors.New("timeout")
		}
		e := events[0]
		events = events[1:]
		return e, nil
	}
	s, err := newNVML(calls, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	step := func(want [3]string, happened ...nvmlEvent) {
		t.Helper()
		events = happened
		var got [3]string
		for i, d := range mustRead(t, s) {
			got[i] = d.Error
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	step([3]string{})
	var harmless []nvmlEvent
	for _, xid := range []uint64{13, 31, 43, 45, 68, 109} {
		harmless = append(harmless, nvmlEvent{"GPU-1", wholeBoard, xid})
	}
	step([3]string{}, harmless...)
	const off, other = "XID 79: the GPU has fallen off the bus", "XID 999: critical error"
	step([3]string{off}, nvmlEvent{"GPU-1", wholeBoard, 79}, nvmlEvent{"GPU-1", wholeBoard, 48})
	step([3]string{off, "", other}, nvmlEvent{"GPU-2", 2, 999})
	step([3]string{off, "", other})
	boards[0].lost = errors.New("GPU is lost") // the reason says more than what came of it
	step([3]string{off, other, other}, nvmlEvent{"GPU-2", wholeBoard, 999})
	boards[0].lost = nil
	step([3]string{off, other, other})

	s, _ = newNVML(calls, t.TempDir())
	step([3]string{other, other, other}, nvmlEvent{"", wholeBoard, 999}) // it isn't told whose
}

// What never changes is asked once; what no plan depends on, once a second.
func TestNVMLAsksForLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBoard{uuid: "GPU-1", memory: nvmlMemory{total: 80, free: 80}, percent: 1, celsius: 1, milliwatts: 1}
		s := openFakeNVML(t, t.TempDir(), b)
		const seconds = 5
		for range seconds * 10 {
			mustRead(t, s)
			time.Sleep(time.Second / 10)
		}
		for call, want := range map[string]int{"uuid": 1, "name": 1, "memory": 50, "compute": 50, "slices": 6, "utilization": 6, "temperature": 6, "power": 6} {
			if b.asked[call] != want {
				t.Errorf("asked %d times for %s, want %d", b.asked[call], call, want)
			}
		}
	})
}

func TestNVMLWithoutDevicesIsShutDown(t *testing.T) {
	calls := fakeNVML()
	down := false
	calls.shutdown = func() error {
		down = true
		return nil
	}
	if _, err := newNVML(calls, t.TempDir()); !errors.Is(err, errNoDevices) || !down {
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
	s, err := newNVML(fakeNVML(board), t.TempDir())
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
