// Package dispatcher decides which job runs where, and hands it over.
//
// Jobs stay in JetStream until there is a slot for them: the dispatcher first
// decides which flow is served on which node, then fetches exactly one job of
// that flow, offers it to the node and, once the node accepts, passes on the
// right to settle it. From then on the job is the node's, and a dispatcher that
// dies takes nothing with it.
//
// Any number of dispatchers run. One leads, by a lease in KV; the others follow
// the nodes' reports and take over at once. All state of leading lives in a term,
// which is made at a takeover and dropped when the lease is gone.
package dispatcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// Config tunes a Dispatcher. The zero Config is ready to use.
type Config struct {
	// ID names this dispatcher among those of the system. "" means a random one.
	ID string

	// Version is shown in discovery.
	Version string

	// UnknownModelWait is how long jobs of a model that no node has wait for one,
	// before they end with model_not_found. 0 means 10s. Where the last node that had
	// it was lost, they wait for a minute at least.
	UnknownModelWait time.Duration

	// Policy is how jobs share models and memory. The zero Policy means
	// placement.DefaultPolicy.
	Policy placement.Policy

	// Routes are names that stand for several models.
	Routes placement.Routes

	// Budget is what jobs of routes may cost at hosted APIs in a day that begins at
	// midnight UTC, in the currency of the backends' prices. What runs when it is used
	// up is let run, and may take it further. 0: no limit.
	Budget float64

	// Tenants are the shares and limits of tenants, by their names. One that isn't
	// there is the zero Tenant.
	Tenants map[string]Tenant

	// Replies lists what reply subjects may begin with, beside inboxes and
	// results.
	Replies []string

	// Consumers is how many JetStream consumers live at most, which is how many
	// flows can be served at once. Each costs the server at every ack. 0 means
	// 256; with 3 replicas 100 is right.
	Consumers int

	// Decided is told what each decision took, by Run's goroutine, which waits for it.
	// Nil: nobody is.
	Decided func(time.Duration)

	// Logger gets what an operator must know. Nil discards it.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.ID = cmp.Or(c.ID, nuid.Next())
	c.Version = cmp.Or(c.Version, "0.0.0")
	c.UnknownModelWait = cmp.Or(c.UnknownModelWait, 10*time.Second)
	c.Policy = cmp.Or(c.Policy, placement.DefaultPolicy())
	c.Consumers = cmp.Or(c.Consumers, 256)
	if c.Decided == nil {
		c.Decided = func(time.Duration) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// leaseTTL is how long a leader that fell silent still counts as one. With the
// takeover it stays under the 3 s that a failover may take.
const leaseTTL = 2 * time.Second

// A Dispatcher follows the fleet, and leads when it is its turn. Its fields
// belong to the goroutine of Run.
type Dispatcher struct {
	cfg   Config
	nc    *nats.Conn
	js    jetstream.JetStream
	fleet *fleet
	term  *term // nil while another leads

	metrics *metrics

	msgs    chan *nats.Msg // all subscriptions, so that what one sender says stays in order
	unread  *reports       // of these, the ones that are read elsewhere
	reports chan report    // what was read there; nothing waits in it, so that what comes later is heard later
	events  chan func()    // what other goroutines have Run's goroutine do
	terms   chan takeover
	lasts   time.Duration // how long its lease does; leaseTTL but in tests
	done    chan struct{} // closed when Run's goroutine reads no more
	work    sync.WaitGroup
	turned  atomic.Int64 // when its loop last turned, in ns
}

// A takeover begins a term: it ends with ctx, and over says that it has.
type takeover struct {
	ctx  context.Context //nolint:containedctx // on its way to the goroutine that leads
	over chan struct{}
}

// New returns a Dispatcher on a connection. The streams must exist. It starts
// nothing; Run does.
func New(nc *nats.Conn, cfg Config) (*Dispatcher, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	const burst = 1 << 16 // messages that wait for Run's goroutine at most
	d := &Dispatcher{
		cfg: cfg.withDefaults(), nc: nc, js: js, fleet: newFleet(), metrics: newMetrics(),
		msgs: make(chan *nats.Msg, burst), unread: newReports(), reports: make(chan report), events: make(chan func(), 1024),
		terms: make(chan takeover), lasts: leaseTTL, done: make(chan struct{}),
	}
	d.turned.Store(time.Now().UnixNano())
	return d, nil
}

// aliveWithin is how long a dispatcher that is well takes at most to turn to what comes.
const aliveWithin = 10 * time.Second

// Alive returns an error where the dispatcher has not turned to anything for 10 s, be it
// that it leads or stands by: then something is wrong with it that only a restart mends.
// Anybody may call it.
func (d *Dispatcher) Alive() error {
	if since := time.Since(time.Unix(0, d.turned.Load())); since > aliveWithin {
		return fmt.Errorf("it hangs, for %s", since.Round(time.Second))
	}
	return nil
}

// Run follows and leads until ctx ends. It then hands over what it has begun,
// gives back the rest, and leaves the lease to a standby. It's called once.
func (d *Dispatcher) Run(ctx context.Context) error {
	err := d.run(ctx)
	d.work.Wait() // not deferred: after a panic it would wait for what nobody ends, and nobody see why
	return err
}

func (d *Dispatcher) run(ctx context.Context) error {
	defer close(d.done)
	kv, err := d.js.KeyValue(ctx, broker.BucketState)
	if err != nil {
		return fmt.Errorf("open the bucket %s: %w", broker.BucketState, err)
	}
	for _, what := range []string{"state", "done"} {
		sub, err := d.nc.ChanSubscribe(schemas.NodeSubject("*", what), d.msgs)
		if err != nil {
			return fmt.Errorf("listen to the nodes: %w", err)
		}
		defer sub.Unsubscribe() //nolint:errcheck // fails only where the connection is gone
	}
	defer d.unread.close()
	for range runtime.GOMAXPROCS(0) {
		d.work.Go(d.readReports)
	}
	svc, err := d.serve()
	if err != nil {
		return err
	}
	defer svc.Stop() //nolint:errcheck // as above
	if err := d.nc.Publish(schemas.NodesPing, nil); err != nil {
		return fmt.Errorf("ask the nodes for their state: %w", err)
	}
	lease := broker.NewLease(kv, broker.LeaderKey, d.cfg.ID, d.lasts, d.cfg.Logger)
	led := make(chan error, 1)
	d.work.Go(func() { led <- lease.Run(ctx, d.lead) })
	return d.loop(led) //nolint:contextcheck // a term has a context of its own
}

// lead is called by the lease for as long as it is ours.
func (d *Dispatcher) lead(ctx context.Context) {
	t := takeover{ctx, make(chan struct{})}
	d.terms <- t // Run's goroutine reads until the lease's has ended
	<-t.over
}

// sweepEvery is how often the loop looks at what only time changes.
const sweepEvery = 250 * time.Millisecond

// loop is the goroutine that owns all state. Events only change state; after
// every burst of them there's one place that decides, the term's plan.
func (d *Dispatcher) loop(led <-chan error) error {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case err := <-led:
			return err
		case t := <-d.terms:
			d.term = newTerm(d, t)
		case <-d.term.ending():
			d.term.close(time.Now())
		case <-sweep.C:
			d.sweep(time.Now())
		case m := <-d.msgs:
			d.receive(m, time.Now())
		case r := <-d.reports:
			d.heard(r, time.Now())
		case do := <-d.events:
			do()
		}
		d.drain()
		now := time.Now()
		if d.term.step(now) {
			d.term = nil
		}
		d.turned.Store(now.UnixNano())
	}
}

// drain takes what else waits, so that a burst costs one plan.
func (d *Dispatcher) drain() {
	now := time.Now()
	for range 256 {
		select {
		case m := <-d.msgs:
			d.receive(m, now)
		case r := <-d.reports:
			d.heard(r, now)
		case do := <-d.events:
			do()
		default:
			return
		}
	}
}

// receive takes a message of any subscription.
func (d *Dispatcher) receive(m *nats.Msg, now time.Time) {
	switch {
	case strings.HasPrefix(m.Subject, schemas.NodePrefix):
		d.said(m, now)
	case d.term == nil:
	case m.Sub == d.term.hints:
		d.term.hinted(m, now)
	case m.Sub != d.term.inboxes:
	case strings.HasPrefix(m.Subject, d.term.inbox+offerToken):
		d.term.answered(m, now)
	case strings.HasPrefix(m.Subject, d.term.inbox+lookToken):
		d.term.looked(m, now)
	default:
		d.term.pulled(m, now)
	}
}

// sweep looks at what only time changes.
func (d *Dispatcher) sweep(now time.Time) {
	d.fleet.wake(now)
	for _, id := range d.fleet.silent(now, silentAfter, time.Second) {
		d.probe(id)
	}
	for _, id := range d.fleet.silent(now, broker.AckWait, 0) {
		d.cfg.Logger.Warn("a node is frozen or cut off: its leases have run out", "node", id)
		d.fleet.forget(id, now)
		d.term.leasesOut(id, now)
	}
	d.term.sweep(now)
}

// probe asks a node that fell silent whether it is there. No responders means
// that its connection is gone; a timeout means that it is frozen or cut off, and
// then only the leases decide.
func (d *Dispatcher) probe(node string) {
	d.spawn(func() {
		_, err := d.nc.Request(schemas.NodeSubject(node, "control"), []byte(`{"do":"state"}`), time.Second)
		d.post(func() {
			switch {
			case errors.Is(err, nats.ErrNoResponders):
				d.cfg.Logger.Warn("a node is gone", "node", node)
				now := time.Now()
				d.fleet.forget(node, now)
				d.term.nodeLost(node, now)
			case err == nil:
				d.fleet.alive(node, time.Now())
			}
		})
	})
}
