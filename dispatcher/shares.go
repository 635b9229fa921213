package dispatcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
)

// Who is ahead of its share is stored, so that the next leader goes on from there.
// What is lost in a crash is what was served since it was stored last.
const (
	sharesKey   = "shares"
	sharesEvery = 5 * time.Second
)

// saveShares stores by how much flows are ahead, and what was spent, now and then, and
// as the term ends.
func (t *term) saveShares(now time.Time) {
	unread := !t.sharesKnown || t.former != nil // what a former leader stored
	if unread || t.savingShares || now.Sub(t.savedShares) < sharesEvery {
		return
	}
	t.savedShares, t.savingShares = now, true
	shares, spent := t.shares(), t.spent
	known := spent == t.storedSpent || spent.Amount == 0
	t.spawn(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), apiTimeout)
		defer cancel()
		err := t.storeState(ctx, sharesKey, shares)
		if !known {
			err = errors.Join(err, t.storeState(ctx, spentKey, spent))
		}
		if err != nil {
			t.cfg.Logger.Warn("shares were not stored", "err", err)
		}
		t.post(func() {
			t.savingShares = false
			if err == nil {
				t.storedSpent = spent
			}
		})
	})
}

// shares is by how much each flow is ahead of those that it shares with, in
// slot-seconds by weight, by subject. Flows that are not are left out.
func (t *term) shares() map[string]float64 {
	shares := map[string]float64{}
	const most = 5000 // as many as one message of the bucket has room for
	for subject, f := range t.flows {
		if lead := t.fleet.place.Lead(f.Flow); lead > 0 && len(shares) < most {
			shares[subject] = lead
		}
	}
	return shares
}

// storeState stores a value under a key of the bucket of the state.
func (t *term) storeState(ctx context.Context, key string, v any) error {
	kv, err := t.js.KeyValue(ctx, broker.BucketState)
	if err != nil {
		return fmt.Errorf("open the bucket: %w", err)
	}
	if _, err := kv.Put(ctx, key, encode(v)); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return nil
}

// loadShares reads what a former leader stored, and then counts what waits. Where it
// cannot be read, the work begins without it, and it is read as soon as it can be: until
// then nothing is stored in its place.
func (t *term) loadShares(count func()) {
	t.counting = true // it is about to
	tried := sync.OnceFunc(func() { t.post(count) })
	t.untilRead("shares of a former leader are not known yet", func() error {
		defer tried()
		return t.readShares()
	})
}

// readShares reads what a former leader stored, and goes on from it.
func (t *term) readShares() error {
	var shares map[string]float64
	var spent spent
	err := untilAnswered(t.ctx, func(ctx context.Context) error {
		return errors.Join(t.loadState(ctx, sharesKey, &shares), t.loadState(ctx, spentKey, &spent))
	})
	if err == nil {
		t.post(func() {
			t.former, t.sharesKnown = shares, true
			t.restoreSpent(spent, time.Now())
		})
	}
	return err
}

// loadState reads the value of a key into v. It's no error if there is none, or if it
// makes no sense.
func (t *term) loadState(ctx context.Context, key string, v any) error {
	kv, err := t.js.KeyValue(ctx, broker.BucketState)
	if err != nil {
		return fmt.Errorf("open the bucket: %w", err)
	}
	e, err := kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	if err := json.Unmarshal(e.Value(), v); err != nil {
		t.cfg.Logger.Error("what a former leader stored cannot be read: it is forgotten", "err", fmt.Errorf("decode %s: %w", key, err))
	}
	return nil
}

// restoreShares goes on from a former leader's shares, when it is known which flows
// wait.
func (t *term) restoreShares() {
	for subject, lead := range t.former {
		if f := t.flows[subject]; f != nil && lead > 0 {
			t.fleet.place.Restore(f.Flow, lead)
		}
	}
	t.former = nil
}
