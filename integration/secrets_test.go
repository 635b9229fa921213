package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// TestNothingSecretIsLogged: a request, its answer and the seeds stand in no log, at the
// most talkative level, whether a job ends well, is refused, dies or is large.
func TestNothingSecretIsLogged(t *testing.T) {
	t.Parallel()
	g := guard(t, "", "node n1", "tenant acme")
	d := start(t, "dispatcher", "vramjet", "dispatcher", "--context", g.as("dispatcher main"), "--http", "off", "--log-level", "debug", "--unknown-model-wait", "100ms")
	d.says("leading")
	w := start(t, "worker", "vramjet", "worker", "--sim", "--node", "n1", "--context", g.as("node n1"), "--http", "off", "--log-level", "debug")
	g.connect("operator admin", "acme").serves("sim-fast", 1)
	acme := g.connect("tenant acme", "acme")
	const secret = "xyzzy-plugh-plover"
	runs := map[string]client.Job{
		"ends well": client.Chat("sim-fast", secret), "no such model": client.Chat("nowhere", secret), "large": pictured("sim-fast", 2<<20),
	}
	for name, job := range runs {
		stream, err := acme.Run(t.Context(), job)
		if err != nil {
			t.Fatal(name, err)
		}
		_, err = stream.Result(t.Context())
		t.Log(name, err)
		stream.Close()
	}
	for id, body := range map[string]string{"no-request": `{"messages": "` + secret + `"}`, "no-json": `{"` + secret, "no-kind": `{"` + secret + `": 1}`} {
		m := &nats.Msg{Subject: "vj.v1.jobs.acme.normal.sim-fast", Header: nats.Header{schemas.HeaderMsgID: {id}}, Data: []byte(body)}
		if _, err := acme.nc.RequestMsg(m, patience); err != nil {
			t.Fatal(err)
		}
		_, err := acme.Result(t.Context(), id)
		t.Log(id, err)
	}
	secrets := map[string]string{"a request": secret}
	files, err := filepath.Glob(filepath.Join(g.dir, "*.nk"))
	if err != nil || len(files) != 4 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		seed, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		secrets[filepath.Base(file)] = strings.TrimSpace(string(seed))
	}
	for _, p := range []*process{d, w, g.process} {
		for what, text := range secrets {
			if strings.Contains(p.output(), text) {
				t.Errorf("%s logs %s", p.name, what)
			}
		}
	}
	if !strings.Contains(w.output(), "job done") {
		t.Error("the worker says nothing of its jobs: is this the most talkative level?")
	}
}
