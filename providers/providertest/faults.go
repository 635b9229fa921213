package providertest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// faults tests what a server must never do, and some do.
func faults(k *Kind, prove prover) {
	prove("stray text", Faults, strayText)
	prove("bodies of errors", Faults, errorBodies)
	prove("an error under 200", Faults, errorUnder200)
	prove("a page under 200", Faults, pageUnder200)
	prove("not UTF-8", Faults, notUTF8)
	prove("two ends", Faults, twoEnds)
	prove("nothing is asked twice", Faults, askedOnce)
	if k.Serve != nil {
		return // the rest is HTTP's
	}
	prove("cut in a chunk", Faults, cutInChunk)
	prove("cut in a character", Faults, cutInCharacter)
	if k.Dialect.Seal != nil {
		prove("a damaged frame", Faults, damagedFrame)
	}
	prove("headers without end", Faults, endlessHeaders)
	prove("a stall in a chunk", Faults, stall)
	prove("a server at another address", Faults, redirect)
}

func cutInChunk(t *testing.T, r *rig) {
	chunk := r.Dialect.Chunk("two")
	for at := 1; at < len(chunk)-2; at += 5 {
		text, _, err := r.ask(providers.Limits{}, func(w http.ResponseWriter, req *http.Request) {
			r.Dialect.send(r.Dialect.Chunk("one"), chunk[:at])(w, req)
			panic(http.ErrAbortHandler)
		})
		wantCode(t, err, schemas.StreamBroken)
		if !strings.HasPrefix("onetwo", text) || text == "" {
			t.Errorf("got %q before the cut at %d", text, at)
		}
	}
}

func cutInCharacter(t *testing.T, r *rig) {
	const long = "ab😀cd"
	chunk := r.Dialect.Chunk(long)
	at := strings.Index(chunk, "😀")
	if at < 0 {
		t.Skip("the dialect escapes it")
	}
	text, a, err := r.ask(providers.Limits{}, r.Dialect.send(chunk[:at+2], chunk[at+2:], r.Dialect.End))
	wantWhole(t, long, text, a, err)
}

// damagedFrame: wherever a bit of a frame changes on its way, nothing of it comes
// out.
func damagedFrame(t *testing.T, r *rig) {
	for at := range len(r.Dialect.Chunk("two")) {
		chunk := []byte(r.Dialect.Chunk("two"))
		chunk[at] ^= 1
		text, _, err := r.ask(providers.Limits{}, r.Dialect.send(r.Dialect.Chunk("one"), string(chunk), r.Dialect.End))
		if text != "one" || err == nil || schemas.AsError(err).Code.Verdict().Blame != schemas.BlameBackend {
			t.Errorf("bit 0 of byte %d: %q, %v", at, text, err)
		}
	}
}

// strayText: proxies write their errors like that, in the middle of a stream.
func strayText(t *testing.T, r *rig) {
	_, _, err := r.ask(providers.Limits{}, r.Dialect.send(r.Dialect.Chunk("one"), "proxy error: Failed to read connection"))
	wantCode(t, err, schemas.UpstreamError)
}

// errorBodies: the same error in all shapes that servers have for it.
func errorBodies(t *testing.T, r *rig) {
	const text = "it broke"
	for name, body := range map[string]string{
		"a string":         `{"error":"it broke"}`,
		"an object":        `{"error":{"message":"it broke","type":"server_error","code":null}}`,
		"JSON in a string": `{"error":"{\"error\":{\"code\":500,\"message\":\"it broke\"}}"}`,
		"a list":           `[{"error":{"code":500,"message":"it broke","status":"INTERNAL"}}]`,
		"detail":           `{"detail":"it broke"}`,
		"plain text":       `it broke`,
		"a page":           `<html><body>it broke</body></html>`,
	} {
		_, _, err := r.ask(providers.Limits{}, answer(http.StatusInternalServerError, "application/json", body))
		wantCode(t, err, schemas.UpstreamError)
		if err == nil || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "{") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, _, err := r.ask(providers.Limits{}, answer(http.StatusBadGateway, "text/plain", ""))
	wantCode(t, err, schemas.UpstreamError)
	if err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("empty: %v", err)
	}
}

func answer(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// errorUnder200: the status was sent before the server knew.
func errorUnder200(t *testing.T, r *rig) {
	_, _, err := r.ask(providers.Limits{}, answer(http.StatusOK, "application/json", `{"error":{"message":"CUDA error: out of memory","type":"server_error"}}`))
	wantCode(t, err, schemas.OutOfMemory)
}

// pageUnder200: a proxy's login page, say.
func pageUnder200(t *testing.T, r *rig) {
	text, _, err := r.ask(providers.Limits{}, answer(http.StatusOK, "text/html", "<!doctype html>\n<html>Please log in</html>\n"))
	wantCode(t, err, schemas.UpstreamError)
	if text != "" {
		t.Errorf("it came out as %q", text)
	}
}

func notUTF8(t *testing.T, r *rig) {
	stream := strings.ReplaceAll(r.Dialect.Chunk("a#b"), "#", "\xff")
	if r.Dialect.Seal != nil {
		stream = r.Dialect.Seal(stream)
	}
	var out strings.Builder
	a, err := r.serve(r.Dialect.send(stream, r.Dialect.End)).Generate(t.Context(), request(providers.Limits{}), func(chunk []byte) error {
		if !utf8.Valid(chunk) {
			t.Errorf("a chunk is not UTF-8: %q", chunk)
		}
		out.WriteString(delta(t, chunk))
		return nil
	})
	wantWhole(t, "a\uFFFDb", out.String(), a, err)
	if !utf8.Valid(a.Body) {
		t.Errorf("the answer is not UTF-8: %q", a.Body)
	}
}

// twoEnds: an answer ends once, however often the server says so, and what comes
// behind its end is not read.
func twoEnds(t *testing.T, r *rig) {
	ends := 0
	a, err := r.serve(r.Dialect.send(r.Dialect.Chunk("a"), r.Dialect.End+r.Dialect.End, r.Dialect.Error)).Generate(t.Context(), request(providers.Limits{}), func(chunk []byte) error {
		if strings.Contains(string(chunk), `"finish_reason":"`) {
			ends++
		}
		return nil
	})
	wantWhole(t, "a", delta(t, a.Body), a, err)
	if ends != 1 {
		t.Errorf("%d chunks say that the answer ends", ends)
	}
}

// endlessHeaders never come to an end: the limits hold while they come, and there
// is an end to what is taken.
func endlessHeaders(t *testing.T, r *rig) {
	began := time.Now()
	_, _, err := r.ask(providers.Limits{FirstToken: limit}, raw(t, func(w *bufio.ReadWriter, left <-chan struct{}) {
		tick := time.NewTicker(limit / 10)
		defer tick.Stop()
		for i := 0; ; i++ {
			fmt.Fprintf(w, "X-%d: more\r\n", i)
			if w.Flush() != nil {
				return
			}
			select {
			case <-left:
				return
			case <-tick.C:
			}
		}
	}))
	wantLimit(t, r, err, schemas.Overloaded, began)
	_, _, err = r.ask(providers.Limits{}, raw(t, func(w *bufio.ReadWriter, _ <-chan struct{}) {
		for {
			if _, err := w.WriteString("X-More: " + strings.Repeat("x", 64<<10) + "\r\n"); err != nil {
				return
			}
		}
	}))
	if err == nil || schemas.AsError(err).Code.Verdict().Blame != schemas.BlameBackend {
		t.Errorf("headers without end: %v", err)
	}
}

// raw returns a handler that answers on the bare connection, after the status.
func raw(t *testing.T, write func(w *bufio.ReadWriter, left <-chan struct{})) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		left := make(chan struct{})
		go func() {
			defer close(left)
			_, _ = conn.Read(make([]byte, 1)) // returns when the client leaves
		}()
		_, _ = buf.WriteString("HTTP/1.1 200 OK\r\n")
		write(buf, left)
		_ = conn.Close()
		<-left
	}
}

func stall(t *testing.T, r *rig) {
	began := time.Now()
	chunk := r.Dialect.Chunk("two")
	text, _, err := r.ask(providers.Limits{BetweenChunks: limit}, func(w http.ResponseWriter, req *http.Request) {
		r.Dialect.send(r.Dialect.Chunk("one"), chunk[:len(chunk)/2])(w, req)
		<-req.Context().Done()
	})
	wantLimit(t, r, err, schemas.StreamBroken, began)
	if text != "one" {
		t.Errorf("got %q", text)
	}
}

// redirect: nobody follows a server to where it points, with a key in hand.
func redirect(t *testing.T, r *rig) {
	asked := 0
	_, _, err := r.ask(providers.Limits{}, func(w http.ResponseWriter, req *http.Request) {
		asked++
		http.Redirect(w, req, "http://elsewhere.invalid/", http.StatusTemporaryRedirect)
	})
	wantCode(t, err, schemas.UpstreamError)
	if asked != 1 || err == nil || !strings.Contains(err.Error(), "elsewhere.invalid") {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

// askedOnce: what failed is for the queue to try again, not for the provider, and
// least of all once chunks have gone out.
func askedOnce(t *testing.T, r *rig) {
	for name, h := range map[string]http.HandlerFunc{
		"status":         answer(http.StatusServiceUnavailable, "application/json", `{"error":"busy"}`),
		"first chunk":    r.Dialect.send(r.Dialect.Error),
		"after a chunk":  r.Dialect.send(r.Dialect.Chunk("a"), r.Dialect.Error),
		"caller's fault": answer(http.StatusBadRequest, "application/json", `{"error":"no"}`),
	} {
		asked := 0
		_, _, err := r.ask(providers.Limits{}, func(w http.ResponseWriter, req *http.Request) {
			asked++
			h(w, req)
		})
		if asked != 1 || err == nil {
			t.Errorf("%s: asked %d times: %v", name, asked, err)
		}
	}
}
