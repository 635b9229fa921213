package client_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

func TestPauseFlows(t *testing.T) {
	srv := start(t)
	c := newClient(t, connect(t, srv), client.Options{})
	const paused = `{"pauses":[{"model":"m","by":"ana@desk","since":"2026-01-02T15:04:05Z"}]}`
	answerAPI(t, srv, func(verb string) string {
		return map[string]string{"pause": paused, "resume": `{"pauses":[]}`, "list": `{"flows":[{"class":"batch","model":"m","waiting":3,"running":1,"paused":true}],` + paused[1:]}[verb]
	})
	f := schemas.Filter{Model: "m"}
	if got, err := c.PauseFlows(deadline(t), f, "ana@desk"); err != nil || len(got) != 1 || got[0].Filter != f || got[0].By != "ana@desk" {
		t.Errorf("PauseFlows: %+v, %v", got, err)
	}
	if got, err := c.Queue(deadline(t)); err != nil || len(got.Pauses) != 1 || len(got.Flows) != 1 || !got.Flows[0].Paused {
		t.Errorf("Queue: %+v, %v", got, err)
	}
	if got, err := c.ResumeFlows(deadline(t), f); err != nil || len(got) != 0 {
		t.Errorf("ResumeFlows: %+v, %v", got, err)
	}
}

// TestPurgeGoesOn: a purge asks for step after step, up to what was the newest job when
// it began, and returns what was done where one fails.
func TestPurgeGoesOn(t *testing.T) {
	srv := start(t)
	nc := connect(t, srv)
	c := newClient(t, connect(t, srv), client.Options{})
	var asked []string
	answers := []string{
		`{"waiting":256,"running":0,"next":300,"through":900}`, `{"waiting":10,"running":1,"through":900}`,
		`{"waiting":5,"running":0,"next":17,"through":900}`, `{"error":{"message":"no","type":"server_error","code":"internal"}}`,
	}
	_, err := nc.Subscribe(schemas.APISubject("default", "purge"), func(m *nats.Msg) {
		asked = append(asked, string(m.Data))
		_ = m.Respond([]byte(answers[len(asked)-1]))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	req := schemas.PurgeRequest{Prefix: "b1-", Running: true}
	var told []int
	got, err := c.Purge(deadline(t), req, func(s schemas.PurgeStep) { told = append(told, s.Waiting) })
	if err != nil || got.Waiting != 266 || got.Running != 1 || fmt.Sprint(told) != "[256 266]" {
		t.Errorf("got %+v, %v; told %v", got, err, told)
	}
	if asked[1] != `{"prefix":"b1-","running":true,"from":300,"through":900}` {
		t.Errorf("asked %q", asked)
	}
	got, err = c.Purge(deadline(t), req, nil)
	var failed *schemas.Error
	if got.Waiting != 5 || !errors.As(err, &failed) {
		t.Errorf("a step that fails: %+v, %v", got, err)
	}
}
