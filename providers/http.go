package providers

import (
	"bufio"
	"bytes"
	"cmp"
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
	backend
	root   string // the server's URL without a "/v1" and without a slash at its end
	v1     string // where OpenAI's API is
	models string // where its list of models is
	query  string // behind every path; "" or "?" and the rest

	deployments string // where models are parts of paths; "": they are not
	quirk       quirk
	sign        func(r *http.Request, body []byte) error // nil: nothing signs
	client      *http.Client
	readers     *sync.Pool // of *bufio.Reader
}

func newServer(cfg Config) server {
	s := server{quirk: quirks[cfg.Kind], sign: cfg.Sign}
	s.backend = newBackend(cmp.Or(cfg.Name, cfg.Kind), cfg.Keys, s.quirk.hosted)
	s.keys.single = s.quirk.single
	client := http.Client{Transport: newTransport(cfg.Connect)}
	if cfg.HTTP != nil {
		client = *cfg.HTTP
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // it would take the key along
	s.client = &client
	address, query, found := strings.Cut(cmp.Or(cfg.URL, s.quirk.url), "?")
	if found {
		s.query = "?" + query
	}
	address = strings.TrimRight(address, "/")
	s.root = strings.TrimSuffix(address, "/v1")
	s.v1 = s.root + "/v1"
	if s.quirk.bare {
		s.v1 = address
	}
	s.models = s.v1 + cmp.Or(s.quirk.list, "/models") + s.query
	above := strings.TrimSuffix(s.root, "/openai")
	switch {
	case s.quirk.deployments && strings.Contains(s.query, "api-version=2"): // a date, and not "preview"
		s.deployments, s.models = above+"/openai/deployments/", above+"/openai/models"+s.query
	case s.quirk.listAbove:
		s.models = above + "/v1/models"
	}
	s.readers = &sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readerSize) }}
	return s
}

// at returns where a request for the model goes: path is behind the "/v1" of
// OpenAI's API.
func (s *server) at(model, path string) string {
	if s.deployments != "" {
		return s.deployments + url.PathEscape(model) + path + s.query
	}
	return s.v1 + path + cmp.Or(s.query, s.quirk.query)
}

// newTransport returns a transport for one server: many requests at a time to one
// host, each open for as long as its answer takes.
//
// connect bounds how long a connection may take to come about; 0: 2 seconds.
func newTransport(connect time.Duration) *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: cmp.Or(connect, dialTimeout), KeepAlive: 15 * time.Second}).DialContext,
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
		ReadBufferSize:      readerSize,
	}
}

// open asks the server something that is no job. body may be nil. It returns the
// answer if its status is 2xx; the caller closes its body.
func (s *server) open(ctx context.Context, method, target string, body []byte) (*http.Response, error) {
	var tried []*key
	var last error
	for {
		u := s.keys.borrow(tried)
		if u == nil {
			return nil, last
		}
		resp, err := s.send(ctx, method, target, body, u.secret)
		if err == nil || !anotherKey(err) {
			return resp, err
		}
		tried, last = append(tried, u.key), err
	}
}

// ask sends a request of a job. Where the server turns a key down, it tries the
// next: nothing of the answer has come then. The caller closes the answer's body,
// and tells the use how it went.
func (s *server) ask(ctx context.Context, model, target string, body []byte) (*http.Response, *use, error) {
	var tried []*key
	var last *schemas.Error
	for {
		u, why := s.keys.take(model, tried)
		switch {
		case u != nil:
		case last == nil:
			return nil, nil, why
		default:
			e := *last
			if why != nil { // when it is worth to ask again
				e.RetryAfter = why.RetryAfter
			}
			return nil, nil, &e
		}
		resp, err := s.send(ctx, http.MethodPost, target, body, u.secret)
		if err == nil {
			u.usedUp(usedUp(resp.Header, time.Now()))
			return resp, u, nil
		}
		u.done(outcome(ctx, err))
		if !anotherKey(err) {
			return nil, nil, err
		}
		tried, last = append(tried, u.key), schemas.AsError(err)
	}
}

// send makes one request with one key, and returns the answer if its status is
// 2xx.
func (s *server) send(ctx context.Context, method, target string, body []byte, secret string) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, content)
	if err != nil {
		return nil, schemas.Errorf(schemas.Internal, "%s: %s", s.name, err)
	}
	for k, v := range s.quirk.headers {
		req.Header[k] = []string{v}
	}
	if trace := schemas.Traceparent(ctx); trace != "" {
		req.Header.Set(schemas.HeaderTrace, trace)
	}
	req.Header.Set("Accept", "application/json, text/event-stream, application/x-ndjson, application/vnd.amazon.eventstream")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	switch {
	case secret == "" && s.sign != nil:
		if err := s.sign(req, body); err != nil {
			return nil, schemas.Errorf(schemas.Unreachable, "%s: the request cannot be signed: %s", s.name, err) // it was not sent: no key was turned down
		}
	case secret == "":
	case s.quirk.header != "":
		req.Header.Set(s.quirk.header, secret)
	default:
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, s.transportError(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxFailure)) // what came of it is enough
	if secret == "" {
		text = unsigned(text, req.Header)
	}
	if to := resp.Header.Get("Location"); resp.StatusCode/100 == 3 && to != "" {
		return nil, schemas.Errorf(schemas.UpstreamError, "%s: it answers from another address: set the url to that of %s", s.name, s.keys.redact(to))
	}
	return nil, s.failure(resp.StatusCode, resp.Header, text)
}

// unsigned takes what a request was signed with out of what came back: AWS tells
// what it saw where a signature is wrong.
func unsigned(text []byte, sent http.Header) []byte {
	for _, name := range []string{"X-Amz-Security-Token", "Authorization"} {
		if token := strings.TrimPrefix(sent.Get(name), "Bearer "); token != "" {
			text = bytes.ReplaceAll(text, []byte(token), []byte("[key]"))
		}
	}
	return text
}

// transportError turns an error of the connection into ctx's cause or an *Error.
func (s *server) transportError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // without the URL, which may hold secrets
	}
	text := s.keys.redact(err.Error()) // it may hold what the server said
	if noConnection(err) {
		return schemas.Errorf(schemas.Unreachable, "%s: no connection: %s", s.name, text)
	}
	return schemas.Errorf(schemas.StreamBroken, "%s: the connection broke: %s", s.name, text)
}

// noConnection reports whether err means that no connection came about.
func noConnection(err error) bool {
	var op *net.OpError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var cert *tls.CertificateVerificationError
	var host x509.HostnameError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect") || errors.Is(err, http.ErrSchemeMismatch) ||
		errors.As(err, &record) || errors.As(err, &alert) || errors.As(err, &cert) || errors.As(err, &host)
}

// call sends a request and decodes the answer into out, unless that is nil. An
// answer that is not JSON is an error, and so is one that says that it is: LM
// Studio says so with the status 200.
func (s *server) call(ctx context.Context, method, target string, body []byte, out any) error {
	raw, err := s.fetch(ctx, method, target, body)
	if err != nil || out == nil {
		return err
	}
	if complains(raw) {
		return s.failure(http.StatusOK, nil, raw)
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return schemas.Errorf(schemas.UpstreamError, "%s: %s answered what cannot be read: %s", s.name, pathOf(target), err)
	}
	return nil
}

// pathOf is what of a URL goes into messages: the rest of it may hold secrets.
func pathOf(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return "it"
	}
	return u.Path
}

// shownURL is a URL as it goes into messages, without what may be secret.
func shownURL(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "***"
	}
	u.User, u.RawQuery = nil, ""
	return u.String()
}

// complains reports whether an answer is a JSON object that says an error.
func complains(raw []byte) bool {
	var said struct {
		Error json.RawMessage `json:"error"`
	}
	return json.Unmarshal(raw, &said) == nil && len(said.Error) > 0 && !isNull(said.Error)
}

// absent reports whether a server is there and only lacks what it was asked for, or
// does not tell it to us.
func absent(err error) bool {
	var e *schemas.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case schemas.ModelNotFound, schemas.Unsupported, schemas.InvalidRequest, schemas.Auth, schemas.Permission:
		return true
	default: // it may be there the next time
		return false
	}
}

// fetch sends a request and returns the whole answer.
func (s *server) fetch(ctx context.Context, method, target string, body []byte) ([]byte, error) {
	resp, err := s.open(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	return s.readAll(ctx, resp)
}

// readAll reads an answer and closes it.
func (s *server) readAll(ctx context.Context, resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, s.transportError(ctx, err)
	}
	return raw, nil
}
