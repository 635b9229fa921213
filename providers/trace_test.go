package providers_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// A trace is what was recorded from a real server.
type trace struct {
	Case      string
	Exchanges []exchange
}

type exchange struct {
	ID      string
	Request struct {
		Line string
		Body string
	}
	Response *response
}

type response struct {
	Status  int
	Headers [][2]string
	Framing string
	Chunks  []struct {
		T         float64 `json:"t_ms"` // from the end of the request
		Data, B64 string
	}
	End string
}

// tracesDir is where the recorded traces are; "" where there are none.
func tracesDir() string {
	dir := os.Getenv("VRAMJET_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared")
	}
	dir = filepath.Join(dir, "traces")
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

// needTraces returns the directory of the recorded traces, or skips the test.
func needTraces(tb testing.TB) string {
	tb.Helper()
	dir := tracesDir()
	if dir == "" {
		tb.Skip("no recorded traces here: set VRAMJET_SHARED to the folder that holds them")
	}
	return dir
}

func readTrace(tb testing.TB, name string) trace {
	tb.Helper()
	raw, err := os.ReadFile(filepath.Join(needTraces(tb), name))
	if err != nil {
		tb.Fatal(err)
	}
	var tr trace
	if err := json.Unmarshal(raw, &tr); err != nil {
		tb.Fatal(err)
	}
	return tr
}

// allTraces returns the traces by folder/case.
func allTraces(tb testing.TB) map[string]trace {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(needTraces(tb), "*", "*.json"))
	if err != nil || len(files) < 50 {
		tb.Fatalf("%d traces, %v", len(files), err)
	}
	all := map[string]trace{}
	for _, f := range files {
		name := filepath.Base(filepath.Dir(f)) + "/" + filepath.Base(f)
		all[name] = readTrace(tb, name)
	}
	return all
}

func (x *exchange) path() string {
	path, _, _ := strings.Cut(strings.Fields(x.Request.Line)[1], "?")
	return path
}

func (r *response) text() string {
	var b strings.Builder
	for _, c := range r.Chunks {
		b.WriteString(c.Data)
		raw, _ := base64.StdEncoding.DecodeString(c.B64)
		b.Write(raw)
	}
	return b.String()
}

func (r *response) header() http.Header {
	h := http.Header{}
	for _, kv := range r.Headers {
		h.Add(kv[0], kv[1])
	}
	return h
}

// streamed reports whether the exchange is a stream of a dialect that we speak.
func (x *exchange) streamed() bool {
	if x.Response == nil || x.Response.Status != http.StatusOK {
		return false
	}
	switch x.path() {
	case "/v1/chat/completions", "/v1/completions":
		return strings.Contains(x.Request.Body, `"stream":true`)
	case "/api/chat", "/api/generate":
		return !strings.Contains(x.Request.Body, `"stream":false`) && strings.Contains(x.Response.text(), `"done":false`)
	default:
		return false
	}
}

// said reads a stream in the plainest way: its text, and whether it is whole.
func (x *exchange) said(tb testing.TB) (text string, whole bool) {
	tb.Helper()
	for line := range strings.Lines(x.Response.text()) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "data: "))
		if line == "[DONE]" {
			return text, true
		}
		var c struct {
			Error   any
			Choices []struct {
				Text         string
				Delta        struct{ Content string }
				FinishReason string `json:"finish_reason"`
			}
			Message  struct{ Content string }
			Response string
			Done     bool
		}
		if line == "" || line[0] == ':' {
			continue
		}
		if json.Unmarshal([]byte(line), &c) != nil || c.Error != nil {
			return text, false
		}
		text += c.Message.Content + c.Response
		if len(c.Choices) > 0 {
			text += c.Choices[0].Text + c.Choices[0].Delta.Content
		}
		whole = whole || c.Done || len(c.Choices) > 0 && c.Choices[0].FinishReason != ""
	}
	return text, whole && x.Response.End == "complete"
}

// replay serves one recorded answer, whatever is asked.
func (x *exchange) replay(w http.ResponseWriter, _ *http.Request) {
	for k, v := range x.Response.header() {
		if k != "Content-Length" && k != "Transfer-Encoding" && k != "Connection" {
			w.Header()[k] = v
		}
	}
	w.WriteHeader(x.Response.Status)
	_, _ = io.WriteString(w, x.Response.text())
}

// RoundTrip implements http.RoundTripper: it answers as was recorded, with its
// pauses, and each read brings what one chunk did. In a bubble the pauses take no
// time.
func (x *exchange) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: x.Response.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: x.Response.header(),
		Body: &recording{r: x.Response, done: r.Context().Done(), began: time.Now()}, Request: r,
	}, nil
}

// A recording is the body of a recorded answer.
type recording struct {
	r     *response
	done  <-chan struct{}
	began time.Time
	next  int
	left  []byte
}

// Read implements io.Reader.
func (b *recording) Read(p []byte) (int, error) {
	for len(b.left) == 0 {
		if b.next == len(b.r.Chunks) {
			if b.r.End == "complete" {
				return 0, io.EOF
			}
			return 0, io.ErrUnexpectedEOF
		}
		c := b.r.Chunks[b.next]
		b.next++
		raw, _ := base64.StdEncoding.DecodeString(c.B64)
		b.left = append([]byte(c.Data), raw...)
		at := b.began.Add(time.Duration(c.T * float64(time.Millisecond)))
		select {
		case <-b.done:
			return 0, context.Canceled
		case <-time.After(time.Until(at)):
		}
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}

// Close implements io.Closer.
func (*recording) Close() error { return nil }

// newReplay returns a provider whose server answers everything with the exchange.
func newReplay(tb testing.TB, kind string, x *exchange) providers.Provider {
	tb.Helper()
	p, err := providers.New(providers.Config{Name: "test", Kind: kind, URL: "http://test.invalid", HTTP: &http.Client{Transport: x}})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// Every stream that was ever recorded comes out with its text, and is whole or an
// error as it should be.
func TestReplayStreams(t *testing.T) {
	streams, broken := 0, 0
	for name, tr := range allTraces(t) {
		for _, x := range tr.Exchanges {
			if !x.streamed() {
				continue
			}
			streams++
			t.Run(name+"/"+x.ID, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					kind, jobKind := x.kindOf(name), schemas.Chat
					body := `{"messages":[{"role":"user","content":"Once upon a time"}]}`
					if x.path() == "/v1/completions" || x.path() == "/api/generate" {
						jobKind, body = schemas.Completion, `{"prompt":"Once upon a time"}`
					}
					text := ""
					a, err := newReplay(t, kind, &x).Generate(t.Context(), providers.Request{Kind: jobKind, Model: "m", Body: []byte(body)}, func(chunk []byte) error {
						var c struct {
							Choices []struct {
								Text  string
								Delta struct{ Content string }
							}
						}
						if err := json.Unmarshal(chunk, &c); err != nil {
							t.Errorf("%v in %s", err, chunk)
						}
						if len(c.Choices) > 0 {
							text += c.Choices[0].Text + c.Choices[0].Delta.Content
						}
						return nil
					})
					want, whole := x.said(t)
					if text != want {
						t.Errorf("got %q, want %q", text, want)
					}
					if !whole {
						broken++
						if err == nil {
							t.Error("a broken stream passed for a whole answer")
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					if got := content(t, a.Body); got != want {
						t.Errorf("the answer says %q, want %q", got, want)
					}
					if a.Usage.PromptTokens < 1 || a.Usage.CompletionTokens < 1 {
						t.Errorf("usage %+v in %s", a.Usage, a.Body)
					}
					if kind != providers.KindOpenAI {
						proofs.Add(kind, map[schemas.Kind]providertest.Ability{schemas.Chat: providertest.Chat, schemas.Completion: providertest.Completion}[jobKind], providertest.Recorded)
					}
				})
			})
		}
	}
	if streams < 40 || broken < 5 {
		t.Errorf("only %d streams, %d of them broken", streams, broken)
	}
}

// inputs is a request for as many embeddings as were recorded.
func (x *exchange) inputs() []byte {
	var r struct{ Input []string }
	if json.Unmarshal([]byte(x.Request.Body), &r) != nil || len(r.Input) < 2 {
		return []byte(`{"input":"hi"}`)
	}
	return fmt.Appendf(nil, `{"input":["hi"%s]}`, strings.Repeat(`,"hi"`, len(r.Input)-1))
}

// Every list of embeddings that was recorded comes out with its vectors, in order.
func TestReplayEmbeddings(t *testing.T) {
	lists := 0
	for name, tr := range allTraces(t) {
		for _, x := range tr.Exchanges {
			if p := x.path(); p != "/api/embed" && p != "/v1/embeddings" || x.Response == nil || x.Response.Status != http.StatusOK || !strings.Contains(x.Response.text(), "[[") && p == "/api/embed" || strings.Contains(x.Request.Body, "base64") {
				continue
			}
			lists++
			kind := x.kindOf(name)
			a, err := newReplay(t, kind, &x).(providers.Embedder).Embed(testContext(t), providers.Request{Kind: schemas.Embedding, Model: "m", Body: x.inputs()})
			if err != nil {
				t.Errorf("%s %s: %v", name, x.ID, err)
				continue
			}
			var got, want struct {
				Data []struct {
					Index     int
					Embedding []float64
				}
				Embeddings [][]float64
			}
			if err := errors.Join(json.Unmarshal(a.Body, &got), json.Unmarshal([]byte(x.Response.text()), &want)); err != nil {
				t.Fatal(err)
			}
			for i, d := range got.Data {
				if d.Index != i {
					t.Errorf("%s %s: vector %d is at %d", name, x.ID, d.Index, i)
				}
				got.Embeddings = append(got.Embeddings, d.Embedding)
			}
			for _, d := range want.Data {
				want.Embeddings = append(want.Embeddings, d.Embedding)
			}
			if !reflect.DeepEqual(got.Embeddings, want.Embeddings) || len(got.Embeddings) == 0 || a.Usage.PromptTokens < 1 {
				t.Errorf("%s %s: other vectors than the server's, or no usage: %+v", name, x.ID, a.Usage)
			}
			if kind != providers.KindOpenAI {
				proofs.Add(kind, providertest.Embeddings, providertest.Recorded)
			}
		}
	}
	if lists < 5 {
		t.Errorf("only %d lists", lists)
	}
}

// Every model list that was recorded can be read.
func TestReplayModels(t *testing.T) {
	paths := map[string]string{"/v1/models": providers.KindOpenAI, "/models": providers.KindOpenAI}
	lists := 0
	for name, tr := range allTraces(t) {
		for _, x := range tr.Exchanges {
			kind, ok := paths[x.path()]
			if !ok || x.Response == nil || x.Response.Status != http.StatusOK {
				continue
			}
			lists++
			srv := httptest.NewServer(http.HandlerFunc(x.replay))
			models, err := newProvider(t, kind, srv.URL).Models(testContext(t))
			srv.Close()
			if err != nil || len(models) == 0 {
				t.Errorf("%s %s: %v %v", name, x.ID, models, err)
			}
		}
	}
	if lists < 10 {
		t.Errorf("only %d lists", lists)
	}
}
