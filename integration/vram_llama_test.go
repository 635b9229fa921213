package integration

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/gpu"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
	"github.com/vramjet/vramjet/worker"
)

// TestLlamaRouterPlanned: on a device with room for one model at a time, a real router
// holds what the plan says, and no answer is cut off for it.
func TestLlamaRouterPlanned(t *testing.T) {
	l := findLlama(t)
	s := l.serveRouter(map[string]string{"slow.gguf": slowFile(t), "quick.gguf": shared(t, "models/stories260K.gguf")}, "-c", "1024")
	r := newRack(t)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	p, err := providers.New(providers.Config{Kind: providers.KindLlamaRouter, URL: s.url, HTTP: &http.Client{Transport: transport}})
	if err != nil {
		t.Fatal(err)
	}
	r.node("n1", worker.Config{
		GPU:      gpu.Fixed([]schemas.Device{{ID: "gpu", Name: "small", Kind: "cuda", Total: schemas.Known(gib)}}), // half of it is the margin
		Models:   needs(map[string]schemas.Bytes{"slow": 300 * schemas.MiB, "quick": 300 * schemas.MiB}),
		Backends: []worker.Backend{{Name: "router", Kind: providers.KindLlamaRouter, Provider: p}},
	})
	held := func(slow, quick string) {
		t.Helper()
		if diff := cmp.Diff(map[string]string{"slow": slow, "quick": quick}, statuses(t, s.url)); diff != "" {
			t.Errorf("the router holds (-want +got):\n%s", diff)
		}
	}
	for _, model := range []string{"quick", "slow", "quick"} {
		r.first(r.run(submitted(t, model, greedy("prompt", "Once upon a time"))))
	}
	held("unloaded", "loaded")

	body := long()
	body["max_tokens"] = 100
	running := r.run(submitted(t, "slow", body))
	r.next(running, schemas.EventChunk)
	held("loaded", "unloaded")
	unloaded := r.control("n1", schemas.ControlRequest{Do: "unload", Backend: "router", Model: "slow"})
	crowded := r.run(submitted(t, "quick", chat()))
	r.waits(crowded.ID(), "n1/router: needs 300.0 MiB, and 212.0 MiB can be freed")
	held("loaded", "unloaded")
	_, chunks, result := r.read(running)
	if chunks < 50 || result.Usage.CompletionTokens != 100 || result.Run.Attempt != 1 {
		t.Errorf("the answer under which an unload was asked for: %d chunks, %+v, %+v", chunks, result.Usage, result.Run)
	}
	if code := unloaded(); code != "" {
		t.Errorf("the unload failed with %q", code)
	}
	r.first(crowded)
	held("unloaded", "loaded")
}
