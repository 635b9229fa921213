package embedded_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
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

// TestAFullDiskHeals: when a disk that was full has room again, messages are taken again,
// and those that were acknowledged are there.
func TestAFullDiskHeals(t *testing.T) {
	disk := smallDisk(t, "16m")
	srv, err := embedded.Start(embedded.Config{Dir: filepath.Join(disk, "data"), Port: -1, MaxStore: 1 << 30}, quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Shutdown)
	ctx, stop := context.WithCancel(t.Context())
	healed := make(chan struct{})
	go func() { defer close(healed); srv.Heal(ctx) }()
	t.Cleanup(func() { stop(); <-healed })
	nc, err := nats.Connect("", nats.InProcessServer(srv.InProcess()), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	queue := js(t, nc)
	if _, err := queue.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	fill := filepath.Join(disk, "fill")
	if err := os.WriteFile(fill, make([]byte, 12<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	publish := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := queue.Publish(ctx, "s", make([]byte, 64<<10))
		return err
	}
	var taken uint64
	for ; err == nil; err = publish() {
		if taken++; taken > 1000 {
			t.Fatal("the disk is never full")
		}
	}
	taken--                     // before the first round, nothing was published
	time.Sleep(5 * time.Second) // Heal looks twice
	if n := nc.Stats().Reconnects; n > 0 {
		t.Errorf("the server was started again %d times while its disk was full", n)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); publish() != nil; time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			t.Fatal("it takes no messages")
		}
	}
	stream, err := queue.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().State.Msgs; got < taken+1 {
		t.Errorf("it has %d messages, of %d that were acknowledged", got, taken+1)
	}
}
