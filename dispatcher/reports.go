package dispatcher

import (
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// A report is what a node said: its state, or that it is done with a job. The other is nil.
type report struct {
	state *schemas.NodeState
	done  *schemas.JobDone
}

// reports are messages of nodes that are to be read on other goroutines than Run's: to
// read states is most of what a large fleet has a dispatcher do, and who decides must not
// wait for it. What one node says stays in order. A state that nobody has read when the
// node's next one comes is dropped, so that a fleet which says more than can be read is
// only seen less often.
type reports struct {
	mu      sync.Mutex
	some    *sync.Cond             // that order has some, or that closed is set
	unread  map[string][]*nats.Msg // by node
	order   []string               // of the nodes that have some unread and none being read
	reading map[string]bool
	closed  bool
}

func newReports() *reports {
	r := &reports{unread: map[string][]*nats.Msg{}, reading: map[string]bool{}}
	r.some = sync.NewCond(&r.mu)
	return r
}

// put takes a message of a node.
func (r *reports) put(m *nats.Msg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	node := nodeOf(m)
	all := r.unread[node]
	if last := len(all) - 1; last >= 0 && all[last].Subject == m.Subject && isState(m) {
		all[last] = m
		return
	}
	r.unread[node] = append(all, m)
	if len(all) == 0 && !r.reading[node] {
		r.enqueue(node)
	}
}

// has reports whether something of a node is not read yet, and heard.
func (r *reports) has(node string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reading[node] || len(r.unread[node]) > 0
}

func (r *reports) enqueue(node string) {
	r.order = append(r.order, node)
	r.some.Signal()
}

// take waits for a node that said something, and returns all of it, which nobody else
// reads until took is called. ok is false where that is over.
func (r *reports) take() (node string, all []*nats.Msg, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.order) == 0 && !r.closed {
		r.some.Wait()
	}
	if r.closed {
		return "", nil, false
	}
	node, r.order = r.order[0], r.order[1:]
	all = r.unread[node]
	delete(r.unread, node)
	r.reading[node] = true
	return node, all, true
}

// took ends what take began.
func (r *reports) took(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.reading, node)
	if len(r.unread[node]) > 0 {
		r.enqueue(node)
	}
}

func (r *reports) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.some.Broadcast()
}

// readReports reads reports until they are closed, and has Run's goroutine hear them.
func (d *Dispatcher) readReports() {
	for {
		node, all, ok := d.unread.take()
		if !ok {
			return
		}
		for _, m := range all {
			r, ok := d.read(m)
			if !ok {
				continue
			}
			select {
			case d.reports <- r:
			case <-d.done:
				return
			}
		}
		d.unread.took(node)
	}
}

// said takes a message of a node.
func (d *Dispatcher) said(m *nats.Msg, now time.Time) {
	d.fleet.alive(nodeOf(m), now)
	if isState(m) || d.unread.has(nodeOf(m)) {
		d.unread.put(m)
		return
	}
	if r, ok := d.read(m); ok {
		d.heard(r, now)
	}
}

// read reads a message of a node. Where it cannot be read, it logs why.
func (d *Dispatcher) read(m *nats.Msg) (r report, ok bool) {
	var node string
	var err error
	if isState(m) {
		r.state = new(schemas.NodeState)
		err = json.Unmarshal(m.Data, r.state)
		node = r.state.Node
	} else {
		r.done = new(schemas.JobDone)
		err = json.Unmarshal(m.Data, r.done)
		node = r.done.Node
	}
	switch {
	case schemas.FromJetStream(m.Header.Get, m.Reply):
		d.cfg.Logger.Warn("a node's message is not its own", "subject", m.Subject)
	case err != nil:
		d.cfg.Logger.Warn("a node's message is not JSON", "subject", m.Subject, "err", err)
	case node != nodeOf(m):
		d.cfg.Logger.Warn("a node reports under another's name", "subject", m.Subject, "node", node)
	default:
		return r, true
	}
	return report{}, false
}

// heard takes what a node said.
func (d *Dispatcher) heard(r report, now time.Time) {
	if r.done != nil {
		d.term.jobDone(r.done, now)
		return
	}
	d.observe(r.state, now)
}

// observe takes a node's state, from a report or with a refusal.
func (d *Dispatcher) observe(state *schemas.NodeState, now time.Time) {
	gone := d.fleet.observe(state, now)
	d.term.reported(state, gone, now)
}

func isState(m *nats.Msg) bool { return strings.HasSuffix(m.Subject, ".state") }

// nodeOf is the node whose subject a message came on.
func nodeOf(m *nats.Msg) string {
	node, _, _ := strings.Cut(strings.TrimPrefix(m.Subject, schemas.NodePrefix), ".")
	return node
}
