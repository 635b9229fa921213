// Package providertest is the contract of providers.Provider, as tests that every
// dialect passes.
package providertest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// A Dialect is how one kind of server writes its streams.
type Dialect struct {
	// New returns a provider for the server at url that uses client.
	New func(t *testing.T, url string, client *http.Client) providers.Provider

	ContentType string
	Chunk       func(text string) string // one chunk as it is on the wire
	End         string                   // what ends a whole answer
	Error       string                   // an error in the middle of a stream
	Comment     string                   // what may stand between chunks and means nothing

	// Stream is a whole recorded stream and Text what it says. Without one, the
	// suite makes its own.
	Stream, Text string
}

const deadline = 20 * time.Second // of each test: far more than it takes

// request is what all tests ask.
func request(lim providers.Limits) providers.Request {
	return providers.Request{
		Kind: schemas.Chat, Model: "m", Limits: lim,
		Body: []byte(`{"messages":[{"role":"user","content":"hi"}]}`),
	}
}

// Run runs the suite.
func Run(t *testing.T, d Dialect) {
	if d.Stream == "" {
		d.Text = "Hello, \"wörld\" \\ 😀\n\tand\u2028more"
		d.Stream = d.stream(d.Text)
	}
	for _, c := range []struct {
		name string
		test func(*testing.T, Dialect)
	}{
		{"whole", whole},
		{"cut", cut},
		{"no final marker", noMarker},
		{"error in the stream", streamError},
		{"stray text", strayText},
		{"unreachable", unreachable},
		{"cancel", cancel},
		{"error of emit", emitError},
		{"a chunk of 1 MiB", longChunk},
		{"cut at every byte", everyByte},
		{"CRLF", crlf},
		{"comments", comments},
		{"first token limit", firstToken},
		{"between chunks limit", betweenChunks},
		{"slow but steady", steady},
		{"status", status},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, d) })
	}
}

// stream returns a whole stream, a chunk for each character.
func (d *Dialect) stream(text string) string {
	var b strings.Builder
	for _, r := range text {
		b.WriteString(d.Chunk(string(r)))
	}
	return b.String() + d.End
}

// ask runs one request on a server with that handler and returns the text of the
// chunks.
func (d *Dialect) ask(t *testing.T, lim providers.Limits, h http.HandlerFunc) (string, providers.Answer, error) {
	t.Helper()
	srv := httptest.NewServer(h)
	defer srv.Close()
	defer srv.Client().CloseIdleConnections()
	ctx, stop := context.WithTimeout(t.Context(), deadline)
	defer stop()
	return generate(ctx, t, d.New(t, srv.URL, srv.Client()), lim)
}

func generate(ctx context.Context, t *testing.T, p providers.Provider, lim providers.Limits) (string, providers.Answer, error) {
	t.Helper()
	var b strings.Builder
	a, err := p.Generate(ctx, request(lim), func(chunk []byte) error {
		b.WriteString(delta(t, chunk))
		return nil
	})
	return b.String(), a, err
}

// delta returns the text that a chunk brings.
func delta(t *testing.T, chunk []byte) string {
	t.Helper()
	var c struct {
		Choices []struct {
			Delta   struct{ Content string }
			Message struct{ Content string }
		}
	}
	if err := json.Unmarshal(chunk, &c); err != nil {
		t.Errorf("a chunk is not JSON: %s: %q", err, chunk)
	}
	if len(c.Choices) == 0 {
		return ""
	}
	return c.Choices[0].Delta.Content + c.Choices[0].Message.Content
}

// send returns a handler that writes what it is given, with a flush after each.
func (d *Dialect) send(parts ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", d.ContentType)
		for _, p := range parts {
			_, _ = io.WriteString(w, p)
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// wantWhole checks that an answer is whole and says want, in chunks and in all.
func wantWhole(t *testing.T, want, chunks string, a providers.Answer, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("error: %v", err)
	}
	if chunks != want {
		t.Errorf("the chunks say %q, want %q", chunks, want)
	}
	if all := delta(t, a.Body); all != want {
		t.Errorf("the answer says %q, want %q", all, want)
	}
	if a.Usage.PromptTokens < 1 || a.Usage.CompletionTokens < 1 || a.Usage.TotalTokens < 2 {
		t.Errorf("the usage is %+v", a.Usage)
	}
}

func wantCode(t *testing.T, err error, want schemas.Code) {
	t.Helper()
	var e *schemas.Error
	if !errors.As(err, &e) || e.Code != want {
		t.Errorf("the error is %v, want the code %s", err, want)
	}
}

func whole(t *testing.T, d Dialect) {
	text, a, err := d.ask(t, providers.Limits{FirstToken: deadline, BetweenChunks: deadline}, d.send(d.Stream))
	wantWhole(t, d.Text, text, a, err)
}

func cut(t *testing.T, d Dialect) {
	text, _, err := d.ask(t, providers.Limits{}, func(w http.ResponseWriter, r *http.Request) {
		d.send(d.Chunk("one"), d.Chunk("two"))(w, r)
		panic(http.ErrAbortHandler)
	})
	wantCode(t, err, schemas.StreamBroken)
	if text != "onetwo" {
		t.Errorf("got %q before the cut", text)
	}
}

func noMarker(t *testing.T, d Dialect) {
	_, _, err := d.ask(t, providers.Limits{}, d.send(d.Chunk("one"), d.Chunk("two")))
	wantCode(t, err, schemas.StreamBroken)
	_, _, err = d.ask(t, providers.Limits{}, d.send(""))
	wantCode(t, err, schemas.StreamBroken)
}

func streamError(t *testing.T, d Dialect) {
	text, _, err := d.ask(t, providers.Limits{}, d.send(d.Chunk("one"), d.Error))
	wantCode(t, err, schemas.UpstreamError)
	if text != "one" {
		t.Errorf("got %q before the error", text)
	}
}

func strayText(t *testing.T, d Dialect) {
	_, _, err := d.ask(t, providers.Limits{}, d.send(d.Chunk("one"), "proxy error: Failed to read connection"))
	wantCode(t, err, schemas.UpstreamError)
}

func unreachable(t *testing.T, d Dialect) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	p := d.New(t, srv.URL, srv.Client())
	models, err := p.Models(t.Context())
	wantCode(t, err, schemas.Unreachable)
	if models != nil {
		t.Errorf("models of a server that is not there: %v", models)
	}
	_, _, err = generate(t.Context(), t, p, providers.Limits{})
	wantCode(t, err, schemas.Unreachable)
}

func cancel(t *testing.T, d Dialect) {
	left := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.send(d.Chunk("one"))(w, r)
		<-r.Context().Done()
		close(left)
	}))
	defer srv.Close()
	cause := errors.New("nobody listens")
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	_, err := d.New(t, srv.URL, srv.Client()).Generate(ctx, request(providers.Limits{}), func([]byte) error {
		stop(cause)
		return nil
	})
	if !errors.Is(err, cause) {
		t.Errorf("the error is %v, want ctx's cause", err)
	}
	select {
	case <-left:
	case <-time.After(deadline):
		t.Error("the server was not told")
	}
}

func emitError(t *testing.T, d Dialect) {
	srv := httptest.NewServer(d.send(d.Stream))
	defer srv.Close()
	mine, calls := errors.New("mine"), 0
	_, err := d.New(t, srv.URL, srv.Client()).Generate(t.Context(), request(providers.Limits{}), func([]byte) error {
		calls++
		return mine
	})
	if err != mine { //nolint:errorlint // as it is, not wrapped
		t.Errorf("the error is %v, want emit's own", err)
	}
	if calls != 1 {
		t.Errorf("emit was called %d times after its error", calls-1)
	}
}

func longChunk(t *testing.T, d Dialect) {
	long := strings.Repeat("0123456789ab é\n", 1<<16)
	text, a, err := d.ask(t, providers.Limits{}, d.send(d.Chunk(long)+d.End))
	wantWhole(t, long, text, a, err)
}

// A splitReader hands out its text in two reads, or byte by byte where at is 0.
type splitReader struct {
	text string
	at   int
}

func (r *splitReader) Read(p []byte) (int, error) {
	if r.text == "" {
		return 0, io.EOF
	}
	n := len(r.text)
	if r.at > 0 {
		n = r.at
	}
	if r.at == 0 {
		n = 1
	} else {
		r.at = len(r.text) - r.at
	}
	n = copy(p, r.text[:min(n, len(r.text))])
	r.text = r.text[n:]
	return n, nil
}

// A roundTrip answers every request with a reader.
type roundTrip func() io.Reader

// RoundTrip implements http.RoundTripper.
func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: io.NopCloser(f()), Request: r}, nil
}

// everyByte cuts the stream in two at every byte, or at every 7th of a long one.
func everyByte(t *testing.T, d Dialect) {
	step := 1
	if len(d.Stream) > 2<<10 {
		step = 7
	}
	for at := 0; at < len(d.Stream); at += step {
		client := &http.Client{Transport: roundTrip(func() io.Reader { return &splitReader{text: d.Stream, at: at} })}
		text, a, err := generate(t.Context(), t, d.New(t, "http://test.invalid", client), providers.Limits{})
		wantWhole(t, d.Text, text, a, err)
		if t.Failed() {
			t.Fatalf("cut at byte %d", at)
		}
	}
}

func crlf(t *testing.T, d Dialect) {
	text, a, err := d.ask(t, providers.Limits{}, d.send(strings.ReplaceAll(d.Stream, "\n", "\r\n")))
	wantWhole(t, d.Text, text, a, err)
}

func comments(t *testing.T, d Dialect) {
	text, a, err := d.ask(t, providers.Limits{}, d.send(d.Comment, d.Chunk("a"), d.Comment+d.Comment, d.Chunk("b")+d.Comment, d.End))
	wantWhole(t, "ab", text, a, err)
}

const limit = 30 * time.Millisecond

// silent holds the connection open, with comments all the time, until the client
// leaves.
func (d *Dialect) silent(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(limit / 10)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
			_, _ = io.WriteString(w, d.Comment)
			_ = http.NewResponseController(w).Flush()
		}
	}
}

func firstToken(t *testing.T, d Dialect) {
	_, _, err := d.ask(t, providers.Limits{FirstToken: limit}, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	wantCode(t, err, schemas.Overloaded)
	if err == nil || !strings.Contains(err.Error(), limit.String()) {
		t.Errorf("the error does not name the limit: %v", err)
	}
}

func betweenChunks(t *testing.T, d Dialect) {
	text, _, err := d.ask(t, providers.Limits{BetweenChunks: limit}, func(w http.ResponseWriter, r *http.Request) {
		d.send(d.Chunk("one"))(w, r)
		d.silent(w, r)
	})
	wantCode(t, err, schemas.StreamBroken)
	if text != "one" || err == nil || !strings.Contains(err.Error(), limit.String()) {
		t.Errorf("got %q and an error that does not name the limit: %v", text, err)
	}
}

// steady: the limit is between chunks, not on all of them together.
func steady(t *testing.T, d Dialect) {
	text, a, err := d.ask(t, providers.Limits{BetweenChunks: 10 * limit}, func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(limit)
		defer tick.Stop()
		for range 15 {
			<-tick.C
			d.send(d.Chunk("a"))(w, r)
		}
		d.send(d.End)(w, r)
	})
	wantWhole(t, strings.Repeat("a", 15), text, a, err)
}

func status(t *testing.T, d Dialect) {
	_, _, err := d.ask(t, providers.Limits{}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Retry-After", "7")
		http.Error(w, `{"error":"too many requests"}`, http.StatusTooManyRequests)
	})
	wantCode(t, err, schemas.RateLimited)
	if e := schemas.AsError(err); e.RetryAfter != 7*time.Second {
		t.Errorf("retry after %s", e.RetryAfter)
	}
}
