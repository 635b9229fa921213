package schemas

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestFilter(t *testing.T) {
	for _, c := range []struct {
		f     Filter
		class Class
		model string
		want  bool
	}{
		{Filter{}, Batch, "m", true},
		{Filter{Class: Batch}, Batch, "m", true},
		{Filter{Class: Batch}, Normal, "m", false},
		{Filter{Model: "qwen3:*"}, Normal, "qwen3:8b", true},
		{Filter{Model: "qwen3:*"}, Normal, "llama3.2", false},
		{Filter{Model: "openai/*"}, Normal, "openai/gpt-5", true},
		{Filter{Model: "*"}, Normal, "openai/gpt-5", false},
		{Filter{Class: Batch, Model: "m"}, Batch, "m", true},
		{Filter{Model: "a[b"}, Normal, "a[b", true},
	} {
		if got := c.f.Match(c.class, c.model); got != c.want {
			t.Errorf("%s, %s %s: %v", c.f.Describe(), c.class, c.model, got)
		}
	}
	for f, want := range map[Filter]string{{}: "everything", {Class: Batch}: "class batch", {Model: "m"}: "model m", {Class: Batch, Model: "m"}: "class batch, model m"} {
		if got := f.Describe(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for _, f := range []Filter{{Class: "urgent"}, {Model: "a[b"}, {Model: strings.Repeat("x", 201)}} {
		if f.Check() == nil {
			t.Errorf("%q, %q is no error", f.Class, f.Model)
		}
	}
}

// FuzzFilter: whatever is asked for, a model is matched by its own name.
func FuzzFilter(f *testing.F) {
	f.Add([]byte(`{"class":"batch","model":"qwen3:*"}`), "qwen3:8b")
	f.Add([]byte(`{"model":"[a-"}`), "[a-")
	f.Add([]byte(`{"model":"a*b?c[^d]\\*"}`), "a*")
	f.Fuzz(func(t *testing.T, body []byte, model string) {
		var req PurgeRequest
		if json.Unmarshal(body, &req) != nil {
			return
		}
		_ = req.Check()
		_ = req.Match(Batch, model)
		if req.Class == "" {
			req.Model = model
			if !req.Match(Batch, model) {
				t.Errorf("%q is not matched by its name", model)
			}
		}
	})
}

// FuzzBodyJSON: whatever the body of a job is, it's a member of a message, and what is
// text comes back as it was.
func FuzzBodyJSON(f *testing.F) {
	for _, body := range []string{`{"prompt":"a"}`, "Why is the sky blue?", "", "\xff", `"a"`, "17 "} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		text, err := json.Marshal(JobDetails{Body: BodyJSON(body)})
		if err != nil {
			t.Fatal(err)
		}
		var back JobDetails
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		var s string
		if json.Unmarshal(back.Body, &s) != nil {
			if !json.Valid(body) {
				t.Errorf("%q came back as %s", body, back.Body)
			}
			return
		}
		if s != strings.ToValidUTF8(string(body), "\uFFFD") && s != string([]rune(string(body))) {
			t.Errorf("%q came back as %q", body, s)
		}
	})
}
