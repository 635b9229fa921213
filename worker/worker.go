package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/gpu"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// Config says what a node is. Node is required.
type Config struct {
	Node     string    // the node's id: a subject's token, see schemas.ValidToken
	Version  string    // of the program, for people
	Backends []Backend // more can be added with AddBackend

	// GPU reads the node's devices. Nil: the node has none, or does not know.
	// The worker does not close it.
	GPU gpu.Reader

	// Models are what an operator knows better of models, by their names as users
	// see them or by patterns: see ModelConfig.
	Models map[string]ModelConfig

	// MaxBody is the largest body that a job may have as an object: the node has it in
	// memory. 0: schemas.MaxBody.
	MaxBody schemas.Bytes

	// Drain is how long running jobs may go on when Run's context ends. After
	// that they are given back to the queue. 0: at once.
	Drain time.Duration

	Logger *slog.Logger // nil: slog.Default
}

// A Backend is one model server, or hosted API, of the node.
type Backend struct {
	Name     string // unique on the node
	Kind     string // for people and for policy
	Provider providers.Provider

	// Devices are the ids or the numbers of the devices its models load on. Nil
	// means all of the node's, empty none. A backend that reports devices itself
	// (providers.DeviceReporter) has those instead.
	Devices []string

	// Slots is how many jobs each model runs at once. 0: what the server tells,
	// else 8 for a hosted model, 16 where the server batches what arrives (vLLM,
	// SGLang, TGI), and 1 for any other.
	Slots int

	// Models are patterns, see path.Match, of the models to serve, as the server
	// names them. Empty: all.
	Models []string

	// Prefix stands in front of the server's names in the names that users see.
	Prefix string

	// Price is what its tokens cost: for the dispatcher, which takes the cheapest
	// of several hosted APIs.
	Price schemas.Price

	// Load is how its models are loaded, where the server lets us say it.
	Load LoadConfig

	Limits providers.Limits

	// Run bounds one attempt, from the request to the last chunk, where the job
	// says nothing of it. 0: 10 minutes.
	Run time.Duration

	// LoadTimeout bounds the load of a model without a sign of progress. 0: 5 minutes,
	// and 20 s for each GiB of it.
	LoadTimeout time.Duration

	// Split is how a model lies on several of the devices. "": as servers of the kind
	// have it.
	Split schemas.Split

	// Local is where on this machine its server listens, as host:port, for those who
	// want to know which processes are its own. "": elsewhere, or unknown.
	Local string
}

// withDefaults checks b and fills in what is zero.
func (b Backend) withDefaults() (Backend, error) {
	if b.Name == "" || strings.ContainsAny(b.Name, " \t\r\n") {
		return b, fmt.Errorf("the backend name %q is empty or has whitespace", b.Name)
	}
	if b.Provider == nil {
		return b, fmt.Errorf("backend %s has no provider", b.Name)
	}
	for _, p := range b.Models {
		if _, err := path.Match(p, ""); err != nil {
			return b, fmt.Errorf("backend %s: the model pattern %q: %w", b.Name, p, err)
		}
	}
	if b.Run == 0 {
		b.Run = 10 * time.Minute
	}
	if b.Split == "" {
		b.Split = splitOf(b.Kind)
	}
	return b, nil
}

// pace is how often and how long the node does things.
type pace struct {
	lease   time.Duration // how long the queue waits for a word about a job
	margin  time.Duration // of it, left unused
	claim   time.Duration // how long an accepted offer waits for its go
	sweep   time.Duration // how often leases and claims are looked at
	report  time.Duration // the longest time between two states
	burst   time.Duration // the shortest
	poll    time.Duration // how often a backend is asked for its models
	devices time.Duration // how often the devices are read
	probe   time.Duration // how often a client is asked whether it listens
	fetch   time.Duration // how long a body may take that is an object
}

func defaultPace() pace {
	return pace{
		lease:   broker.AckWait,
		margin:  broker.AckWait / 6,
		claim:   5 * time.Second,
		sweep:   time.Second,
		report:  time.Second,
		burst:   50 * time.Millisecond,
		poll:    2 * time.Second,
		devices: time.Second,
		probe:   time.Second,
		fetch:   30 * time.Second, // 64 MiB take 6 s at 100 Mbit/s
	}
}

// A Worker is one node. Make it with New.
type Worker struct {
	nc       *nats.Conn
	cfg      Config
	pace     pace
	inbox    string // goes and probes' answers arrive below it
	boot     string
	owners   *owners
	messages chan message
	done     chan struct{} // closed when Run returns
	metrics  *metrics
	shown    atomic.Pointer[schemas.NodeState] // what was reported last
	turned   atomic.Int64                      // when Run's loop last turned, in ns
}

// A message tells the owner of a node something. Only that goroutine applies it.
type message interface {
	// apply must not block. What it starts ends with ctx.
	apply(ctx context.Context, n *node)
}

// New returns a worker that talks over nc. It starts nothing.
func New(nc *nats.Conn, cfg Config) (*Worker, error) {
	if !schemas.ValidToken(cfg.Node) {
		return nil, fmt.Errorf("the node id %q is not 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'", cfg.Node)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.Logger = cfg.Logger.With("node", cfg.Node)
	cfg.MaxBody = cmp.Or(cfg.MaxBody, schemas.MaxBody)
	seen := map[string]bool{}
	backends := make([]Backend, 0, len(cfg.Backends))
	for _, b := range cfg.Backends {
		b, err := b.withDefaults()
		if err != nil {
			return nil, err
		}
		if seen[b.Name] {
			return nil, fmt.Errorf("two backends are named %s", b.Name)
		}
		seen[b.Name] = true
		backends = append(backends, b)
	}
	cfg.Backends = backends
	for p := range cfg.Models {
		if _, err := path.Match(p, ""); err != nil {
			return nil, fmt.Errorf("the model pattern %q: %w", p, err)
		}
	}
	inbox := nc.NewInbox()
	w := &Worker{
		nc:       nc,
		cfg:      cfg,
		pace:     defaultPace(),
		inbox:    inbox,
		owners:   newOwners(cfg.Logger),
		boot:     inbox[strings.LastIndexByte(inbox, '.')+1:],
		messages: make(chan message, 1024),
		done:     make(chan struct{}),
		metrics:  newMetrics(cfg.Node),
	}
	w.turned.Store(time.Now().UnixNano())
	return w, nil
}

// ErrStopped is returned to those who ask something of a worker that has ended.
var ErrStopped = errors.New("the worker has stopped")

// send gives m to the owner. It does nothing once Run has returned.
func (w *Worker) send(m message) {
	select {
	case w.messages <- m:
	case <-w.done:
	}
}

// AddBackend adds a backend to the running node. It may be called at any time
// and waits for Run to take it; a name that the node has already is an error.
func (w *Worker) AddBackend(ctx context.Context, b Backend) error {
	b, err := b.withDefaults()
	if err != nil {
		return err
	}
	m := added{backend: b, answer: make(chan error, 1)}
	select {
	case w.messages <- m:
	case <-w.done:
		return ErrStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-m.answer:
		return err
	case <-w.done:
		return ErrStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Run is the node's life. It blocks until ctx ends and the node is empty: from
// then on it refuses offers and says that it drains, lets its jobs run for
// Config.Drain, and gives the rest back to the queue. It does not close the
// connection. It's called once.
//
// An error means that another worker runs under the node's name, or that the
// node could not listen on its subjects.
func (w *Worker) Run(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	var beside sync.WaitGroup // everything that runs beside the owner
	defer beside.Wait()
	defer end()
	defer close(w.done)

	if err := w.alone(ctx); err != nil {
		return err
	}
	n := newNode(w, &beside)
	for _, b := range w.cfg.Backends {
		n.add(life, b)
	}
	if w.cfg.GPU != nil {
		beside.Go(func() { w.watchDevices(life) })
		beside.Go(func() { w.owners.watch(life, w.pace.poll) })
	}
	beside.Go(func() { w.followState(life) })
	stop, err := w.listen()
	if err != nil {
		return err
	}
	defer stop()
	n.loop(ctx, life)
	return nil
}

// loop applies messages until ctx has ended and the node is empty. What it
// starts ends with life.
func (n *node) loop(ctx, life context.Context) {
	pace := n.w.pace
	sweep, report := time.NewTicker(pace.sweep), time.NewTicker(pace.report)
	defer sweep.Stop()
	defer report.Stop()
	quit := ctx.Done()
	var late <-chan time.Time
	for {
		now := time.Now()
		n.report(now)
		n.w.turned.Store(now.UnixNano())
		select {
		case m := <-n.w.messages:
			m.apply(life, n)
		case now := <-sweep.C:
			n.sweep(life, now)
		case <-report.C:
			n.changed = true
		case <-n.due:
			n.due = nil
		case <-quit:
			quit, late = nil, time.After(n.w.cfg.Drain)
			n.leaving, n.changed = true, true
		case <-late:
			late, n.aborting = nil, true
			for _, t := range n.tasks {
				t.end(errDraining)
			}
		}
		if n.leaving && len(n.tasks) == 0 {
			n.changed, n.due, n.reported = true, nil, time.Time{} // the last word, at once
			n.report(time.Now())
			return
		}
	}
}
