package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/vramjet/vramjet/schemas"
)

// noResponders is the status with which the server says that nobody listens.
const noResponders = "503"

// A call is one request to the service, and the messages that answer it. But for the
// subscription's handler it belongs to the goroutine that made it.
type call struct {
	p        *Provider
	verb     string
	kind     schemas.Kind // "": none is told
	sub      *nats.Subscription
	messages chan *nats.Msg
	over     chan struct{} // closed when nobody reads messages any more

	got        int    // messages
	reconnects uint64 // of the connection, when the call began
	alone      bool   // nobody listens: there is nobody to be told to stop
}

func (p *Provider) newCall(verb string, kind schemas.Kind) *call {
	return &call{p: p, verb: verb, kind: kind, messages: make(chan *nats.Msg), over: make(chan struct{})}
}

// ask sends the request. It is a providers.Ask.
func (c *call) ask(ctx context.Context, body []byte) (next func() ([]byte, error), err error) {
	nc := c.p.nc
	c.reconnects = nc.Stats().Reconnects
	// The backlog of a slow reader is the subscription's, which has room for 64 MiB.
	c.sub, err = nc.Subscribe(nc.NewInbox(), func(m *nats.Msg) {
		select {
		case c.messages <- m:
		case <-c.over:
		}
	})
	if err != nil {
		return nil, c.p.disconnected(err)
	}
	msg := &nats.Msg{Subject: schemas.RPCSubject(c.p.name, c.verb), Reply: c.sub.Subject, Data: body}
	if c.kind != "" {
		msg.Header = nats.Header{schemas.HeaderKind: {string(c.kind)}}
	}
	if err := nc.PublishMsg(msg); err != nil {
		c.alone = true
		return nil, c.p.disconnected(err)
	}
	return func() ([]byte, error) { return c.next(ctx) }, nil
}

// disconnected says why a request could not be sent.
func (p *Provider) disconnected(err error) error {
	if errors.Is(err, nats.ErrMaxPayload) {
		return schemas.Errorf(schemas.Unsupported, "%s: the request is larger than a message of NATS may be", p.name)
	}
	return schemas.Errorf(schemas.Unreachable, "%s: no connection to NATS: %s", p.name, err)
}

// next waits for the next message of the answer.
func (c *call) next(ctx context.Context) ([]byte, error) {
	select {
	case m := <-c.messages:
		return c.read(m)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// read takes a message. NATS keeps their order and may lose some, where a connection
// breaks or a reader is too slow: an answer with a gap is broken.
func (c *call) read(m *nats.Msg) ([]byte, error) {
	if len(m.Data) == 0 && m.Header.Get("Status") == noResponders {
		c.alone = true
		return nil, c.nobody()
	}
	number := strconv.Itoa(c.got)
	c.got++
	dropped, _ := c.sub.Dropped() // of a subscription that is valid: no error
	switch seq := m.Header.Get(schemas.HeaderSeq); {
	case dropped > 0:
		return nil, c.lost("they came faster than they were read")
	case seq != "" && seq != number:
		return nil, c.lost("number " + seq + " came where " + number + " was due")
	case seq == "" && c.verb == schemas.RPCGenerate && c.p.nc.Stats().Reconnects != c.reconnects:
		return nil, c.lost("the connection to NATS broke, and they have no numbers (" + schemas.HeaderSeq + ") by which to know")
	}
	if code := m.Header.Get(micro.ErrorCodeHeader); code != "" {
		return nil, c.p.complaint(code, m)
	}
	return m.Data, nil
}

func (c *call) lost(why string) error {
	return schemas.Errorf(schemas.StreamBroken, "%s: messages of the answer may be lost: %s", c.p.name, why)
}

// nobody says that nobody listens. A service need not be able to do everything.
func (c *call) nobody() error {
	subject := schemas.RPCSubject(c.p.name, c.verb)
	if c.verb == schemas.RPCModels || c.verb == schemas.RPCGenerate {
		return schemas.Errorf(schemas.Unreachable, "%s: nobody serves %s", c.p.name, subject)
	}
	return schemas.Errorf(schemas.Unsupported, "%s: nobody serves %s: the service cannot do this, or is gone", c.p.name, subject)
}

// complaint reads an error in the form of NATS's services: a code and a description
// in headers, where the body need not say more.
func (p *Provider) complaint(code string, m *nats.Msg) error {
	status, err := strconv.Atoi(code)
	if err != nil {
		status = http.StatusOK
	}
	body := m.Data
	if len(body) == 0 {
		text := code + ": " + m.Header.Get(micro.ErrorHeader)
		if body, err = json.Marshal(schemas.RPCError{Error: schemas.RPCFailure{Message: text, Code: code}}); err != nil {
			return schemas.Errorf(schemas.Internal, "%s: %s", p.name, err)
		}
	}
	return p.relay.Failure(status, body)
}

// end frees what the call holds. Where it did not end well, all instances of the
// service are told that nobody waits for the answer.
func (c *call) end(err error) {
	if c.sub == nil {
		return
	}
	close(c.over)
	_ = c.sub.Unsubscribe() // fails where the connection is closed: nothing to undo
	if err == nil || c.alone {
		return
	}
	_ = c.p.nc.Publish(schemas.RPCSubject(c.p.name, schemas.RPCCancel), []byte(c.sub.Subject)) // who cannot be told is not there
}
