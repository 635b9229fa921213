package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A backend of Bedrock without keys signs with what AWS's own programs read.
func TestBedrockCredentials(t *testing.T) {
	var sent []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent = append(sent, r.Header.Get("Authorization"))
		http.NotFound(w, r)
	}))
	defer srv.Close()
	for name, c := range map[string]struct {
		env  map[string]string
		keys []string
		want string // in the error
		sent string
	}{
		"nothing":     {want: "no AWS credentials"},
		"credentials": {env: map[string]string{"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}, want: "names no region"}, // of AWS: it got that far
		"a key":       {env: map[string]string{"KEY": "k"}, keys: []string{"KEY"}, want: "not found", sent: "Bearer k"},
	} {
		t.Run(name, func(t *testing.T) {
			sent = nil
			f := newBackendFinder(&Config{}, func(name string) string { return c.env[name] }, slog.New(slog.DiscardHandler))
			b, err := f.backend(Backend{Name: "aws", Kind: "bedrock", URL: srv.URL, KeysEnv: c.keys})
			if err != nil {
				t.Fatal(err)
			}
			if _, err = b.Provider.Models(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want %q", err, c.want)
			}
			if got := strings.Join(sent, ","); got != c.sent {
				t.Errorf("sent %q, want %q", got, c.sent)
			}
		})
	}
}

// What a backend cannot do without is said before it is missed.
func TestBedrockWarnings(t *testing.T) {
	cfg := &Config{Backends: []Backend{{Kind: "bedrock"}, {Kind: "bedrock", KeysEnv: []string{"KEY"}}}}
	got := strings.Join(warnings(cfg, func(name string) string { return map[string]string{"KEY": "k", awsKeyID: "id"}[name] }), "\n")
	if want := "backends[0] without keys_env: $AWS_SECRET_ACCESS_KEY is not set here"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
