package worker

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/vramjet/vramjet/gpu"
	"github.com/vramjet/vramjet/schemas"
)

// owners knows which processes are those of the node's own model servers, where all
// of them run on this machine and can be found. Its methods may be called
// concurrently.
type owners struct {
	find func(addr string) (map[int]bool, error) // the processes of a server
	log  *slog.Logger

	mu     sync.Mutex // guards what follows
	addrs  map[string]bool
	asked  bool         // a device tells its processes: it is worth looking
	ours   map[int]bool // nil: nobody can tell
	failed string       // why, as it was last logged
}

func newOwners(log *slog.Logger) *owners {
	return &owners{find: gpu.ServerProcesses, log: log, addrs: map[string]bool{}}
}

// add has the processes of a backend's server looked for. One on another machine, or
// of a hosted API, has none here.
func (o *owners) add(b Backend) {
	if b.Local == "" {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.addrs[b.Local] = true
}

// pids returns the processes that were found last; nil: nobody can tell. They are
// looked for from the first call on: who has no device that tells its processes does
// not call it.
func (o *owners) pids() map[int]bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = true
	return o.ours
}

// look looks for the processes anew.
func (o *owners) look() {
	o.mu.Lock()
	addrs, asked := maps.Clone(o.addrs), o.asked
	o.mu.Unlock()
	if !asked {
		return
	}
	all, why := map[int]bool{}, ""
	for addr := range addrs {
		pids, err := o.find(addr)
		if err != nil {
			all, why = nil, err.Error()
			break
		}
		for pid := range pids {
			all[pid] = true
		}
	}
	if len(addrs) == 0 {
		all = nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ours = all
	if why != o.failed && why != "" {
		o.log.Info("whose memory is whose cannot be told: a load counts in full until it ended", "reason", why)
	}
	o.failed = why
}

// watch looks again and again, until ctx ends. A load starts processes.
func (o *owners) watch(ctx context.Context, every time.Duration) {
	for {
		o.look()
		select {
		case <-ctx.Done():
			return
		case <-time.After(jitter(every)):
		}
	}
}

// held is what processes of ours hold; unknown where nobody can tell.
func (o *owners) held(processes []gpu.Process) schemas.Amount {
	if processes == nil {
		return schemas.Amount{}
	}
	ours := o.pids()
	if ours == nil {
		return schemas.Amount{}
	}
	sum := schemas.Known(0)
	for _, p := range processes {
		if ours[p.PID] {
			sum.Bytes += p.Bytes.Bytes
			sum.Known = sum.Known && p.Bytes.Known
		}
	}
	return sum
}
