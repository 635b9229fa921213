package embedded_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker/embedded"
)

// smallDisk mounts a disk of some bytes.
func smallDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size)
	if errors.Is(err, syscall.EPERM) {
		t.Skip("only root may mount a small disk: skipped")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A heal is a server on a small disk that Heal looks after, and a client that publishes to
// it.
type heal struct {
	*testing.T
	queue  jetstream.JetStream
	client *nats.Conn
	log    *records
	dir    string // where the server stores
	fill   string // a file that leaves no room
	taken  uint64 // messages that were acknowledged
}

func newHeal(t *testing.T) *heal {
	t.Helper()
	disk := smallDisk(t, "16m")
	h := &heal{T: t, log: &records{}, dir: filepath.Join(disk, "data"), fill: filepath.Join(disk, "fill")}
	srv, err := embedded.Start(embedded.Config{Dir: h.dir, Port: -1, MaxStore: 1 << 30}, slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), h.log), nil)))
	h.must(err)
	t.Cleanup(srv.Shutdown)
	ctx, stop := context.WithCancel(t.Context())
	healed := make(chan struct{})
	go func() { defer close(healed); srv.Heal(ctx) }()
	t.Cleanup(func() { stop(); <-healed })
	h.client, err = nats.Connect("", nats.InProcessServer(srv.InProcess()), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	h.must(err)
	t.Cleanup(h.client.Close)
	h.queue = js(t, h.client)
	_, err = h.queue.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	h.must(err)
	return h
}

func (h *heal) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *heal) publish() error {
	ctx, cancel := context.WithTimeout(h.Context(), time.Second)
	defer cancel()
	_, err := h.queue.Publish(ctx, "s", make([]byte, 64<<10))
	if err == nil {
		h.taken++
	}
	return err
}

// full fills the disk until the server takes no message.
func (h *heal) full() {
	h.Helper()
	h.must(os.WriteFile(h.fill, make([]byte, 12<<20), 0o600))
	for h.publish() == nil {
		if h.taken > 1000 {
			h.Fatal("the disk is never full")
		}
	}
}

// within waits until something is so.
func (h *heal) within(what string, so func() bool) {
	h.Helper()
	for began := time.Now(); !so(); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			h.Fatalf("not so: %s", what)
		}
	}
}

// healed waits until a message is taken, and sees that those before are there.
func (h *heal) healed() {
	h.Helper()
	h.within("a message is taken", func() bool { return h.publish() == nil })
	stream, err := h.queue.Stream(h.Context(), "S")
	h.must(err)
	if got := stream.CachedInfo().State.Msgs; got < h.taken {
		h.Errorf("it has %d messages, of %d that were acknowledged", got, h.taken)
	}
}

// records are lines of a log.
type records struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write adds a line.
func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *records) has(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(r.text.String(), text)
}

// TestAFullDiskHeals: when a disk that was full has room again, messages are taken again,
// and those that were acknowledged are there.
func TestAFullDiskHeals(t *testing.T) {
	h := newHeal(t)
	h.full()
	time.Sleep(5 * time.Second) // Heal looks twice
	if n := h.client.Stats().Reconnects; n > 0 {
		t.Errorf("the server was started again %d times while its disk was full", n)
	}
	h.must(os.Remove(h.fill))
	h.healed()
}

// TestAFailedRestartIsTriedAgain: a server that does not start again is tried again.
func TestAFailedRestartIsTriedAgain(t *testing.T) {
	h := newHeal(t)
	h.full()
	store := filepath.Join(h.dir, "jetstream")
	h.must(syscall.Mount(store, store, "", syscall.MS_BIND, ""))
	readOnly := true
	h.must(syscall.Mount("", store, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	t.Cleanup(func() {
		if readOnly {
			_ = syscall.Unmount(store, syscall.MNT_DETACH)
		}
	})
	h.must(os.Remove(h.fill))
	h.within("a restart fails", func() bool { return h.log.has("NATS did not start again") })
	h.must(syscall.Unmount(store, 0))
	readOnly = false
	h.healed()
}
