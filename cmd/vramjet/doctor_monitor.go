package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A monitored is what the monitoring of a NATS server says: over HTTP, as NATS itself
// tells nothing of this to users of vramjet.
type monitored struct {
	url    string
	err    error  // why it says nothing
	health string // why the server is not well; "": it is
	vars   monitorVars
}

// monitorVars is what is read of /varz.
type monitorVars struct {
	ID            string        `json:"server_id"`
	Name          string        `json:"server_name"`
	MaxPending    int64         `json:"max_pending"`
	WriteDeadline time.Duration `json:"write_deadline"`
	JetStream     struct {
		Config struct {
			SyncAlways   bool          `json:"sync_always"`
			SyncInterval time.Duration `json:"sync_interval"`
			MaxStore     int64         `json:"max_storage"`
		} `json:"config"`
		Stats struct {
			Store int64 `json:"storage"`
		} `json:"stats"`
	} `json:"jetstream"`
}

// monitorPort is where a server usually has its monitoring, where it has any.
const monitorPort = "8222"

// monitorTimeout bounds each question.
const monitorTimeout = 2 * time.Second

// lookAtMonitors asks the monitoring at each URL. Where there are none, it looks for that
// of the server that we are connected to, and believes only that server.
func lookAtMonitors(ctx context.Context, urls []string, s *serverFacts) (all []monitored) {
	for _, u := range urls {
		all = append(all, lookAtMonitor(ctx, u))
	}
	if len(urls) > 0 {
		return all
	}
	u, err := url.Parse(s.url)
	if err != nil || u.Hostname() == "" {
		return nil
	}
	m := lookAtMonitor(ctx, "http://"+net.JoinHostPort(u.Hostname(), monitorPort))
	if m.err != nil || m.vars.ID != s.id {
		return nil
	}
	return []monitored{m}
}

func lookAtMonitor(ctx context.Context, address string) monitored {
	m := monitored{url: address}
	ctx, cancel := context.WithTimeout(ctx, 2*monitorTimeout)
	defer cancel()
	if m.err = getJSON(ctx, address, "/varz", http.StatusOK, &m.vars); m.err != nil {
		return m
	}
	if m.vars.ID == "" {
		m.err = fmt.Errorf("%s is not the monitoring of a NATS server", redact(address))
		return m
	}
	var health struct {
		Error string `json:"error"`
	}
	m.err = getJSON(ctx, address, "/healthz", 0, &health)
	m.health = health.Error
	return m
}

// getJSON reads what a server says. status 0 is any: what is ill answers, too.
func getJSON(ctx context.Context, address, path string, status int, into any) error {
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(address, "/")+path, http.NoBody)
	if err != nil {
		return err
	}
	asker := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy
	resp, err := asker.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if status != 0 && resp.StatusCode != status {
		return fmt.Errorf("%s%s: %s", redact(address), path, resp.Status)
	}
	const most = 1 << 20
	if err := json.NewDecoder(io.LimitReader(resp.Body, most)).Decode(into); err != nil {
		return fmt.Errorf("%s%s: %w", redact(address), path, err)
	}
	return nil
}
