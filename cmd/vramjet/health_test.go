package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The exit code is what a container's health check looks at.
func TestHealth(t *testing.T) {
	well := true
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" || !well {
			http.Error(w, "not connected to NATS", http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	addr := strings.TrimPrefix(srv.URL, "http://")
	_, port, _ := strings.Cut(addr, ":")
	sh := newShell(t)
	sh.want(t, exitOK, "health", "--http", addr)
	sh.want(t, exitOK, "health", srv.URL+"/readyz")
	sh.env["VRAMJET_HTTP"] = ":" + port // as in the image
	sh.want(t, exitOK, "health")
	well = false
	if _, stderr := sh.want(t, exitFailed, "health"); !strings.Contains(stderr, "not connected to NATS") {
		t.Errorf("stderr is %q", stderr)
	}
	srv.Close()
	sh.want(t, exitFailed, "health")
	sh.env["VRAMJET_HTTP"] = "off"
	sh.want(t, exitUsage, "health")
}

// TestChecks: a process is ready where all passes, lives where it need not be started again,
// and lists everything where it is asked to.
func TestChecks(t *testing.T) {
	var nats, loop error
	var c checks
	c.add(healthCheck{name: "nats", err: func() error { return nats }})
	c.add(healthCheck{name: "worker", live: true, err: func() error { return loop }})
	ask := func(path string) string {
		mux := http.NewServeMux()
		mux.Handle("/livez", c.handler(true))
		mux.Handle("/readyz", c.handler(false))
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		return fmt.Sprint(answer.Code, " ", answer.Body.String())
	}
	for _, step := range []struct {
		nats, loop error
		path, want string
	}{
		{nil, nil, "/readyz", "200 ok\n"},
		{nil, nil, "/readyz?verbose", "200 [+]nats ok\n[+]worker ok\nok\n"},
		{errors.New("gone"), nil, "/readyz", "503 nats: gone\n"},
		{errors.New("gone"), nil, "/readyz?verbose", "503 [-]nats failed: gone\n[+]worker ok\n"},
		{errors.New("gone"), nil, "/livez", "200 ok\n"},
		{nil, errors.New("it hangs"), "/livez?verbose", "503 [-]worker failed: it hangs\n"},
		{nil, errors.New("it hangs"), "/readyz", "503 worker: it hangs\n"},
	} {
		nats, loop = step.nats, step.loop
		if got := ask(step.path); got != step.want {
			t.Errorf("%s with nats %v and loop %v: %q, want %q", step.path, nats, loop, got, step.want)
		}
	}
}
