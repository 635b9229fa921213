package providers

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/schemas"
)

// What other servers write otherwise goes out as OpenAI would have written it, and
// all else as it came.
func TestRewrite(t *testing.T) {
	calls := func(list, rest string) string {
		return `{"choices":[{"delta":{"tool_calls":[` + list + `]}` + rest + `}]}`
	}
	for _, c := range []struct {
		name    string
		in, out []string
		calls   string
	}{
		{
			"ids, without an index",
			[]string{calls(`{"id":"a","function":{"name":"f","arguments":"{}"}}`, ""), calls(`{"id":"b","function":{"name":"f","arguments":"{"}}`, ""), calls(`{"function":{"arguments":"}"}}`, "")},
			[]string{
				calls(`{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}`, ""), calls(`{"index":1,"id":"b","function":{"name":"f","arguments":"{"}}`, ""),
				calls(`{"index":1,"function":{"arguments":"}"}}`, ""),
			},
			`{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"b","type":"function","function":{"name":"f","arguments":"{}"}}`,
		},
		{
			"an id that comes back",
			[]string{calls(`{"id":"a","function":{"name":"f","arguments":"{"}},{"id":"b","function":{"name":"g"}}`, ""), calls(`{"id":"a","function":{"arguments":"}"}}`, "")},
			[]string{calls(`{"index":0,"id":"a","function":{"name":"f","arguments":"{"}},{"index":1,"id":"b","function":{"name":"g"}}`, ""), calls(`{"index":0,"id":null,"function":{"arguments":"}"}}`, "")},
			`{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"b","type":"function","function":{"name":"g","arguments":""}}`,
		},
		{
			"a name that is said again, and then begins another call",
			[]string{calls(`{"function":{"name":"f","arguments":"{\"a\":"}}`, ""), calls(`{"function":{"name":"f","arguments":"1}"}}`, ""), calls(`{"function":{"name":"f","arguments":"{}"}}`, "")},
			[]string{
				calls(`{"index":0,"function":{"name":"f","arguments":"{\"a\":"}}`, ""), calls(`{"index":0,"function":{"name":"f","arguments":"1}"}}`, ""),
				calls(`{"index":1,"function":{"name":"f","arguments":"{}"}}`, ""),
			},
			`{"id":"","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"","type":"function","function":{"name":"f","arguments":"{}"}}`,
		},
		{
			"an index that is none, a finish that is another",
			[]string{calls(`{"id":"a","index":null,"function":{"name":"f"}}`, `,"finish_reason":"stop"`)},
			[]string{calls(`{"id":"a","index":0,"function":{"name":"f"}}`, `,"finish_reason":"tool_calls"`)},
			`{"id":"a","type":"function","function":{"name":"f","arguments":""}}`,
		},
		{
			"an index is believed",
			[]string{calls(`{"index":1,"id":"a","function":{"name":"f","arguments":"{"}}`, ""), calls(`{"index":1,"id":"b","function":{"arguments":"}"}}`, "")},
			[]string{calls(`{"index":1,"id":"a","function":{"name":"f","arguments":"{"}}`, ""), calls(`{"index":1,"id":"b","function":{"arguments":"}"}}`, "")},
			`{"id":"b","type":"function","function":{"name":"f","arguments":"{}"}}`,
		},
	} {
		a := answer{stopsAtTools: true}
		var out []string
		for _, chunk := range c.in {
			if _, err := a.add([]byte(chunk)); err != nil {
				t.Fatal(err)
			}
			out = append(out, string(a.rewrite([]byte(chunk))))
		}
		if d := cmp.Diff(c.out, out); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
		if d := cmp.Diff(c.calls, string(a.choices[0].appendTools(nil))[len(`,"tool_calls":[`):len(a.choices[0].appendTools(nil))-1]); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

// OpenAI's own "stop" stays, also where it calls a tool that was asked for by
// name.
func TestStopStays(t *testing.T) {
	var a answer
	chunk := []byte(`{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f"}}]},"finish_reason":"stop"}]}`)
	if _, err := a.add(chunk); err != nil || string(a.rewrite(chunk)) != string(chunk) {
		t.Errorf("%v: %s", err, a.rewrite(chunk))
	}
}

// What a model generated and its server counts only in the total is generated all
// the same.
func TestHiddenThoughts(t *testing.T) {
	a := answer{usage: []byte(`{"prompt_tokens":18,"completion_tokens":2,"total_tokens":1258}`)}
	got := a.whole(schemas.Chat, 0)
	if want := (schemas.Usage{PromptTokens: 18, CompletionTokens: 1240, TotalTokens: 1258}); got.Usage != want {
		t.Errorf("%+v", got.Usage)
	}
}
