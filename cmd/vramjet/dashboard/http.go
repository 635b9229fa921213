package dashboard

import (
	"embed"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

//go:embed page
var page embed.FS

const (
	// beat is how often a viewer hears something while nothing changes, so that
	// whoever stands between does not take the connection for dead.
	beat = 15 * time.Second

	// writeWithin is how long one write to a viewer may take, who is dropped then.
	writeWithin = 10 * time.Second

	// askWithin is how long a single snapshot is waited for that has everything.
	askWithin = 3 * time.Second
)

// policy lets the page load what is served here, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the page at /, and below /api/v1/ what it shows.
func (d *Dashboard) Handler() http.Handler {
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic("the page is not there: " + err.Error()) // it is built in
	}
	mux := http.NewServeMux()
	for path, name := range map[string]string{"/{$}": "index.html", "/app.js": "app.js", "/style.css": "style.css"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-cache")
			http.ServeFileFS(w, r, files, name)
		})
	}
	mux.HandleFunc("GET /api/v1/state", d.state)
	mux.HandleFunc("GET /api/v1/events", d.events)
	mux.Handle("POST /api/v1/actions", http.NewCrossOriginProtection().Handler(http.HandlerFunc(d.act)))
	return guard(mux)
}

// guard sets what browsers are to keep to, and turns down what foreign pages ask.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case !mayName(r):
			refuse(w, http.StatusMisdirectedRequest, "this is not "+r.Host+": ask for localhost, or have the proxy ask for it")
		case strings.HasPrefix(r.URL.Path, "/api/") && r.Header.Get("Sec-Fetch-Site") == "cross-site":
			refuse(w, http.StatusForbidden, "a page of another site asks")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// mayName reports whether a request names a host that we may be. On a loopback address
// that is no name but localhost: else a foreign page could have its own name lead here,
// and read what this machine alone may.
func mayName(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return true
	}
	at, err := netip.ParseAddrPort(local.String())
	if err != nil || !at.Addr().Unmap().IsLoopback() {
		return true
	}
	name := r.Host
	if host, _, err := net.SplitHostPort(r.Host); err == nil {
		name = host
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return true
	}
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(encode(map[string]string{"error": why})) // fails only where nobody is there any more
}

// state answers with one snapshot, once it has everything.
func (d *Dashboard) state(w http.ResponseWriter, r *http.Request) {
	v, ok := d.join(r.Context())
	if !ok {
		refuse(w, http.StatusServiceUnavailable, "the dashboard is ending, or too many look")
		return
	}
	defer d.leave(v)
	late := time.NewTimer(askWithin)
	defer late.Stop()
	s := <-v.newest
	for waiting := true; waiting && !s.complete; {
		select {
		case s = <-v.newest:
		case <-late.C:
			waiting = false
		case <-r.Context().Done():
			return
		case <-d.done:
			waiting = false
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(s.since(0)) // fails only where nobody is there any more
}

// events sends a snapshot at once, and then what changed, until the viewer goes.
func (d *Dashboard) events(w http.ResponseWriter, r *http.Request) {
	v, ok := d.join(r.Context())
	if !ok {
		refuse(w, http.StatusServiceUnavailable, "the dashboard is ending, or too many look")
		return
	}
	defer d.leave(v)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // or nginx would keep it to itself
	send := sender{w, http.NewResponseController(w)}
	tick := time.NewTicker(beat)
	defer tick.Stop()
	err := send.write("retry: 2000\n\n")
	for seen := uint64(0); err == nil; {
		select {
		case s := <-v.newest:
			err = send.write("event: state\ndata: %s\n\n", s.since(seen))
			seen = s.version
		case <-tick.C:
			err = send.write(": beat\n\n")
		case <-r.Context().Done():
			return
		case <-d.done:
			return
		}
	}
}

// A sender writes to a viewer who may be slow.
type sender struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (s *sender) write(format string, args ...any) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, format, args...); err != nil {
		return err
	}
	return s.control.Flush()
}
