package embedded

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

const (
	healEvery = 2 * time.Second // how often Heal looks
	healRoom  = 1 << 20         // how many bytes the disk must take again
)

// Heal looks after the server until ctx ends: where it could not write once, as on a full
// disk, and the disk takes something again, the server is started again. By itself it
// would never write again, on purpose: it does not know what is on the disk. Whoever is
// connected connects again, and what was acknowledged is there.
func (s *Server) Heal(ctx context.Context) {
	tick := time.NewTicker(healEvery)
	defer tick.Stop()
	told, down := false, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		why, ill := s.cannotWrite()
		if !ill && !down {
			told = false
			continue
		}
		if !told {
			told = true
			s.log.Error("NATS cannot write to its disk any more: nothing is accepted until there is room", "dir", s.opts.StoreDir, "err", why)
		}
		if tryDisk(s.opts.StoreDir) != nil {
			continue
		}
		err := s.restart() //nolint:contextcheck // a port is tried at once or not at all
		if down = err != nil; down {
			s.log.Error("NATS did not start again", "err", err)
			continue
		}
		s.log.Warn("NATS was started again, as its disk can be written to again", "dir", s.opts.StoreDir)
	}
}

// cannotWrite reports whether a write failed, and which. NATS then writes no more to what
// it was for, or, where that was its own, has no JetStream any more.
func (s *Server) cannotWrite() (why string, ill bool) {
	now, answer := s.current(), &recorder{header: http.Header{}}
	now.HandleHealthz(answer, &http.Request{URL: &url.URL{}})
	said := answer.body.Bytes()
	return string(said), !now.JetStreamEnabled() || answer.status >= http.StatusBadRequest && bytes.Contains(said, []byte("write error"))
}

// restart stops the server and starts it again on the same port. Where that fails it stays
// stopped, and may be tried again.
func (s *Server) restart() error {
	old := s.current()
	old.Shutdown()
	old.WaitForShutdown()
	now, err := start(s.opts, s.log)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = now
	return nil
}

// tryDisk writes a file to a directory, syncs it, and removes it.
func tryDisk(dir string) (err error) {
	file, err := os.Create(filepath.Join(dir, "room.tmp"))
	if err != nil {
		return fmt.Errorf("try the disk: %w", err)
	}
	defer os.Remove(file.Name()) // if that fails, the next try makes it anew
	_, err = file.Write(make([]byte, healRoom))
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("try the disk: %w", err)
	}
	return nil
}

// A recorder keeps an HTTP answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header returns the headers.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader keeps the status.
func (r *recorder) WriteHeader(status int) { r.status = status }

// Write keeps a part of the body.
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
