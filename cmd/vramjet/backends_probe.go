package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// newTransport returns a transport as the providers have it. connect bounds how
// long a connection may take to come about; 0: 2 seconds.
func newTransport(connect time.Duration) *http.Transport {
	if connect == 0 {
		connect = 2 * time.Second
	}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: connect}).DialContext, TLSHandshakeTimeout: 10 * time.Second,
	}
}

// stay has a client follow no redirect: it would take the key along.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// An asker is a transport that adds the backend's key, and notes what answers
// have in common. It belongs to one goroutine.
type asker struct {
	next   http.RoundTripper
	keys   []providers.Key
	denied bool     // the server asked for a key, or turned ours down
	moved  *url.URL // where it says that it is
}

// RoundTrip implements http.RoundTripper.
func (a *asker) RoundTrip(req *http.Request) (*http.Response, error) {
	if len(a.keys) > 0 {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+a.keys[0].Secret())
	}
	resp, err := a.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	a.denied = a.denied || resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden
	if to, err := resp.Location(); err == nil && resp.StatusCode/100 == 3 && a.moved == nil {
		a.moved = to
	}
	return resp, nil
}

// reach connects, and asks for the page that every server has.
func (k *inspection) reach(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, k.patience)
	defer cancel()
	begun := time.Now()
	var connected time.Duration
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected = time.Since(begun) }}
	front := url.URL{Scheme: k.at.Scheme, Host: k.at.Host, Path: "/"}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodGet, front.String(), nil)
	if err != nil {
		k.add(stepReachable, resultFailed, "", err.Error())
		return false
	}
	resp, err := (&http.Client{Transport: k.transport, CheckRedirect: stay}).Do(req)
	status := 0
	if err == nil {
		status = resp.StatusCode
		_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection serves again
		resp.Body.Close()
	}
	c := connectCause(err)
	switch {
	case k.at.Scheme == "http" && (status == http.StatusBadRequest || c == causeBroken) && speaksTLS(ctx, k.at.Host):
		k.unreached(ctx, causeTLSNeeded, "the server speaks TLS (https), and the url says http")
		return false
	case err == nil:
		k.add(stepReachable, resultOK, "", "connected in "+short(connected))
		return true
	case c == causeTimeout && connected > 0:
		c = causeSilent
	}
	k.unreached(ctx, c, connectText(c, err))
	return false
}

// unreached notes why there is no connection. Where a server was only looked for,
// that is no failure.
func (k *inspection) unreached(ctx context.Context, c cause, text string) {
	if k.finder.found && c == causeRefused {
		k.add(stepReachable, resultSkipped, "", "nobody listens here")
		return
	}
	if c == causeRefused {
		k.scene.container = inContainer(k.root)
		k.scene.neighbours = k.neighbours(ctx)
	}
	k.add(stepReachable, resultFailed, c, text)
}

// identify asks the server what it is.
func (k *inspection) identify(ctx context.Context) bool {
	if k.scene.hosted && k.at.Scheme == "https" { // what else should be there
		k.add(stepKind, resultOK, "", k.b.Kind+", as configured")
		return true
	}
	configured := k.b.Kind
	kind, err := k.detect(ctx, k.b.URL)
	switch {
	case err == nil && configured == "", err == nil && sameServer(configured, kind):
		k.b.Kind, k.scene.hosted = kind, providers.Hosted(kind)
		k.add(stepKind, resultOK, "", kind)
	case err == nil && kind == providers.KindOpenAI && k.asked.denied:
		k.add(stepKind, resultOK, "", configured+", as configured: without a key that it takes, the server tells nothing")
	case err == nil && kind == providers.KindOpenAI && k.scene.hosted:
		k.add(stepKind, resultOK, "", configured+", as configured")
	case err == nil:
		k.add(stepKind, resultWarning, causeWrongKind, fmt.Sprintf("configured as %s, but it looks like %s", configured, kind), kind)
	case k.asked.moved != nil:
		k.add(stepKind, resultFailed, causeRedirected, "the server answers from another address", redact(k.asked.moved.String()))
		return false
	default:
		return k.unidentified(ctx, err)
	}
	return true
}

// unidentified notes that the server is none that is known. It reports whether to
// go on nevertheless.
func (k *inspection) unidentified(ctx context.Context, err error) bool {
	const text = "it answers, but like no model server that is known"
	if c := causeOf(err); c != causeUnsupported {
		k.add(stepKind, resultFailed, c, saying(err, Backend{Name: k.b.URL}))
		return false
	}
	if k.finder.found {
		k.absent = true
		k.add(stepKind, resultSkipped, "", text)
		return false
	}
	if better := k.betterURL(ctx); better != "" {
		k.add(stepKind, resultFailed, causeWrongPath, text+" under this path", better)
		return false
	}
	if k.b.Kind == "" {
		k.add(stepKind, resultFailed, causeUnknownKind, text)
		return false
	}
	k.add(stepKind, resultWarning, causeUnknownKind, text+": taken as "+k.b.Kind)
	return true
}

func (k *inspection) detect(ctx context.Context, at string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, k.patience)
	defer cancel()
	return providers.Detect(ctx, at, k.client)
}

// sameServer reports whether a server that looks like kind is what the
// configuration says. Which way of llama-server it is, a worker finds out itself.
func sameServer(configured, kind string) bool {
	isLlama := func(kind string) bool { return kind == providers.KindLlamaCpp || kind == providers.KindLlamaRouter }
	return configured == kind || isLlama(configured) && isLlama(kind)
}

// betterURL returns an address of the same host without a path where a server
// answers; "": there is none.
func (k *inspection) betterURL(ctx context.Context) string {
	front := url.URL{Scheme: k.at.Scheme, Host: k.at.Host}
	if k.base() == front.String() {
		return ""
	}
	if _, err := k.detect(ctx, front.String()); err != nil {
		return ""
	}
	return front.String()
}

// base is the server's address without a "/v1".
func (k *inspection) base() string {
	u := url.URL{Scheme: k.at.Scheme, Host: k.at.Host, Path: strings.TrimSuffix(strings.TrimRight(k.at.Path, "/"), "/v1")}
	return u.String()
}

// settings looks at how a server was started which vramjet loads models on: it
// should not do that by itself.
func (k *inspection) settings(ctx context.Context) {
	switch k.b.Kind {
	case providers.KindLlamaRouter:
		var props struct {
			Autoload *bool `json:"models_autoload"`
		}
		if k.get(ctx, "/props", &props) && props.Autoload != nil && *props.Autoload {
			k.add(stepModels, resultWarning, causeRouterLoads, "the router loads models by itself")
		}
	case providers.KindLlamaSwap:
		var now struct {
			Running []struct {
				Model string `json:"model"`
				TTL   int    `json:"ttl"`
			} `json:"running"`
		}
		var soon []string
		if k.get(ctx, "/running", &now) {
			for _, r := range now.Running {
				if r.TTL > 0 {
					soon = append(soon, r.Model)
				}
			}
		}
		if len(soon) > 0 {
			k.add(stepModels, resultWarning, causeSwapTTL, "llama-swap unloads by itself: "+strings.Join(soon, ", "), soon...)
		}
	}
}

// get asks the server for JSON, and reports whether it came.
func (k *inspection) get(ctx context.Context, path string, out any) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.base()+path, nil)
	if err != nil {
		return false
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK && json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(out) == nil
}

// neighbours looks for servers on the other ports that they usually have.
func (k *inspection) neighbours(ctx context.Context) []neighbour {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	there := make([]neighbour, len(k.ports))
	var wg sync.WaitGroup
	for i, port := range k.ports {
		if port == k.at.Port() {
			continue
		}
		wg.Go(func() {
			at := "http://" + net.JoinHostPort(k.at.Hostname(), port)
			if kind, err := k.finder.detect(ctx, Backend{URL: at}); err == nil {
				there[i] = neighbour{kind, at}
			} else if c := schemas.AsError(err).Code; c == schemas.Unsupported {
				there[i] = neighbour{"", at}
			}
		})
	}
	wg.Wait()
	var found []neighbour
	for _, n := range there {
		if n.url != "" {
			found = append(found, n)
		}
	}
	return found
}

// speaksTLS reports whether a server does.
func speaksTLS(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // nothing is sent
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = conn.Close() // it has told what it was asked for
	return true
}

// inContainer reports whether the process is in a container: root is that of the
// file system.
func inContainer(root string) bool {
	for _, mark := range []string{".dockerenv", "run/.containerenv"} {
		if _, err := os.Stat(filepath.Join(root, mark)); err == nil {
			return true
		}
	}
	groups, err := os.ReadFile(filepath.Join(root, "proc/1/cgroup"))
	if err != nil {
		return false
	}
	for _, word := range []string{"docker", "kubepods", "containerd", "libpod", "lxc"} {
		if strings.Contains(string(groups), word) {
			return true
		}
	}
	return false
}
