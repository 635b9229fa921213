package integration

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// TestStreamsComeBack: where streams are deleted under a running system, or the NATS
// server comes back with an empty disk, they are made anew, and jobs run.
func TestStreamsComeBack(t *testing.T) {
	t.Parallel()
	url, server := natsServer(t, "")
	dispatcher := start(t, "dispatcher", "vramjet", "dispatcher", "--server", url, "--http", "off")
	start(t, "worker", "vramjet", "worker", "--server", url, "--sim", "--node", "n0", "--http", "off")
	u := connect(t, url)
	u.serves("sim-slow", 1)
	u.runsWithin(patience)
	js, err := jetstream.New(u.nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, stream := range []string{broker.StreamJobs, broker.StreamResults, "KV_" + broker.BucketState} {
		if err := js.DeleteStream(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
	}
	u.runsWithin(patience)
	dispatcher.says("are made anew")

	server.signal(syscall.SIGKILL)
	<-server.done
	store := filepath.Join(filepath.Dir(server.cmd.Args[2]), "jetstream")
	if err := os.RemoveAll(store); err != nil {
		t.Fatal(err)
	}
	again := start(t, "nats-server again", "nats-server", server.cmd.Args[1:]...)
	again.says("Server is ready")
	u.runsWithin(patience)
}

// runsWithin submits jobs until one ends well.
func (u *user) runsWithin(limit time.Duration) {
	u.Helper()
	took := within(u, limit, "a job is taken and runs", func() bool {
		ticket, err := u.Submit(u.Context(), slow(2))
		if err != nil {
			time.Sleep(100 * time.Millisecond)
			return false
		}
		r, ended, err := u.Ended(u.Context(), ticket.ID)
		for wait := time.Now().Add(2 * time.Second); err == nil && !ended && time.Now().Before(wait); {
			time.Sleep(50 * time.Millisecond)
			r, ended, err = u.Ended(u.Context(), ticket.ID)
		}
		return err == nil && ended && r.Status == schemas.StatusOK
	})
	u.Logf("a job ran after %s", took.Round(time.Millisecond))
}
