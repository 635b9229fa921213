package providers_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vramjet/vramjet/providers"
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
	Chunks  []struct{ Data, B64 string }
	End     string
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
	for _, c := range x.Response.Chunks {
		_, _ = w.Write([]byte(c.Data))
		raw, _ := base64.StdEncoding.DecodeString(c.B64)
		_, _ = w.Write(raw)
		_ = http.NewResponseController(w).Flush()
	}
	if x.Response.End != "complete" {
		panic(http.ErrAbortHandler)
	}
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
				srv := httptest.NewServer(http.HandlerFunc(x.replay))
				defer srv.Close()
				kind, jobKind := providers.KindOpenAI, schemas.Chat
				if strings.HasPrefix(x.path(), "/api/") {
					kind = providers.KindOllama
				}
				body := `{"messages":[{"role":"user","content":"Once upon a time"}]}`
				if x.path() == "/v1/completions" || x.path() == "/api/generate" {
					jobKind, body = schemas.Completion, `{"prompt":"Once upon a time"}`
				}
				text := ""
				a, err := newProvider(t, kind, srv.URL).Generate(testContext(t), providers.Request{Kind: jobKind, Model: "m", Body: []byte(body)}, func(chunk []byte) error {
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
			})
		}
	}
	if streams < 40 || broken < 5 {
		t.Errorf("only %d streams, %d of them broken", streams, broken)
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
