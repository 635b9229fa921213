package schemas

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestEscapeModel(t *testing.T) {
	for _, c := range []struct{ name, tail string }{
		{"llama3.1:8b", "llama3.1:8b"},
		{"hf.co/org/model-GGUF:Q4_K_M", "hf.co/org/model-GGUF:Q4_K_M"},
		{"模型", "模型"},
		{"a b", "a%20b"},
		{"a\tb\n", "a%09b%0A"},
		{"a\u00a0b\u0085\u2028", "a%C2%A0b%C2%85%E2%80%A8"},
		{"*", "%2A"},
		{">", "%3E"},
		{"a.*", "a.%2A"},
		{"a..b", "a.%2Eb"},
		{"...", "%2E%2E%2E"},
		{".a", "%2Ea"},
		{"a.", "a%2E"},
		{"$x", "%24x"},
		{"x$", "x$"},
		{"100%", "100%25"},
		{"%41", "%2541"},
		{"a\x7f", "a%7F"},
		{"a\xff\xfeb", "a%FF%FEb"},
		{"a\ufffd", "a%EF%BF%BD"},
		{strings.Repeat("x", MaxModelBytes), strings.Repeat("x", MaxModelBytes)},
		{strings.Repeat("\x01", MaxModelBytes), strings.Repeat("%01", MaxModelBytes)},
	} {
		tail, err := EscapeModel(c.name)
		if err != nil || tail != c.tail {
			t.Errorf("EscapeModel(%q) = %q, %v, want %q", c.name, tail, err, c.tail)
		}
		if name, err := UnescapeModel(c.tail); err != nil || name != c.name {
			t.Errorf("UnescapeModel(%q) = %q, %v, want %q", c.tail, name, err, c.name)
		}
	}
	for _, name := range []string{"", strings.Repeat("x", MaxModelBytes+1)} {
		if tail, err := EscapeModel(name); err == nil {
			t.Errorf("EscapeModel of %d bytes = %q, want an error", len(name), tail)
		}
	}
}

func TestUnescapeModelRefuses(t *testing.T) {
	for _, tail := range []string{
		"", "*", ">", "a.*", "a.>", "a b", "a\x7f", "a\x00", "a\u00a0", "\xff", "\ufffd", ".a", "a.", "a..b", "$x", "$JS.API.x",
		"%", "a%", "a%2", "a%zz", "%4", "a*b", strings.Repeat("x", MaxModelBytes+1), strings.Repeat("%41", MaxModelBytes+1),
	} {
		if name, err := UnescapeModel(tail); err == nil {
			t.Errorf("UnescapeModel(%q) = %q, want an error", tail, name)
		}
	}
}

// Escapes that need not be there are read too: encoders of other languages
// write them.
func TestUnescapeModelIsLenient(t *testing.T) {
	for tail, want := range map[string]string{"hf.co%2Forg%2Fm": "hf.co/org/m", "%6c%6C": "ll", "a%2e": "a.", "a%2E.b": "a..b"} {
		if got, err := UnescapeModel(tail); err != nil || got != want {
			t.Errorf("UnescapeModel(%q) = %q, %v, want %q", tail, got, err, want)
		}
	}
}

// Whatever a model is called, its subject can be published on, and leads back to it.
func TestJobSubjectRoundTrip(t *testing.T) {
	token := rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`)
	odd := rapid.SampledFrom([]string{".", "..", "*", ">", "$", "%", "%4", " ", "\x7f", "\x00", "\xff", "\xc3", "\ufffd", "\u00a0", "a", "é", "模", "/", ":"})
	model := rapid.OneOf(
		rapid.Map(rapid.SliceOfN(odd, 1, 12), func(parts []string) string { return strings.Join(parts, "") }),
		rapid.StringN(1, 40, MaxModelBytes),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, MaxModelBytes), func(b []byte) string { return string(b) }),
	)
	rapid.Check(t, func(t *rapid.T) {
		want := Flow{token.Draw(t, "tenant"), rapid.SampledFrom(Classes).Draw(t, "class"), model.Draw(t, "model")}
		subject, err := JobSubject(want)
		if err != nil {
			t.Fatal(err)
		}
		if !literal(subject) || !utf8.ValidString(subject) || strings.Contains(subject, "\ufffd") {
			t.Fatalf("%+v has the subject %q, which cannot be published on", want, subject)
		}
		if got, err := ParseJobSubject(subject); err != nil || got != want {
			t.Fatalf("%q reads as %+v, %v, want %+v", subject, got, err, want)
		}
	})
}

func TestJobSubjectRefuses(t *testing.T) {
	for _, f := range []Flow{
		{"", Normal, "m"},
		{"a.b", Normal, "m"},
		{"é", Normal, "m"},
		{strings.Repeat("a", 65), Normal, "m"},
		{"a", "urgent", "m"},
		{"a", "", "m"},
		{"a", Normal, ""},
		{"a", Normal, strings.Repeat("m", MaxModelBytes+1)},
	} {
		if subject, err := JobSubject(f); err == nil {
			t.Errorf("JobSubject(%+v) = %q, want an error", f, subject)
		}
	}
}

func TestParseJobSubjectRefuses(t *testing.T) {
	for _, c := range []struct{ subject, tenant string }{
		{"", ""},
		{"vj.v1.jobs", ""},
		{"vj.v1.jobs.", ""},
		{"vj.v2.jobs.a.normal.m", ""},
		{"vj.v1.jobs.*.normal.m", ""},
		{"vj.v1.jobs.a", "a"},
		{"vj.v1.jobs.a.urgent.m", "a"},
		{"vj.v1.jobs.a.normal", "a"},
		{"vj.v1.jobs.a.normal.*", "a"},
		{"vj.v1.jobs.a.normal.>", "a"},
		{"vj.v1.jobs.a.normal.m.*", "a"},
		{"vj.v1.jobs.a.normal.m%", "a"},
	} {
		f, err := ParseJobSubject(c.subject)
		if err == nil || f.Tenant != c.tenant {
			t.Errorf("ParseJobSubject(%q) = %+v, %v, want an error and the tenant %q", c.subject, f, err, c.tenant)
		}
	}
}

func FuzzParseJobSubject(f *testing.F) {
	f.Add("vj.v1.jobs.default.normal.llama3.1:8b")
	f.Add("vj.v1.jobs.a.batch.%2E%2e$%25")
	f.Add("vj.v1.jobs.a.normal.*")
	f.Fuzz(func(t *testing.T, subject string) {
		flow, err := ParseJobSubject(subject)
		if err != nil {
			return
		}
		canonical, err := JobSubject(flow)
		if err != nil {
			t.Fatalf("%q reads as %+v, which has no subject: %v", subject, flow, err)
		}
		if again, err := ParseJobSubject(canonical); err != nil || again != flow {
			t.Fatalf("%q reads as %+v, and its subject %q as %+v, %v", subject, flow, canonical, again, err)
		}
		if !strings.Contains(subject, "%") && canonical != subject {
			t.Fatalf("%q has no escape, but its flow has the subject %q", subject, canonical)
		}
	})
}

func TestRPCSubject(t *testing.T) {
	for _, verb := range []string{RPCModels, RPCGenerate, RPCEmbed, RPCLoad, RPCUnload, RPCPressure, RPCCancel} {
		subject := RPCSubject("my_Service-2", verb)
		if subject != "vj.v1.rpc.my_Service-2."+verb || !literal(subject) {
			t.Errorf("%s: the subject is %q", verb, subject)
		}
		if service, v, ok := ParseRPCSubject(subject); service != "my_Service-2" || v != verb || !ok {
			t.Errorf("%s reads as %q, %q, %t", subject, service, v, ok)
		}
	}
	for _, subject := range []string{
		"", "vj.v1.rpc", "vj.v1.rpc.", "vj.v1.rpc.a", "vj.v1.rpc.a.", "vj.v1.rpc..models", "vj.v1.rpc.a.explode",
		"vj.v1.rpc.*.models", "vj.v1.rpc.a.>", "vj.v1.rpc.a.models.b", "vj.v1.rpc.a b.models", RPCSubject(strings.Repeat("a", 65), RPCModels), "vj.v2.rpc.a.models",
	} {
		if service, verb, ok := ParseRPCSubject(subject); ok || service != "" || verb != "" {
			t.Errorf("%q reads as %q, %q", subject, service, verb)
		}
	}
}

func TestCheckReply(t *testing.T) {
	also := []string{"team.out.", "apps.>", "", ">"}
	for _, subject := range []string{
		"_INBOX.x", "_INBOX.x.y.z", "_INBOX_acme.x", "vj.v1.results.acme.j1.end", "vj.v1.results.acme.anything", "team.out.1", "apps.chat.7",
	} {
		if err := CheckReply("acme", subject, also); err != nil {
			t.Errorf("%q is refused: %v", subject, err)
		}
	}
	for _, subject := range []string{
		"_INBOX.vj.node.gpu-1.x", "_INBOX.vj.dispatcher.main.x.y", "_INBOX_beta.x",
		"", ">", "*", "a b", "$JS.API.STREAM.DELETE.VJ_JOBS", "$SYS.REQ.SERVER.PING", "$JS.ACK.x", "vj.v1.node.x.run", "vj.v1.jobs.acme.normal.m",
		"vj.v1.results.other.x.end", "vj.v1.results.acme", "vj.v1.results.acme.", "vj.v1.results.acme.*.end", "vj.v1.results.acme.>",
		"_INBOX", "_INBOX.", "_INBOX..x", "_INBOX.x.", "_INBOX.*", "_INBOX.>", "_INBOX.a b", "_INBOX.a\r\nPUB x", "_INBOX.a\x7f", "_INBOX.\xff",
		"_INBOX_other.x", "_INBOXacme.x", "team.outside", "team.out.", "apps", "appsx.y", "_INBOX." + strings.Repeat("x", 1024),
	} {
		if err := CheckReply("acme", subject, also); err == nil {
			t.Errorf("%q is allowed", subject)
		}
	}
}

func TestCheckAsker(t *testing.T) {
	for _, reply := range []string{"", "_INBOX.a.b", "_INBOX_acme.x", "_R_.abc.def", "team.answers"} {
		if err := CheckAsker(reply); err != nil {
			t.Error(err)
		}
	}
	for _, reply := range []string{"$JS.API.STREAM.PURGE.VJ_JOBS", "$JS.ACK.VJ_JOBS.c.1.1.1.1.0", "$KV.VJ_STATE.leader", "$SYS.x", "vj.v1.jobs.beta.normal.m", "vj.v1.node.gpu-1.control", "a..b", "*"} {
		if CheckAsker(reply) == nil {
			t.Errorf("%q may be answered on", reply)
		}
	}
}

func TestFromJetStream(t *testing.T) {
	for name, tt := range map[string]struct {
		h     headers
		reply string
		want  bool
	}{
		"a request":           {headers{HeaderMsgID: "j"}, "_INBOX.a", false},
		"a message":           {nil, "", false},
		"a delivery":          {nil, "$JS.ACK.VJ_RESULTS.c.1.1.1.1.0", true},
		"an answer of a read": {headers{"Nats-Stream": "VJ_RESULTS", "Nats-Sequence": "1"}, "", true},
	} {
		if got := FromJetStream(tt.h.get, tt.reply); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestIsInbox(t *testing.T) {
	for subject, want := range map[string]bool{"_INBOX.x": true, "_INBOX_a.x": true, "vj.v1.results.a.x.end": false, "": false, "inbox.x": false} {
		if IsInbox(subject) != want {
			t.Errorf("IsInbox(%q) = %t", subject, !want)
		}
	}
}
