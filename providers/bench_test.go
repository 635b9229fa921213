package providers_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// benchmarkRelay reads a stream of 1,000 chunks that are in memory already: what
// the relay itself costs, per chunk. What is left over per chunk once the fixed
// cost of a request is spread over them is what a token costs.
func benchmarkRelay(b *testing.B, kind string, chunk func(word string) string, end string) {
	b.Helper()
	const chunks = 1000
	var stream strings.Builder
	for i := range chunks {
		stream.WriteString(chunk(fmt.Sprintf(" word%d", i%100)))
	}
	stream.WriteString(end)
	body := []byte(stream.String())
	client := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
	})}
	p, err := providers.New(providers.Config{Kind: kind, URL: "http://test.invalid", HTTP: client})
	if err != nil {
		b.Fatal(err)
	}
	req := providers.Request{Kind: schemas.Chat, Model: "m", Body: []byte(`{"messages":[{"role":"user","content":"hi"}]}`)}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		got := 0
		if _, err := p.Generate(b.Context(), req, func([]byte) error { got++; return nil }); err != nil || got < chunks {
			b.Fatalf("%d chunks: %v", got, err)
		}
	}
	allocs := testing.AllocsPerRun(20, func() {
		_, _ = p.Generate(b.Context(), req, func([]byte) error { return nil })
	})
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/chunks, "ns/chunk")
	b.ReportMetric(allocs/chunks, "allocs/chunk")
	b.ReportMetric(float64(len(body))/chunks, "B/chunk")
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// BenchmarkRelayOpenAI relays chunks as llama-server sends them.
func BenchmarkRelayOpenAI(b *testing.B) {
	benchmarkRelay(b, providers.KindLlamaCpp, func(word string) string {
		return fmt.Sprintf("data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":%q}}],\"created\":1763875810,\"id\":\"chatcmpl-0OMjDpZVQYlXjDthSEIMJOEaR771Le4d\",\"model\":\"stories-slow\",\"system_fingerprint\":\"b11669-Debian\",\"object\":\"chat.completion.chunk\"}\n\n", word)
	}, llamaDone)
}

// BenchmarkRelayRenamed relays chunks whose reasoning has another name.
func BenchmarkRelayRenamed(b *testing.B) {
	benchmarkRelay(b, providers.KindVLLM, func(word string) string {
		return fmt.Sprintf("data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1763875810,\"model\":\"q\",\"choices\":[{\"index\":0,\"delta\":{\"reasoning\":%q},\"logprobs\":null,\"finish_reason\":null}]}\n\n", word)
	}, llamaDone)
}

// BenchmarkRelayOllama turns lines of Ollama's into chunks.
func BenchmarkRelayOllama(b *testing.B) {
	benchmarkRelay(b, providers.KindOllama, func(word string) string {
		return fmt.Sprintf("{\"model\":\"stories-slow\",\"created_at\":\"2026-11-23T05:10:28.164597874Z\",\"message\":{\"role\":\"assistant\",\"content\":%q},\"done\":false}\n", word)
	}, ollamaStream().End)
}
