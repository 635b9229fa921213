package integration

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/client/batch"
	"github.com/vramjet/vramjet/schemas"
)

// answers is a backend of one model, upper, that says HI.
func answers(tb testing.TB, nc *nats.Conn) {
	tb.Helper()
	for verb, answer := range map[string][]string{
		"models": {`{"models":[{"name":"upper","kinds":["chat"],"slots":8}]}`},
		"generate": {
			`{"object":"chat.completion.chunk","model":"upper","choices":[{"index":0,"delta":{"content":"HI"},"finish_reason":null}]}`,
			`{"object":"chat.completion.chunk","model":"upper","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`, "[DONE]",
		},
	} {
		_, err := nc.Subscribe(schemas.RPCSubject("upper", verb), func(m *nats.Msg) {
			for seq, body := range answer {
				a := &nats.Msg{Subject: m.Reply, Data: []byte(body), Header: nats.Header{schemas.HeaderSeq: {string(rune('0' + seq))}}}
				_ = nc.PublishMsg(a) // the job says if it did not come
			}
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		tb.Fatal(err)
	}
}

// TestServiceAndInboxWork: a service answers the jobs of tenants, also on an inbox, each by
// a user of its own.
func TestServiceAndInboxWork(t *testing.T) {
	t.Parallel()
	g := guard(t, "", "node n1", "tenant acme", "tenant beta", "service upper")
	d := start(t, "dispatcher", "vramjet", "dispatcher", "--context", g.as("dispatcher main"), "--http", "off")
	d.says("leading")
	answers(t, g.connect("service upper", "x").nc)
	config := filepath.Join(t.TempDir(), "vramjet.yaml")
	if err := os.WriteFile(config, []byte("backends: [{name: upper, kind: rpc}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := start(t, "worker", "vramjet", "worker", "--context", g.as("node n1"), "--node", "n1", "--config", config, "--http", "off")
	g.connect("operator admin", "acme").serves("upper", 1)
	for _, tenant := range []string{"acme", "beta"} {
		u := g.connect("tenant "+tenant, tenant)
		for _, inbox := range []bool{false, true} {
			job := client.Chat("upper", "hi")
			job.Inbox = inbox
			stream, err := u.Run(t.Context(), job)
			if err != nil {
				t.Fatal(err)
			}
			r, err := stream.Result(t.Context())
			if err != nil || r.Text() != "HI" {
				t.Errorf("%s, inbox %t: %+v, %v", tenant, inbox, r, err)
			}
			stream.Close()
		}
	}
	// An inbox that is another's is refused; the end says so where the tenant's answers are.
	acme := g.connect("tenant acme", "acme")
	for id, reply := range map[string]string{"betas": "_INBOX_beta.x", "nodes": "_INBOX.vj.node.n1.x", "keys": "$KV.VJ_STATE.leader"} {
		m := &nats.Msg{Subject: "vj.v1.jobs.acme.normal.upper", Data: []byte("hi"), Header: nats.Header{schemas.HeaderMsgID: {id}, schemas.HeaderReply: {reply}}}
		if _, err := acme.nc.RequestMsg(m, patience); err != nil {
			t.Fatal(err)
		}
		if _, err := acme.Result(t.Context(), id); schemas.AsError(err).Code != schemas.Refused {
			t.Errorf("answered on %s: %v", reply, err)
		}
	}
	permittedAll(t, d, w)
}

// TestOperatorWorks: an operator lists what all tenants have, controls nodes, and retries
// and removes dead letters.
func TestOperatorWorks(t *testing.T) {
	t.Parallel()
	g := guard(t, "", "node n1", "tenant acme")
	d := start(t, "dispatcher", "vramjet", "dispatcher", "--context", g.as("dispatcher main"), "--http", "off")
	d.says("leading")
	w := start(t, "worker", "vramjet", "worker", "--sim", "--context", g.as("node n1"), "--node", "n1", "--http", "off")
	root, u := g.connect("dispatcher main", "acme"), g.connect("operator admin", "acme")
	u.serves("sim-fast", 1)
	for i := range 2 { // as a dispatcher would
		m := &nats.Msg{Subject: "vj.v1.dead.acme.normal.sim-fast", Data: []byte("hi"), Header: nats.Header{
			schemas.HeaderJob: {"died"}, schemas.HeaderDeadCode: {string(schemas.UpstreamError)}, schemas.HeaderDeadMessage: {"it failed"},
		}}
		if _, err := root.nc.RequestMsg(m, patience); err != nil {
			t.Fatal(i, err)
		}
	}
	var letters []client.Letter
	for l, err := range u.Letters(t.Context(), client.LetterFilter{Bodies: true}) {
		if err != nil {
			t.Fatal(err)
		}
		letters = append(letters, l)
	}
	if len(letters) != 2 || string(letters[0].Body) != "hi" {
		t.Fatalf("the letters are %+v", letters)
	}
	ticket, err := u.RetryLetter(t.Context(), letters[0].Seq)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.RemoveLetter(t.Context(), letters[1].Seq); err != nil {
		t.Error(err)
	}
	if r, err := u.Result(t.Context(), ticket.ID); err != nil || r.Text() == "" {
		t.Errorf("what was retried ended %+v, %v", r, err)
	}
	within(t, patience, "it is listed", func() bool {
		jobs, err := u.Jobs(t.Context(), client.JobFilter{})
		return err == nil && len(jobs) == 1 && jobs[0].State == schemas.JobState(schemas.StatusOK)
	})
	if _, err := batch.List(t.Context(), u.nc, "acme"); err != nil {
		t.Error(err)
	}
	if _, err := u.PauseFlows(t.Context(), schemas.Filter{Class: schemas.Batch}, "admin"); err != nil {
		t.Error(err)
	}
	if code := u.control("n1", schemas.ControlRequest{Do: "drain"})(); code != "" {
		t.Errorf("to drain is refused: %s", code)
	}
	within(t, patience, "it drains", func() bool {
		nodes, err := u.Nodes(t.Context(), 100*time.Millisecond)
		return err == nil && len(nodes) == 1 && nodes[0].Draining
	})
	permittedAll(t, d, w)
}
