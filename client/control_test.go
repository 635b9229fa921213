package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// answerControl is the node n1, which answers each request. "" is no answer.
func answerControl(t *testing.T, srv *server.Server, answer func(schemas.ControlRequest) string) {
	t.Helper()
	nc := connect(t, srv)
	_, err := nc.Subscribe(schemas.NodeSubject("n1", "control"), func(m *nats.Msg) {
		var req schemas.ControlRequest
		if err := json.Unmarshal(m.Data, &req); err != nil {
			t.Error(err)
		}
		if a := answer(req); a != "" {
			_ = m.Respond([]byte(a))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestControl(t *testing.T) {
	srv := start(t)
	c := newClient(t, connect(t, srv), client.Options{})
	asked := make(chan schemas.ControlRequest, 10)
	answerControl(t, srv, func(req schemas.ControlRequest) string {
		asked <- req
		return map[string]string{
			"load":   `{"node":"n1","boot":"b","seq":7,"new_member":1}`,
			"unload": `{"error":{"message":"m on b is in use","type":"overloaded_error","code":"overloaded"}}`,
			"pin":    `no JSON`,
			"drain":  `[]`,
		}[req.Do]
	})
	load := schemas.ControlRequest{Do: "load", Backend: "b", Model: "m"}
	state, err := c.Control(deadline(t), "n1", load)
	if err != nil || state.Node != "n1" || state.Seq != 7 {
		t.Errorf("load: got %+v, %v", state, err)
	}
	if diff := cmp.Diff(load, <-asked); diff != "" {
		t.Errorf("the request (-want +got):\n%s", diff)
	}
	_, err = c.Control(deadline(t), "n1", schemas.ControlRequest{Do: "unload"})
	var refused *schemas.Error
	if !errors.As(err, &refused) || refused.Code != schemas.Overloaded {
		t.Errorf("a refusal is %v", err)
	}
	for _, do := range []string{"pin", "drain"} {
		if _, err := c.Control(deadline(t), "n1", schemas.ControlRequest{Do: do}); err == nil {
			t.Errorf("%s: an answer that cannot be read is no error", do)
		}
	}
}

func TestControlWithoutAnAnswer(t *testing.T) {
	srv := start(t)
	c := newClient(t, connect(t, srv), client.Options{})
	if _, err := c.Control(deadline(t), "n1", schemas.ControlRequest{Do: "state"}); !errors.Is(err, client.ErrNoNode) {
		t.Errorf("nobody listens: the error is %v", err)
	}
	if _, err := c.Control(deadline(t), "n.1", schemas.ControlRequest{Do: "state"}); err == nil || errors.Is(err, client.ErrNoNode) {
		t.Errorf("a name that none can be: the error is %v", err)
	}
	ctx, cancel := context.WithCancel(deadline(t))
	answerControl(t, srv, func(schemas.ControlRequest) string { cancel(); return "" })
	if _, err := c.Control(ctx, "n1", schemas.ControlRequest{Do: "load"}); !errors.Is(err, context.Canceled) {
		t.Errorf("ctx ended: the error is %v", err)
	}
}
