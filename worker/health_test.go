package worker

import (
	"strings"
	"testing"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// TestHealth: a worker lives while its loop turns, and serves while a backend is healthy.
func TestHealth(t *testing.T) {
	r := newRig(t, nil)
	long := time.Now().Add(-time.Minute).UnixNano()
	r.worker.turned.Store(long)
	for stop := time.Now().Add(patience); r.worker.Alive() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(stop) {
			t.Fatalf("its loop turns, and it is said: %v", r.worker.Alive())
		}
	}
	if err := r.worker.Serves(); err != nil {
		t.Errorf("a healthy backend: %v", err)
	}
	r.http.Close()
	r.await(func(s *schemas.NodeState) bool { return !s.Backends[0].Healthy })
	if err := r.worker.Serves(); err == nil || !strings.HasPrefix(err.Error(), "sim: ") {
		t.Errorf("a backend that is gone: %v", err)
	}
	r.stop()
	r.worker.turned.Store(long)
	if err := r.worker.Alive(); err == nil || err.Error() != "it hangs, for 1m0s" {
		t.Errorf("a loop that does not turn: %v", err)
	}
}
