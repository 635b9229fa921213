package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
)

// A healthCheck is something that a process needs to do its work.
type healthCheck struct {
	name string
	live bool // without it the process is to be started again
	err  func() error
}

// checks are those of a process, whose parts add theirs as they start.
type checks struct {
	mu  sync.Mutex
	all []healthCheck
}

func (c *checks) add(more ...healthCheck) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, more...)
}

// report lists the checks in the form of Kubernetes' own, a line each, and says whether
// all passed. Without verbose it has those only that did not.
func (c *checks) report(onlyLive, verbose bool) (text string, ok bool) { //nolint:revive // flag-parameter: as the request says
	c.mu.Lock()
	defer c.mu.Unlock()
	var lines strings.Builder
	ok = true
	for _, check := range c.all {
		if onlyLive && !check.live {
			continue
		}
		err := check.err()
		ok = ok && err == nil
		switch {
		case !verbose && err != nil:
			fmt.Fprintf(&lines, "%s: %v\n", check.name, err)
		case verbose && err != nil:
			fmt.Fprintf(&lines, "[-]%s failed: %v\n", check.name, err)
		case verbose:
			fmt.Fprintf(&lines, "[+]%s ok\n", check.name)
		}
	}
	if ok {
		lines.WriteString("ok\n")
	}
	return lines.String(), ok
}

// handler answers 200 where all checks pass, else 503 and what did not. With ?verbose it
// lists all of them.
func (c *checks) handler(onlyLive bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text, ok := c.report(onlyLive, r.URL.Query().Has("verbose"))
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprint(w, text)
	}
}

// connected has the metrics and the checks tell of a connection to NATS.
func (h *health) connected(nc *nats.Conn) {
	h.metrics.MustRegister(broker.ConnectionCollector(nc))
	h.checks.add(healthCheck{name: "nats", err: func() error {
		if !nc.IsConnected() {
			return errors.New("not connected to NATS")
		}
		return nil
	}})
}
