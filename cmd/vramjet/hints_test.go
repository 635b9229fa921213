package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// place is a situation: a kind, where it should be, and whatever else set says.
func place(t *testing.T, kind, at string, set ...func(*situation)) *situation {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	s := &situation{kind: kind, at: u, hosted: providers.Hosted(kind)}
	for _, f := range set {
		f(s)
	}
	return s
}

func inside(s *situation) { s.container = true }

func withKeys(names ...string) func(*situation) { return func(s *situation) { s.keys = names } }

func beside(kind, at string) func(*situation) {
	return func(s *situation) { s.neighbours = append(s.neighbours, neighbour{kind, at}) }
}

func TestHints(t *testing.T) {
	const ollama, llama = "http://127.0.0.1:11434", "http://127.0.0.1:8080"
	for _, c := range []struct {
		s     *situation
		f     finding
		want  []string // each is in one of the hints
		never string   // is in none
	}{
		{place(t, "ollama", ollama), finding{Cause: causeRefused}, []string{"is Ollama running? Start it: ollama serve"}, "container"},
		{place(t, "ollama", llama), finding{Cause: causeRefused}, []string{"it listens on 11434"}, "8080"},
		{place(t, "", ollama), finding{Cause: causeRefused}, []string{"is Ollama running?"}, ""},
		{place(t, "", "http://127.0.0.1:5"), finding{Cause: causeRefused}, []string{"is the server running?"}, "listens on"},
		{place(t, "llamacpp", llama, beside("ollama", ollama)), finding{Cause: causeRefused}, []string{"Ollama answers on 11434: " + ollama}, ""},
		{place(t, "llamacpp", llama, beside("", ollama)), finding{Cause: causeRefused}, []string{"no known model server answers on 11434"}, ""},
		{place(t, "ollama", ollama, inside), finding{Cause: causeRefused}, []string{"http://host.docker.internal:11434", "http://172.17.0.1:11434", "OLLAMA_HOST=0.0.0.0"}, "own 127.0.0.1"},
		{place(t, "vllm", "http://localhost:8000", inside), finding{Cause: causeRefused}, []string{"--host 0.0.0.0"}, "OLLAMA"},
		{place(t, "ollama", "http://172.17.0.1:11434", inside), finding{Cause: causeRefused}, []string{"it may listen on its own 127.0.0.1 only: OLLAMA_HOST=0.0.0.0"}, "we run in a container"},
		{place(t, "ollama", "http://gpu-7:11434"), finding{Cause: causeUnknownHost}, []string{"gpu-7", "DNS"}, "add-host"},
		{place(t, "ollama", "http://host.docker.internal:11434"), finding{Cause: causeUnknownHost}, []string{"--add-host=host.docker.internal:host-gateway"}, ""},
		{place(t, "vllm", "http://h:8000/v1"), finding{Cause: causeTLSNeeded}, []string{"https://h:8000/v1"}, ""},
		{place(t, "vllm", "https://h:8000/v1"), finding{Cause: causeTLSUnwanted}, []string{"http://h:8000/v1"}, ""},
		{place(t, "vllm", "http://h"), finding{Cause: causeTimeout}, []string{"firewall"}, ""},
		{place(t, "vllm", "http://h"), finding{Cause: causeRedirected, About: []string{"https://h/v1"}}, []string{"https://h/v1", "key"}, ""},
		{place(t, "openai", "http://h/v1/v1"), finding{Cause: causeWrongPath}, []string{"/v1 twice"}, ""},
		{place(t, "openai", "http://h/x"), finding{Cause: causeWrongPath}, []string{"or the kind is"}, "twice"},
		{place(t, "openai", "http://h/v1/v1"), finding{Cause: causeWrongPath, About: []string{"http://h"}}, []string{"set the url to http://h"}, "twice"},
		{place(t, "vllm", ollama), finding{Cause: causeWrongKind, About: []string{"ollama"}}, []string{"set kind: ollama"}, ""},
		{place(t, "openai", "http://h"), finding{Cause: causeKeyRefused}, []string{"keys_env", "--key-env"}, "Bearer"},
		{place(t, "openai", "http://h", withKeys("A", "B")), finding{Cause: causeKeyRefused}, []string{"$A, $B", "Authorization: Bearer"}, ""},
		{place(t, "anthropic", "http://h", withKeys("A")), finding{Cause: causeKeyRefused}, []string{"$A", "x-api-key"}, "Bearer"},
		{place(t, "azure", "http://h", withKeys("A")), finding{Cause: causeKeyRefused}, []string{"sent as api-key"}, "Bearer"},
		{place(t, "openai", "http://h", withKeys("A")), finding{Cause: causeKeyForbidden}, []string{"$A", "may not do this"}, ""},
		{place(t, "ollama", "http://h"), finding{Cause: causeKeyForbidden}, []string{"without a key", "allow this machine"}, "$"},
		{place(t, "openai", "http://h"), finding{Cause: causeKeyMissing, About: []string{"A"}}, []string{"variable A"}, ""},
		{place(t, "ollama", ollama), finding{Cause: causeNoModels}, []string{"ollama pull llama3.2"}, ""},
		{place(t, "vllm", ollama), finding{Cause: causeNoModels}, []string{"vllm serve"}, ""},
		{place(t, "openai", "http://h"), finding{Cause: causeNoModels}, []string{"the key may use"}, ""},
		{place(t, "azure", "http://h"), finding{Cause: causeNoModels}, []string{"name the deployments"}, ""},
		{place(t, "ollama", ollama), finding{Cause: causeNoMatch, About: []string{"llama3.2"}}, []string{"there are llama3.2"}, ""},
		{place(t, "ollama", ollama), finding{Cause: causeModelNotFound, About: []string{"llama3.2"}}, []string{"there are llama3.2", "ollama pull"}, ""},
		{place(t, "ollama", ollama), finding{Cause: causeModelNotFound}, []string{"under that name"}, ""},
		{place(t, "ollama", ollama), finding{Cause: causeSmallContext}, []string{"OLLAMA_CONTEXT_LENGTH"}, ""},
		{place(t, "llamacpp", llama), finding{Cause: causeSmallContext}, []string{"-c 8192"}, ""},
		{place(t, "vllm", llama), finding{Cause: causeContextOverflow}, []string{"--max-model-len"}, ""},
		{place(t, "lmstudio", llama), finding{Cause: causeSlow}, []string{"CPU", "--gpu max"}, ""},
		{place(t, "llamacpp", llama), finding{Cause: causeSlow}, []string{"-ngl 99"}, ""},
		{place(t, "llamacpp", llama), finding{Cause: causeSlotsOff}, []string{"--slots --metrics"}, ""},
		{place(t, "vllm", llama), finding{Cause: causeSlotsOff}, []string{"vLLM"}, "--slots"},
		{place(t, "vllm", llama), finding{Cause: causeLoading, Step: stepModels}, []string{"try again later"}, ""},
		{place(t, "llamarouter", llama), finding{Cause: causeLoading, Step: stepTrial}, []string{"load it in the server"}, ""},
		{place(t, "openai", "http://h", withKeys("A")), finding{Cause: causeQuota}, []string{"waiting does not mend", "$A"}, ""},
		{place(t, "openai", "http://h"), finding{Cause: causeRateLimited}, []string{"no money is missing"}, "$"},
		{place(t, "openai", "http://h"), finding{Result: resultFailed}, nil, " "},
	} {
		var all []string
		for _, h := range hints(c.s, []finding{c.f, c.f}) { // twice says it once
			if slices.Contains(all, h.Text) {
				t.Errorf("%s: twice: %s", c.f.Cause, h.Text)
			}
			all = append(all, h.Text)
		}
		text := strings.Join(all, "\n")
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s of %s at %s: %q is not in:\n%s", c.f.Cause, c.s.kind, c.s.at, want, text)
			}
		}
		if c.never != "" && strings.Contains(text, c.never) {
			t.Errorf("%s of %s at %s: %q is in:\n%s", c.f.Cause, c.s.kind, c.s.at, c.never, text)
		}
	}
}

// Every cause has its advice, which says something of every kind of server.
func TestHintsAreComplete(t *testing.T) {
	_, types := constants(t, "cmd/vramjet")
	if len(types["cause"]) < 30 || len(types["cause"]) != len(advice) {
		t.Errorf("%d causes, %d advices", len(types["cause"]), len(advice))
	}
	for _, c := range types["cause"] {
		for _, kind := range append(providers.Kinds(), "") {
			found := hints(place(t, kind, "http://127.0.0.1:1/v1"), []finding{{Cause: cause(c), About: []string{"x"}}})
			if len(found) == 0 || strings.HasSuffix(found[0].Text, ": ") || strings.Contains(found[0].Text, "  ") {
				t.Errorf("%s of the kind %q: %v", c, kind, found)
			}
		}
	}
	for _, kind := range providers.Kinds() {
		if m := manuals[kind]; m.name == "" && !providers.Hosted(kind) && kind != providers.KindRPC {
			t.Errorf("nothing is known about %s", kind)
		}
	}
	ports := knownPorts()
	for _, at := range local {
		if !slices.Contains(ports, portOf(at)) {
			t.Errorf("%s is a known address, but its port is none", at)
		}
	}
}

func TestConnectCause(t *testing.T) {
	dial := func(err error) error {
		return &url.Error{Op: "Get", URL: "http://h", Err: &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", err)}}
	}
	for _, c := range []struct {
		err  error
		want cause
	}{
		{nil, ""},
		{dial(syscall.ECONNREFUSED), causeRefused},
		{dial(syscall.EHOSTUNREACH), causeNoRoute},
		{dial(syscall.ENETUNREACH), causeNoRoute},
		{dial(syscall.ETIMEDOUT), causeTimeout},
		{&url.Error{Err: context.DeadlineExceeded}, causeTimeout},
		{&url.Error{Err: &net.DNSError{Name: "h", IsNotFound: true}}, causeUnknownHost},
		{&url.Error{Err: http.ErrSchemeMismatch}, causeTLSUnwanted},
		{tls.RecordHeaderError{}, causeTLSUnwanted},
		{&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, causeCertificate},
		{x509.HostnameError{Host: "h", Certificate: &x509.Certificate{}}, causeCertificate},
		{errors.New("EOF"), causeBroken},
	} {
		if got := connectCause(c.err); got != c.want {
			t.Errorf("%v: got %s, want %s", c.err, got, c.want)
		}
	}
}

func TestCauseOf(t *testing.T) {
	for code, want := range map[schemas.Code]cause{
		schemas.Auth: causeKeyRefused, schemas.Permission: causeKeyForbidden, schemas.ModelLoading: causeLoading,
		schemas.OutOfMemory: causeOutOfMemory, schemas.StreamBroken: causeCutOff, schemas.UpstreamError: causeServerError, schemas.Internal: causeServerError,
	} {
		if got := causeOf(fmt.Errorf("x: %w", schemas.Errorf(code, "y"))); got != want {
			t.Errorf("%s: got %s, want %s", code, got, want)
		}
	}
	if got := causeOf(nil); got != "" {
		t.Errorf("no error: got %s", got)
	}
}

func TestNearestOf(t *testing.T) {
	names := []string{"llama3.2", "qwen3:4b", "org/mistral-7b", "phi"}
	for _, c := range []struct {
		word string
		want []string
	}{
		{"lama3.2", []string{"llama3.2"}},
		{"qwen3", []string{"qwen3:4b"}},
		{"mistral-7b", []string{"org/mistral-7b"}},
		{"gpt-5.2-turbo", []string{"llama3.2", "qwen3:4b", "org/mistral-7b"}},
	} {
		if got := nearestOf([]string{c.word}, names); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.word, got, c.want)
		}
	}
	if got := nearestOf([]string{"m"}, nil); len(got) > 0 {
		t.Errorf("of nothing: got %v", got)
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		t    trial
		want []cause
	}{
		{trial{ready: true, FirstTokenMS: 500, TokensPerSec: 30}, nil},
		{trial{ready: true, FirstTokenMS: 10_001, TokensPerSec: 1.9}, []cause{causeSlowStart, causeSlow}},
		{trial{FirstTokenMS: 60_000}, nil}, // it was loaded meanwhile, and the rate is not known
		{trial{ready: true, FirstTokenMS: 10_000, TokensPerSec: 2}, nil},
	} {
		var got []cause
		for _, f := range judge(&c.t) {
			got = append(got, f.Cause)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %v, want %v", c.t, got, c.want)
		}
	}
}
