package integration

import (
	"slices"
	"testing"
	"time"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/providers/sim"
)

// BenchmarkWarmWhileLoading measures the time to the first token of a model that is in
// memory while another takes 20 s to load on the same node, and beside it the same with
// nothing else going on, one half before that and one half after. The load may cost the
// others a fifth.
func BenchmarkWarmWhileLoading(b *testing.B) {
	const (
		loadTime = 20 * time.Second
		requests = 3000
		warmUp   = 100
	)
	for b.Loop() {
		url, _ := natsServer(b, "")
		server := sim.New(sim.Config{
			Devices: []sim.Device{{ID: "gpu", Memory: 24 * gib}},
			Models: []sim.Model{
				{Name: "warm", VRAM: 2 * gib, TokenInterval: briefly / 10},
				{Name: "cold", VRAM: 12 * gib, LoadTime: loadTime, Tokens: 1},
			},
			NoAutoload: true,
		})
		s := newBenchOf(b, url, server, "warm")
		s.latencies("warm", 1, warmUp)
		idle := s.latencies("warm", 1, requests/2)

		job := s.user.run(client.Chat("cold", "hi"))
		within(b, patience, "the load begins", func() bool { return server.Counts("cold").Loads == 1 })
		began := time.Now()
		during := s.latencies("warm", 1, requests)
		if took := time.Since(began); took > loadTime {
			b.Errorf("%d requests took %s, longer than the load", requests, took)
		}
		if _, _, r := s.user.read(job); r.Run.LoadMS < loadTime.Milliseconds() {
			b.Errorf("the load took %d ms", r.Run.LoadMS)
		}
		s.latencies("warm", 1, warmUp)
		idle = slices.Concat(idle, s.latencies("warm", 1, requests/2))
		compareWarm(b, idle, during)
		if c := server.Counts("warm"); c.Loads != 1 || c.Unloads != 0 {
			b.Errorf("the model in memory: %+v", c)
		}
	}
}

// compareWarm reports the times, and fails where they differ by more than they may.
func compareWarm(b *testing.B, idle, during []time.Duration) {
	b.Helper()
	b.ReportMetric(0, "ns/op") // says nothing here
	for _, p := range []struct {
		of   float64
		name string
	}{{50, "p50"}, {99, "p99"}} {
		i, d := percentile(idle, p.of), percentile(during, p.of)
		ratio := float64(d) / float64(i)
		b.ReportMetric(ms(i), p.name+"-idle-ms")
		b.ReportMetric(ms(d), p.name+"-loading-ms")
		b.ReportMetric(ratio, p.name+"-ratio")
		if p.of == 50 && (ratio < 0.8 || ratio > 1.2) {
			b.Errorf("the first token of the model in memory took %s while another loads, %s else", d, i)
		}
	}
}
