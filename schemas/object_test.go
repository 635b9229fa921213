package schemas

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestReadJobWithObject(t *testing.T) {
	h := headers{HeaderMsgID: "j", HeaderKind: "chat", HeaderBody: "default.x-1", HeaderSession: "s"}
	want := &Job{ID: "j", Flow: testFlow, Kind: Chat, Attempts: DefaultAttempts, Abandon: AbandonFinish, Session: "s", Object: "default.x-1"}
	for _, message := range []string{"", "\n"} {
		got, err := ReadJob(h.get, []byte(message), testFlow, 7, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if p := got.Prompt(); p != nil {
			t.Errorf("its prompt is %q", p)
		}
	}
}

func TestReadJobRefusesObject(t *testing.T) {
	const good = "default.x-1"
	for name, c := range map[string]struct {
		h      headers
		body   string
		code   Code
		object string // that is deleted at the end
	}{
		"another tenant's":        {headers{HeaderBody: "acme.x"}, "", Refused, ""},
		"of a longer name":        {headers{HeaderBody: "defaults.x"}, "", Refused, ""},
		"the tenant alone":        {headers{HeaderBody: "default."}, "", Refused, ""},
		"nobody's":                {headers{HeaderBody: "x"}, "", Refused, ""},
		"two dots":                {headers{HeaderBody: "default.a.b"}, "", Refused, ""},
		"a path":                  {headers{HeaderBody: "default.../x"}, "", Refused, ""},
		"no kind":                 {headers{HeaderKind: "", HeaderBody: good}, "", InvalidRequest, good},
		"no such kind":            {headers{HeaderKind: "poem", HeaderBody: good}, "", InvalidRequest, good},
		"a body beside it":        {headers{HeaderBody: good}, `{"prompt":"x"}`, InvalidRequest, good},
		"anything else is wrong":  {headers{HeaderBody: good, HeaderDeadline: "tomorrow"}, "", InvalidRequest, good},
		"a privileged reply":      {headers{HeaderBody: good, HeaderReply: "$JS.API.x"}, "", Refused, good},
		"a bad id":                {headers{HeaderBody: good, HeaderMsgID: "a b"}, "", InvalidRequest, good},
		"of another, with a body": {headers{HeaderBody: "acme.x"}, `{"prompt":"x"}`, Refused, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := headers{HeaderKind: "chat"}
			maps.Copy(h, c.h)
			j, err := ReadJob(h.get, []byte(c.body), testFlow, 7, nil)
			if e, _ := errors.AsType[*Error](err); e == nil || e.Code != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
			if j.Object != c.object {
				t.Errorf("its object is %q, want %q", j.Object, c.object)
			}
		})
	}
}

func TestReadBody(t *testing.T) {
	for body, want := range map[string]Code{
		`{"messages":[{"role":"user","content":"x"}],"stream":true}`: "",
		"Why?": "", // as it would be in a message
		`{"messages":[{"role":"user","content":"x"}],"model":"other"}`: InvalidRequest,
		`{"messages":"x"}`: InvalidRequest,
		`{"prompt":"x"}`:   InvalidRequest, // of another kind
		`{"messages": [`:   InvalidRequest,
		"\xff":             InvalidRequest,
		"":                 InvalidRequest,
	} {
		j := &Job{Kind: Chat, Flow: testFlow, Object: "default.x"}
		err := j.ReadBody([]byte(body))
		if want != "" && (err == nil || AsError(err).Code != want) || want == "" && (err != nil || !j.Stream || !json.Valid(j.Body)) {
			t.Errorf("%q: got %v, %+v", body, err, j)
		}
	}
}

func TestReadOfferWithObject(t *testing.T) {
	o, err := ReadOffer(offerHeader(HeaderBody, "acme.x"), nil)
	if err != nil || o.Job.Object != "acme.x" || o.Job.Body != nil || o.Job.Stream {
		t.Errorf("got %+v, %v", o, err)
	}
	if _, err := ReadOffer(offerHeader(HeaderBody, "default.x"), nil); err == nil || AsError(err).Code != Refused {
		t.Errorf("another tenant's: %v", err)
	}
}

// Whatever a job names, a node reads and deletes nothing but its tenant's objects.
func TestObjectsAreTheTenants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tenant := rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`).Draw(t, "tenant")
		name := rapid.OneOf(rapid.String(), rapid.StringMatching(`[A-Za-z0-9_-]{1,4}\.[A-Za-z0-9._>*$/-]{0,70}`),
			rapid.Map(rapid.String(), func(s string) string { return tenant + "." + s })).Draw(t, "name")
		j := &Job{Flow: Flow{Tenant: tenant}}
		err := j.readObject(headers{HeaderBody: name}.get)
		token, ours := strings.CutPrefix(name, tenant+".")
		if ok := ours && ValidToken(token); name != "" && ok != (err == nil) || j.Object != "" && !ok {
			t.Errorf("%q of %q: %v, %q", name, tenant, err, j.Object)
		}
		if err == nil && name != "" && ObjectName(tenant, token) != name {
			t.Errorf("%q is not made of %q and %q", name, tenant, token)
		}
	})
}

// Objects are where every client of NATS looks for them.
func TestObjectSubjects(t *testing.T) {
	if got := ObjectChunks("A1"); got != "$O.VJ_BODIES.C.A1" {
		t.Error(got)
	}
	encoded, ok := strings.CutPrefix(ObjectMeta("default.x-1"), "$O.VJ_BODIES.M.")
	if name, err := base64.URLEncoding.DecodeString(encoded); !ok || err != nil || string(name) != "default.x-1" {
		t.Errorf("got %s: %s, %v", encoded, name, err)
	}
}

func FuzzKindOf(f *testing.F) {
	for _, body := range []string{smallChat, "Why?", "", " {", `{"prompt":"x"}`, `{"input":null,"prompt":"x"}`, "\xff"} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		kind, err := KindOf(body)
		j, bad := ReadJob(headers{}.get, body, testFlow, 1, nil)
		if bad == nil && (err != nil || kind != j.Kind) {
			t.Errorf("%q is of the kind %q, %v; read as a job %q", body, kind, err, j.Kind)
		}
	})
}
