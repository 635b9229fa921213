package integration

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// TestModelsTakeTurns: two models that fit a device one at a time are loaded and
// evicted as their jobs come, and neither is cut off while it answers.
func TestModelsTakeTurns(t *testing.T) {
	t.Parallel()
	server := sim.New(sim.Config{
		Devices: []sim.Device{{ID: "gpu", Memory: 10 * schemas.GiB}},
		Models: []sim.Model{
			{Name: "turn-a", VRAM: 6 * schemas.GiB, LoadTime: 50 * time.Millisecond, TokenInterval: 5 * time.Millisecond, Slots: 2},
			{Name: "turn-b", VRAM: 6 * schemas.GiB, LoadTime: 50 * time.Millisecond, TokenInterval: 5 * time.Millisecond, Slots: 2},
		},
		NoAutoload: true, // vramjet does every load itself
	})
	backend := httptest.NewServer(server)
	t.Cleanup(backend.Close)
	url, _ := natsServer(t, "")
	start(t, "dispatcher", "vramjet", "dispatcher", "--server", url, "--http", "off")
	serve(t, url, backend.URL, "n", "turn-*")
	u := connect(t, url)
	u.serves("turn-b", 1)

	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	const rounds = 4
	for range rounds {
		for _, model := range []string{"turn-a", "turn-b"} {
			var streams []*client.Stream
			for range 5 {
				streams = append(streams, u.run(client.Chat(model, "hi")))
			}
			for _, s := range streams {
				if r, err := s.Result(ctx); err != nil || r.Run.Attempt != 1 {
					t.Fatalf("a job of %s ended %+v, %v", model, r, err)
				}
			}
		}
	}
	for _, model := range []string{"turn-a", "turn-b"} {
		if c := server.Counts(model); c.Loads != rounds || c.Finished != 5*rounds || c.Cancelled != 0 {
			t.Errorf("%s: %+v; want %d loads, %d answers, none cut off", model, c, rounds, 5*rounds)
		}
	}
}
