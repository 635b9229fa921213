package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// What the server is set to. A reader that takes nothing is cut off after
// writeDeadline, and never stalls who publishes to it: the server drops what comes
// for it while 3/4 of maxPending wait already, and says so to nobody.
const (
	defaultHost       = "127.0.0.1"
	defaultPort       = 4222
	defaultMaxPayload = 8 << 20
	maxPending        = 64 << 20 // several of the largest messages: a reader must be able to get one
	writeDeadline     = 2 * time.Second
	pingInterval      = 5 * time.Second
	pingsOut          = 2
	startTimeout      = 30 * time.Second // a large store takes its time
	startLook         = 100 * time.Millisecond
)

// What a server calls itself that is not set to another name. Its clients are told by it
// that it is an embedded one, and whether a message is on the disk before it is
// acknowledged: nothing else that a client sees tells that.
const (
	NameSynced   = "vramjet-embedded-synced"
	NameUnsynced = "vramjet-embedded"
)

// Config tunes a server. All but Dir may be left zero.
type Config struct {
	// Dir is the data directory. It is made if it is not there. One server at a
	// time may use it.
	Dir string

	// Host is the address to listen on; "": 127.0.0.1. Port is the port; 0: 4222,
	// -1: any free one.
	Host string
	Port int

	// InProcessOnly opens no port: see Server.InProcess.
	InProcessOnly bool

	// SyncInterval is how long a message may be acknowledged and not be on disk
	// yet, if the machine loses power. 0: never, each is synced first. A process
	// that is killed loses nothing either way.
	SyncInterval time.Duration

	// MaxPayload is the most bytes of a message; 0: 8 MiB.
	MaxPayload int32

	// MaxStore is the most bytes of all streams; 0: three quarters of the disk.
	MaxStore int64

	// Base is what else the server is set to: users, TLS, a cluster. It is not
	// changed. What this package is for wins over it; its pings, limits and
	// deadlines win over this package's where they are set. nil: nothing.
	Base *server.Options
}

// A Server is a NATS server that runs.
type Server struct {
	opts *server.Options
	log  *slog.Logger
	url  string
	lock *dirLock

	mu     sync.Mutex
	server *server.Server // another one once Heal has started it again
}

// Start starts a server and returns when it takes connections. It returns an
// error, and leaves nothing running, where another process uses the directory,
// where the directory is not ours to use, and where the port is taken.
func Start(cfg Config, log *slog.Logger) (*Server, error) {
	if cfg.Dir == "" {
		return nil, errors.New("start the embedded NATS server: no data directory is set")
	}
	opts := options(cfg)
	lock, err := openDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("start the embedded NATS server: %w", err)
	}
	s, err := start(opts, log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the embedded NATS server: %w", err), lock.Close())
	}
	srv := &Server{opts: opts, log: log, server: s, lock: lock}
	if addr, ok := s.Addr().(*net.TCPAddr); ok && !opts.DontListen {
		srv.url = s.ClientURL()
		opts.Port = addr.Port // also when it is started again
	}
	return srv, nil
}

func start(opts *server.Options, log *slog.Logger) (*server.Server, error) {
	if err := checkPort(opts); err != nil {
		return nil, err
	}
	s, err := server.NewServer(opts.Clone())
	if err != nil {
		return nil, err
	}
	fatal := make(chan string, 1)
	s.SetLoggerV2(&logger{log: log, fatal: fatal}, false, false, false)
	go s.Start() // returns once it has started
	if err := awaitStart(s, fatal); err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, err
	}
	return s, nil
}

// awaitStart waits until a server that starts takes connections, or says why it will not.
func awaitStart(s *server.Server, fatal <-chan string) error {
	for began := time.Now(); ; {
		ready := s.ReadyForConnections(startLook)
		select {
		case text := <-fatal:
			return errors.New(text)
		default:
		}
		switch {
		case ready && s.JetStreamEnabled():
			return nil
		case ready:
			return errors.New("JetStream did not start: see the log")
		case time.Since(began) > startTimeout:
			return fmt.Errorf("it is not ready after %s", startTimeout)
		}
	}
}

func options(cfg Config) *server.Options {
	opts := &server.Options{}
	if cfg.Base != nil {
		opts = cfg.Base.Clone()
	}
	name := NameSynced
	if cfg.SyncInterval > 0 {
		name = NameUnsynced
	}
	opts.ServerName = cmp.Or(opts.ServerName, name)
	opts.Host = cmp.Or(cfg.Host, defaultHost)
	opts.Port = cmp.Or(cfg.Port, defaultPort)
	opts.DontListen = cfg.InProcessOnly
	opts.NoSigs = true
	opts.JetStream = true
	opts.StoreDir = cfg.Dir
	opts.JetStreamMaxStore = cmp.Or(cfg.MaxStore, opts.JetStreamMaxStore)
	opts.SyncAlways = cfg.SyncInterval <= 0
	opts.SyncInterval = cfg.SyncInterval
	opts.MaxPayload = cmp.Or(cfg.MaxPayload, opts.MaxPayload, defaultMaxPayload)
	opts.MaxPending = cmp.Or(opts.MaxPending, maxPending)
	opts.MaxPending = max(opts.MaxPending, int64(opts.MaxPayload))
	opts.WriteDeadline = cmp.Or(opts.WriteDeadline, writeDeadline)
	opts.PingInterval = cmp.Or(opts.PingInterval, pingInterval)
	opts.MaxPingsOut = cmp.Or(opts.MaxPingsOut, pingsOut)
	opts.NoFastProducerStall = true
	return opts
}

// checkPort reports whether the port can be had, before anything is started.
func checkPort(opts *server.Options) error {
	if opts.DontListen || opts.Port == server.RANDOM_PORT {
		return nil
	}
	addr := net.JoinHostPort(opts.Host, strconv.Itoa(opts.Port))
	var now net.ListenConfig
	l, err := now.Listen(context.Background(), "tcp", addr) // it does not block
	if err != nil {
		return fmt.Errorf("listen on %s: %w: choose another port, or stop what uses it", addr, err)
	}
	return l.Close()
}

// ClientURL returns where the server listens, "" with InProcessOnly.
func (s *Server) ClientURL() string { return s.url }

// InProcess returns how to connect from within this process, without a socket.
func (s *Server) InProcess() nats.InProcessConnProvider { return s }

// InProcessConn connects to the server: see InProcess.
func (s *Server) InProcessConn() (net.Conn, error) {
	return s.current().InProcessConn() //nolint:wrapcheck // nats.go's own interface
}

func (s *Server) current() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server
}

// Shutdown stops the server and waits until it has stopped and has given its
// directory back. It may be called again, and not while Heal runs.
func (s *Server) Shutdown() {
	now := s.current()
	now.Shutdown()
	now.WaitForShutdown()
	_ = s.lock.Close() // the lock ends with the file, whatever Close says
}
