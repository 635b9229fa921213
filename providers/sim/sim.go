// Package sim is a simulated model server. It speaks the dialects of real ones
// over real HTTP, OpenAI's with the load and unload of llama-server's router and
// Ollama's own, and has device memory that really runs out.
//
// The same request always gets the same answer: words of a little story.
package sim

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// Config is what a server simulates.
type Config struct {
	Devices []Device // none: a server on the CPU, whose memory has no end
	Models  []Model

	// NoAutoload makes a request for a model that is not loaded an error. Else it
	// loads the model and waits, as real servers do.
	NoAutoload bool

	// EvictIdle unloads idle models, the least recently used first, when a request's
	// model has no room, and waits for busy ones to become idle, as single-node
	// schedulers do.
	EvictIdle bool
}

// A Device is a simulated GPU.
type Device struct {
	ID     string
	Memory schemas.Bytes
}

// A Model is a simulated model. When it is loaded it goes to the device that has the
// most room, or where none has enough, to as many of these as it takes.
type Model struct {
	Name  string
	Kinds []schemas.Kind // none means chat and completion
	VRAM  schemas.Bytes

	LoadTime      time.Duration
	FirstToken    time.Duration // from the start of a job in its slot
	TokenInterval time.Duration // 0 means as fast as it goes, in few writes

	Slots   int // jobs at a time; more wait, without a sign of life. 0 means 1
	Tokens  int // of an answer whose request has no max_tokens; 0 means 64
	Context int // in tokens; 0 means 4096
}

// Default returns what `vramjet up --sim` simulates.
func Default() Config {
	return Config{
		Devices: []Device{{ID: "sim-0", Memory: 24 * schemas.GiB}},
		Models: []Model{
			{Name: "sim-fast", VRAM: 2 * schemas.GiB, LoadTime: 100 * time.Millisecond, TokenInterval: time.Millisecond, Slots: 8, Context: 8192},
			{Name: "sim-slow", VRAM: 6 * schemas.GiB, LoadTime: 200 * time.Millisecond, TokenInterval: 30 * time.Millisecond, Slots: 4, Context: 8192},
			{Name: "sim-embed", Kinds: []schemas.Kind{schemas.Embedding}, VRAM: schemas.GiB, LoadTime: 100 * time.Millisecond, Slots: 8, Context: 8192},
		},
	}
}

// An End is how an answer fails in its middle.
type End string

// The ways. The zero End is none: the answer is whole.
const (
	EndCut     End = "cut"     // the connection breaks
	EndError   End = "error"   // an error in the stream, then its regular end
	EndClean   End = "clean"   // the stream ends well, but without the final marker
	EndGarbage End = "garbage" // text that is no part of the protocol
	EndStall   End = "stall"   // nothing more comes until the client leaves
)

// A Failure is what goes wrong with a model. The zero Failure is none.
type Failure struct {
	Times int // how many requests, or loads, it is for; 0 means all

	Load bool // loads run out of memory once their time is over

	Status     int    // the request is answered with this and Body
	Body       string // "" means an error object of the dialect
	RetryAfter string // the header, if any

	After int // tokens before End
	End   End
}

// Counts are what happened to a model since the server began.
type Counts struct {
	Started       int // requests that got a slot
	Waiting       int // requests that wait for one now
	Finished      int // answers that were whole
	Cancelled     int // requests whose client left, before or in the answer
	Peak          int // most requests at a time
	Loads         int // that began: there was room
	Refused       int // loads for which there was no room
	Overcommitted int // of these, loads for which the models themselves had left no room
	Unloads       int
	Cut           int // requests that ran when their model was unloaded
}

// A Server is a simulated model server, an http.Handler. It starts no goroutine.
type Server struct {
	cfg Config
	mux *http.ServeMux

	mu      sync.Mutex               // guards what follows, and all in it
	models  []*model                 // in the order of the config
	foreign map[string]schemas.Bytes // what others take, by device
	idle    chan struct{}            // closed when a model has become idle
	uses    int                      // counts them
}

// New returns a server with nothing loaded.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, mux: http.NewServeMux(), foreign: map[string]schemas.Bytes{}, idle: make(chan struct{})}
	for _, m := range cfg.Models {
		if len(m.Kinds) == 0 {
			m.Kinds = []schemas.Kind{schemas.Chat, schemas.Completion}
		}
		m.Slots = max(m.Slots, 1)
		if m.Tokens == 0 {
			m.Tokens = 64
		}
		if m.Context == 0 {
			m.Context = 4096
		}
		s.models = append(s.models, &model{Model: m, state: schemas.Installed})
	}
	s.routes()
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Fail has a model fail from now on. It panics if there is no such model.
func (s *Server) Fail(name string, f Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(name)
	m.failure, m.failures = f, f.Times
}

// Counts returns what happened to a model. It panics if there is no such model.
func (s *Server) Counts(name string) Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(name)
	m.counts.Waiting = len(m.waiting)
	return m.counts
}

// find returns the model of that name, nil without one. mu is held.
func (s *Server) find(name string) *model {
	i := slices.IndexFunc(s.models, func(m *model) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return s.models[i]
}

// Foreign has somebody else take so much of a device from now on, as far as it is
// free. It returns how much that is.
func (s *Server) Foreign(device string, bytes schemas.Bytes) schemas.Bytes {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, d := range s.cfg.Devices {
		if d.ID == device {
			s.foreign[device] = min(bytes, d.Memory.Minus(s.used(i)))
		}
	}
	return s.foreign[device]
}

// used returns how much of a device the models take. mu is held.
func (s *Server) used(device int) schemas.Bytes {
	var sum schemas.Bytes
	for _, m := range s.models {
		if m.state != schemas.Installed {
			sum += m.held[device]
		}
	}
	return sum
}
