package providers

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

const (
	dialTimeout = 2 * time.Second
	maxAnswer   = 256 << 20 // of a call that is not streamed, in bytes
	maxFailure  = 64 << 10  // of an error's body, in bytes
	readerSize  = 16 << 10
)

// A server is the HTTP side of a provider.
type server struct {
	name    string
	root    string // the server's URL without a "/v1" and without a slash at its end
	v1      string // where OpenAI's API is
	quirk   quirk
	key     func() string
	client  *http.Client
	readers *sync.Pool // of *bufio.Reader
}

func newServer(cfg Config) server {
	s := server{name: cfg.Name, quirk: quirks[cfg.Kind], key: cfg.APIKey, client: cfg.HTTP}
	if s.name == "" {
		s.name = cfg.Kind
	}
	if s.key == nil {
		s.key = func() string { return "" }
	}
	if s.client == nil {
		s.client = &http.Client{Transport: newTransport()}
	}
	trimmed := strings.TrimRight(cfg.URL, "/")
	s.root = strings.TrimSuffix(trimmed, "/v1")
	s.v1 = s.root + "/v1"
	if s.quirk.bare {
		s.v1 = trimmed
	}
	s.readers = &sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readerSize) }}
	return s
}

// newTransport returns a transport for one server: many requests at a time to one
// host, each open for as long as its answer takes.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
		ReadBufferSize:      readerSize,
	}
}

// open sends a request and returns the answer if its status is 2xx. body may be
// nil. The caller closes the answer's body.
func (s *server) open(ctx context.Context, method, target string, body []byte) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, content)
	if err != nil {
		return nil, schemas.Errorf(schemas.Internal, "%s: %s", s.name, err)
	}
	req.Header.Set("Accept", "application/json, text/event-stream, application/x-ndjson")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	s.authorize(req)
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, s.transportError(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxFailure)) // what came of it is enough
	return nil, s.failure(resp.StatusCode, resp.Header, text)
}

func (s *server) authorize(req *http.Request) {
	key := s.key()
	switch {
	case key == "":
	case s.quirk.header != "":
		req.Header.Set(s.quirk.header, key)
	default:
		req.Header.Set("Authorization", "Bearer "+key)
	}
}

// failure turns what a server said into an error that names the server and not
// the key.
func (s *server) failure(status int, header http.Header, body []byte) *schemas.Error {
	e := classify(status, header, body, time.Now())
	if key := s.key(); key != "" {
		e.Message = strings.ReplaceAll(e.Message, key, "[key]")
	}
	e.Message = s.name + ": " + e.Message
	return e
}

// transportError turns an error of the connection into ctx's cause or an *Error.
func (s *server) transportError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // without the URL, which may hold secrets
	}
	if noConnection(err) {
		return schemas.Errorf(schemas.Unreachable, "%s: no connection: %s", s.name, err)
	}
	return schemas.Errorf(schemas.StreamBroken, "%s: the connection broke: %s", s.name, err)
}

// noConnection reports whether err means that no connection came about.
func noConnection(err error) bool {
	var op *net.OpError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var cert *tls.CertificateVerificationError
	var host x509.HostnameError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect") ||
		errors.As(err, &record) || errors.As(err, &alert) || errors.As(err, &cert) || errors.As(err, &host)
}

// call sends a request and decodes the answer into out, unless that is nil. An
// answer that is not JSON is an error.
func (s *server) call(ctx context.Context, method, target string, body []byte, out any) error {
	raw, err := s.fetch(ctx, method, target, body)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return schemas.Errorf(schemas.UpstreamError, "%s: %s answered what cannot be read: %s", s.name, target, err)
	}
	return nil
}

// fetch sends a request and returns the whole answer.
func (s *server) fetch(ctx context.Context, method, target string, body []byte) ([]byte, error) {
	resp, err := s.open(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, s.transportError(ctx, err)
	}
	return raw, nil
}
