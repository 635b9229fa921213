package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// A model is a model and what it does now. The server's mutex guards it.
type model struct {
	Model
	state  schemas.ModelState
	held   []schemas.Bytes // by device, of a model that is not installed only
	ready  chan struct{}   // of a model that loads: closed when that ended
	cut    chan struct{}   // of a resident model: closed when it is unloaded under its requests
	failed string          // why the last load failed
	expire bool            // unload when nothing runs any more

	busy    int
	wanted  int      // requests that are to get a slot
	used    int      // when it was used last, as Server.uses had it
	waiting []waiter // for a slot, the first first

	failure  Failure
	failures int // how many are left, where the failure is for a number of times
	counts   Counts
}

// A problem is an error as it goes to the client.
type problem struct {
	status     int
	text, kind string // kind: as llama-server types errors
	retryAfter string
	raw        string // the whole body, if it is given
}

func (p *problem) Error() string { return p.text }

func noModel(name string) *problem {
	return &problem{status: http.StatusBadRequest, text: fmt.Sprintf("model '%s' not found", name), kind: "invalid_request_error"}
}

// A seat is a slot that a request has.
type seat struct {
	model   Model
	cut     <-chan struct{} // closed when the model is unloaded under the request
	failure Failure
}

// A waiter is a request that waits for a slot.
type waiter struct {
	turn     chan struct{} // closed when the slot is its
	priority int
}

// errCrowded is why a load cannot begin yet: its room is that of busy models.
var errCrowded = &problem{status: http.StatusServiceUnavailable, text: "busy models have the memory", kind: "unavailable_error"}

// beginLoad begins to load m: its memory is taken from now on. mu is held.
func (s *Server) beginLoad(m *model) error {
	held := s.lay(m.VRAM)
	for held == nil && s.cfg.EvictIdle && s.evict() {
		held = s.lay(m.VRAM)
	}
	if held == nil {
		if s.cfg.EvictIdle && s.evictable() {
			return errCrowded
		}
		m.counts.Refused++
		if s.crowded(m.VRAM) {
			m.counts.Overcommitted++
		}
		return &problem{status: http.StatusInternalServerError, text: oom(m.VRAM), kind: "server_error"}
	}
	m.state, m.held, m.failed, m.expire = schemas.Loading, held, "", false
	ready := make(chan struct{})
	m.ready = ready
	m.counts.Loads++
	failed := ""
	if m.failure.Load && m.useFailure() {
		failed = oom(m.VRAM)
	}
	time.AfterFunc(m.LoadTime, func() { s.endLoad(m, ready, failed) })
	return nil
}

// lay says where a model of a size goes, by device: the one with the most room, or as
// many of these as it takes. It's nil where there is no room. mu is held.
func (s *Server) lay(size schemas.Bytes) []schemas.Bytes {
	held := make([]schemas.Bytes, len(s.cfg.Devices))
	order := make([]int, len(held))
	room := make([]schemas.Bytes, len(held))
	for i, d := range s.cfg.Devices {
		order[i], room[i] = i, d.Memory.Minus(s.used(i)+s.foreign[d.ID])
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(room[b], room[a]) })
	for n := range order {
		var sum schemas.Bytes
		for _, i := range order[:n+1] {
			sum += room[i]
		}
		if sum < size {
			continue
		}
		left := size
		for _, i := range order[:n+1] {
			held[i] = min(left, room[i])
			left -= held[i]
		}
		return held
	}
	if len(held) == 0 {
		return held // a server on the CPU
	}
	return nil
}

// crowded reports whether a model would find no room even if only the models had
// memory. mu is held.
func (s *Server) crowded(size schemas.Bytes) bool {
	var room schemas.Bytes
	for i, d := range s.cfg.Devices {
		room += d.Memory.Minus(s.used(i))
	}
	return room < size
}

// evict unloads the model that was idle for longest, and reports whether there was
// one. mu is held.
func (s *Server) evict() bool {
	var oldest *model
	for _, m := range s.models {
		if m.state == schemas.Resident && m.busy == 0 && m.wanted == 0 && (oldest == nil || m.used < oldest.used) {
			oldest = m
		}
	}
	if oldest == nil {
		return false
	}
	oldest.unload()
	return true
}

// evictable reports whether a model may become idle. mu is held.
func (s *Server) evictable() bool {
	return slices.ContainsFunc(s.models, func(m *model) bool { return m.state != schemas.Installed })
}

func oom(size schemas.Bytes) string {
	return fmt.Sprintf("ggml_backend_cuda_buffer_type_alloc_buffer: allocating %.2f MiB on device 0: cudaMalloc failed: out of memory", float64(size)/float64(schemas.MiB))
}

// useFailure reports whether the failure still counts, and counts it.
func (m *model) useFailure() bool {
	if m.failure.Times == 0 {
		return true
	}
	m.failures--
	return m.failures >= 0
}

// endLoad ends the load that ready belongs to. failed says why it failed, if it
// did.
func (s *Server) endLoad(m *model, ready chan struct{}, failed string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.ready != ready {
		return // it was unloaded meanwhile
	}
	m.ready, m.failed = nil, failed
	if failed == "" {
		m.state, m.cut = schemas.Resident, make(chan struct{})
	} else {
		m.state = schemas.Installed
	}
	close(ready)
	s.tellIdle()
}

// unload takes m out of memory, whatever it is doing. mu is held.
func (m *model) unload() {
	if m.ready != nil {
		close(m.ready)
		m.ready = nil
	}
	if m.cut != nil {
		close(m.cut)
		m.cut = nil
	}
	m.state, m.expire = schemas.Installed, false
	m.counts.Unloads++
	m.counts.Cut += m.busy
}

// load has m loaded and waits for it. mu is held, but not while it waits.
func (s *Server) load(ctx context.Context, m *model) error {
	for m.state == schemas.Installed {
		err := s.beginLoad(m)
		if err == nil {
			break
		}
		if !errors.Is(err, errCrowded) {
			return err
		}
		if err := s.wait(ctx, s.idle); err != nil { // for a model that is busy to be idle
			return err
		}
	}
	for m.state == schemas.Loading {
		if err := s.wait(ctx, m.ready); err != nil {
			return err
		}
	}
	if m.state == schemas.Installed {
		text := m.failed
		if text == "" {
			text = fmt.Sprintf("model name=%s failed to load", m.Name)
		}
		return &problem{status: http.StatusInternalServerError, text: text, kind: "server_error"}
	}
	return nil
}

// wait waits for c without the mutex, which is held before and after.
func (s *Server) wait(ctx context.Context, c <-chan struct{}) error {
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sit waits for a slot of a model, which is loaded for it if need be. The caller
// leaves the seat in the end.
func (s *Server) sit(ctx context.Context, name string, priority int) (seat, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(name)
	if m == nil {
		return seat{}, noModel(name)
	}
	m.wanted++
	defer func() { m.wanted-- }()
	for {
		if m.state == schemas.Installed && s.cfg.NoAutoload {
			return seat{}, &problem{status: http.StatusBadRequest, text: "model is not loaded", kind: "invalid_request_error"}
		}
		if err := s.load(ctx, m); err != nil {
			if ctx.Err() != nil {
				m.counts.Cancelled++
			}
			return seat{}, err
		}
		if err := s.slot(ctx, m, priority); err != nil {
			m.counts.Cancelled++
			return seat{}, err
		}
		if m.state == schemas.Resident {
			break
		}
		s.free(m) // it was unloaded while this one waited
	}
	m.counts.Started++
	m.counts.Peak = max(m.counts.Peak, m.busy)
	got := seat{model: m.Model, cut: m.cut}
	if !m.failure.Load && m.failure != (Failure{}) && m.useFailure() {
		got.failure = m.failure
	}
	return got, nil
}

// slot waits for a slot: the lowest priority is first, and of one priority who came
// first. mu is held.
func (s *Server) slot(ctx context.Context, m *model, priority int) error {
	if m.busy < m.Slots {
		m.busy++
		return nil
	}
	mine := waiter{make(chan struct{}), priority}
	at := slices.IndexFunc(m.waiting, func(w waiter) bool { return w.priority > priority })
	if at < 0 {
		at = len(m.waiting)
	}
	m.waiting = slices.Insert(m.waiting, at, mine)
	if err := s.wait(ctx, mine.turn); err != nil {
		if i := slices.Index(m.waiting, mine); i >= 0 {
			m.waiting = slices.Delete(m.waiting, i, i+1)
		} else {
			s.free(m) // it was given the slot just now
		}
		return err
	}
	return nil
}

// free gives a slot to the next one, or back. mu is held.
func (s *Server) free(m *model) {
	s.uses++
	m.used = s.uses
	if len(m.waiting) > 0 {
		close(m.waiting[0].turn)
		m.waiting = m.waiting[1:]
		return
	}
	m.busy--
	if m.busy > 0 {
		return
	}
	if m.expire {
		m.unload()
	}
	s.tellIdle()
}

// tellIdle wakes those who wait for room. mu is held.
func (s *Server) tellIdle() {
	close(s.idle)
	s.idle = make(chan struct{})
}

// leave gives the seat back and counts how the request ended.
func (s *Server) leave(name string, end outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(name)
	switch end {
	case whole:
		m.counts.Finished++
	case gone:
		m.counts.Cancelled++
	case broken:
	}
	s.free(m)
}
