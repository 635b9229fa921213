package broker_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/broker/embedded"
)

const leaseKey = "leader"

// A candidate is one process that competes for the lease, with a connection of
// its own through a proxy.
type candidate struct {
	name   string
	proxy  *brokertest.Proxy
	nc     *nats.Conn
	lease  *broker.Lease
	leads  chan context.Context // receives the context of each term
	stop   context.CancelFunc
	ended  chan error
	stuck  chan struct{} // a term ends when its context has ended and this is closed
	byHand chan struct{} // a term ends by itself when this is closed
}

func newCandidate(t *testing.T, srv *embedded.Server, name string, ttl time.Duration) *candidate {
	t.Helper()
	c := &candidate{
		name:   name,
		proxy:  brokertest.StartProxy(t, srv.ClientURL()),
		leads:  make(chan context.Context, 100),
		ended:  make(chan error, 1),
		stuck:  make(chan struct{}),
		byHand: make(chan struct{}),
	}
	close(c.stuck)
	nc, err := broker.Connect(within(t, patience), broker.ConnectConfig{URL: c.proxy.URL()}, brokertest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	c.nc = nc
	c.lease = broker.NewLease(bucket(t, nc), leaseKey, name, ttl, brokertest.Log(t))
	return c
}

func bucket(t *testing.T, nc *nats.Conn) jetstream.KeyValue {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(within(t, patience), broker.BucketState)
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func (c *candidate) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	c.stop = cancel
	go func() {
		c.ended <- c.lease.Run(ctx, func(ctx context.Context) {
			c.leads <- ctx
			select {
			case <-ctx.Done():
			case <-c.byHand:
			}
			<-c.stuck
		})
	}()
	t.Cleanup(func() {
		c.proxy.Thaw()
		cancel()
		receive(t, "the end of "+c.name, c.ended)
	})
}

func newServer(t *testing.T) *embedded.Server {
	t.Helper()
	srv := brokertest.Start(t)
	brokertest.Setup(t, brokertest.Connect(t, srv))
	return srv
}

func (c *candidate) holder(t *testing.T) string {
	t.Helper()
	h, err := c.lease.Holder(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestLeaseIsTakenAtOnceAndGivenBack(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	a, b := newCandidate(t, srv, "a", 0), newCandidate(t, srv, "b", 0)
	if h := a.holder(t); h != "" {
		t.Errorf("%q holds a new lease", h)
	}
	start := time.Now()
	a.start(t)
	first := receive(t, "a's term", a.leads)
	t.Logf("a free lease was taken in %s", time.Since(start))
	if h := b.holder(t); h != "a" {
		t.Errorf("%q holds the lease", h)
	}
	b.start(t)
	select {
	case <-b.leads:
		t.Fatal("b leads beside a")
	case <-first.Done():
		t.Fatal("a has lost the lease")
	case <-time.After(3 * broker.DefaultLeaseTTL / 2):
	}

	start = time.Now()
	a.stop()
	receive(t, "b's term", b.leads)
	took := time.Since(start)
	t.Logf("takeover after a clean stop: %s", took)
	if took > 200*time.Millisecond {
		t.Errorf("the takeover after a clean stop took %s", took)
	}
	if first.Err() == nil {
		t.Error("a's context is alive while b leads")
	}
	b.stop()
	if err := receive(t, "the end of b", b.ended); err != nil {
		t.Errorf("Run returned %v", err)
	}
	b.ended <- nil
	if h := a.holder(t); h != "" {
		t.Errorf("%q holds the lease after all have left", h)
	}
}

// leaderAndHeir returns a candidate that leads, one that waits, and the first
// one's term.
func leaderAndHeir(t *testing.T, ttl time.Duration) (a, b *candidate, term context.Context) {
	t.Helper()
	srv := newServer(t)
	a, b = newCandidate(t, srv, "a", ttl), newCandidate(t, srv, "b", ttl)
	a.start(t)
	term = receive(t, "a's term", a.leads)
	b.start(t)
	return a, b, term
}

func TestLeaseOfAFrozenHolderIsTakenOver(t *testing.T) {
	t.Parallel()
	const ttl = broker.DefaultLeaseTTL
	a, b, term := leaderAndHeir(t, ttl)

	start := time.Now()
	a.proxy.Freeze()
	receive(t, "b's term", b.leads)
	took := time.Since(start)
	t.Logf("takeover after a freeze: %s with a ttl of %s", took, ttl)
	if took > ttl+time.Second {
		t.Errorf("the takeover took %s", took)
	}
	if !errors.Is(context.Cause(term), broker.ErrLeaseLost) {
		t.Errorf("the cause of the end of a's term is %v", context.Cause(term))
	}
	a.proxy.Thaw()
	if h := b.holder(t); h != "b" {
		t.Errorf("%q holds the lease", h)
	}
}

func TestLeaseOfAKilledHolderIsTakenOver(t *testing.T) {
	t.Parallel()
	const ttl = time.Second
	a, b, term := leaderAndHeir(t, ttl)
	start := time.Now()
	a.nc.Close()
	receive(t, "b's term", b.leads)
	if took := time.Since(start); took > ttl+time.Second {
		t.Errorf("the takeover took %s", took)
	}
	if !errors.Is(context.Cause(term), broker.ErrLeaseLost) {
		t.Errorf("the cause of the end of a's term is %v", context.Cause(term))
	}
	if err := receive(t, "the end of a", a.ended); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("Run of a closed connection returned %v", err)
	}
	a.ended <- nil
}

// A term that ends by itself lets another candidate go first.
func TestLeaseGoesRound(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	a, b := newCandidate(t, srv, "a", time.Second), newCandidate(t, srv, "b", time.Second)
	a.start(t)
	receive(t, "a's term", a.leads)
	b.start(t)
	close(a.byHand)
	receive(t, "b's term", b.leads)
	if h := a.holder(t); h != "b" {
		t.Errorf("%q holds the lease", h)
	}
}

// A leader that does not stop when it should keeps nobody from taking over.
func TestLeaseOfAStuckLeaderIsTakenOver(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	a, b := newCandidate(t, srv, "a", time.Second), newCandidate(t, srv, "b", time.Second)
	a.stuck = make(chan struct{})
	a.start(t)
	receive(t, "a's term", a.leads)
	b.start(t)
	a.stop()
	receive(t, "b's term", b.leads)
	close(a.stuck)
	if h := b.holder(t); h != "b" {
		t.Errorf("%q holds the lease", h)
	}
}

// A restart of the server that is shorter than the lease ends no term.
func TestLeaseSurvivesAShortRestart(t *testing.T) {
	dir := t.TempDir()
	srv := brokertest.StartServer(t, embedded.Config{Dir: dir})
	nc := brokertest.Connect(t, srv)
	brokertest.Setup(t, nc)
	lease := broker.NewLease(bucket(t, nc), leaseKey, "a", 8*time.Second, brokertest.Log(t))
	ctx, cancel := context.WithCancel(t.Context())
	leads, ended := make(chan context.Context, 10), make(chan error, 1)
	go func() {
		ended <- lease.Run(ctx, func(ctx context.Context) {
			leads <- ctx
			<-ctx.Done()
		})
	}()
	term := receive(t, "the term", leads)
	srv.Shutdown()
	restart(t, srv, dir)
	select {
	case <-term.Done():
		t.Errorf("the term ended: %v", context.Cause(term))
	case <-time.After(3 * time.Second): // one renewal at least
	}
	cancel()
	if err := receive(t, "the end", ended); err != nil {
		t.Error(err)
	}
}

// An absentMindedKV loses two of four updates: one's answer, then the other.
type absentMindedKV struct {
	jetstream.KeyValue
	n atomic.Int64
}

func (kv *absentMindedKV) Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	switch kv.n.Add(1) % 4 { // the first one takes the lease
	case 2:
		if _, err := kv.KeyValue.Update(ctx, key, value, rev); err != nil {
			return 0, err
		}
	case 3:
	default:
		return kv.KeyValue.Update(ctx, key, value, rev)
	}
	<-ctx.Done()
	return 0, ctx.Err()
}

// A holder asks often enough that it keeps its lease though two answers in a row are lost,
// as may be where a cluster elects.
func TestLeaseSurvivesLostAnswers(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	lease := broker.NewLease(&absentMindedKV{KeyValue: bucket(t, brokertest.Connect(t, srv))}, leaseKey, "a", 4*time.Second, brokertest.Log(t))
	ctx, cancel := context.WithCancel(t.Context())
	leads, ended := make(chan context.Context, 10), make(chan error, 1)
	go func() {
		ended <- lease.Run(ctx, func(ctx context.Context) {
			leads <- ctx
			<-ctx.Done()
		})
	}()
	term := receive(t, "the term", leads)
	select {
	case <-term.Done():
		t.Errorf("the term ended: %v", context.Cause(term))
	case <-time.After(8 * time.Second):
	}
	cancel()
	if err := receive(t, "the end", ended); err != nil {
		t.Error(err)
	}
}

// Whatever happens to the candidates, no two have a live context at once. Once all
// is well again, each of them leads when those before it have left.
func TestLeaseHasOneHolder(t *testing.T) {
	const (
		candidates = 5
		ttl        = 800 * time.Millisecond
		steps      = 12
	)
	for seed := range uint64(3) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 0))
			srv := newServer(t)
			terms := &ledger{terms: map[string]<-chan struct{}{}}
			all := map[string]*candidate{}
			for i := range candidates {
				c := newCandidate(t, srv, strconv.Itoa(i), ttl)
				c.watch(t, terms)
				all[c.name] = c
			}
			for range steps {
				c, ok := all[terms.leader()]
				if !ok || rng.IntN(3) == 0 { // else the leader is hit
					c = all[strconv.Itoa(rng.IntN(candidates))]
				}
				switch rng.IntN(4) {
				case 0, 1:
					c.proxy.Freeze()
				case 2:
					c.proxy.Cut()
				}
				waitFor(t, ttl/2+time.Duration(rng.IntN(int(ttl))))
				all[strconv.Itoa(rng.IntN(candidates))].proxy.Thaw()
			}
			for _, c := range all {
				c.proxy.Thaw()
			}
			for range candidates {
				c := all[terms.await(t)]
				c.stop()
				if err := receive(t, "the end of "+c.name, c.ended); err != nil {
					t.Errorf("Run returned %v", err)
				}
				c.ended <- nil
			}
			t.Logf("%d terms", terms.n)
		})
	}
}

func live(term <-chan struct{}) bool {
	select {
	case <-term:
		return false
	default:
		return true
	}
}

// A ledger notes whose contexts are live.
type ledger struct {
	mu    sync.Mutex
	terms map[string]<-chan struct{} // closed when the term ended
	n     int
}

// begin notes a term, and returns who else has a live one.
func (l *ledger) begin(ctx context.Context, name string) (others []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for other, term := range l.terms {
		if live(term) {
			others = append(others, other)
		}
	}
	l.terms[name] = ctx.Done()
	l.n++
	return others
}

// leader returns whose term is live, "" for nobody.
func (l *ledger) leader() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, term := range l.terms {
		if live(term) {
			return name
		}
	}
	return ""
}

// await returns who leads, once somebody does.
func (l *ledger) await(t *testing.T) string {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); waitFor(t, 10*time.Millisecond) {
		if name := l.leader(); name != "" {
			return name
		}
	}
	t.Fatalf("nobody leads for %s", patience)
	return ""
}

// watch runs c, and fails the test when a term of its begins beside another.
func (c *candidate) watch(t *testing.T, terms *ledger) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	c.stop = cancel
	go func() {
		c.ended <- c.lease.Run(ctx, func(ctx context.Context) {
			if others := terms.begin(ctx, c.name); len(others) > 0 && ctx.Err() == nil {
				t.Errorf("%s leads beside %v", c.name, others)
			}
			<-ctx.Done()
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := receive(t, "the end of "+c.name, c.ended); err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
}

// waitFor lets time pass, as the injected faults need.
func waitFor(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-t.Context().Done():
	case <-time.After(d):
	}
}
