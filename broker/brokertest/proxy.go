package brokertest

import (
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// A Proxy stands between clients and a server, and can stop to pass anything on:
// to both sides the other then looks frozen.
type Proxy struct {
	target string
	url    string

	mu     sync.Mutex    // guards what follows
	open   chan struct{} // closed while bytes pass
	delay  time.Duration // of each byte
	conns  map[net.Conn]struct{}
	closed bool
}

// StartProxy starts a proxy of the server at a URL. It is stopped when tb ends.
func StartProxy(tb testing.TB, server string) *Proxy {
	tb.Helper()
	u, err := url.Parse(server)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{
		target: u.Host,
		url:    "nats://" + l.Addr().String(),
		open:   make(chan struct{}),
		conns:  map[net.Conn]struct{}{},
	}
	close(p.open)
	var wg sync.WaitGroup
	wg.Go(func() { p.accept(l, &wg) })
	tb.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Thaw()
		p.Cut()
		wg.Wait()
	})
	return p
}

// URL is where clients connect to.
func (p *Proxy) URL() string { return p.url }

// Freeze stops passing bytes on, either way. Connections stay open.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default: // frozen already
	}
}

// Delay has each byte that comes from now on arrive a time later, as on the way to a
// far site.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Thaw passes on whatever has come in since Freeze, and goes on.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

// Cut closes all connections. What they held is lost.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *Proxy) accept(l net.Listener, wg *sync.WaitGroup) {
	for {
		client, err := l.Accept()
		if err != nil {
			return // closed
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil || !p.keep(client, server) {
			_ = client.Close()
			continue
		}
		wg.Go(func() { p.pass(client, server) })
		wg.Go(func() { p.pass(server, client) })
	}
}

// keep remembers connections, so that they can be cut. It reports false, and
// closes them, once the proxy is stopped.
func (p *Proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.closed {
			_ = c.Close()
			continue
		}
		p.conns[c] = struct{}{}
	}
	return !p.closed
}

// pass copies from one connection to the other, and closes both at the end.
func (p *Proxy) pass(from, to net.Conn) {
	defer func() {
		_, _ = from.Close(), to.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, from)
	}()
	pieces := make(chan piece, 1024) // on their way
	go p.read(from, pieces)
	for next := range pieces {
		time.Sleep(time.Until(next.due))
		p.mu.Lock()
		open := p.open
		p.mu.Unlock()
		<-open
		if _, err := to.Write(next.bytes); err != nil {
			break
		}
	}
	_ = from.Close()
	for range pieces { // until its reader has seen that
	}
}

// A piece is bytes, and when they arrive.
type piece struct {
	bytes []byte
	due   time.Time
}

// read reads pieces until the connection ends.
func (p *Proxy) read(from net.Conn, pieces chan<- piece) {
	defer close(pieces)
	for {
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		p.mu.Lock()
		due := time.Now().Add(p.delay)
		p.mu.Unlock()
		pieces <- piece{buf[:n], due}
		if err != nil {
			return
		}
	}
}
