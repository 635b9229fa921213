package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

const smallChat = `{"model":"llama3.1:8b","messages":[{"role":"system","content":"You are terse."},` +
	`{"role":"user","content":"Why is the sky blue? Say it in one \"sentence\"."}],"stream":true,"max_tokens":128,"temperature":0.7}`

func TestValidateBody(t *testing.T) {
	for _, c := range []struct {
		kind  Kind
		body  string
		param string // of the error; "-" for one without, "" for none
		says  string
	}{
		{Chat, smallChat, "", ""},
		{Chat, `{"messages":[{"role":"assistant","content":null,"tool_calls":[{}]},{"role":"tool","tool_call_id":"1","content":"x"}]}`, "", ""},
		{Chat, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:"}}]}]}`, "", ""},
		{Chat, `{"messages":[{"role":"user"}],"new_member":{"x":[1e999999999]}}`, "", ""},
		{Chat, `{"messages":[{"\u0072ole":"user","content":"x"}],"max_tokens":1.0}`, "", ""},
		{Chat, `{"messages":[{"role":"user","content":"x"}],"stream":null,"max_tokens":null,"seed":null}`, "", ""},
		{Chat, ` { "messages" : [ { "role" : "user" , "content" : "} ] \\" } ] } `, "", ""},
		{Chat, `{}`, "messages", "is missing"},
		{Chat, `{"messages":"not a list"}`, "messages", "string"},
		{Chat, `{"messages":[]}`, "messages", "is empty"},
		{Chat, `{"messages":[ ]}`, "messages", "is empty"},
		{Chat, `{"messages":null}`, "messages", "null"},
		{Chat, `{"messages":["hi"]}`, "messages.0", "string"},
		{Chat, `{"messages":[{"content":"hi"}]}`, "messages.0.role", "is missing"},
		{Chat, `{"messages":[{"role":"user"},{"role":"boss"}]}`, "messages.1.role", "boss"},
		{Chat, `{"messages":[{"role":"user","content":5}]}`, "messages.0.content", "number"},
		{Chat, `{"messages":[{"role":"user","content":["x"]}]}`, "messages.0.content.0", "string"},
		{Chat, `{"messages":[{"role":"user"}],"stream":"yes"}`, "stream", "string"},
		{Chat, `{"messages":[{"role":"user"}],"max_tokens":0}`, "max_tokens", "too small"},
		{Chat, `{"messages":[{"role":"user"}],"max_tokens":1.5}`, "max_tokens", "integer"},
		{Chat, `{"messages":[{"role":"user"}],"max_tokens":-1e999999999}`, "max_tokens", "too small"},
		{Chat, `{"messages":[{"role":"user"}],"temperature":"hot"}`, "temperature", "string"},
		{Chat, `{"messages":[{"role":"user"}],"model":7}`, "model", "number"},
		{Chat, `{"messages":[{"role":"user"}],"model":"a","mod\u0065l":"b"}`, "model", "twice"},
		{Completion, `{"prompt":"Once"}`, "", ""},
		{Completion, `{"prompt":["Once",[1,2]]}`, "", ""},
		{Completion, `{"prompt":[]}`, "prompt", "is empty"},
		{Completion, `{"prompt":5}`, "prompt", "number"},
		{Completion, `{"messages":[]}`, "prompt", "is missing"},
		{Embedding, `{"input":"a cat"}`, "", ""},
		{Embedding, `{"input":["a cat"],"dimensions":4}`, "", ""},
		{Embedding, `{"input":{}}`, "input", "object"},
		{"poem", `{"input":{}}`, "-", "poem"},
		{Chat, `[]`, "-", "not a JSON object"},
		{Chat, ``, "-", "not JSON"},
		{Chat, `{"messages":[`, "-", "not JSON"},
		{Chat, `{"messages":[{"role":"user"}]} x`, "-", "not JSON"},
	} {
		err := ValidateBody(c.kind, []byte(c.body))
		e, _ := errors.AsType[*Error](err)
		switch {
		case c.param == "" && err != nil:
			t.Errorf("%s: %v", c.body, err)
		case c.param == "":
		case e == nil || e.Code != InvalidRequest || e.Param != strings.Trim(c.param, "-"):
			t.Errorf("%s: got %#v, want invalid_request of %q", c.body, e, c.param)
		case !strings.Contains(e.Message, c.says) || !strings.HasPrefix(e.Message, e.Param) || strings.Contains(e.Message, "\n"):
			t.Errorf("%s: the message %q does not begin with %q and say %q in one line", c.body, e.Message, e.Param, c.says)
		}
	}
}

// What the quick pass takes for right, the JSON Schema takes for right too.
func TestPlainBodiesAreValid(t *testing.T) {
	scalar := rapid.SampledFrom([]string{
		`null`, `true`, `false`, `0`, `1`, `-1`, `4096`, `1.5`, `1e3`, `1e400`, `""`, `"user"`, `"system"`, `"tool"`, `"a\"b"`, `"x\\"`, `[]`, `{}`,
		` [ ] `, `[1]`, `["a"]`, `[{}]`, `[{"role":"user"}]`, `[{"role":"user","content":[{}]}]`, `{"role":"user"}`,
	})
	member := rapid.SampledFrom([]string{"role", "content", "name", "tool_calls", "tool_call_id", `r\u006fle`, "other"})
	message := rapid.Custom(func(t *rapid.T) string {
		return drawObject(t, rapid.IntRange(0, 3).Draw(t, "n"), member, scalar)
	})
	messages := rapid.Custom(func(t *rapid.T) string {
		return "[" + strings.Join(rapid.SliceOfN(message, 0, 3).Draw(t, "messages"), " , ") + "]"
	})
	names := append([]string{"other", `pr\u006fmpt`}, knownMembers[:]...)
	plain := 0
	rapid.Check(t, func(t *rapid.T) {
		body := []byte(`{"prompt":"hi","max_tokens":8}`)
		if rapid.IntRange(0, 9).Draw(t, "drawn") > 0 { // of what is drawn hardly any is plain
			body = []byte(drawObject(t, rapid.IntRange(0, 4).Draw(t, "n"), rapid.SampledFrom(names), rapid.OneOf(scalar, messages)))
		}
		if !json.Valid(body) {
			t.Fatalf("drew %s, which is no JSON", body)
		}
		s := readShape(body)
		for _, k := range kindMembers {
			if s.plain && s.twice == "" && s.has(k.kind) {
				plain++
				if err := validate(string(k.kind), body); err != nil {
					t.Fatalf("%s is plain, but %v", body, err)
				}
			}
		}
	})
	if plain == 0 {
		t.Error("no plain body was drawn: the test shows nothing")
	}
}

func drawObject(t *rapid.T, n int, name, value *rapid.Generator[string]) string {
	var b strings.Builder
	b.WriteString("{")
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(`"` + name.Draw(t, "name") + `" :` + value.Draw(t, "value"))
	}
	return b.String() + "}"
}

// The quick pass knows every member that a request's JSON Schema names: it would
// take one that it doesn't know for unimportant.
func TestKnownMembersAreThoseOfTheSchemas(t *testing.T) {
	var inSchemas []string
	for _, name := range []string{"request", "chat", "completion", "embedding"} {
		for member := range readSchema(t, name)["properties"].(map[string]any) {
			inSchemas = append(inSchemas, member)
		}
	}
	wantSame(t, knownMembers[:], inSchemas)
}

func FuzzReadShape(f *testing.F) {
	for _, s := range []string{smallChat, `{}`, ` {"a":[{"b":"]\\\""}]}`, `{"":-0.1e5 ,"x":{ }}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if !utf8.Valid(body) || checkSyntax(body) != nil {
			return // refused before its members are read
		}
		body = bytes.TrimLeft(body, space)
		var want map[string]any
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.UseNumber()
		if err := decoder.Decode(&want); err != nil {
			t.Skip(err)
		}
		n := 0
		for key, value := range members(body) {
			if _, ok := want[unquote(key)]; !ok || !json.Valid(value) {
				t.Fatalf("%q: read %s: %s", body, key, value)
			}
			n++
		}
		if n < len(want) {
			t.Fatalf("%q: read %d members of %d", body, n, len(want))
		}
		s := readShape(body)
		if model, ok := want["model"].(string); s.twice == "" && (ok != s.named || model != s.model) {
			t.Fatalf("%q: read the model %q, want %q", body, s.model, model)
		}
		for _, k := range kindMembers {
			if err := ValidateBody(k.kind, body); err != nil && AsError(err).Code != InvalidRequest {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkValidateBody(b *testing.B) {
	long := `{"messages":[{"role":"user","content":"` + strings.Repeat("word ", 4000) + `"}],"stream":true}`
	for _, c := range []struct{ name, body string }{
		{"small", smallChat},
		{"20KB", long},
		{"unusual", strings.Replace(smallChat, `"max_tokens":128`, `"max_tokens":1e2`, 1)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.body)))
			b.ReportAllocs()
			for b.Loop() {
				if err := ValidateBody(Chat, []byte(c.body)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReadJob(b *testing.B) {
	header := func(string) string { return "" }
	flow := Flow{DefaultTenant, Normal, "llama3.1:8b"}
	body := []byte(smallChat)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadJob(header, body, flow, 1, nil); err != nil {
			b.Fatal(err)
		}
	}
}
