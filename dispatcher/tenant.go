package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// A Tenant is a tenant's share and its limits. The zero Tenant has a weight of 1 and
// no limits.
type Tenant struct {
	Weight            float64 // beside the others of its class; 0 means 1
	MaxInFlight       int     // jobs on their way to nodes or running; 0: no limit
	RequestsPerMinute int     // that begin, a minute's worth of them at once; 0: no limit
	TokensPerMinute   int     // of prompts and answers, counted when a job ends; 0: no limit
	MaxQueued         int     // jobs that wait; what comes beyond ends with rate_limited; 0: no limit
}

// A tenant is what the leader knows of one.
type tenant struct {
	Tenant
	name     string
	flows    map[*flow]bool
	requests bucket
	tokens   bucket
	held     string // why none of its jobs is served now; "" where they are
	metrics  *metrics
}

// A bucket fills at a rate, up to what a minute brings, and may be overdrawn.
type bucket struct {
	perMinute int // 0: there is always something in it
	level     float64
	at        time.Time // of level; zero: it's full
}

// now returns what is in the bucket.
func (b *bucket) now(now time.Time) float64 {
	full := float64(b.perMinute)
	if b.at.IsZero() {
		return full
	}
	return min(full, b.level+full*now.Sub(b.at).Minutes())
}

// take takes from the bucket, also what is not in it.
func (b *bucket) take(n int64, now time.Time) {
	if b.perMinute > 0 {
		b.level, b.at = b.now(now)-float64(n), now
	}
}

// empty reports whether less is in it than n.
func (b *bucket) empty(n float64, now time.Time) bool { return b.perMinute > 0 && b.now(now) < n }

// tenantOf returns a tenant, made where it is new.
func (t *term) tenantOf(name string) *tenant {
	x := t.tenants[name]
	if x == nil {
		c := t.cfg.Tenants[name]
		x = &tenant{Tenant: c, name: name, flows: map[*flow]bool{}, metrics: t.metrics}
		x.requests.perMinute, x.tokens.perMinute = c.RequestsPerMinute, c.TokensPerMinute
		t.tenants[name] = x
	}
	return x
}

// limit says which limit of a tenant lets no job begin now, and that in words; "" where
// none does.
func (x *tenant) limit(now time.Time) (limit, why string) {
	switch {
	case x.MaxInFlight > 0 && x.inFlight() >= x.MaxInFlight:
		return "max_in_flight", fmt.Sprintf("the tenant %s runs as many jobs as it may at once: %d (tenants.%s.max_in_flight)", x.name, x.MaxInFlight, x.name)
	case x.requests.empty(1, now):
		return "requests_per_minute", fmt.Sprintf("the tenant %s has had its %d requests of this minute (tenants.%s.requests_per_minute)", x.name, x.RequestsPerMinute, x.name)
	case x.tokens.empty(0, now):
		return "tokens_per_minute", fmt.Sprintf("the tenant %s has had its %d tokens of this minute (tenants.%s.tokens_per_minute)", x.name, x.TokensPerMinute, x.name)
	default:
		return "", ""
	}
}

// regard holds a tenant's flows, or lets them go on, as its limits say.
func (x *tenant) regard(now time.Time) {
	limit, why := x.limit(now)
	if why == x.held {
		return
	}
	if limit != "" {
		x.metrics.throttled.WithLabelValues(x.metrics.tenants.label(x.name), limit).Inc()
	}
	x.held = why
	for f := range x.flows {
		f.regard(now)
	}
}

// inFlight is how many jobs of a tenant are on their way to nodes or run.
func (x *tenant) inFlight() int {
	n := 0
	for f := range x.flows {
		n += len(f.awaiting) + f.held
	}
	return n
}

// queuedTooMany reports whether a tenant has more jobs waiting than it may.
func (x *tenant) queuedTooMany() bool {
	if x.MaxQueued == 0 {
		return false
	}
	waiting := 0
	for f := range x.flows {
		waiting += f.Waiting()
	}
	return waiting > x.MaxQueued
}

// refuse ends a job that came when its tenant had as many waiting as it may.
func (t *term) refuse(f *flow, sequence string, now time.Time) {
	seq, err := strconv.ParseUint(sequence, 10, 64)
	if err != nil {
		return // the server says it with each hint
	}
	f.wait(f.Waiting()-1, now)
	most := f.tenant.MaxQueued
	t.metrics.throttled.WithLabelValues(t.metrics.tenants.label(f.Tenant), "max_queued").Inc()
	t.spawn(func() {
		ctx, cancel := context.WithTimeout(t.ctx, settleTimeout)
		defer cancel()
		if err := t.endRefused(ctx, f.Flow.Flow, seq, most); err != nil {
			t.cfg.Logger.Warn("a job over its tenant's limit was not refused", "seq", seq, "err", err)
			t.post(func() { t.returned(f, time.Now()) })
		}
	})
}

// endRefused ends the job at a sequence of the queue, and takes it out.
func (t *term) endRefused(ctx context.Context, key schemas.Flow, seq uint64, most int) error {
	stream, err := t.js.Stream(ctx, broker.StreamJobs)
	if err != nil {
		return fmt.Errorf("open the queue: %w", err)
	}
	m, err := stream.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	_, err = t.endWaiting(ctx, stream, t.endingOf(m, key, schemas.Errorf(schemas.RateLimited,
		"the tenant %s has %d jobs waiting, which is as many as it may (tenants.%s.max_queued): submit it again when there are fewer", key.Tenant, most, key.Tenant)))
	return err
}
