package providers

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/schemas"
)

// relayed reads the events of a stream and returns what of them goes on, and the
// whole answer.
func relayed(t *testing.T, events ...string) (chunks []string, whole string) {
	t.Helper()
	var a answer
	for _, e := range events {
		if _, err := a.add([]byte(e)); err != nil {
			t.Fatalf("%s: %v", e, err)
		}
		if !a.repeats {
			chunks = append(chunks, string(a.rewrite([]byte(e))))
		}
	}
	return chunks, string(a.whole(schemas.Chat, 4).Body)
}

func TestReasoningHasOneName(t *testing.T) {
	chunks, whole := relayed(
		t,
		`{"choices":[{"index":0,"delta":{"reasoning":"a\"b"}},{"index":1,"delta":{"x":{"reasoning":"y"},"reasoning":"c"}}]}`,
		`{"choices":[{"index":0,"delta":{"reasoning":null,"content":"d"}}]}`,
		`{"choices":[{"index":0,"delta":{"reasoning":"e","reasoning_content":"e"},"finish_reason":"stop"}]}`,
	)
	want := []string{
		`{"choices":[{"index":0,"delta":{"reasoning_content":"a\"b"}},{"index":1,"delta":{"x":{"reasoning":"y"},"reasoning_content":"c"}}]}`,
		`{"choices":[{"index":0,"delta":{"reasoning":null,"content":"d"}}]}`,
		`{"choices":[{"index":0,"delta":{"reasoning":"e","reasoning_content":"e"},"finish_reason":"stop"}]}`,
	}
	if diff := cmp.Diff(want, chunks); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(whole, `"reasoning_content":"a\"be"`) || !strings.Contains(whole, `"reasoning_content":"c"`) {
		t.Error(whole)
	}
}

func TestAnAnswerEndsOnce(t *testing.T) {
	chunks, _ := relayed(
		t,
		`{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}`,
		`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`,
		`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`,
		`{"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}`,
		`{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}`,
		`{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}`,
	)
	if len(chunks) != 4 || !strings.Contains(chunks[2], `"index":1`) || !strings.Contains(chunks[3], "usage") {
		t.Errorf("%q", chunks)
	}
}

// What says something new is no repetition, whatever else it says again.
func TestNothingNewIsLost(t *testing.T) {
	const finished = `{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}`
	for _, more := range []string{
		`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"},{"index":1,"delta":{},"finish_reason":"length"}]}`,
		`{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}`,
		`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"timings":{"predicted_n":1}}`,
		`{"choices":[{"index":0,"delta":{"annotations":[1]},"finish_reason":"stop"}]}`,
		`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c"}]},"finish_reason":"stop"}]}`,
		`{"choices":[{"index":0,"delta":{},"logprobs":{"content":[1]},"finish_reason":"stop"}]}`,
	} {
		if chunks, _ := relayed(t, finished, more, more); len(chunks) != 2 && !strings.Contains(more, "[1]") {
			t.Errorf("%s comes out as %q", more, chunks)
		} else if len(chunks) < 2 {
			t.Errorf("%s is lost", more)
		}
	}
}

// Together's completions have a delta, too.
func TestCompletionWithDelta(t *testing.T) {
	var a answer
	for _, e := range []string{
		`{"object":"completion.chunk","choices":[{"index":0,"text":" A","delta":{"token_id":1,"role":"assistant","content":" A"}}]}`,
		`{"object":"completion.chunk","choices":[{"index":0,"text":"B","delta":{"content":"B"},"finish_reason":"eos"}]}`,
	} {
		if _, err := a.add([]byte(e)); err != nil {
			t.Fatal(err)
		}
	}
	if whole := string(a.whole(schemas.Completion, 4).Body); !strings.Contains(whole, `"text":" AB"`) || strings.Contains(whole, "message") {
		t.Error(whole)
	}
	if whole := string(a.whole(schemas.Chat, 4).Body); !strings.Contains(whole, `"content":" AB"`) || strings.Contains(whole, `"text"`) {
		t.Error(whole)
	}
}

func TestEmbeddingsInOrder(t *testing.T) {
	b := newBackend("test", nil, false)
	for _, c := range []struct{ request, answer, want string }{
		{`{"input":["a","b"]}`, `{"model":"m","data":[{"index":1,"embedding":[2]},{"index":0,"embedding":[1]}],"usage":{"prompt_tokens":3,"total_tokens":3}}`, `[{"index":0,"embedding":[1]},{"index":1,"embedding":[2]}]`},
		{`{"input":[1,2,3]}`, `{"model":"m","data":[{"embedding":[2]}]}`, `[{"embedding":[2]}]`},
		{`{"input":[[1],[2]]}`, `{"embeddings":[[1],[2]],"prompt_eval_count":2}`, `[{"object":"embedding","index":0,"embedding":[1]},{"object":"embedding","index":1,"embedding":[2]}]`},
		{`{"input":["a","b"]}`, `{"data":[{"index":0,"embedding":[1]}]}`, ``},
		{`{"input":"a"}`, `{"data":[]}`, ``},
		{`{"input":"a"}`, `{"error":{"message":"no"}}`, ``},
		{`{"input":"a"}`, `[1]`, ``},
	} {
		a, err := b.readEmbeddings([]byte(c.answer), []byte(c.request))
		if (err == nil) != (c.want != "") {
			t.Errorf("%s: %v", c.answer, err)
			continue
		}
		if err != nil {
			continue
		}
		var got struct{ Data json.RawMessage }
		if err := json.Unmarshal(a.Body, &got); err != nil || string(got.Data) != c.want || a.Usage.PromptTokens < 1 {
			t.Errorf("%s: %s, %+v", c.answer, a.Body, a.Usage)
		}
	}
}
