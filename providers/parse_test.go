package providers

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/schemas"
)

func valid(b []byte) bool {
	s := scanner{b: b}
	s.value()
	return s.end()
}

// The scanner accepts what encoding/json accepts, and nothing else.
func FuzzScanner(f *testing.F) {
	for _, seed := range []string{
		``, ` `, `{}`, `[]`, `[1,]`, `{"a":1,}`, `{,}`, `[,1]`, `{"a"}`, `{"a":}`, `"\u00e9"`, `"\x"`, `"\u12"`, `-`, `-0.5e+3`, `01`, `1.`, `nul`, `null x`,
		`[[{"a":[]}],"b"]`, `[1 2]`, `{"a":1 "b":2}`, "\"\n\"", `{"a":[}`, `[{]`, `"`, `"\`, "\x00", "[\x00]", "{\"a\":1}\x00", `[1,}`, `{"a":1,]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := valid(b), json.Valid(b); got != want {
			t.Errorf("%q: %v, want %v", b, got, want)
		}
	})
}

func readEvents(r io.Reader) (events []string, err error) {
	s := sseReader{lines: lineReader{r: bufio.NewReaderSize(r, 16)}}
	for {
		data, err := s.next()
		if err != nil {
			return events, err
		}
		events = append(events, string(data))
	}
}

func TestSSE(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for _, c := range []struct {
		stream string
		want   []string
		stray  bool
	}{
		{"data: a\n\ndata: b\n\n", []string{"a", "b"}, false},
		{"data:a\r\n\r\ndata: b\r\n\r\n", []string{"a", "b"}, false},
		{"\xef\xbb\xbfdata: a\n\n", []string{"a"}, false},
		{": ping\n\n:\n\ndata: a\n: in between\n\n", []string{"a"}, false},
		{"event: x\nid: 1\nretry: 5\ndata: a\ndata:  b\ndata\n\n", []string{"a\n b\n"}, false},
		{"data: no end", []string{"no end"}, false},
		{"data: no blank\n", []string{"no blank"}, false},
		{"data: " + long + "\n\ndata: b\n\n", []string{long, "b"}, false},
		{"data: a\n\nproxy error: x", []string{"a"}, true},
		{"data: a\nproxy error: x", nil, true},
		{"{\"error\":\"x\"}\n", nil, true},
		{"data: a\n\ndatabase: b\n\n", []string{"a"}, true},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.stream), &oneByte{c.stream}} {
			got, err := readEvents(r)
			var stray *strayLine
			if c.stray != errors.As(err, &stray) || !c.stray && !errors.Is(err, io.EOF) {
				t.Errorf("%.40q: %v", c.stream, err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("%.40q: %s", c.stream, d)
			}
		}
	}
}

type oneByte struct{ rest string }

func (o *oneByte) Read(p []byte) (int, error) {
	if o.rest == "" {
		return 0, io.EOF
	}
	p[0], o.rest = o.rest[0], o.rest[1:]
	return 1, nil
}

// How a stream is cut into reads makes no difference, and no text makes the
// reader fall over.
func FuzzSSE(f *testing.F) {
	f.Add([]byte("data: a\n\n: x\r\ndata: b\r\ndata: c\r\n\r\ndata: [DONE]\n\n"))
	f.Add([]byte("data: a\n\rdata\n"))
	f.Add([]byte("\xef\xbb\xbf\xef\xbb\xbf\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, err1 := readEvents(bytes.NewReader(b))
		bytewise, err2 := readEvents(&oneByte{string(b)})
		if d := cmp.Diff(whole, bytewise); d != "" || (err1 == nil) != (err2 == nil) || err1.Error() != err2.Error() {
			t.Errorf("%s %v %v", d, err1, err2)
		}
	})
}

// Whatever chunks say, the answer of those that were taken is JSON.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"choices":[{"index":0,"delta":{"content":"a"}}],"model":"m","usage":{"prompt_tokens":1}}`), []byte(`{"choices":[{"index":1,"text":"b","logprobs":{"tokens":["a"]}}]}`))
	f.Add([]byte(`{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"1","function":{"name":"f","arguments":"{\"a\""}}]}}]}`), []byte(`{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":":1}"}}],"x":[1]},"finish_reason":"tool_calls"}],"error":null}`))
	f.Add([]byte(`{"choices":[{"delta":{"tool_calls":[{"id":"a","index":"","function":{"name":"f"}},{},{"function":{"name":"g"}}]},"finish_reason":"eos"}]}`), []byte(`{"choices":[{"delta":{"reasoning":"x","tool_calls":[{ "index":-1}]}}]}`))
	f.Add([]byte(`{"a\"b":1,"choices":7,"usage":[]}`), []byte(`{"choices":[[],{"delta":[],"message":{"role":"x"},"logprobs":{"content":[ ]}}]}`))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var a answer
		for _, chunk := range [][]byte{one, two, one} {
			if _, err := a.add(chunk); (err == nil) != (json.Valid(chunk) && bytes.TrimLeft(chunk, " \t\r\n")[0] == '{') {
				t.Fatalf("%q: %v", chunk, err)
			} else if err != nil {
				return
			}
			if got := a.rewrite(chunk); !json.Valid(got) {
				t.Errorf("%q is rewritten as %q", chunk, got)
			}
		}
		if got := a.closing(); got != nil && !json.Valid(got) {
			t.Errorf("the stream is closed with %q", got)
		}
		for _, kind := range []schemas.Kind{schemas.Chat, schemas.Completion} {
			if got := a.whole(kind, 10); !json.Valid(got.Body) {
				t.Errorf("%q from %q, %q", got.Body, one, two)
			}
		}
	})
}

// Any line makes a chunk that is JSON, or an error.
func FuzzOllamaLine(f *testing.F) {
	f.Add([]byte(`{"model":"m","message":{"role":"assistant","content":"a","thinking":"b","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]},"done":true,"done_reason":"stop","eval_count":3}`))
	f.Add([]byte(`{"response":"x","done":false}`))
	f.Add([]byte(`{"model":7,"message":{"content":null,"tool_calls":[]}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, kind := range []schemas.Kind{schemas.Chat, schemas.Completion} {
			run := ollamaRun{retold: retold{kind: kind}}
			for range 2 {
				chunk, err := run.chunk(line)
				if err != nil || run.failed {
					break
				}
				if !json.Valid(chunk) {
					t.Fatalf("%s from %s", chunk, line)
				}
				if _, err := run.answer.add(chunk); err != nil {
					t.Fatalf("%v: %s from %s", err, chunk, line)
				}
			}
		}
	})
}

// Any event makes a chunk that is JSON, or an error; and how a stream of events is
// cut into reads makes no difference.
func FuzzTGIEvent(f *testing.F) {
	f.Add([]byte(`{"index":1,"token":{"id":1,"text":" \u00e9","logprob":-0.5,"special":false},"top_tokens":[{"text":"a","logprob":-1},{"text":"a","logprob":null},7],"generated_text":null,"details":null}`))
	f.Add([]byte(`{"index":2,"token":{"text":"</s>","special":true},"generated_text":"x","details":{"finish_reason":"length","generated_tokens":3,"input_length":7}}`))
	f.Add([]byte(`{"error":"Model is overloaded","error_type":"overloaded"}`))
	f.Add([]byte("{\"token\":{\"text\":\"a\"}}\n\n:\ndata: {\"generated_text\":\"\"}\n\ndata:x"))
	tgi := NewTGI(Config{Kind: KindTGI, URL: "http://test.invalid"})
	f.Fuzz(func(t *testing.T, event []byte) {
		for _, logprobs := range []bool{false, true} {
			var told [2]string
			for i, r := range []io.Reader{bytes.NewReader(slicesConcat("data:", event, "\n\n")), &oneByte{string(slicesConcat("data:", event, "\n\n"))}} {
				run := tgiRun{retold: retold{kind: schemas.Completion, head: []byte(`{"choices":[`)}, logprobs: logprobs}
				events := sseReader{lines: lineReader{r: bufio.NewReaderSize(r, 16)}}
				err := tgi.retell(events.next, &run, func() {}, func(chunk []byte) error {
					if !json.Valid(chunk) {
						t.Fatalf("%s from %s", chunk, event)
					}
					told[i] += string(chunk)
					return nil
				})
				if got := run.answer.whole(schemas.Completion, 10); !json.Valid(got.Body) || (err == nil) != run.done {
					t.Fatalf("%s (%v) from %s", got.Body, err, event)
				}
			}
			if told[0] != told[1] {
				t.Errorf("%s, and byte by byte %s", told[0], told[1])
			}
		}
	})
}

func answerOf(t *testing.T, kind schemas.Kind, chunks ...string) string {
	t.Helper()
	var a answer
	for _, c := range chunks {
		if _, err := a.add([]byte(c)); err != nil {
			t.Fatal(err)
		}
	}
	return string(a.whole(kind, 40).Body)
}

func TestAnswer(t *testing.T) {
	for _, c := range []struct {
		name   string
		kind   schemas.Kind
		chunks []string
		want   string
	}{
		{
			"chat", schemas.Chat,
			[]string{
				`{"id":"1","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":null}}]}`,
				`{"id":"1","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"reasoning_content":"h\"m"}}]}`,
				`{"id":"1","object":"chat.completion.chunk","created":7,"model":"","choices":[{"index":0,"delta":{"content":"a\ud83d"}}]}`,
				`{"id":"1","object":"chat.completion.chunk","created":7,"model":"","choices":[{"index":0,"delta":{"content":"\ude00"},"finish_reason":"stop"}]}`,
				`{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}},"timings":{"x":1}}`,
			},
			`{"object":"chat.completion","id":"1","created":7,"model":"m","timings":{"x":1},"choices":[{"index":0,"message":{"role":"assistant","content":"a\ud83d\ude00","reasoning_content":"h\"m"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}`,
		},
		{
			"no usage", schemas.Completion,
			[]string{`{"model":"m","choices":[{"index":0,"text":"a"}]}`, `{"model":"m","choices":[{"index":0,"text":"b","finish_reason":"length"}]}`},
			`{"object":"text_completion","model":"m","choices":[{"index":0,"text":"ab","logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12}}`,
		},
		{
			"usage without a prompt", schemas.Completion,
			[]string{`{"choices":[{"text":"a","finish_reason":"stop"}],"usage":{"completion_tokens":9}}`},
			`{"object":"text_completion","choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":9,"total_tokens":19}}`,
		},
		{
			"two choices out of order, with logprobs", schemas.Chat,
			[]string{
				`{"choices":[{"index":1,"delta":{"content":"B"},"logprobs":{"content":[{"token":"B"}]}}]}`,
				`{"choices":[{"delta":{"content":"A"},"index":0}]}`,
				`{"choices":[{"index":1,"delta":{"content":"b"},"logprobs":{"content":[{"token":"b"}]},"finish_reason":"stop"},{"index":0,"delta":{},"finish_reason":"length"}]}`,
			},
			`{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"A"},"logprobs":null,"finish_reason":"length"},` +
				`{"index":1,"message":{"role":"assistant","content":"Bb"},"logprobs":{"content":[{"token":"B"},{"token":"b"}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":3,"total_tokens":13}}`,
		},
		{
			"tools", schemas.Chat,
			[]string{
				`{"choices":[{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}}]}`,
				`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]}}]}`,
				`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}},{"index":1,"id":"c2","function":{"name":"g","arguments":"{}"}}]}}]}`,
				`{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`,
			},
			`{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},` +
				`{"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`,
		},
	} {
		if d := cmp.Diff(c.want, answerOf(t, c.kind, c.chunks...)); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

// Text that was cut into chunks anywhere comes out as it went in.
func TestAnswerText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOf(rapid.String()).Draw(t, "pieces")
		var a answer
		for _, p := range pieces {
			if !utf8.ValidString(p) {
				t.Skip("not text")
			}
			chunk := slicesConcat(`{"choices":[{"index":0,"delta":{"content":`, quote(p), `}}]}`)
			if _, err := a.add(chunk); err != nil {
				t.Fatal(err)
			}
		}
		if len(pieces) == 0 {
			return
		}
		var got struct {
			Choices []struct{ Message struct{ Content string } }
		}
		if err := json.Unmarshal(a.whole(schemas.Chat, 0).Body, &got); err != nil {
			t.Fatal(err)
		}
		if want := strings.Join(pieces, ""); got.Choices[0].Message.Content != want {
			t.Errorf("got %q, want %q", got.Choices[0].Message.Content, want)
		}
	})
}

func TestPatch(t *testing.T) {
	for _, c := range []struct {
		kind       schemas.Kind
		body, want string
	}{
		{schemas.Chat, `{"messages":[1]}`, `{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[1]}`},
		{schemas.Chat, `{"mod\u0065l":"x","a":{"b":1.50},"stream":false,"vramjet":{},"stream_options":{"include_usage":false,"z":1}}`, `{"model":"m","stream":true,"stream_options":{"include_usage":true,"z":1},"a":{"b":1.50}}`},
		{schemas.Embedding, ` {"input":"x", "stream":true} `, `{"model":"m","input":"x"}`},
	} {
		got, err := patch(Request{Kind: c.kind, Model: "m", Body: []byte(c.body)})
		if err != nil || string(got) != c.want {
			t.Errorf("%s: got %s %v, want %s", c.body, got, err, c.want)
		}
	}
	if _, err := patch(Request{Body: []byte(`[]`)}); schemas.AsError(err).Code != schemas.InvalidRequest {
		t.Error(err)
	}
}

const sampleChunk = `{"choices":[{"finish_reason":null,"index":0,"delta":{"content":" there"}}],"created":1795410329,"id":"chatcmpl-T75gEBy7pH6eniA7BPTP0QV2YtSiwyqp","model":"stories260K","system_fingerprint":"b11669-Debian","object":"chat.completion.chunk"}`

// An endless stream repeats one line.
type endless struct {
	line []byte
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		c := copy(p[n:], e.line[e.at:])
		n += c
		e.at = (e.at + c) % len(e.line)
	}
	return n, nil
}

func BenchmarkSSE(b *testing.B) {
	events := sseReader{lines: lineReader{r: bufio.NewReaderSize(&endless{line: []byte("data: " + sampleChunk + "\n\n")}, readerSize)}}
	var a answer
	b.ReportAllocs()
	b.SetBytes(int64(len(sampleChunk)))
	for b.Loop() {
		data, err := events.next()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := a.add(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOllama(b *testing.B) {
	line := `{"model":"stories","created_at":"2026-11-23T05:10:20.228906469Z","message":{"role":"assistant","content":" there"},"done":false}` + "\n"
	lines := lineReader{r: bufio.NewReaderSize(&endless{line: []byte(line)}, readerSize)}
	run := ollamaRun{retold: retold{kind: schemas.Chat}}
	b.ReportAllocs()
	for b.Loop() {
		raw, err := lines.line()
		if err != nil {
			b.Fatal(err)
		}
		chunk, err := run.chunk(raw)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := run.answer.add(chunk); err != nil {
			b.Fatal(err)
		}
	}
}
