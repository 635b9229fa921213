package broker

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// DefaultLeaseTTL is how long a lease lasts that nobody renews.
const DefaultLeaseTTL = 2 * time.Second

// ErrLeaseLost is the cause of the end of a leader's context when the lease could
// not be confirmed in time, or is somebody else's.
var ErrLeaseLost = errors.New("the lease is lost")

// A Lease is held by at most one of those who compete for it: a leader election.
//
// It is a key that its holder writes again and again, each time on condition that
// nobody has written it since. Everybody times it by a clock of their own: a
// holder gives up 3/4 of the ttl after it last asked for a confirmation that it
// got, and the others take the key once they have seen it unchanged for a whole
// ttl. So no two holders are live at once, unless a clock stands still: a process
// that was stopped notices it only when it runs again.
type Lease struct {
	kv     jetstream.KeyValue
	key    string
	holder string
	id     string // tells this Lease from others with the same holder
	ttl    time.Duration
	log    *slog.Logger
}

// leaseValue is what stands in the key.
type leaseValue struct {
	Holder string `json:"holder"`
	ID     string `json:"id"`
}

// NewLease returns a lease on a key, to be taken by Run. holder says to people
// who it is; it need not be unique. ttl 0 is DefaultLeaseTTL; all who compete
// should have the same.
func NewLease(kv jetstream.KeyValue, key, holder string, ttl time.Duration, log *slog.Logger) *Lease {
	return &Lease{
		kv: kv, key: key, holder: holder, id: rand.Text(),
		ttl: cmp.Or(ttl, DefaultLeaseTTL),
		log: log.With("lease", key, "holder", holder),
	}
}

// Run competes for the lease until ctx ends, and calls lead each time it has it.
// The context of lead ends when ctx does, or, with the cause ErrLeaseLost, when
// the lease can't be confirmed any more. Once lead has returned, the lease is
// given back if it is still ours, so that another can take it at once. If lead
// returns by itself, Run lets the others go first.
//
// Run returns nil once ctx has ended and lead has returned, and an error where
// the connection is closed. It may be called by one goroutine at a time.
func (l *Lease) Run(ctx context.Context, lead func(ctx context.Context)) error {
	for {
		held, err := l.acquire(ctx)
		if ctx.Err() != nil {
			if err == nil {
				l.release(ctx, held.rev)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("take the lease %s: %w", l.key, err)
		}
		l.log.Info("lease taken")
		l.hold(ctx, held, lead)
		if !pause(ctx, l.ttl/4) {
			return nil
		}
	}
}

// Holder returns who holds the lease, "" for nobody. One that crashed is returned
// until another takes over.
func (l *Lease) Holder(ctx context.Context) (string, error) {
	seen, err := l.look(ctx)
	if err != nil {
		return "", fmt.Errorf("look up the lease %s: %w", l.key, err)
	}
	return seen.holder, nil
}

// A tenure is a lease that is held.
type tenure struct {
	rev       uint64    // of the key, as we wrote it last
	confirmed time.Time // when the last write was asked for that was confirmed
	tried     time.Time // when the first one since was; zero: none was
}

// hold calls lead, renews the lease until lead has returned, and gives it back.
func (l *Lease) hold(ctx context.Context, held tenure, lead func(context.Context)) {
	leadCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	expiry := time.AfterFunc(l.untilExpiry(held), func() { stop(ErrLeaseLost) })
	defer expiry.Stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		lead(leadCtx)
	}()

	renew, patience := time.NewTimer(l.ttl/4), l.ttl/8
	defer renew.Stop()
	for {
		select {
		case <-done:
			l.release(ctx, held.rev)
			return
		case <-leadCtx.Done():
			if errors.Is(context.Cause(leadCtx), ErrLeaseLost) {
				l.log.Warn("lease lost")
			}
			<-done
			l.release(ctx, held.rev)
			return
		case <-renew.C:
			next, err := l.renew(ctx, held, patience)
			wait := l.ttl / 4
			patience = l.ttl / 8
			switch {
			case errors.Is(err, ErrLeaseLost):
				stop(ErrLeaseLost)
			case err != nil: // again and again, until it expires: an answer was lost, or is slow
				wait, patience = l.ttl/32, l.ttl/4
			}
			held = next
			expiry.Reset(l.untilExpiry(held))
			renew.Reset(wait)
		}
	}
}

// untilExpiry is how long the lease may still be relied upon.
func (l *Lease) untilExpiry(held tenure) time.Duration {
	return time.Until(held.confirmed.Add(l.ttl * 3 / 4))
}

// renew writes the key once more. It returns ErrLeaseLost where somebody else
// has it. After any other error the tenure that it returns is to be renewed again.
//
// It waits for an answer for so long as patience says. The end of ctx doesn't cut it
// short: whether a write came through must be known before the lease is given back.
func (l *Lease) renew(ctx context.Context, held tenure, patience time.Duration) (tenure, error) {
	ctx = context.WithoutCancel(ctx)
	asked := time.Now()
	rev, err := l.write(ctx, held.rev, patience)
	if err == nil {
		return tenure{rev: rev, confirmed: asked}, nil
	}
	before := held.tried
	if before.IsZero() {
		held.tried = asked
	}
	if !mismatch(err) {
		return held, err
	}
	// Somebody has written the key: we ourselves, where a confirmation was lost.
	seen, lookErr := l.look(ctx)
	switch {
	case lookErr != nil:
		return held, lookErr
	case seen.rev < held.rev: // a replica that is behind
		return held, err
	case seen.id != l.id:
		return held, ErrLeaseLost
	case !before.IsZero():
		held.confirmed = before // or later: one of those writes it was
	}
	held.rev = seen.rev
	return held, err
}

// release gives the lease back if it is ours.
func (l *Lease) release(ctx context.Context, rev uint64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.ttl/2)
	defer cancel()
	err := l.kv.Delete(ctx, l.key, jetstream.LastRevision(rev))
	if mismatch(err) {
		var seen sighting
		if seen, err = l.look(ctx); err == nil && seen.id == l.id {
			err = l.kv.Delete(ctx, l.key, jetstream.LastRevision(seen.rev))
		}
	}
	if err != nil {
		l.log.Warn("lease not given back: it will run out", "err", err)
	}
}

// write writes the key on condition that rev is its revision, 0 for none.
func (l *Lease) write(ctx context.Context, rev uint64, patience time.Duration) (uint64, error) {
	value, err := json.Marshal(leaseValue{l.holder, l.id})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return l.kv.Update(ctx, l.key, value, rev)
}

// look reads the key. A replica may answer that is behind.
func (l *Lease) look(ctx context.Context) (sighting, error) {
	ctx, cancel := context.WithTimeout(ctx, l.ttl/4)
	defer cancel()
	entry, err := l.kv.Get(ctx, l.key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound): // or deleted
		return sighting{}, nil
	case err != nil:
		return sighting{}, err
	default:
		return sight(entry), nil
	}
}

// mismatch reports whether a write was turned down since the key's revision was
// another.
func mismatch(err error) bool {
	return errors.Is(err, jetstream.ErrKeyRevisionMismatch)
}
