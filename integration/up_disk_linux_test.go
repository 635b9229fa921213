package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/vramjet/vramjet/client"
)

// TestUpOnAFullDisk: vramjet up takes jobs again by itself when a disk that was full has
// room.
func TestUpOnAFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=40m"); errors.Is(err, syscall.EPERM) {
		t.Skip("only root may mount a small disk: skipped")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	up := start(t, "up", "vramjet", "up", "--sim", "--nats", address, "--http", "off", "--data", filepath.Join(disk, "data"))
	up.says("leading")
	u := connect(t, "nats://"+address)
	job := client.Chat("sim-fast", "Say hi")
	if _, err := u.run(job).Result(t.Context()); err != nil {
		t.Fatal(err)
	}
	fill := filepath.Join(disk, "fill")
	if err := os.WriteFile(fill, make([]byte, 40<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	up.says("NATS cannot write to its disk any more")
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	up.says("NATS was started again")
	var err error
	within(t, patience, "a job is taken", func() bool {
		_, err = u.Submit(t.Context(), job)
		return err == nil
	})
	if _, err := u.run(job).Result(t.Context()); err != nil {
		t.Fatal(err)
	}
}
