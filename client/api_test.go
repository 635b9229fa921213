package client_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// answerAPI is a dispatcher that answers each question. "" is no answer.
func answerAPI(t *testing.T, srv *server.Server, answer func(verb string) string) {
	t.Helper()
	nc := connect(t, srv)
	_, err := nc.Subscribe(schemas.APIPrefix+"default.*", func(m *nats.Msg) {
		if a := answer(strings.TrimPrefix(m.Subject, schemas.APIPrefix+"default.")); a != "" {
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

func TestStatusAndCancel(t *testing.T) {
	srv := start(t)
	c := newClient(t, connect(t, srv), client.Options{})
	answerAPI(t, srv, func(verb string) string {
		return map[string]string{
			"status": `{"job":"j1","state":"running","node":"n1","backend":"b1","model":"m","attempt":2}`,
			"cancel": `{"job":"j1","state":"cancelled"}`,
			"why":    `{"job":"j1","state":"queued","why":["gpu-1: full"]}`,
			"list":   `{"flows":[{"class":"batch","model":"m","waiting":3,"running":1}]}`,
		}[verb]
	})
	got, err := c.Status(deadline(t), "j1")
	want := schemas.JobInfo{Job: "j1", State: schemas.JobRunning, Node: "n1", Backend: "b1", Model: "m", Attempt: 2}
	if err != nil || got != want {
		t.Errorf("Status: got %+v, %v", got, err)
	}
	if got, err := c.Cancel(deadline(t), "j1"); err != nil || got.State != schemas.JobState(schemas.StatusCancelled) {
		t.Errorf("Cancel: got %+v, %v", got, err)
	}
	if got, err := c.Why(deadline(t), "j1"); err != nil || got.State != schemas.JobQueued || len(got.Why) != 1 {
		t.Errorf("Why: got %+v, %v", got, err)
	}
	if got, err := c.Flows(deadline(t)); err != nil || len(got) != 1 || got[0].Waiting != 3 {
		t.Errorf("Flows: got %+v, %v", got, err)
	}
}

func TestAPIErrors(t *testing.T) {
	srv := start(t)
	c := newClient(t, connect(t, srv), client.Options{})
	if _, err := c.Status(deadline(t), "j1"); !errors.Is(err, client.ErrNoDispatcher) {
		t.Errorf("nobody there: got %v, want ErrNoDispatcher", err)
	}
	answers := make(chan string, 1)
	answerAPI(t, srv, func(string) string { return <-answers })
	answers <- `{"error":{"message":"job j1 is not known","type":"not_found_error","code":"job_not_found"}}`
	if _, err := c.Cancel(deadline(t), "j1"); !errors.Is(err, client.ErrNotFound) || !strings.Contains(err.Error(), "j1 is not known") {
		t.Errorf("no such job: got %v, want ErrNotFound", err)
	}
	answers <- `{"error":{"message":"no","type":"permission_error","code":"refused"}}`
	_, err := c.Cancel(deadline(t), "j1")
	wantCode(t, err, schemas.Refused)
	answers <- `nonsense`
	if _, err := c.Cancel(deadline(t), "j1"); err == nil {
		t.Error("nonsense is no error")
	}
}

// Between two leaders nobody answers: the question is asked again.
func TestAPIAsksAgain(t *testing.T) {
	srv := start(t)
	c := newClient(t, connect(t, srv), client.Options{})
	asked := 0
	answerAPI(t, srv, func(string) string {
		if asked++; asked == 1 {
			return ""
		}
		return `{"job":"j1","state":"queued"}`
	})
	if got, err := c.Status(deadline(t), "j1"); err != nil || got.State != schemas.JobQueued {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestNodes(t *testing.T) {
	srv := start(t)
	c := newClient(t, connect(t, srv), client.Options{})
	nc := connect(t, srv)
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	states := []schemas.NodeState{
		{Node: "b", Boot: "1", Seq: 7, At: now},
		{Node: "b", Boot: "1", Seq: 6, At: now.Add(time.Hour)}, // older, whatever its clock says
		{Node: "a", Boot: "1", Seq: 9, At: now},
		{Node: "a", Boot: "2", Seq: 1, At: now.Add(time.Second)}, // the worker was started again
	}
	_, err := nc.Subscribe(schemas.NodesPing, func(*nats.Msg) {
		_ = nc.Publish(schemas.NodeSubject("c", "state"), []byte("nonsense"))
		for _, s := range states {
			data, err := json.Marshal(s)
			if err != nil {
				t.Error(err)
			}
			_ = nc.Publish(schemas.NodeSubject(s.Node, "state"), data)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	nodes, err := c.Nodes(deadline(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range nodes {
		got = append(got, fmt.Sprintf("%s %s/%d", n.Node, n.Boot, n.Seq))
	}
	if diff := cmp.Diff([]string{"a 2/1", "b 1/7"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestNoNodes(t *testing.T) {
	c := newClient(t, connect(t, start(t)), client.Options{})
	if nodes, err := c.Nodes(deadline(t), time.Millisecond); err != nil || len(nodes) != 0 {
		t.Errorf("got %v, %v", nodes, err)
	}
}
