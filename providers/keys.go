package providers

import (
	"cmp"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/sony/gobreaker/v2"

	"github.com/vramjet/vramjet/schemas"
)

// A Key is one of the keys that a server takes.
type Key struct {
	Name string // for messages: the name of the environment variable, say; never the key itself

	// Secret is asked for the key before each request. "" means that the request
	// goes without one. It may be called concurrently.
	Secret func() string
}

const (
	// tripAfter is how many requests in a row must fail by the server's fault
	// before it is left alone, where it is not the fault of one of its models.
	tripAfter = 5
	// tripRest is for how long. Then one request may try again.
	tripRest = 10 * time.Second
	// deniedRest is for how long a key is not used that the server does not know,
	// or that has no money left: somebody has to do something about it.
	deniedRest = 5 * time.Minute
)

// A keyring picks the key for each request, and leaves alone for a while what
// fails: a key that the server turned down, and a server that keeps failing with
// it. A server without keys has one key that is "".
type keyring struct {
	backend string // for messages
	metered bool   // the server counts requests by key: see newKeyring
	single  bool   // the server has one model, whose failures are its own

	mu   sync.Mutex // guards what follows
	keys []*key
	turn int // where the next look for a key begins
}

// A key is a Key and what happened to it.
type key struct {
	Key
	running int

	rest  time.Time      // it is not used before
	why   *schemas.Error // what the server said
	pause *backoff.ExponentialBackOff

	breaker *gobreaker.TwoStepCircuitBreaker[any]
	opened  time.Time      // when the breaker last opened
	failed  *schemas.Error // the last failure that it counted
	culprit string         // the model whose request failed first since one went well
	several bool           // it is not that model alone
}

// newKeyring returns the ring of those keys. metered says that a complaint about
// too many requests means the key: a local server without keys complains about
// one model, and others may well have room.
func newKeyring(backend string, keys []Key, metered bool) *keyring {
	r := &keyring{backend: backend, metered: metered || len(keys) > 0}
	if len(keys) == 0 {
		keys = []Key{{Secret: func() string { return "" }}}
	}
	for _, k := range keys {
		r.keys = append(r.keys, r.newKey(k))
	}
	return r
}

func (r *keyring) newKey(k Key) *key {
	made := &key{Key: k, pause: backoff.NewExponentialBackOff()}
	made.pause.InitialInterval, made.pause.MaxInterval = time.Second, time.Minute
	made.breaker = gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
		Timeout: tripRest - 1, // it rests on until then, and for a moment more
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.ConsecutiveFailures >= tripAfter && (r.single || made.several)
		},
		IsExcluded: func(err error) bool { return err != nil && !trips(err) },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				made.opened = time.Now()
			}
		},
	})
	return made
}

// trips reports whether an error speaks against the server. A caller's mistake
// never does, nor does a request that was cancelled.
func trips(err error) bool {
	var e *schemas.Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Code == schemas.Unreachable || e.Code == schemas.UpstreamError || e.Code == schemas.StreamBroken
}

// A use is one request with a key. done must be called once, with the request's
// outcome.
type use struct {
	ring   *keyring
	key    *key
	secret string
	model  string      // that the request is for
	count  func(error) // tells the breaker
}

// take returns a key for a request to a model: of those that may be used and are not in
// tried, the one with the fewest running requests, in turn. Where it returns none,
// the error says why and for how long; nil: all that may be used were tried.
func (r *keyring) take(model string, tried []*key) (*use, *schemas.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, k := range r.order(now, tried) {
		count, err := k.breaker.Allow()
		if err != nil {
			continue // never: until knows
		}
		k.running++
		r.turn++
		return &use{ring: r, key: k, secret: k.Secret(), model: model, count: count}, nil
	}
	return nil, r.trouble(now)
}

// order returns the keys that may be used now, in the order to try them.
func (r *keyring) order(now time.Time, tried []*key) []*key {
	var free []*key
	for i := range r.keys {
		k := r.keys[(r.turn+i)%len(r.keys)]
		if _, why := k.until(now); why == nil && !slices.Contains(tried, k) {
			free = append(free, k)
		}
	}
	slices.SortStableFunc(free, func(a, b *key) int { return cmp.Compare(a.running, b.running) })
	return free
}

// borrow returns a key for a question that is no job, such as for the list of
// models: the best there is, even if it rests, as the answer may be that all is
// well again. nil: all were tried.
func (r *keyring) borrow(tried []*key) *use {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	var best *key
	for _, k := range r.keys {
		if slices.Contains(tried, k) {
			continue
		}
		if best == nil || now.Before(best.rest) && k.rest.Before(best.rest) {
			best = k
		}
	}
	if best == nil {
		return nil
	}
	return &use{key: best, secret: best.Secret()}
}

// usedUp says that the key has nothing left for d.
func (u *use) usedUp(d time.Duration) {
	if d <= 0 || u.ring == nil || !u.ring.metered {
		return
	}
	u.ring.mu.Lock()
	defer u.ring.mu.Unlock()
	u.key.sleep(time.Now().Add(d), schemas.Errorf(schemas.RateLimited, "the key's limit is used up"))
}

// began says that the answer began. A request on trial has shown by that what it
// was to show: the others need not wait for its end.
func (u *use) began() {
	if u.ring == nil {
		return
	}
	u.ring.mu.Lock()
	defer u.ring.mu.Unlock()
	if u.key.breaker.State() != gobreaker.StateHalfOpen {
		return
	}
	u.count(nil)
	u.key.culprit, u.key.several = "", false
	count, err := u.key.breaker.Allow()
	if err != nil {
		count = func(error) {} // never: it is closed now
	}
	u.count = count
}

// blame notes a failure that speaks against the server, or against one of its
// models. One that cannot be reached has failed as a whole.
func (k *key) blame(model string, why *schemas.Error) {
	k.failed = why
	switch {
	case why.Code == schemas.Unreachable:
		k.several = true
	case k.culprit == "":
		k.culprit = model
	case k.culprit != model:
		k.several = true
	}
}

// done takes in how the request went.
func (u *use) done(err error) {
	if u.ring == nil {
		return // borrowed
	}
	u.ring.mu.Lock()
	defer u.ring.mu.Unlock()
	k, now := u.key, time.Now()
	k.running--
	switch {
	case err == nil:
		k.culprit, k.several = "", false
	case trips(err):
		k.blame(u.model, schemas.AsError(err))
	}
	u.count(err)
	if !u.ring.metered {
		return
	}
	if err == nil {
		k.pause.Reset()
		return
	}
	var e *schemas.Error
	if !errors.As(err, &e) {
		return
	}
	switch e.Code { //nolint:exhaustive // the other codes say nothing about the key
	case schemas.RateLimited:
		rest := e.RetryAfter
		if rest == 0 && !now.Before(k.rest) { // else it is told once more what it knows
			rest = k.pause.NextBackOff()
		}
		k.sleep(now.Add(rest), e)
	case schemas.QuotaExhausted, schemas.Auth:
		k.sleep(now.Add(max(deniedRest, e.RetryAfter)), e)
	}
}

// sleep leaves the key alone until then. Several requests may be turned down at
// once: the longest rest counts.
func (k *key) sleep(until time.Time, why *schemas.Error) {
	if until.After(k.rest) {
		k.rest, k.why = until, why
	}
}

// until returns when the key may be used again and why not before; the zero time
// and nil: now. For one now it always says the same, though the breaker has a
// clock of its own.
func (k *key) until(now time.Time) (time.Time, *schemas.Error) {
	if now.Before(k.rest) {
		return k.rest, k.why
	}
	state, counts := k.breaker.State(), k.breaker.Counts()
	switch again := k.opened.Add(tripRest); {
	case state == gobreaker.StateClosed:
		return time.Time{}, nil
	case now.Before(again):
		return again, k.failed
	case counts.Requests > counts.TotalExclusions: // somebody is just trying it
		return now.Add(time.Second), k.failed
	default:
		return time.Time{}, nil
	}
}

// trouble returns why no key may be used now: what is said of the one that may be
// used the soonest. nil: one may be.
func (r *keyring) trouble(now time.Time) *schemas.Error {
	var soonest time.Time
	var found *schemas.Error
	var name string
	for _, k := range r.keys {
		until, why := k.until(now)
		if why == nil {
			return nil
		}
		if found == nil || until.Before(soonest) {
			soonest, found, name = until, why, k.Name
		}
	}
	rest := soonest.Sub(now)
	if name != "" {
		name = " with the key " + name
	}
	e := schemas.Errorf(found.Code, "%s: not asked%s for another %s: %s", r.backend, name, rest.Round(time.Second/10), strings.TrimPrefix(found.Message, r.backend+": "))
	e.RetryAfter = rest
	return e
}

// open implements Breaker.
func (r *keyring) open() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.trouble(time.Now()); e != nil {
		return e
	}
	return nil
}

// redact takes the keys out of a text, also as they stand in a URL.
func (r *keyring) redact(text string) string {
	for _, k := range r.keys {
		if secret := k.Secret(); secret != "" {
			for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
				text = strings.ReplaceAll(text, form, "[key]")
			}
		}
	}
	return text
}

// anotherKey reports whether an error may be one key's alone.
func anotherKey(err error) bool {
	var e *schemas.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case schemas.RateLimited, schemas.QuotaExhausted, schemas.Auth, schemas.Permission:
		return true
	default: // so it is with every key
		return false
	}
}
