package providers_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// The breaker opens after 5 failures in a row, and then leaves the server alone
// for 10 s, but for one request to try it.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, providers.KindVLLM)
		r.on("", says(http.StatusInternalServerError, broken))
		trip := func() {
			t.Helper()
			for range 5 {
				r.isClosed()
				r.fails(schemas.UpstreamError, 0)
			}
			r.sees("", "", "", "", "")
		}
		rests := func() {
			t.Helper()
			r.fails(schemas.UpstreamError, 10*time.Second)
			r.is(r.open(), schemas.UpstreamError, 10*time.Second)
			if err := r.open(); !strings.Contains(err.Error(), "The server had an error") || strings.Count(err.Error(), "srv") != 1 {
				t.Errorf("it says %v", err)
			}
			later(10*time.Second - 1)
			r.fails(schemas.UpstreamError, 1)
			r.is(r.open(), schemas.UpstreamError, 1)
			r.sees()
			later(1)
			r.isClosed()
		}
		trip()
		rests()
		r.fails(schemas.UpstreamError, 0) // the one that tries it
		r.sees("")
		rests()
		goOn := make(chan struct{})
		r.on("", func(w http.ResponseWriter, req *http.Request) {
			<-goOn
			whole(w, req)
		})
		var running sync.WaitGroup
		running.Go(r.works)
		synctest.Wait()
		for range 3 {
			r.fails(schemas.UpstreamError, time.Second) // while another tries it
		}
		r.is(r.open(), schemas.UpstreamError, time.Second)
		close(goOn)
		running.Wait()
		r.isClosed()
		r.works()
		r.sees("", "")
		r.on("", says(http.StatusInternalServerError, broken))
		trip()
		rests()
	})
}

// What counts for the breaker is that the server fails: by a status, in a stream,
// by silence, or by not being there.
func TestBreakerFailures(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"status":    says(http.StatusBadGateway, ""),
		"in stream": says(http.StatusOK, oneChunk+"data: "+broken+"\n\n"),
		"cut":       says(http.StatusOK, oneChunk),
		"breaks":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"a page":    says(http.StatusOK, "<html></html>"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, providers.KindVLLM)
				r.on("", h)
				for range 5 {
					r.isClosed()
					if err := r.ask(); err == nil {
						t.Error("it worked")
					}
				}
				if r.open() == nil {
					t.Error("it is asked on")
				}
			})
		})
	}
}

func TestBreakerOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := providers.New(providers.Config{Kind: providers.KindVLLM, URL: "http://test.invalid", HTTP: providertest.Client(t, nil)})
		if err != nil {
			t.Fatal(err)
		}
		r := &rig{T: t, Provider: p}
		for range 5 {
			r.fails(schemas.Unreachable, 0)
		}
		r.is(r.open(), schemas.Unreachable, 10*time.Second)
	})
}

// One model that is broken does not close a server that has others.
func TestBreakerOfOneModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, providers.KindLlamaSwap)
		r.on("", says(http.StatusInternalServerError, broken))
		for range 9 {
			r.fails(schemas.UpstreamError, 0)
			r.isClosed()
		}
		r.model = "another"
		r.fails(schemas.UpstreamError, 0)
		r.is(r.open(), schemas.UpstreamError, 10*time.Second)
	})
}

// The request on trial shows with its first chunk that the server is well again: the
// others need not wait for its end. That it may still break off counts all the same.
func TestBreakerTrialBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, providers.KindVLLM)
		r.on("", says(http.StatusInternalServerError, broken))
		for range 5 {
			r.fails(schemas.UpstreamError, 0)
		}
		later(10 * time.Second)
		goOn := make(chan struct{})
		r.on("", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, oneChunk)
			_ = http.NewResponseController(w).Flush()
			<-goOn
		})
		var running sync.WaitGroup
		for i := range 5 { // they break off, one and all
			running.Go(func() { r.fails(schemas.StreamBroken, 0) })
			synctest.Wait()
			if i == 0 {
				r.isClosed()
			}
		}
		close(goOn)
		running.Wait()
		r.is(r.open(), schemas.StreamBroken, 10*time.Second)
	})
}

// One key may be what a server fails with: the others are used on.
func TestBreakerOfOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, providers.KindOpenAI, "a", "b")
		r.on("a", says(http.StatusInternalServerError, broken))
		for i := range 10 {
			r.model = fmt.Sprint("m", i/2%2) // two models, by either key
			_ = r.ask()
		}
		r.sees("a", "b", "a", "b", "a", "b", "a", "b", "a", "b")
		r.isClosed()
		for range 3 {
			r.works()
		}
		r.sees("b", "b", "b")
	})
}

// A request that began before the breaker opened, and still runs, is not the one
// that tries the server.
func TestBreakerWithOldRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, providers.KindVLLM)
		goOn := make(chan struct{})
		r.on("", func(w http.ResponseWriter, req *http.Request) {
			<-goOn
			whole(w, req)
		})
		var old sync.WaitGroup
		old.Go(r.works)
		synctest.Wait()
		r.on("", says(http.StatusInternalServerError, broken))
		for range 5 {
			r.fails(schemas.UpstreamError, 0)
		}
		later(10 * time.Second)
		r.isClosed()
		r.on("", whole)
		r.works()
		r.isClosed()
		close(goOn)
		old.Wait()
	})
}

var errMine = schemas.Errorf(schemas.UpstreamError, "the caller's own")

// harmless are ends of a request that say nothing about its server.
var harmless = map[string]func(r *rig) error{
	"bad request": func(r *rig) error { return r.askOf(says(http.StatusBadRequest, `{"error":{"message":"bad"}}`)) },
	"context overflow": func(r *rig) error {
		return r.askOf(says(http.StatusBadRequest, `{"error":{"message":"x","code":"context_length_exceeded"}}`))
	},
	"in stream": func(r *rig) error {
		return r.askOf(says(http.StatusOK, oneChunk+"data: {\"error\":{\"message\":\"x\",\"code\":\"context_length_exceeded\"}}\n\n"))
	},
	"unknown model": func(r *rig) error {
		return r.askOf(says(http.StatusNotFound, `{"error":{"message":"x","code":"model_not_found"}}`))
	},
	"not JSON": func(r *rig) error {
		_, err := r.Generate(r.Context(), providers.Request{Kind: schemas.Chat, Body: []byte("[]")}, func([]byte) error { return nil })
		return err
	},
	"overloaded": func(r *rig) error { return r.askOf(says(http.StatusServiceUnavailable, `{"error":{"message":"x"}}`)) },
	"rate limit": func(r *rig) error { return r.askOf(says(http.StatusTooManyRequests, slowDown)) },
	"cancelled": func(r *rig) error {
		ctx, stop := context.WithCancelCause(r.Context())
		defer stop(nil)
		return r.askOfWith(ctx, providers.Limits{}, func(_ http.ResponseWriter, req *http.Request) {
			stop(errMine)
			<-req.Context().Done()
		})
	},
	"cancelled in the stream": func(r *rig) error {
		ctx, stop := context.WithCancelCause(r.Context())
		defer stop(nil)
		r.on("", stalls)
		_, err := r.Generate(ctx, chatRequest(providers.Limits{}), func([]byte) error {
			stop(errMine)
			return nil
		})
		return err
	},
	"emit's error": func(r *rig) error {
		r.on("", whole)
		_, err := r.Generate(r.Context(), chatRequest(providers.Limits{}), func([]byte) error { return errMine })
		return err
	},
	"queue limit":       func(r *rig) error { return r.askOfWith(r.Context(), providers.Limits{Queue: time.Second}, mute) },
	"first token limit": func(r *rig) error { return r.askOfWith(r.Context(), providers.Limits{FirstToken: time.Second}, mute) },
	"between chunks": func(r *rig) error {
		return r.askOfWith(r.Context(), providers.Limits{BetweenChunks: time.Second}, stalls)
	},
}

func mute(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() }

func stalls(w http.ResponseWriter, req *http.Request) {
	_, _ = io.WriteString(w, oneChunk)
	_ = http.NewResponseController(w).Flush()
	<-req.Context().Done()
}

func (r *rig) askOf(h http.HandlerFunc) error {
	return r.askOfWith(r.Context(), providers.Limits{}, h)
}

func (r *rig) askOfWith(ctx context.Context, lim providers.Limits, h http.HandlerFunc) error {
	r.on("", h)
	return r.askWith(ctx, lim)
}

// A caller's mistakes, its limits and its leaving neither trip the breaker, nor
// tell it that the server is well.
func TestBreakerLeavesCallersAlone(t *testing.T) {
	for name, end := range harmless {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, providers.KindVLLM)
				fail := func() { _ = r.askOf(says(http.StatusInternalServerError, broken)) }
				many := func() {
					t.Helper()
					for range 6 {
						if err := end(r); err == nil {
							t.Fatal("it worked")
						}
						r.isClosed()
					}
				}
				many()
				for range 4 {
					fail()
				}
				many()
				fail()
				r.is(r.open(), schemas.UpstreamError, 10*time.Second)
				later(10 * time.Second)
				many() // nor do they keep others from trying
				r.on("", whole)
				r.works()
				r.isClosed()
			})
		})
	}
}

// One that works ends a row of failures.
func TestBreakerCountsInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, providers.KindVLLM)
		for range 3 {
			for range 4 {
				_ = r.askOf(says(http.StatusInternalServerError, broken))
			}
			r.on("", whole)
			r.works()
		}
		r.isClosed()
	})
}
