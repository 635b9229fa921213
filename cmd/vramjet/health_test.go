package main

import (
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
