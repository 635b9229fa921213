package rpc_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/rpc"
	"github.com/vramjet/vramjet/schemas"
)

// TestWhatAServiceCannotDo: a service that only lists and generates is whole.
func TestWhatAServiceCannotDo(t *testing.T) {
	p, ok := answerer(t, func(nc *nats.Conn, m *nats.Msg) { say(nc, m, 0, dialect.Chunk("a"), finish, done) }).(interface {
		providers.Provider
		providers.Embedder
		providers.Loader
		providers.PressureReporter
	})
	if !ok {
		t.Fatal("it cannot even ask")
	}
	ctx := t.Context()
	wantCode(t, p.Load(ctx, "m"), schemas.Unsupported, "nobody serves vj.v1.rpc.test.load")
	wantCode(t, p.Unload(ctx, "m"), schemas.Unsupported, "nobody serves vj.v1.rpc.test.unload")
	_, err := p.Pressure(ctx, "m")
	wantCode(t, err, schemas.Unsupported, "nobody serves vj.v1.rpc.test.pressure")
	_, err = p.Embed(ctx, providers.Request{Kind: schemas.Embedding, Model: "m", Body: []byte(`{"input":"a"}`)})
	wantCode(t, err, schemas.Unsupported, "nobody serves vj.v1.rpc.test.embed")
	_, err = p.Models(ctx)
	wantCode(t, err, schemas.Unreachable, "nobody serves vj.v1.rpc.test.models")
	_, err = p.Generate(ctx, providers.Request{Kind: schemas.Embedding, Model: "m", Body: []byte(`{}`)}, nil)
	wantCode(t, err, schemas.InvalidRequest, "generates nothing")
	if text, _, err := generate(t, p, providers.Limits{}); err != nil || text != "a" {
		t.Errorf("what it can do: %q, %v", text, err)
	}
}

// TestWordsOfAService: what a service says of itself is taken as it is, or not at all.
func TestWordsOfAService(t *testing.T) {
	srv := brokertest.Start(t)
	nc := brokertest.Connect(t, srv)
	for name, c := range map[string]struct {
		verb, says string
		code       schemas.Code
		words      string
	}{
		"a list without models":    {schemas.RPCModels, `{}`, schemas.UpstreamError, "none of the protocol"},
		"no JSON":                  {schemas.RPCModels, `hello`, schemas.UpstreamError, "hello"},
		"nothing":                  {schemas.RPCModels, ``, schemas.UpstreamError, "none of the protocol"},
		"a model without a name":   {schemas.RPCModels, `{"models":[{"kinds":["chat"]}]}`, schemas.UpstreamError, "has no name"},
		"a kind of its own":        {schemas.RPCModels, `{"models":[{"name":"a","kinds":["paint"]}]}`, schemas.UpstreamError, `"paint"`},
		"a state of its own":       {schemas.RPCModels, `{"models":[{"name":"a","state":"asleep"}]}`, schemas.UpstreamError, `"asleep"`},
		"a load that failed":       {schemas.RPCLoad, `{"error":{"message":"no room","code":"out_of_memory"}}`, schemas.OutOfMemory, "no room"},
		"a load that is done":      {schemas.RPCLoad, ``, "", ""},
		"pressure that is no JSON": {schemas.RPCPressure, `"high"`, schemas.UpstreamError, "none of the protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			service := strings.ReplaceAll(name, " ", "-")
			if _, err := nc.Subscribe(schemas.RPCSubject(service, c.verb), func(m *nats.Msg) { _ = m.Respond([]byte(c.says)) }); err != nil {
				t.Fatal(err)
			}
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			p := provider(t, srv, service)
			var err error
			switch c.verb {
			case schemas.RPCModels:
				_, err = p.Models(t.Context())
			case schemas.RPCLoad:
				err = p.Load(t.Context(), "m")
			default:
				_, err = p.Pressure(t.Context(), "m")
			}
			if c.code == "" && err != nil {
				t.Error(err)
			}
			if c.code != "" {
				wantCode(t, err, c.code, c.words)
			}
		})
	}
}

// TestPressureThatIsPartlyKnown: unknown is unknown, and not nothing.
func TestPressureThatIsPartlyKnown(t *testing.T) {
	srv := brokertest.Start(t)
	for says, want := range map[string]providers.Pressure{
		`{}`:                          {Running: -1, Waiting: -1, KVUsed: -1},
		`{"running":2}`:               {Running: 2, Waiting: -1, KVUsed: -1},
		`{"waiting":0,"kv_used":0.0}`: {Running: -1, Waiting: 0, KVUsed: 0},
	} {
		p, ok := serve(t, srv, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, says) })).(providers.PressureReporter)
		if !ok {
			t.Fatal("it reports none")
		}
		got, err := p.Pressure(t.Context(), "m")
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", says, err, diff)
		}
	}
}

// TestErrorsOfMicro: the errors of NATS's own services are taken, by a code of ours
// too.
func TestErrorsOfMicro(t *testing.T) {
	for code, want := range map[string]schemas.Code{
		"429": schemas.RateLimited, "503": schemas.Overloaded, "400": schemas.InvalidRequest,
		"out_of_memory": schemas.OutOfMemory, "of its own": schemas.UpstreamError,
	} {
		p := answerer(t, func(_ *nats.Conn, m *nats.Msg) {
			_ = m.RespondMsg(&nats.Msg{Header: nats.Header{micro.ErrorHeader: {"not now"}, micro.ErrorCodeHeader: {code}}})
		})
		_, _, err := generate(t, p, providers.Limits{})
		wantCode(t, err, want, "not now")
	}
}

// TestNames: a name that would be another subject is refused.
func TestNames(t *testing.T) {
	for _, name := range []string{"", "a.b", "*", ">", "a b", strings.Repeat("a", 65)} {
		if _, err := rpc.New(nil, rpc.Config{Name: name}); err == nil {
			t.Errorf("the name %q is taken", name)
		}
	}
	if _, err := providers.New(providers.Config{Name: "a", Kind: providers.KindRPC}); err == nil || !strings.Contains(err.Error(), "made by providers/rpc") {
		t.Errorf("providers.New: %v", err)
	}
}

// TestTooLargeForNATS: no message can hold the request.
func TestTooLargeForNATS(t *testing.T) {
	p := answerer(t, func(*nats.Conn, *nats.Msg) {})
	req := providers.Request{Kind: schemas.Chat, Model: "m", Body: []byte(`{"messages":"` + strings.Repeat("a", 9<<20) + `"}`)}
	_, err := p.Generate(t.Context(), req, nil)
	wantCode(t, err, schemas.Unsupported, "larger than a message")
}
