package batch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/schemas"
)

// chatLine is a sound line.
func chatLine(id, model string) string {
	return fmt.Sprintf(`{"custom_id":%q,"method":"POST","url":"/v1/chat/completions","body":{"model":%q,"messages":[{"role":"user","content":"hi"}]}}`, id, model)
}

func writeBatch(t interface {
	Helper()
	Fatal(...any)
	TempDir() string
}, text string,
) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "in.jsonl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheck(t *testing.T) {
	f, err := Check(writeBatch(t, chatLine("a", "m")+"\n\n"+
		`{"custom_id":"b","method":"POST","url":"/v1/embeddings","body":{"model":"e","input":"x"}}`+"\n"+
		`{"custom_id":"c","method":"POST","url":"/v1/completions","body":{"model":"m","prompt":"x","max_tokens":3}}`)) // no LF ends it
	if err != nil {
		t.Fatal(err)
	}
	if f.Lines != 4 || f.Jobs != 3 || f.Models["m"] != 2 || f.Models["e"] != 1 || len(f.SHA256) != 64 {
		t.Errorf("%+v", f)
	}
}

// TestBadFiles: each mistake is told once, and by its line.
func TestBadFiles(t *testing.T) {
	good := chatLine("a", "m")
	for name, tt := range map[string]struct{ text, want string }{
		"empty":            {"", "it has no request in it"},
		"blank lines":      {"\n\n\n", "it has no request in it"},
		"a BOM":            {"\xef\xbb\xbf" + good + "\n", "line 1: the file begins with a byte order mark: save it as UTF-8 without one"},
		"CR LF":            {good + "\r\n", "line 1: it ends with CR LF, and is to end with LF: convert the file (dos2unix does it)"},
		"a torn last line": {good + "\n" + chatLine("b", "m")[:50], "line 2: it is cut off, and the last: the file is not whole"},
		"a broken line":    {good[:50] + "\n" + chatLine("b", "m"), "line 1: it is no JSON object: unexpected end of JSON input, at byte 50"},
		"a duplicate":      {good + "\n" + chatLine("b", "m") + "\n" + good + "\n", `line 3: its custom_id "a" stands in line 1 already`},
		"a line of 10 MB":  {good + "\n" + chatLine(strings.Repeat("x", 10_000_000), "m") + "\n", "line 2: it is 9.5 MiB long, and may have 8.0 MiB"},
		"a wrong url":      {strings.Replace(good, "chat/completions", "images", 1) + "\n", `line 1: its url is "/v1/images", and must be one of /v1/chat/completions, /v1/completions and /v1/embeddings`},
		"not UTF-8":        {strings.Replace(good, "hi", "h\xe9", 1) + "\n", "line 1: it is not UTF-8"},
		"a wrong method":   {strings.Replace(good, "POST", "GET", 1), `line 1: its method is "GET", and must be POST`},
		"no custom_id":     {strings.Replace(good, `"a"`, `""`, 1), "line 1: it has no custom_id"},
		"a bad custom_id":  {strings.Replace(good, `"a"`, `"a\n"`, 1), "line 1: its custom_id is not 1 to 256 printable characters without space at its ends"},
		"no model":         {strings.Replace(good, `"model":"m",`, "", 1), "line 1: body.model: it is missing"},
		"a stream":         {strings.Replace(good, `"model"`, `"stream":true,"model"`, 1), "line 1: body.stream: a batch does not stream"},
		"no messages":      {strings.Replace(good, "messages", "massages", 1), "line 1: body: "},
		"a wrong message":  {strings.Replace(good, `"role":"user"`, `"role":7`, 1), "line 1: body: messages.0.role"},
		"another endpoint": {strings.Replace(good, "chat/completions", "embeddings", 1), "line 1: body: "},
		"no body":          {`{"custom_id":"a","method":"POST","url":"/v1/embeddings"}`, "line 1: its body is no JSON object"},
		"a number":         {strings.Replace(good, `"a"`, `7`, 1), "line 1: its custom_id is no text, but JSON's number"},
		"several faults":   {strings.Replace(strings.Replace(good, "POST", "GET", 1), `"a"`, `""`, 1), `line 1: it has no custom_id; its method is "GET", and must be POST`},
		"an array":         {"[1]", `line 1: it is not {"custom_id"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Check(writeBatch(t, tt.text))
			var p *Problems
			if !errors.As(err, &p) || len(p.List) != 1 || p.More != 0 || !strings.HasPrefix(p.List[0].Error(), tt.want) {
				t.Errorf("%.300v, want one problem: %s", err, tt.want)
			}
		})
	}
	if _, err := Check(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is no file") {
		t.Errorf("a directory: %v", err)
	}
	_, err := Check(writeBatch(t, strings.Repeat("x\n", 100)))
	var p *Problems
	if !errors.As(err, &p) || len(p.List) != 20 || p.More != 80 || !strings.HasSuffix(err.Error(), "and 80 more") {
		t.Errorf("a hundred problems: %v", err)
	}
}

// FuzzRequest: whatever a line is, it is a request or an error.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(chatLine("a", "m")))
	f.Add([]byte(`{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"model":"m","input":["x"]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for l, err := range lines(bytes.NewReader(text)) {
			if err != nil {
				continue
			}
			r, err := l.request()
			if err == nil && (r.model == "" || !schemas.ValidCustomID(r.CustomID) || kinds[r.URL] == "") {
				t.Errorf("%q is taken as %+v", l.text, r)
			}
		}
	})
}

func TestJobNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := jobName{"batch_" + rapid.StringMatching(`[a-z0-9]{1,16}`).Draw(t, "id"), rapid.IntRange(1, maxLines).Draw(t, "line"), rapid.IntRange(0, 9).Draw(t, "round")}
		if got, ok := parseJobID(n.String()); !ok || got != n {
			t.Fatalf("%+v became %+v", n, got)
		}
	})
	for _, id := range []string{"", "batch_x", "batch_x-", "batch_x-0", "batch_x-01", "batch_x-1-0", "batch_x-1-", "batch_X-1", "other-1", "batch_x-1-1-1"} {
		if n, ok := parseJobID(id); ok {
			t.Errorf("%q is read as %+v", id, n)
		}
	}
}
