package rpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// serveUpper is a backend that says your words again, in upper case.
func serveUpper(nc *nats.Conn) (micro.Service, error) {
	s, err := micro.AddService(nc, micro.Config{Name: "upper", Version: "1.0.0", Description: "a backend for vramjet"})
	if err != nil {
		return nil, err
	}
	var running sync.Map // by reply subject: the context.CancelFunc of the request
	models := func(req micro.Request) {
		req.RespondJSON(schemas.RPCModelList{Models: []schemas.RPCModel{{Name: "upper", Kinds: []schemas.Kind{schemas.Chat}, Slots: 8}}})
	}
	generate := func(req micro.Request) {
		var chat struct{ Messages []struct{ Content string } }
		if err := json.Unmarshal(req.Data(), &chat); err != nil || len(chat.Messages) == 0 {
			req.RespondJSON(schemas.RPCError{Error: schemas.RPCFailure{Message: "upper takes nothing but text", Code: "unsupported"}})
			return
		}
		ctx, stop := context.WithCancel(context.Background())
		running.Store(req.Reply(), stop)
		go func() { // an endpoint takes one request after the other: answer beside it
			defer running.Delete(req.Reply())
			defer stop()
			seq := 0
			say := func(body string) {
				answer := &nats.Msg{Subject: req.Reply(), Data: []byte(body), Header: nats.Header{"Vj-Seq": {fmt.Sprint(seq)}}}
				if seq++; ctx.Err() == nil { // else nobody wants the rest
					nc.PublishMsg(answer)
				}
			}
			const chunk = `{"object":"chat.completion.chunk","model":"upper","choices":[{"index":0,"delta":{"content":%s},"finish_reason":%s}]}`
			for word := range strings.FieldsSeq(chat.Messages[len(chat.Messages)-1].Content) {
				text, _ := json.Marshal(strings.ToUpper(word) + " ")
				say(fmt.Sprintf(chunk, text, "null"))
			}
			say(fmt.Sprintf(chunk, `""`, `"stop"`))
			say("[DONE]")
		}()
	}
	cancel := func(req micro.Request) {
		if stop, ok := running.Load(string(req.Data())); ok {
			stop.(context.CancelFunc)()
		}
	}
	return s, errors.Join(
		s.AddEndpoint("models", micro.HandlerFunc(models), micro.WithEndpointSubject("vj.v1.rpc.upper.models")),
		s.AddEndpoint("generate", micro.HandlerFunc(generate), micro.WithEndpointSubject("vj.v1.rpc.upper.generate")),
		s.AddEndpoint("cancel", micro.HandlerFunc(cancel), micro.WithEndpointSubject("vj.v1.rpc.upper.cancel"), micro.WithEndpointQueueGroupDisabled()),
	)
}

// TestExample: the example of docs/protocol.md works, and is this one.
func TestExample(t *testing.T) {
	srv := brokertest.Start(t)
	nc := brokertest.Connect(t, srv)
	s, err := serveUpper(nc)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if err := nc.Flush(); err != nil { // the provider comes by another connection
		t.Fatal(err)
	}
	p := provider(t, srv, "upper")
	if models, err := p.Models(t.Context()); err != nil || len(models) != 1 || models[0].Name != "upper" {
		t.Errorf("models: %v, %v", models, err)
	}
	text, a, err := generate(t, p, providers.Limits{})
	if err != nil || text != "HI " || !strings.Contains(string(a.Body), `"content":"HI "`) {
		t.Errorf("got %q, %s, %v", text, a.Body, err)
	}
	code, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	if example := regexp.MustCompile(`(?ms)^// serveUpper.*?^}\n`).Find(code); !strings.Contains(string(page), string(example)) {
		t.Errorf("docs/protocol.md has another example than\n%s", example)
	}
}
