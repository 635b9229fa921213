package schemas

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var testFlow = Flow{DefaultTenant, Normal, "llama3.1:8b"}

type headers map[string]string

func (h headers) get(key string) string { return h[key] }

func TestReadJob(t *testing.T) {
	const body = `{"messages":[{"role":"user","content":"x"}],"stream":true}`
	for name, c := range map[string]struct {
		h    headers
		body string
		want Job
	}{
		"nothing but a body": {nil, body, Job{ID: "7", Kind: Chat, Stream: true, Attempts: DefaultAttempts, Abandon: AbandonFinish}},
		"all headers": {
			headers{
				HeaderMsgID: "j-1", HeaderReply: "_INBOX.a", HeaderDeadline: "2026-01-02T15:04:05Z", HeaderTimeout: "90s",
				HeaderAttempts: "1", HeaderAbandon: "finish", HeaderKind: "chat", HeaderSession: "s-1",
				HeaderAt: "2026-01-02T15:04:04.5Z", HeaderKeep: "168h", HeaderCustomID: "№ 7, \"x\"",
			},
			body,
			Job{
				At: time.Date(2026, 1, 2, 15, 4, 4, 500_000_000, time.UTC), Keep: 168 * time.Hour, CustomID: "№ 7, \"x\"",
				ID: "j-1", Kind: Chat, Stream: true, Reply: "_INBOX.a", Deadline: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC),
				Timeout: 90 * time.Second, Attempts: 1, Abandon: AbandonFinish, Session: "s-1",
			},
		},
		"an inbox is abandoned":     {headers{HeaderReply: "_INBOX.a"}, body, Job{ID: "7", Kind: Chat, Stream: true, Reply: "_INBOX.a", Attempts: DefaultAttempts, Abandon: AbandonCancel}},
		"it was delayed":            {headers{HeaderLater: "j-1", HeaderMsgID: "later.7.1"}, body, Job{ID: "j-1", Kind: Chat, Stream: true, Attempts: DefaultAttempts, Abandon: AbandonFinish}},
		"a reply of the operator's": {headers{HeaderReply: "team.x"}, body, Job{ID: "7", Kind: Chat, Stream: true, Reply: "team.x", Attempts: DefaultAttempts, Abandon: AbandonFinish}},
		"a completion":              {nil, `{"prompt":"x","messages":null}`, Job{ID: "7", Kind: Completion, Attempts: DefaultAttempts, Abandon: AbandonFinish}},
		"embeddings never stream":   {nil, `{"input":"x","stream":true}`, Job{ID: "7", Kind: Embedding, Attempts: DefaultAttempts, Abandon: AbandonFinish}},
		"the kind is said":          {headers{HeaderKind: "completion"}, `{"prompt":"x","input":"y"}`, Job{ID: "7", Kind: Completion, Attempts: DefaultAttempts, Abandon: AbandonFinish}},
		"the model is repeated":     {nil, `{"prompt":"x","model":"llama3\u002e1:8b"}`, Job{ID: "7", Kind: Completion, Attempts: DefaultAttempts, Abandon: AbandonFinish}},
		"members differ in case":    {nil, `{"prompt":"x","Model":"other","Stream":true}`, Job{ID: "7", Kind: Completion, Attempts: DefaultAttempts, Abandon: AbandonFinish}},
	} {
		t.Run(name, func(t *testing.T) {
			c.want.Flow, c.want.Body = testFlow, []byte(c.body)
			got, err := ReadJob(c.h.get, []byte(c.body), testFlow, 7, []string{"team."})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadJobOfPlainText(t *testing.T) {
	const text = "Why is the \"sky\" blue? \U0001f680 \\ \u2028\n"
	j, err := ReadJob(headers{}.get, []byte(text), testFlow, 7, nil)
	if err != nil || j.Kind != Chat || !j.Stream {
		t.Fatalf("got %+v, %v, want a streamed chat", j, err)
	}
	var body struct {
		Messages []struct{ Role, Content string }
		Stream   bool
	}
	if err := json.Unmarshal(j.Body, &body); err != nil || !body.Stream || len(body.Messages) != 1 || body.Messages[0].Role != "user" || body.Messages[0].Content != text {
		t.Errorf("the body is %s, %v", j.Body, err)
	}
}

func TestPrompt(t *testing.T) {
	for body, want := range map[string]string{
		`{"prompt":"no","messages":[{"role":"user","content":"x, \"y\""}],"stream":true}`: `[{"role":"user","content":"x, \"y\""}]`,
		` {"model":"llama3.1:8b","prompt" : "x"}`:                                         `"x"`,
		`{"\u0069nput":["x","y"]}`:                                                        `["x","y"]`,
		"Why?":                                                                            `[{"role":"user","content":"Why?"}]`,
	} {
		h := headers{}
		if strings.Contains(body, "messages") {
			h[HeaderKind] = "chat"
		}
		j, err := ReadJob(h.get, []byte(body), testFlow, 7, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(j.Prompt()); got != want {
			t.Errorf("the prompt of %s is %s, want %s", body, got, want)
		}
	}
}

func TestReadJobRefuses(t *testing.T) {
	const good = `{"prompt":"x"}`
	for name, c := range map[string]struct {
		h     headers
		body  string
		code  Code
		reply string // that the answer goes to
		id    string
	}{
		"broken JSON":          {nil, `{"messages": [`, InvalidRequest, "", "7"},
		"empty body":           {nil, ``, InvalidRequest, "", "7"},
		"white body":           {nil, " \n", InvalidRequest, "", "7"},
		"wrong shape":          {nil, `{"messages": "not a list"}`, InvalidRequest, "", "7"},
		"no known member":      {nil, `{"hello": 1}`, InvalidRequest, "", "7"},
		"null members":         {nil, `{"messages": null}`, InvalidRequest, "", "7"},
		"two kinds":            {nil, `{"prompt":"x","input":"y"}`, InvalidRequest, "", "7"},
		"another model":        {nil, `{"prompt":"x","model":"another-model"}`, InvalidRequest, "", "7"},
		"no model":             {nil, `{"prompt":"x","model":""}`, InvalidRequest, "", "7"},
		"two models":           {nil, `{"prompt":"x","model":"llama3.1:8b","model":"other"}`, InvalidRequest, "", "7"},
		"not UTF-8":            {nil, "{\"prompt\":\"\xff\"}", InvalidRequest, "", "7"},
		"text not UTF-8":       {nil, "\xff", InvalidRequest, "", "7"},
		"more than one object": {nil, `{"prompt":"x"}{}`, InvalidRequest, "", "7"},
		"text as a completion": {headers{HeaderKind: "completion"}, `Once`, InvalidRequest, "", "7"},
		"kind without member":  {headers{HeaderKind: "chat"}, good, InvalidRequest, "", "7"},
		"unknown kind":         {headers{HeaderKind: "poem"}, good, InvalidRequest, "", "7"},
		"bad deadline":         {headers{HeaderDeadline: "tomorrow"}, good, InvalidRequest, "", "7"},
		"bad timeout":          {headers{HeaderTimeout: "10"}, good, InvalidRequest, "", "7"},
		"negative timeout":     {headers{HeaderTimeout: "-1s"}, good, InvalidRequest, "", "7"},
		"no attempts":          {headers{HeaderAttempts: "0"}, good, InvalidRequest, "", "7"},
		"too many attempts":    {headers{HeaderAttempts: "101"}, good, InvalidRequest, "", "7"},
		"bad abandon":          {headers{HeaderAbandon: "maybe"}, good, InvalidRequest, "", "7"},
		"bad session":          {headers{HeaderSession: "a b"}, good, InvalidRequest, "", "7"},
		"bad time to begin":    {headers{HeaderAt: "noon"}, good, InvalidRequest, "", "7"},
		"over before it began": {headers{HeaderAt: "2026-01-02T15:04:05Z", HeaderDeadline: "2026-01-02T15:04:05Z"}, good, InvalidRequest, "", "7"},
		"kept too short":       {headers{HeaderKeep: "999ms"}, good, InvalidRequest, "", "7"},
		"kept too long":        {headers{HeaderKeep: "8760h1s"}, good, InvalidRequest, "", "7"},
		"kept for no time":     {headers{HeaderKeep: "a week"}, good, InvalidRequest, "", "7"},
		"bad custom id":        {headers{HeaderCustomID: "a\tb"}, good, InvalidRequest, "", "7"},
		"bad id of before":     {headers{HeaderLater: "a.b", HeaderMsgID: "j"}, good, InvalidRequest, "", "7"},
		"long session":         {headers{HeaderSession: strings.Repeat("s", 65)}, good, InvalidRequest, "", "7"},
		"bad id":               {headers{HeaderMsgID: "a.b c"}, good, InvalidRequest, "", "7"},
		"bad id, good reply":   {headers{HeaderMsgID: "a.b c", HeaderReply: "_INBOX.a"}, good, InvalidRequest, "_INBOX.a", "7"},
		"bad body, good reply": {headers{HeaderMsgID: "j", HeaderReply: "_INBOX.a"}, `{`, InvalidRequest, "_INBOX.a", "j"},
		"privileged reply":     {headers{HeaderMsgID: "j", HeaderReply: "$JS.API.STREAM.DELETE.VJ_JOBS"}, good, Refused, "", "j"},
		"reply of a node":      {headers{HeaderReply: "vj.v1.node.x.run"}, good, Refused, "", "7"},
		"reply of a tenant":    {headers{HeaderReply: "vj.v1.results.someone-else.x.end"}, good, Refused, "", "7"},
		"wildcard reply":       {headers{HeaderReply: ">"}, good, Refused, "", "7"},
		"system reply":         {headers{HeaderReply: "$SYS.REQ.SERVER.PING"}, good, Refused, "", "7"},
	} {
		t.Run(name, func(t *testing.T) {
			j, err := ReadJob(c.h.get, []byte(c.body), testFlow, 7, nil)
			e, _ := errors.AsType[*Error](err)
			if e == nil || e.Code != c.code || e.Type == "" || e.Message == "" || strings.Contains(e.Message, "\n") {
				t.Errorf("got %#v, want %s in one line", err, c.code)
			}
			if j == nil || j.ID != c.id || j.Flow != testFlow || j.Reply != c.reply {
				t.Errorf("the job %+v cannot be answered: want the id %q and the reply %q", j, c.id, c.reply)
			}
		})
	}
}

func TestEventSubjects(t *testing.T) {
	j := Job{ID: "j", Flow: testFlow}
	if j.EventSubject() != "vj.v1.results.default.j.chunks" || j.EndSubject() != "vj.v1.results.default.j.end" {
		t.Errorf("without a reply: %s, %s", j.EventSubject(), j.EndSubject())
	}
	j.Reply = "_INBOX.a"
	if j.EventSubject() != j.Reply || j.EndSubject() != j.Reply {
		t.Errorf("with a reply: %s, %s", j.EventSubject(), j.EndSubject())
	}
}

func TestValidCustomID(t *testing.T) {
	for _, good := range []string{"x", "a b", "№ 7 🙂 \"é\"", strings.Repeat("é", 256)} {
		if !ValidCustomID(good) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{"", " a", "a ", "a\n", "a\x00b", "\xff", "\ufffd", "a\u00a0", "a\u2028b", strings.Repeat("x", 257)} {
		if ValidCustomID(bad) {
			t.Errorf("%q is taken", bad)
		}
	}
}

// What a job says of its events is on all of them, but for how long they are kept,
// where they are not.
func TestSetAnswer(t *testing.T) {
	for _, c := range []struct {
		job     Job
		subject string
		want    headers
	}{
		{Job{}, "vj.v1.results.a.b.end", headers{HeaderTTL: "86400"}},
		{Job{Keep: 1500 * time.Millisecond, CustomID: "x"}, "vj.v1.results.a.b.end", headers{HeaderTTL: "2", HeaderCustomID: "x"}},
		{Job{Keep: MaxKeep, CustomID: "x"}, "_INBOX.a", headers{HeaderCustomID: "x"}},
	} {
		got := headers{}
		c.job.SetAnswer(func(k, v string) { got[k] = v }, c.subject)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", c.job, diff)
		}
	}
	j, err := ReadJob(headers{HeaderKeep: "2s", HeaderCustomID: "x", HeaderReply: "$JS.x", HeaderTimeout: "never"}.get, nil, testFlow, 7, nil)
	if err == nil || j.Keep != 2*time.Second || j.CustomID != "x" {
		t.Errorf("a bad job is answered as %+v", j)
	}
}

func TestReadLater(t *testing.T) {
	const subject = "vj.v1.later.default.normal.llama3.1:8b"
	at := headers{HeaderAt: "2026-01-02T15:04:05Z"}
	for name, c := range map[string]struct {
		h       headers
		subject string
		id      string
		code    Code
	}{
		"unnamed":          {at, subject, "later-7", ""},
		"named":            {headers{HeaderAt: at[HeaderAt], HeaderMsgID: "j"}, subject, "j", ""},
		"out of the queue": {headers{HeaderAt: at[HeaderAt], HeaderMsgID: "jobs.1.2", HeaderLater: "1"}, subject, "1", ""},
		"no time":          {nil, subject, "later-7", InvalidRequest},
		"bad time":         {headers{HeaderAt: "noon"}, subject, "later-7", InvalidRequest},
		"bad id":           {headers{HeaderAt: at[HeaderAt], HeaderMsgID: "a.b"}, subject, "later-7", InvalidRequest},
		"no model":         {at, "vj.v1.later.default.normal", "later-7", InvalidRequest},
		"a wildcard":       {at, "vj.v1.later.default.normal.*", "later-7", InvalidRequest},
		"no tenant":        {at, "vj.v1.later.*.normal.m", "later-7", InvalidRequest},
		"a privileged one": {headers{HeaderAt: at[HeaderAt], HeaderReply: "$JS.x"}, subject, "later-7", Refused},
	} {
		j, err := ReadLater(c.h.get, c.subject, 7, nil)
		if err != nil {
			if AsError(err).Code != c.code {
				t.Errorf("%s: got %v", name, err)
			}
		} else if c.code != "" || j.Flow != testFlow || !j.At.Equal(time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)) {
			t.Errorf("%s: took %+v", name, j)
		}
		if j.ID != c.id || j.Flow.Tenant != DefaultTenant {
			t.Errorf("%s: it is %+v", name, j)
		}
	}
	job := "vj.v1.jobs.default.normal.llama3.1:8b"
	if LaterSubject(job) != subject || DueSubject(subject) != job {
		t.Errorf("%s is delayed on %s, and due on %s", job, LaterSubject(job), DueSubject(subject))
	}
}

func FuzzReadLater(f *testing.F) {
	f.Add("vj.v1.later.a.normal.m", "j", "", "2026-01-02T15:04:05Z", "", "1s", "x", "")
	f.Add("vj.v1.later.*.normal.>", "a b", "a.b", "noon", "2026-01-02T15:04:05Z", "week", "\xff", "_INBOX.x")
	f.Fuzz(func(t *testing.T, subject, id, later, at, deadline, keep, custom, reply string) {
		h := headers{
			HeaderMsgID: id, HeaderLater: later, HeaderAt: at, HeaderDeadline: deadline,
			HeaderKeep: keep, HeaderCustomID: custom, HeaderReply: reply,
		}
		j, err := ReadLater(h.get, subject, 9, nil)
		if !ValidToken(j.ID) || !literal(j.EndSubject()) || !literal(JobEventSubject(j.Flow.Tenant, j.ID)) {
			t.Fatalf("the job %+v cannot be answered", j)
		}
		if j.Keep != 0 && (j.Keep < MinKeep || j.Keep > MaxKeep) || j.CustomID != "" && !ValidCustomID(j.CustomID) {
			t.Fatalf("took %+v", j)
		}
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != InvalidRequest && e.Code != Refused {
				t.Fatalf("the error is %#v", err)
			}
			return
		}
		if j.At.IsZero() || !j.Deadline.IsZero() && !j.Deadline.After(j.At) {
			t.Fatalf("took %+v", j)
		}
		if _, err := JobSubject(j.Flow); err != nil {
			t.Fatalf("took the subject %q: %v", subject, err)
		}
	})
}

func FuzzReadJob(f *testing.F) {
	for _, body := range []string{smallChat, "Why?", `{"prompt":["x"],"model":"m"}`, `{"input":{}}`, " {", "{\"\\ud800\":1}"} {
		f.Add([]byte(body), "", "j-1", "_INBOX.x", "2026-01-02T15:04:05Z")
	}
	f.Add([]byte("{}"), "chat", "a b", "$JS.API.x", "never")
	f.Fuzz(func(t *testing.T, body []byte, kind, id, reply, deadline string) {
		h := headers{HeaderKind: kind, HeaderMsgID: id, HeaderReply: reply, HeaderDeadline: deadline}
		j, err := ReadJob(h.get, body, testFlow, 9, nil)
		if j == nil || !ValidToken(j.ID) || j.Flow != testFlow || !literal(j.EndSubject()) || !literal(j.EventSubject()) {
			t.Fatalf("the job %+v cannot be answered", j)
		}
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != InvalidRequest && e.Code != Refused {
				t.Fatalf("the error is %#v", err)
			}
			return
		}
		if !json.Valid(j.Body) || validate(string(j.Kind), j.Body) != nil {
			t.Fatalf("took the body %q as %s", body, j.Kind)
		}
	})
}

func TestAddRun(t *testing.T) {
	for _, answer := range []string{`{}`, `{ }`, `{"a":1}`, " {\"a\":1} \n", "{\n  \"a\": 1\n}\n"} {
		got, err := AddRun([]byte(answer), &goldenRun)
		var back struct{ Vramjet Run }
		if err != nil || json.Unmarshal(got, &back) != nil || back.Vramjet != goldenRun || strings.Contains(answer, "a") != strings.Contains(string(got), `"a"`) {
			t.Errorf("AddRun(%q) = %s, %v", answer, got, err)
		}
	}
	for _, answer := range []string{``, `[]`, `null`, `{`, `}`} {
		if got, err := AddRun([]byte(answer), &goldenRun); err == nil {
			t.Errorf("AddRun(%q) = %s, want an error", answer, got)
		}
	}
}

func TestAsError(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Code
		end  Status
	}{
		{fmt.Errorf("load: %w", Errorf(OutOfMemory, "no room")), OutOfMemory, StatusError},
		{fmt.Errorf("wait: %w", context.DeadlineExceeded), Deadline, StatusExpired},
		{context.Canceled, Cancelled, StatusCancelled},
		{errors.New("broken"), Internal, StatusError},
	} {
		if got := AsError(c.err); got.Code != c.want || got.Type == "" || StatusOf(got.Code) != c.end {
			t.Errorf("AsError(%v) = %#v, which ends %s", c.err, got, StatusOf(got.Code))
		}
	}
}
