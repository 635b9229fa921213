package providertest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

const deadline = 20 * time.Second // of each test: far more than it takes

// A prover runs a test and notes what it proves.
type prover func(name string, ability Ability, test func(*testing.T, *rig))

// streams tests how streams of a chat are read.
func streams(k *Kind, prove prover) {
	k.recorded = k.Dialect.Stream != ""
	if !k.recorded {
		k.Dialect.Text = "Hello, \"wörld\" \\ 😀\n\tand\u2028more"
		k.Dialect.Stream = k.Dialect.stream(k.Dialect.Text)
	}
	prove("whole", "", whole)
	prove("cut", "", cut)
	prove("no final marker", "", noMarker)
	prove("error in the stream", "", streamError)
	prove("unreachable", "", unreachable)
	prove("cancel", Cancel, cancel)
	prove("cancel before an answer", "", cancelEarly)
	prove("error of emit", "", emitError)
	prove("a chunk of 1 MiB", "", longChunk)
	prove("comments", "", comments)
	prove("queue limit", "", queueLimit)
	prove("first token limit", "", firstToken)
	prove("between chunks limit", "", betweenChunks)
	prove("slow but steady", "", steady)
	prove("a caller that takes its time", "", slowCaller)
	prove("retry after", "", retryAfter)
	if k.Serve == nil {
		prove("cut at every byte", "", everyByte)
	}
	if k.Serve == nil && k.Dialect.Seal == nil {
		prove("CRLF", "", crlf)
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

// request is what all these tests ask.
func request(lim providers.Limits) providers.Request {
	return providers.Request{
		Kind: schemas.Chat, Model: "m", Limits: lim,
		Body: []byte(`{"messages":[{"role":"user","content":"hi"}]}`),
	}
}

// ask runs one request on a server with that handler and returns the text of the
// chunks.
func (r *rig) ask(lim providers.Limits, h http.HandlerFunc) (string, providers.Answer, error) {
	r.Helper()
	ctx, stop := context.WithTimeout(r.Context(), deadline)
	defer stop()
	return generate(ctx, r.T, r.serve(h), lim)
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

func whole(t *testing.T, r *rig) {
	text, a, err := r.ask(providers.Limits{Queue: deadline, FirstToken: deadline, BetweenChunks: deadline}, r.Dialect.send(r.Dialect.Stream))
	wantWhole(t, r.Dialect.Text, text, a, err)
}

// silence bounds a run whose server goes away where nothing but its silence tells.
func (r *rig) silence() providers.Limits {
	if r.Serve == nil {
		return providers.Limits{}
	}
	return providers.Limits{BetweenChunks: limit}
}

func cut(t *testing.T, r *rig) {
	text, _, err := r.ask(r.silence(), func(w http.ResponseWriter, req *http.Request) {
		r.Dialect.send(r.Dialect.Chunk("one"), r.Dialect.Chunk("two"))(w, req)
		panic(http.ErrAbortHandler)
	})
	wantCode(t, err, schemas.StreamBroken)
	if text != "onetwo" {
		t.Errorf("got %q before the cut", text)
	}
}

func noMarker(t *testing.T, r *rig) {
	_, _, err := r.ask(r.silence(), r.Dialect.send(r.Dialect.Chunk("one"), r.Dialect.Chunk("two")))
	wantCode(t, err, schemas.StreamBroken)
	if r.Serve != nil {
		return // nothing at all is the first token's limit
	}
	_, _, err = r.ask(providers.Limits{}, r.Dialect.send(""))
	wantCode(t, err, schemas.StreamBroken)
}

func streamError(t *testing.T, r *rig) {
	text, _, err := r.ask(providers.Limits{}, r.Dialect.send(r.Dialect.Chunk("one"), r.Dialect.Error))
	wantCode(t, err, schemas.UpstreamError)
	if text != "one" {
		t.Errorf("got %q before the error", text)
	}
}

func unreachable(t *testing.T, r *rig) {
	p := r.serve(nil)
	models, err := p.Models(t.Context())
	wantCode(t, err, schemas.Unreachable)
	if models != nil {
		t.Errorf("models of a server that is not there: %v", models)
	}
	_, _, err = generate(t.Context(), t, p, providers.Limits{})
	wantCode(t, err, schemas.Unreachable)
}

// cancelLimit is how soon a server must see that a request was cancelled.
const cancelLimit = 50 * time.Millisecond

// cancelled runs a request that the provider's caller gives up once begin did, and
// sees to it that the server notices.
func cancelled(t *testing.T, r *rig, begin func(w http.ResponseWriter, req *http.Request, giveUp func())) {
	var gaveUp time.Time
	cause := errors.New("nobody listens")
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	giveUp := func() {
		gaveUp = time.Now()
		stop(cause)
	}
	left := make(chan time.Time, 1)
	p := r.serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		begin(w, req, giveUp)
		<-req.Context().Done()
		left <- time.Now()
	}))
	_, err := p.Generate(ctx, request(providers.Limits{}), func([]byte) error {
		giveUp()
		return nil
	})
	if !errors.Is(err, cause) {
		t.Errorf("the error is %v, want ctx's cause", err)
	}
	select {
	case at := <-left:
		if took := at.Sub(gaveUp); took > cancelLimit && r.Serve == nil { // real time promises nothing
			t.Errorf("the server was told after %s", took)
		}
	case <-time.After(deadline):
		t.Error("the server was not told")
	}
}

func cancel(t *testing.T, r *rig) {
	cancelled(t, r, func(w http.ResponseWriter, req *http.Request, _ func()) {
		r.Dialect.send(r.Dialect.Chunk("one"))(w, req)
	})
}

func cancelEarly(t *testing.T, r *rig) {
	cancelled(t, r, func(_ http.ResponseWriter, req *http.Request, giveUp func()) {
		_, _ = io.Copy(io.Discard, req.Body)
		giveUp()
	})
}

func emitError(t *testing.T, r *rig) {
	mine, calls := errors.New("mine"), 0
	_, err := r.serve(r.Dialect.send(r.Dialect.Stream)).Generate(t.Context(), request(providers.Limits{}), func([]byte) error {
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

func longChunk(t *testing.T, r *rig) {
	long := strings.Repeat("0123456789ab é\n", 1<<16)
	text, a, err := r.ask(providers.Limits{}, r.Dialect.send(r.Dialect.Chunk(long), r.Dialect.End))
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
	n := 1
	if r.at > 0 {
		n, r.at = r.at, len(r.text)-r.at
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

// everyByte cuts the stream in two at every byte, and once at all of them. What the
// suite makes itself is shorter for that: it has every kind of byte all the same.
func everyByte(t *testing.T, r *rig) {
	stream, said := r.Dialect.Stream, r.Dialect.Text
	if !r.recorded {
		said = "a\"é\\😀\n"
		stream = r.Dialect.stream(said)
	}
	at := 0
	p := r.provider("http://test.invalid", &http.Client{Transport: roundTrip(func() io.Reader { return &splitReader{text: stream, at: at} })})
	for ; at < len(stream); at++ {
		text, a, err := generate(t.Context(), t, p, providers.Limits{})
		wantWhole(t, said, text, a, err)
		if t.Failed() {
			t.Fatalf("cut at byte %d", at)
		}
	}
}

func crlf(t *testing.T, r *rig) {
	text, a, err := r.ask(providers.Limits{}, r.Dialect.send(strings.ReplaceAll(r.Dialect.Stream, "\n", "\r\n")))
	wantWhole(t, r.Dialect.Text, text, a, err)
}

func comments(t *testing.T, r *rig) {
	d := &r.Dialect
	text, a, err := r.ask(providers.Limits{}, d.send(d.Comment, d.Chunk("a"), d.Comment+d.Comment, d.Chunk("b"), d.Comment, d.End))
	wantWhole(t, "ab", text, a, err)
}

const limit = 100 * time.Millisecond

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

// mute reads a request and says nothing.
func mute(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func wantLimit(t *testing.T, r *rig, err error, code schemas.Code, began time.Time) {
	t.Helper()
	wantCode(t, err, code)
	if err == nil || !strings.Contains(err.Error(), limit.String()) {
		t.Errorf("the error does not name the limit: %v", err)
	}
	if took := time.Since(began); took != limit && r.Serve == nil {
		t.Errorf("it took %s", took)
	}
}

func queueLimit(t *testing.T, r *rig) {
	began := time.Now()
	_, _, err := r.ask(providers.Limits{Queue: limit, FirstToken: deadline}, mute)
	wantLimit(t, r, err, schemas.Overloaded, began)
	sign := "" // of life: the headers are one
	if r.Serve != nil {
		sign = r.Dialect.Comment
	}
	text, a, err := r.ask(providers.Limits{Queue: limit}, func(w http.ResponseWriter, req *http.Request) {
		r.Dialect.send(sign)(w, req)
		<-time.After(2 * limit)
		r.Dialect.send(r.Dialect.Stream)(w, req)
	})
	wantWhole(t, r.Dialect.Text, text, a, err)
}

func firstToken(t *testing.T, r *rig) {
	began := time.Now()
	_, _, err := r.ask(providers.Limits{FirstToken: limit}, mute)
	wantLimit(t, r, err, schemas.Overloaded, began)
}

func betweenChunks(t *testing.T, r *rig) {
	began := time.Now()
	text, _, err := r.ask(providers.Limits{BetweenChunks: limit}, func(w http.ResponseWriter, req *http.Request) {
		r.Dialect.send(r.Dialect.Chunk("one"))(w, req)
		r.Dialect.silent(w, req)
	})
	wantLimit(t, r, err, schemas.StreamBroken, began)
	if text != "one" {
		t.Errorf("got %q before the limit", text)
	}
}

// steady: the limit is between chunks, not on all of them together.
func steady(t *testing.T, r *rig) {
	text, a, err := r.ask(providers.Limits{BetweenChunks: 10 * limit}, func(w http.ResponseWriter, req *http.Request) {
		tick := time.NewTicker(limit)
		defer tick.Stop()
		for range 15 {
			<-tick.C
			r.Dialect.send(r.Dialect.Chunk("a"))(w, req)
		}
		r.Dialect.send(r.Dialect.End)(w, req)
	})
	wantWhole(t, strings.Repeat("a", 15), text, a, err)
}

// slowCaller: the limit between chunks is the server's, and not its caller's.
func slowCaller(t *testing.T, r *rig) {
	p := r.serve(r.Dialect.send(r.Dialect.stream("abc")))
	_, err := p.Generate(t.Context(), request(providers.Limits{BetweenChunks: limit}), func([]byte) error {
		<-time.After(2 * limit)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func retryAfter(t *testing.T, r *rig) {
	_, _, err := r.ask(providers.Limits{}, func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		w.Header().Set("Retry-After", "7")
		http.Error(w, `{"error":"too many requests"}`, http.StatusTooManyRequests)
	})
	wantCode(t, err, schemas.RateLimited)
	if e := schemas.AsError(err); e.RetryAfter != 7*time.Second && r.Serve == nil || e.RetryAfter == 0 {
		t.Errorf("retry after %s", e.RetryAfter)
	}
}
