package broker

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	errNoWatch    = errors.New("NATS does not answer")
	errWatchEnded = errors.New("the watch ended")
)

// A sighting is a lease's key as it was seen. The zero sighting is a key that
// is not there.
type sighting struct {
	rev    uint64
	holder string // "" for nobody
	id     string
}

func sight(entry jetstream.KeyValueEntry) sighting {
	s := sighting{rev: entry.Revision()}
	var v leaseValue
	if entry.Operation() == jetstream.KeyValuePut && json.Unmarshal(entry.Value(), &v) == nil {
		s.holder, s.id = v.Holder, v.ID
	}
	return s
}

// acquire returns once the lease is ours, or with an error when ctx ends or the
// connection is closed.
func (l *Lease) acquire(ctx context.Context) (tenure, error) {
	warned := false
	for {
		held, err := l.compete(ctx)
		switch {
		case err == nil:
			return held, nil
		case ctx.Err() != nil, errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, jetstream.ErrInvalidKey):
			return tenure{}, err
		case !mismatch(err) && !warned:
			warned = true // once: it is tried several times a second
			l.log.Warn("cannot compete for the lease for now", "err", err)
		}
		if !pause(ctx, l.ttl/8) {
			return tenure{}, ctx.Err()
		}
	}
}

// compete watches the key until it is free, or has not changed for a ttl, and
// then tries to take it, once. That somebody else was faster is an error.
func (l *Lease) compete(ctx context.Context) (tenure, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(l.ttl, func() { cancel(errNoWatch) }) // Watch itself waits for ever
	watch, err := l.kv.Watch(ctx, l.key)
	late.Stop()
	switch {
	case err != nil && ctx.Err() != nil:
		return tenure{}, context.Cause(ctx)
	case err != nil:
		return tenure{}, err
	}
	defer func() { _ = watch.Stop() }() // fails only where it has ended already

	seen, err := l.await(ctx, watch.Updates())
	if err != nil {
		return tenure{}, err
	}
	asked := time.Now()
	rev, err := l.write(ctx, seen, l.ttl/4)
	return tenure{rev: rev, confirmed: asked}, err
}

// await returns the revision of the key once the lease may be taken: when nobody
// has it, when it is ours although we don't lead, or when it did not change for
// a ttl. What updates brings late makes it wait longer, never shorter.
func (l *Lease) await(ctx context.Context, updates <-chan jetstream.KeyValueEntry) (uint64, error) {
	var seen sighting
	unchanged := time.NewTimer(l.ttl)
	defer unchanged.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-unchanged.C:
			return seen.rev, nil
		case entry, ok := <-updates:
			if !ok {
				return 0, errWatchEnded
			}
			if entry != nil { // nil: this is all there was
				seen = sight(entry)
				unchanged.Reset(l.ttl)
			}
			if seen.id == "" || seen.id == l.id {
				return seen.rev, nil
			}
		}
	}
}

// pause waits for d, and reports false where ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
