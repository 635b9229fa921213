package sim_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vramjet/vramjet/providers/sim"
)

// One stream, as fast as it goes, read without a provider.
func BenchmarkStream(b *testing.B) {
	cfg := config()
	cfg.Models[0].Context = 1 << 30
	s := httptest.NewServer(sim.New(cfg))
	defer s.Close()
	defer s.Client().CloseIdleConnections()
	body := fmt.Sprintf(`{"model":"fast","messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":%d}`, b.N)
	resp, err := s.Client().Post(s.URL+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, bufio.NewReaderSize(resp.Body, 64<<10))
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}

// The same through a provider: server and client on one machine.
func BenchmarkGenerate(b *testing.B) {
	for _, kind := range dialects {
		b.Run(kind, func(b *testing.B) {
			cfg := config()
			cfg.Models[0].Context = 1 << 30
			r := newRig(b, kind, cfg)
			b.ReportAllocs()
			if _, err := r.Generate(within(b), chat("fast", "hi", fmt.Sprintf(`,"max_tokens":%d`, b.N)), ignore); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

// Short jobs one after the other: what a request costs.
func BenchmarkShortJobs(b *testing.B) {
	for _, kind := range dialects {
		b.Run(kind, func(b *testing.B) {
			r := newRig(b, kind, config())
			b.ReportAllocs()
			ctx := within(b)
			for b.Loop() {
				if _, err := r.Generate(ctx, chat("fast", "hi", `,"max_tokens":1`), ignore); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
