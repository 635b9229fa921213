package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/broker/embedded"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/rpc"
	"github.com/vramjet/vramjet/schemas"
)

// services counts the services of all tests, which have a name each.
var services atomic.Int64

// serve runs handlers as the instances of a service, until the test ends, and returns
// a provider for it.
func serve(t *testing.T, srv *embedded.Server, handlers ...http.Handler) providers.Provider {
	t.Helper()
	name := fmt.Sprint("test-", services.Add(1))
	for _, h := range handlers {
		newBridge(t, brokertest.Connect(t, srv), name, h)
	}
	return provider(t, srv, name)
}

func provider(t *testing.T, srv *embedded.Server, name string) *rpc.Provider {
	t.Helper()
	return providerOn(t, brokertest.Connect(t, srv), name)
}

func providerOn(t *testing.T, nc *nats.Conn, name string) *rpc.Provider {
	t.Helper()
	p, err := rpc.New(nc, rpc.Config{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A bridge is an instance of a service whose answers an http.Handler writes: each
// line is a message, a status that says so is an error.
type bridge struct {
	testing.TB
	nc      *nats.Conn
	handler http.Handler
	running sync.WaitGroup
	ctx     context.Context //nolint:containedctx // of the bridge's life, which is the test's

	mu       sync.Mutex // guards requests
	requests map[string]context.CancelFunc
}

// newBridge starts an instance of a service that has all endpoints.
func newBridge(t *testing.T, nc *nats.Conn, name string, h http.Handler) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	b := &bridge{TB: t, nc: nc, handler: h, ctx: ctx, requests: map[string]context.CancelFunc{}}
	s, err := micro.AddService(nc, micro.Config{Name: name, Version: "1.0.0", Description: "a bridge to a handler of HTTP"})
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{schemas.RPCModels, schemas.RPCGenerate, schemas.RPCEmbed, schemas.RPCLoad, schemas.RPCUnload, schemas.RPCPressure} {
		if err := s.AddEndpoint(verb, micro.HandlerFunc(b.request), micro.WithEndpointSubject(schemas.RPCSubject(name, verb))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := nc.Subscribe(schemas.RPCSubject(name, schemas.RPCCancel), b.cancel); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = s.Stop()
		b.running.Wait()
	})
}

// request has the handler answer a request, beside others.
func (b *bridge) request(req micro.Request) {
	_, verb, ok := schemas.ParseRPCSubject(req.Subject())
	if !ok {
		b.Errorf("a request on %s", req.Subject())
	}
	ctx, cancel := context.WithCancel(b.ctx)
	b.mu.Lock()
	b.requests[req.Reply()] = cancel
	b.mu.Unlock()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/"+verb, bytes.NewReader(req.Data()))
	r.Header.Set(schemas.HeaderKind, req.Headers().Get(schemas.HeaderKind))
	w := &messages{bridge: b, reply: req.Reply(), header: http.Header{}}
	b.running.Go(func() {
		defer cancel()
		defer func() {
			if err := recover(); err != nil && err != http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
				panic(err)
			}
		}()
		b.handler.ServeHTTP(w, r)
		w.end()
	})
}

func (b *bridge) cancel(m *nats.Msg) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if cancel, ok := b.requests[string(m.Data)]; ok {
		cancel()
	}
}

// messages turns what a handler writes into messages.
type messages struct {
	*bridge
	reply  string
	header http.Header
	status int
	text   []byte // what is not sent yet: a line that is not whole, or an error
}

// Header implements http.ResponseWriter.
func (w *messages) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *messages) WriteHeader(status int) { w.status = status }

// Flush implements http.Flusher.
func (*messages) Flush() {}

// Write implements http.ResponseWriter.
func (w *messages) Write(p []byte) (int, error) {
	w.text = append(w.text, p...)
	for w.status/100 <= 2 {
		line, rest, ok := bytes.Cut(w.text, []byte("\n"))
		if !ok {
			break
		}
		w.send(bytes.Clone(line), nil)
		w.text = rest
	}
	return len(p), nil
}

func (w *messages) send(data []byte, header nats.Header) {
	if err := w.nc.PublishMsg(&nats.Msg{Subject: w.reply, Data: data, Header: header}); err != nil && w.ctx.Err() == nil {
		w.Error(err)
	}
}

// end sends what is left: an error in the form of NATS's services, where the status
// says that it is one.
func (w *messages) end() {
	if w.status/100 <= 2 {
		if len(w.text) > 0 {
			w.send(w.text, nil)
		}
		return
	}
	header := nats.Header{micro.ErrorHeader: {http.StatusText(w.status)}, micro.ErrorCodeHeader: {strconv.Itoa(w.status)}}
	if seconds, err := strconv.Atoi(w.header.Get("Retry-After")); err == nil {
		body, err := json.Marshal(schemas.RPCError{Error: schemas.RPCFailure{Message: string(w.text), RetryAfterMS: int64(seconds) * 1000}})
		if err != nil {
			w.Error(err)
		}
		w.text = body
	}
	w.send(w.text, header)
}
