package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// TestBadBackendsAreIsolated: beside a backend that works there is one that flaps, one
// that lists a model which it does not have, one that streams garbage, one that says
// nothing, or one that breaks off in the middle. Every job ends well, and the bad
// backend is soon asked no more than now and then.
func TestBadBackendsAreIsolated(t *testing.T) {
	t.Parallel()
	const jobs = 300
	chunk := `data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}` + "\n\n"
	for name, bad := range map[string]http.HandlerFunc{
		"lies": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error":{"message":"The model m does not exist","type":"invalid_request_error","param":null,"code":"model_not_found"}}`, http.StatusNotFound)
		},
		"garbage": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: {{{{\x00\xff\n\ndata: <html>\n\n")
		},
		"breaks": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, chunk)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
		"fails":   func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) },
		"is mute": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/event-stream") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			mux := http.NewServeMux()
			mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, `{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"x"}]}`)
			})
			mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				_, _ = io.Copy(io.Discard, r.Body)
				bad(w, r)
			})
			server := httptest.NewServer(mux)
			t.Cleanup(server.Close)
			good := httptest.NewServer(sim.New(sim.Config{Models: []sim.Model{{Name: "m", Slots: 2, FirstToken: 5 * time.Millisecond, TokenInterval: time.Millisecond, Tokens: 5}}}))
			t.Cleanup(good.Close)

			url, _ := natsServer(t, "")
			start(t, "dispatcher", "vramjet", "dispatcher", "--server", url, "--http", "off")
			serveAs(t, url, "good", fmt.Sprintf("  - {name: sim, kind: sim, url: %q}\n", good.URL))
			serveAs(t, url, "bad", fmt.Sprintf("  - {name: api, kind: openai, url: %q, slots: 8}\n", server.URL+"/v1"))
			u := connect(t, url)
			u.serves("m", 2)
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			for i := range jobs {
				job := client.Chat("m", "hi")
				job.ID = fmt.Sprint("j", i)
				if _, err := u.Submit(ctx, job); err != nil {
					t.Fatal(err)
				}
			}
			for i := range jobs {
				if r, err := u.Result(ctx, fmt.Sprint("j", i)); err != nil || r.Status != schemas.StatusOK {
					t.Fatalf("j%d ended %+v, %v", i, r, err)
				}
			}
			t.Logf("the bad backend was asked %d times for %d jobs", asked.Load(), jobs)
			if asked.Load() > jobs/4 {
				t.Errorf("the bad backend was asked %d times for %d jobs", asked.Load(), jobs)
			}
		})
	}
}
