package integration

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// control asks a node to do something. What it returns waits for the answer: the code
// of the refusal, "" if it was done.
func (u *user) control(node string, req schemas.ControlRequest) (answer func() schemas.Code) {
	u.Helper()
	data, err := json.Marshal(req)
	if err != nil {
		u.Fatal(err)
	}
	inbox, err := u.nc.SubscribeSync(u.nc.NewInbox())
	if err != nil {
		u.Fatal(err)
	}
	if err := u.nc.PublishRequest(schemas.NodeSubject(node, "control"), inbox.Subject, data); err != nil {
		u.Fatal(err)
	}
	return func() schemas.Code { return u.answered(inbox) }
}

func (u *user) answered(inbox *nats.Subscription) schemas.Code {
	u.Helper()
	m, err := inbox.NextMsg(patience)
	if err != nil {
		u.Fatal(err)
	}
	var refused schemas.APIError
	if err := json.Unmarshal(m.Data, &refused); err != nil {
		u.Fatalf("%v in %s", err, m.Data)
	}
	if refused.Error == nil {
		return ""
	}
	return refused.Error.Code
}

// TestLlamaRouterHeld: on a router that does nothing by itself, jobs of every kind
// have their model loaded, and an operator's unload waits for the jobs that run.
func TestLlamaRouterHeld(t *testing.T) {
	t.Parallel()
	l := findLlama(t)
	s := l.serveRouter(map[string]string{"slow.gguf": slowFile(t), "embed.gguf": shared(t, "models/stories-embed.gguf")}, "-c", "1024")
	u := queue(t, map[string]string{"router": s.url})
	u.serves("slow", 1)
	u.serves("embed", 1)
	nodes, err := u.Nodes(t.Context(), 0)
	if err != nil || len(nodes) != 1 {
		t.Fatalf("%d nodes, %v", len(nodes), err)
	}
	if diff := cmp.Diff(map[string]string{"slow": "unloaded", "embed": "unloaded"}, statuses(t, s.url)); diff != "" {
		t.Errorf("before any job (-want +got):\n%s", diff)
	}

	texts := []string{"Once upon a time", "there was a fox"}
	_, _, r := u.read(u.run(client.Embed("embed", texts...)))
	want := direct(t, s.url+"/v1/embeddings", map[string]any{"model": "embed", "input": texts})
	if diff := cmp.Diff(want.Data, read(t, r.Body).Data); diff != "" || len(want.Data) != 2 || want.Usage != r.Usage {
		t.Errorf("%d embeddings, usage %+v, directly %+v (-direct +queue):\n%s", len(want.Data), r.Usage, want.Usage, diff)
	}

	body := long()
	body["max_tokens"] = 100
	job := u.run(submitted(t, "slow", body))
	u.next(job, schemas.EventChunk)
	unloaded := u.control(nodes[0].Node, schemas.ControlRequest{Do: "unload", Backend: "router", Model: "slow"})
	if !loaded(t, s.url, "slow") {
		t.Error("it is unloaded under its job")
	}
	if _, _, r = u.read(job); r.Usage.CompletionTokens != 100 || !strings.Contains(r.Text(), story) || r.Run.Attempt != 1 {
		t.Errorf("the job on it ended %q, %+v, %+v", r.Text(), r.Usage, r.Run)
	}
	if code := unloaded(); code != "" {
		t.Errorf("to unload it is refused with %q", code)
	}
	if pid := s.child(t, "slow"); loaded(t, s.url, "slow") || pid != 0 {
		t.Errorf("it is still there: process %d", pid)
	}
	if _, _, r = u.read(u.run(submitted(t, "slow", chat()))); !strings.Contains(r.Text(), story) || !loaded(t, s.url, "slow") {
		t.Errorf("a job after the unload ended %q", r.Text())
	}
}
