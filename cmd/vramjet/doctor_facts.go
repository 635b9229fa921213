package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/embedded"
	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// facts are what doctor finds out, once. Judging looks at nothing else.
type facts struct {
	now     time.Time
	version string // of this program
	tenant  string
	server  serverFacts

	account     asked[*jetstream.AccountInfo]
	streams     []streamFacts // in the order of broker.StreamNames
	monitors    []monitored
	dispatchers asked[[]micro.Info]
	workers     asked[[]micro.Info]
	leader      asked[string]        // who holds the lease; "": nobody
	answer      asked[time.Duration] // how long the leader took for an answer
	nodes       asked[nodeFacts]
	consumers   asked[[]*jetstream.ConsumerInfo] // of the queue
	leases      []leaseCount                     // one look after the other
	refused     []*refusedError
}

// An asked is what somebody answered, or why there is no answer.
type asked[T any] struct {
	got T
	err error
}

// serverFacts is what the connection says of its server.
type serverFacts struct {
	name, id, version, cluster, url string
	known                           int // servers that there are, as far as this one tells
	maxPayload                      int64
	rtt                             asked[time.Duration]
}

// embedded reports whether the server is that of vramjet up.
func (f *facts) embedded() bool {
	return f.server.name == embedded.NameSynced || f.server.name == embedded.NameUnsynced
}

// A between is when something was asked for, and when the answer was there.
type between struct{ from, to time.Time }

// streamFacts is what the server says of a stream.
type streamFacts struct {
	name  string
	info  asked[*jetstream.StreamInfo]
	asked between
}

// there reports whether the stream exists and could be looked at.
func (s *streamFacts) there() bool { return s.info.err == nil }

// nodeFacts is what nodes say of themselves.
type nodeFacts struct {
	states []schemas.NodeState
	asked  between
}

// stream returns what is known of a stream.
func (f *facts) stream(name string) *streamFacts {
	for i := range f.streams {
		if f.streams[i].name == name {
			return &f.streams[i]
		}
	}
	return &streamFacts{name: name, info: asked[*jetstream.StreamInfo]{err: jetstream.ErrStreamNotFound}}
}

// A refusedError is something that the user may not do.
type refusedError struct {
	do      string // publish or subscribe
	subject string
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("this user may not %s on %s", e.do, e.subject)
}

// A gatherer asks one question after the other. What may not be asked is never
// answered, so it listens to what the server refuses and gives such a question up.
type gatherer struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	client *client.Client

	mu      sync.Mutex
	giveUp  context.CancelCauseFunc // of the question that is asked; nil between two
	refused []*refusedError         // each once
	now     *refusedError           // what is refused of the question that is asked; nil: nothing
	before  *refusedError           // of the one before
	deaf    error                   // why no answer can arrive; nil: it can
}

var refusal = regexp.MustCompile(`(Publish|Subscription) to "([^"]+)"`)

// gatherer connects to NATS, and returns who asks there. Its connection is the caller's to
// close. What the connection reports is not logged.
func (a *app) gatherer(ctx context.Context) (*gatherer, error) {
	nc, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	g := &gatherer{nc: nc}
	if g.client, err = client.New(nc, client.Options{Tenant: a.tenant()}); err != nil {
		nc.Close()
		return nil, usage(err)
	}
	if g.js, err = jetstream.New(nc); err != nil {
		nc.Close()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if m := refusal.FindStringSubmatch(err.Error()); m != nil && errors.Is(err, nats.ErrPermissionViolation) {
			do := map[string]string{"Publish": "publish", "Subscription": "subscribe"}[m[1]]
			g.refuse(&refusedError{do, m[2]})
		}
	})
	return g, nil
}

// refuse gives up what is being asked. A question may be refused more than once, and
// the second time when the next is asked already.
func (g *gatherer) refuse(e *refusedError) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.before != nil && *g.before == *e {
		return
	}
	if !slices.ContainsFunc(g.refused, func(old *refusedError) bool { return *old == *e }) {
		g.refused = append(g.refused, e)
	}
	if strings.HasPrefix(e.subject, "_INBOX") {
		g.deaf = e
	}
	if g.now = e; g.giveUp != nil {
		g.giveUp(e)
	}
}

// begin has giveUp called for what is refused from now on. The error says why it is of
// no use to ask.
func (g *gatherer) begin(giveUp context.CancelCauseFunc) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.giveUp, g.before, g.now = giveUp, g.now, nil
	return g.deaf
}

// end is called when a question is over.
func (g *gatherer) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.giveUp = nil
}

// askTimeout bounds a question. The leading dispatcher may be changing.
const askTimeout = 5 * time.Second

// ask asks one question.
func ask[T any](ctx context.Context, g *gatherer, question func(context.Context) (T, error)) (a asked[T]) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	defer g.end()
	if a.err = g.begin(giveUp); a.err != nil {
		return a
	}
	a.got, a.err = question(ctx)
	if e, ok := errors.AsType[*refusedError](context.Cause(ctx)); ok {
		a.err = e
	}
	return a
}

// gather asks everything. quiet is how long to wait for one more node.
func (g *gatherer) gather(ctx context.Context, monitors []string, quiet time.Duration) *facts {
	f := &facts{version: version, tenant: g.client.Tenant(), server: g.server()}
	f.account = ask(ctx, g, g.js.AccountInfo)
	silent := f.account.err // JetStream, if it ran out of time: the rest is not waited for
	for _, name := range broker.StreamNames() {
		s := streamFacts{name: name, info: asked[*jetstream.StreamInfo]{err: silent}}
		if !errors.Is(silent, context.DeadlineExceeded) {
			s = g.stream(ctx, name)
			silent = s.info.err
		}
		f.streams = append(f.streams, s)
	}
	f.monitors = lookAtMonitors(ctx, monitors, &f.server)
	f.dispatchers = ask(ctx, g, g.discover("vramjet-dispatcher", quiet))
	f.workers = ask(ctx, g, g.discover("vramjet-worker", quiet))
	f.leader = ask(ctx, g, func(ctx context.Context) (string, error) { return broker.Leader(ctx, g.js) })
	f.answer = ask(ctx, g, func(ctx context.Context) (time.Duration, error) {
		began := time.Now()
		_, err := g.client.Queue(ctx)
		return time.Since(began), err
	})
	f.nodes = g.nodes(ctx, quiet)
	f.consumers = ask(ctx, g, g.consumers)
	f.leases = g.leaseCounts(ctx, f, quiet)
	f.now = time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	f.refused = g.refused
	return f
}

func (g *gatherer) server() serverFacts {
	s := serverFacts{
		name: g.nc.ConnectedServerName(), id: g.nc.ConnectedServerId(), version: g.nc.ConnectedServerVersion(), cluster: g.nc.ConnectedClusterName(),
		url: g.nc.ConnectedUrlRedacted(), known: knownServers(g.nc), maxPayload: g.nc.MaxPayload(),
	}
	s.rtt.got, s.rtt.err = g.nc.RTT()
	return s
}

// knownServers counts the servers of a cluster. They tell their addresses to each other's
// clients, and some leave out the one that the client is connected to.
func knownServers(nc *nats.Conn) int {
	others := nc.DiscoveredServers()
	if slices.ContainsFunc(others, func(u string) bool { return strings.HasSuffix(u, "//"+nc.ConnectedAddr()) }) {
		return len(others)
	}
	return len(others) + 1
}

// stream asks for a stream and, of those where that matters, for its subjects.
func (g *gatherer) stream(ctx context.Context, name string) streamFacts {
	s := streamFacts{name: name, asked: between{from: time.Now()}}
	var opts []jetstream.StreamInfoOpt
	if name == broker.StreamJobs || name == broker.StreamDead {
		opts = append(opts, jetstream.WithSubjectFilter(">"))
	}
	s.info = ask(ctx, g, func(ctx context.Context) (*jetstream.StreamInfo, error) {
		stream, err := g.js.Stream(ctx, name)
		if err != nil || opts == nil {
			return cachedInfo(stream), err
		}
		s.asked.from = time.Now()
		return stream.Info(ctx, opts...)
	})
	s.asked.to = time.Now()
	return s
}

func cachedInfo(s jetstream.Stream) *jetstream.StreamInfo {
	if s == nil {
		return nil
	}
	return s.CachedInfo()
}

// nodes asks all nodes for their state. That there are none is no error.
func (g *gatherer) nodes(ctx context.Context, quiet time.Duration) asked[nodeFacts] {
	return ask(ctx, g, func(ctx context.Context) (n nodeFacts, err error) {
		n.asked.from = time.Now()
		n.states, err = g.client.Nodes(ctx, quiet)
		n.asked.to = time.Now()
		return n, err
	})
}

func (g *gatherer) consumers(ctx context.Context) (all []*jetstream.ConsumerInfo, err error) {
	stream, err := g.js.Stream(ctx, broker.StreamJobs)
	if err != nil {
		return nil, err
	}
	list := stream.ListConsumers(ctx)
	for c := range list.Info() {
		all = append(all, c)
	}
	return all, list.Err()
}

// discover returns a question: which instances there are of a service.
func (g *gatherer) discover(service string, quiet time.Duration) func(context.Context) ([]micro.Info, error) {
	return func(ctx context.Context) ([]micro.Info, error) { return discover(ctx, g.nc, service, quiet) }
}
