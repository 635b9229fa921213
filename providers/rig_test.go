package providers_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// A rig is a provider with keys, and a server that counts what it sees of each.
type rig struct {
	*testing.T
	providers.Provider
	model string // that is asked

	mu     sync.Mutex // guards what follows
	seen   []string   // the keys of the requests, in order
	answer map[string]http.HandlerFunc
}

// newRig returns a rig of a kind whose keys are secrets. Every request gets a
// whole answer, unless told otherwise.
func newRig(t *testing.T, kind string, secrets ...string) *rig {
	t.Helper()
	r := &rig{T: t, model: "m", answer: map[string]http.HandlerFunc{}}
	cfg := providers.Config{Name: "srv", Kind: kind, URL: "http://test.invalid", HTTP: providertest.Client(t, r)}
	for _, s := range secrets {
		cfg.Keys = append(cfg.Keys, providers.Key{Name: strings.ToUpper(s), Secret: func() string { return s }})
	}
	p, err := providers.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Provider = p
	return r
}

func (r *rig) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	_, _ = io.Copy(io.Discard, req.Body)
	secret := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	r.mu.Lock()
	r.seen = append(r.seen, secret)
	h, ok := r.answer[secret]
	r.mu.Unlock()
	if !ok {
		h = whole
	}
	h(w, req)
}

// on has the server answer a key's requests from now on.
func (r *rig) on(secret string, h http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer[secret] = h
}

// sees checks the keys of all requests since it was asked last.
func (r *rig) sees(want ...string) {
	r.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.seen, want) {
		r.Errorf("the server saw %v, want %v", r.seen, want)
	}
	r.seen = nil
}

// ask runs one chat.
func (r *rig) ask() error { return r.askWith(r.Context(), providers.Limits{}) }

func (r *rig) askWith(ctx context.Context, lim providers.Limits) error {
	req := chatRequest(lim)
	req.Model = r.model
	_, err := r.Generate(ctx, req, func([]byte) error { return nil })
	return err
}

func chatRequest(lim providers.Limits) providers.Request {
	return providers.Request{Kind: schemas.Chat, Model: "m", Limits: lim, Body: []byte(`{"messages":[{"role":"user","content":"hi"}]}`)}
}

// works checks that a request is answered.
func (r *rig) works() {
	r.Helper()
	if err := r.ask(); err != nil {
		r.Error(err)
	}
}

// fails checks that a request is not answered, why, and when to ask again.
func (r *rig) fails(code schemas.Code, after time.Duration) {
	r.Helper()
	r.is(r.ask(), code, after)
}

func (r *rig) is(err error, code schemas.Code, after time.Duration) {
	r.Helper()
	var e *schemas.Error
	if !errors.As(err, &e) || e.Code != code || e.RetryAfter != after {
		r.Errorf("%v: %+v, want %s and to ask again after %s", err, e, code, after)
	}
}

func (r *rig) open() error {
	r.Helper()
	b, ok := r.Provider.(providers.Breaker)
	if !ok {
		r.Fatal("it has no breaker")
	}
	return b.Open()
}

func (r *rig) isClosed() {
	r.Helper()
	if err := r.open(); err != nil {
		r.Errorf("no request would be sent: %v", err)
	}
}

// later lets time pass.
func later(d time.Duration) { <-time.After(d) }

func whole(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, oneChunk+lastChunk)
}

const oneChunk = `data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}` + "\n\n"

const lastChunk = `data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n"

// says returns a handler that answers with a status, headers "Name: value", and a
// body.
func says(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

const (
	slowDown = `{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}`
	noMoney  = `{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}`
	noKey    = `{"error":{"message":"Incorrect API key provided","type":"invalid_request_error","code":"invalid_api_key"}}`
	noRight  = `{"error":{"message":"You are not allowed to sample from this model","type":"invalid_request_error"}}`
	broken   = `{"error":{"message":"The server had an error","type":"server_error"}}`
)
