package providers_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// Requests go to the key with the fewest running, in turn.
func TestKeysBalance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, providers.KindOpenAI, "a", "b", "c")
		for range 6 {
			r.works()
		}
		r.sees("a", "b", "c", "a", "b", "c")

		goOn := make(chan struct{})
		for _, k := range []string{"a", "b"} {
			r.on(k, func(w http.ResponseWriter, req *http.Request) {
				<-goOn
				whole(w, req)
			})
		}
		var running sync.WaitGroup
		for range 2 {
			running.Go(r.works)
			synctest.Wait()
		}
		r.sees("a", "b")
		for range 3 {
			r.works()
		}
		r.sees("c", "c", "c")
		close(goOn)
		running.Wait()
	})
}

// A key that is rate limited rests alone, for as long as the server says, and the
// request goes to the next one.
func TestKeyRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, providers.KindOpenAI, "a", "b")
		r.on("a", says(http.StatusTooManyRequests, slowDown, "Retry-After: 7"))
		r.works()
		r.sees("a", "b")
		r.on("a", whole)
		for range 3 {
			r.works()
		}
		later(7*time.Second - 1)
		r.works()
		r.sees("b", "b", "b", "b")
		later(1)
		r.works()
		r.works()
		r.mu.Lock()
		slices.Sort(r.seen)
		r.mu.Unlock()
		r.sees("a", "b")
	})
}

func TestAllKeysRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, providers.KindOpenAI, "key-1", "key-2")
		r.on("key-1", says(http.StatusTooManyRequests, slowDown, "Retry-After: 7"))
		r.on("key-2", says(http.StatusTooManyRequests, slowDown, "Retry-After-Ms: 2500"))
		r.isClosed()
		r.fails(schemas.RateLimited, 2500*time.Millisecond)
		r.sees("key-1", "key-2")
		later(time.Second)
		r.fails(schemas.RateLimited, 1500*time.Millisecond)
		r.is(r.open(), schemas.RateLimited, 1500*time.Millisecond)
		if err := r.open(); !strings.Contains(err.Error(), "KEY-2") || !strings.Contains(err.Error(), "Rate limit reached") || strings.Contains(err.Error(), "key-") {
			t.Errorf("it says %v", err)
		}
		r.sees()
		later(1500 * time.Millisecond)
		r.isClosed()
		r.fails(schemas.RateLimited, 2500*time.Millisecond) // the key that rests longer stays where it is
		r.sees("key-2")
	})
}

// A key without money, or that is not known, rests until somebody may have done
// something about it. That is no rate limit.
func TestDeniedKeysRest(t *testing.T) {
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		want schemas.Code
		rest time.Duration
	}{
		"quota":             {says(http.StatusTooManyRequests, noMoney), schemas.QuotaExhausted, 5 * time.Minute},
		"quota, soon again": {says(http.StatusTooManyRequests, noMoney, "Retry-After: 1"), schemas.QuotaExhausted, 5 * time.Minute},
		"quota, late again": {says(http.StatusTooManyRequests, noMoney, "Retry-After: 3600"), schemas.QuotaExhausted, time.Hour},
		"credits":           {says(http.StatusPaymentRequired, `{"error":{"message":"Insufficient credits","code":402}}`), schemas.QuotaExhausted, 5 * time.Minute},
		"auth":              {says(http.StatusUnauthorized, noKey), schemas.Auth, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, providers.KindOpenAI, "a", "b")
				r.on("a", c.h)
				r.works()
				r.sees("a", "b")
				r.on("b", c.h)
				r.fails(c.want, c.rest)
				r.sees("b")
				later(c.rest - 1)
				r.fails(c.want, 1)
				r.is(r.open(), c.want, 1)
				r.sees()
				later(1)
				r.on("a", whole)
				r.works()
				r.mu.Lock()
				n := len(r.seen)
				r.mu.Unlock()
				if n > 2 {
					t.Errorf("%d requests", n)
				}
			})
		})
	}
}

// What a key may not do, another may; the key is good for other things.
func TestPermission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, providers.KindOpenAI, "a", "b")
		r.on("a", says(http.StatusForbidden, noRight))
		r.works()
		r.sees("a", "b")
		r.works()
		r.sees("a", "b")
		r.on("b", says(http.StatusForbidden, noRight))
		r.fails(schemas.Permission, 0)
		r.isClosed()
		r.mu.Lock()
		slices.Sort(r.seen)
		r.mu.Unlock()
		r.sees("a", "b")
	})
}

// A key that has nothing left by the headers of a good answer is not used until it
// has.
func TestUsedUpKeyRests(t *testing.T) {
	for name, c := range map[string]struct {
		headers []string
		rest    time.Duration
	}{
		"requests":  {[]string{"X-Ratelimit-Remaining-Requests: 0", "X-Ratelimit-Reset-Requests: 1m30s", "X-Ratelimit-Remaining-Tokens: 7", "X-Ratelimit-Reset-Tokens: 9m"}, 90 * time.Second},
		"tokens":    {[]string{"X-Ratelimit-Remaining-Requests: 3", "X-Ratelimit-Remaining-Tokens: 0", "X-Ratelimit-Reset-Tokens: 20ms"}, 20 * time.Millisecond},
		"both":      {[]string{"X-Ratelimit-Remaining-Requests: 0", "X-Ratelimit-Reset-Requests: 2s", "X-Ratelimit-Remaining-Tokens: 0", "X-Ratelimit-Reset-Tokens: 5s"}, 5 * time.Second},
		"something": {[]string{"X-Ratelimit-Remaining-Requests: 1", "X-Ratelimit-Reset-Requests: 2s"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, providers.KindOpenAI, "a")
				r.on("a", says(http.StatusOK, oneChunk+lastChunk, c.headers...))
				r.works()
				if c.rest == 0 {
					r.works()
					r.sees("a", "a")
					return
				}
				r.fails(schemas.RateLimited, c.rest)
				later(c.rest - 1)
				r.fails(schemas.RateLimited, 1)
				r.sees("a")
				later(1)
				r.works()
				r.sees("a")
			})
		})
	}
}

// Where the server does not say for how long, the rests grow, and differ from one
// another; a request that works ends that.
func TestRestsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rests := map[time.Duration]bool{}
		rest := func(r *rig, n int) {
			t.Helper()
			e := schemas.AsError(r.ask())
			middle := time.Second // then 1.5 s, 2.25 s and so on, each more or less by half
			for range n {
				middle = min(middle*3/2, time.Minute)
			}
			if e.Code != schemas.RateLimited || e.RetryAfter < middle/2 || e.RetryAfter > middle*3/2+1 {
				t.Errorf("rest %d is %s: %v", n, e.RetryAfter, e)
			}
			rests[e.RetryAfter] = true
			later(e.RetryAfter)
		}
		for range 5 {
			r := newRig(t, providers.KindOpenAI, "a")
			r.on("a", says(http.StatusTooManyRequests, slowDown))
			for n := range 15 {
				rest(r, n)
			}
			r.on("a", whole)
			r.works()
			r.on("a", says(http.StatusTooManyRequests, slowDown))
			rest(r, 0)
		}
		if len(rests) < 70 {
			t.Errorf("only %d different rests of 80", len(rests))
		}

		// many that are turned down at once are one complaint
		r := newRig(t, providers.KindOpenAI, "a")
		all := make(chan struct{})
		r.on("a", func(w http.ResponseWriter, req *http.Request) {
			<-all
			says(http.StatusTooManyRequests, slowDown)(w, req)
		})
		var running sync.WaitGroup
		for range 20 {
			running.Go(func() { _ = r.ask() })
		}
		synctest.Wait()
		close(all)
		running.Wait()
		later(schemas.AsError(r.open()).RetryAfter)
		rest(r, 1)
	})
}

// A local server without keys has no limit on keys: what it turns down is one
// model's, and others may have room. A hosted one means whoever asks.
func TestServersWithoutKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for kind, rests := range map[string]bool{providers.KindVLLM: false, providers.KindLlamaSwap: false, providers.KindOpenRouter: true} {
			r := newRig(t, kind)
			check := func() {
				t.Helper()
				if (r.open() != nil) != rests {
					t.Errorf("%s: %v", kind, r.open())
				}
				r.on("", whole)
				if err := r.ask(); (err != nil) != rests {
					t.Errorf("%s: %v", kind, err)
				}
				later(time.Minute)
			}
			usedUp := []string{"X-Ratelimit-Remaining: 0", "X-Ratelimit-Reset: 60"}
			r.on("", says(http.StatusTooManyRequests, slowDown, append(usedUp, "Retry-After: 60")...))
			r.fails(schemas.RateLimited, time.Minute)
			check()
			r.on("", says(http.StatusOK, oneChunk+lastChunk, usedUp...))
			r.works()
			check()
		}
	})
}

// Once a chunk has come out, no other key is tried: what failed is for the queue
// to run again. The key rests all the same.
func TestNothingIsRetriedAfterAChunk(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want schemas.Code
		next []string
	}{
		"rate limit": {slowDown, schemas.RateLimited, []string{"b", "b"}},
		"quota":      {noMoney, schemas.QuotaExhausted, []string{"b", "b"}},
		"permission": {`{"error":{"message":"x","code":403}}`, schemas.Permission, []string{"b", "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, providers.KindOpenAI, "a", "b")
				r.on("a", says(http.StatusOK, oneChunk+"data: "+c.body+"\n\n"))
				chunks := 0
				_, err := r.Generate(t.Context(), chatRequest(providers.Limits{}), func([]byte) error {
					chunks++
					return nil
				})
				if chunks != 1 || schemas.AsError(err).Code != c.want {
					t.Errorf("%d chunks, %v", chunks, err)
				}
				r.sees("a")
				r.on("a", whole)
				r.works()
				r.works()
				r.sees(c.next...)
			})
		})
	}
}

// A question that is no job is asked with the best key there is, even while all
// rest, and tells nothing about jobs.
func TestQuestionsUseAnyKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, providers.KindOpenAI, "a", "b")
		r.on("a", says(http.StatusTooManyRequests, slowDown, "Retry-After: 7"))
		r.on("b", says(http.StatusTooManyRequests, slowDown, "Retry-After: 3"))
		r.fails(schemas.RateLimited, 3*time.Second)
		r.sees("a", "b")
		r.on("b", says(http.StatusOK, `{"data":[{"id":"m"}]}`))
		if models, err := r.Models(t.Context()); err != nil || len(models) != 1 {
			t.Errorf("%v, %v", models, err)
		}
		r.sees("b")
		r.is(r.open(), schemas.RateLimited, 3*time.Second)
	})
}

// A key may change while the provider runs.
func TestKeyIsAskedForEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		r := newRig(t, providers.KindOpenAI)
		p, err := providers.New(providers.Config{Kind: providers.KindOpenAI, HTTP: providertest.Client(t, r), URL: "http://test.invalid", Keys: []providers.Key{{Secret: func() string {
			n++
			return fmt.Sprint("key", n)
		}}}})
		if err != nil {
			t.Fatal(err)
		}
		r.Provider = p
		r.works()
		r.works()
		r.sees("key1", "key2")
	})
}

// Whatever a server does with a key, no error shows it, or a piece of it.
func TestKeysAreNotShown(t *testing.T) {
	const secret = "sk-0123456789/abc+def=" // base64 has such characters
	quotedKey := func(text string) string { return strings.ReplaceAll(quoted(secret), "/", `\/`) + text }
	for name, h := range map[string]http.HandlerFunc{
		"body":        says(http.StatusUnauthorized, `{"error":{"message":"Incorrect API key provided: `+secret+`"}}`),
		"escaped":     says(http.StatusUnauthorized, `{"error":{"message":`+quotedKey(`}}`)),
		"param":       says(http.StatusBadRequest, `{"error":{"message":"x","param":"`+secret+`"}}`),
		"text":        says(http.StatusInternalServerError, "it broke with Bearer "+secret),
		"a page":      says(http.StatusOK, "<html>"+secret+"</html>"),
		"no list":     says(http.StatusOK, `{"object":"`+secret+`"}`),
		"stream":      says(http.StatusOK, oneChunk+`data: {"error":{"message":"`+secret+`"}}`+"\n\n"),
		"stray line":  says(http.StatusOK, oneChunk+"proxy error: "+secret),
		"first event": says(http.StatusOK, "data: "+quoted(secret)+"\n\n"),
		"redirect":    says(http.StatusFound, "", "Location: http://elsewhere.invalid/?key="+url.QueryEscape(secret)+"&again="+secret),
		"rate limit":  says(http.StatusTooManyRequests, "too many requests of "+secret, "Retry-After: 9"),
		"status line": func(w http.ResponseWriter, _ *http.Request) {
			conn, buf, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = buf.WriteString("HTTP/1.1 " + secret + " OK\r\n\r\n")
			_ = buf.Flush()
			_ = conn.Close()
		},
		"cut": says(http.StatusInternalServerError, strings.Repeat("x", 2<<10-len(secret)/2)+secret),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, kind := range []string{providers.KindOpenAI, providers.KindOllama, providers.KindTGI} {
					r := newRig(t, kind, secret)
					r.on(secret, h)
					_, listed := r.Models(t.Context())
					errs := []error{r.ask(), r.ask(), listed, r.open()}
					for range 5 { // until it says why it is left alone
						errs = append(errs, r.ask())
					}
					if errs[0] == nil {
						t.Errorf("%s: it worked", kind)
					}
					for _, err := range errs {
						if err == nil {
							continue
						}
						for _, shown := range []string{err.Error(), schemas.AsError(err).Param} {
							if strings.Contains(shown, secret[:8]) {
								t.Errorf("%s: %s", kind, shown)
							}
						}
					}
				}
			})
		})
	}
}
