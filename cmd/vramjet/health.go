package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// healthTimeout is how long a process has to say that it is well.
const healthTimeout = 5 * time.Second

// healthCmd asks a process whether it is well, in containers that have no other
// program to ask with.
type healthCmd struct {
	URL  string `arg:"" optional:"" placeholder:"URL" help:"What to ask (default: /readyz of the address that http in the configuration names)."`
	HTTP string `name:"http" placeholder:"HOST:PORT" help:"Where that process serves health ($$VRAMJET_HTTP; default: 127.0.0.1:7433)."`
}

// Help is shown below the command's summary.
func (*healthCmd) Help() string {
	return `Exits with 0 where the answer is 200, and else says why not and exits with 1.

Examples:

    vramjet health
    vramjet health http://127.0.0.1:8222/healthz
`
}

// Run asks once.
func (c *healthCmd) Run(ctx context.Context, a *app) error {
	url := c.URL
	if url == "" {
		cfg, _, err := a.load(map[string]string{"http": c.HTTP})
		if err != nil {
			return err
		}
		if cfg.HTTP == "off" {
			return usage(errors.New("health is served nowhere (http: off): name a URL"))
		}
		host, port, err := net.SplitHostPort(cfg.HTTP)
		if err != nil {
			return usage(fmt.Errorf("http %q: %w", cfg.HTTP, err))
		}
		url = "http://" + net.JoinHostPort(host, port) + "/readyz"
	}
	return askHealth(ctx, url)
}

// askHealth returns why what listens at url is not well.
func askHealth(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return usage(err)
	}
	asker := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy
	resp, err := asker.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // what can be read of it
		return fmt.Errorf("%s: %s", url, cmp.Or(strings.TrimSpace(string(said)), resp.Status))
	}
	return nil
}
