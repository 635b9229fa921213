package integration

import (
	"bufio"
	"cmp"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// benchLines is how many lines BenchmarkBatch has, if BATCH_LINES does not say.
const benchLines = 100_000

// BenchmarkBatch runs a file of embeddings as a user would, and prints jobs a second
// beside what the minimal path does in the same run, and the memory that it takes.
func BenchmarkBatch(b *testing.B) {
	lines, err := strconv.Atoi(cmp.Or(os.Getenv("BATCH_LINES"), strconv.Itoa(benchLines)))
	if err != nil {
		b.Fatal(err)
	}
	in := writeEmbeddings(b, lines)
	for b.Loop() {
		var t table
		url, server := natsServer(b, "")
		srv := httptest.NewServer(sim.New(sim.Config{Models: []sim.Model{{Name: "embed", Kinds: []schemas.Kind{schemas.Embedding}, Slots: 256}}}))
		b.Cleanup(srv.Close)
		m := newMinimalBatch(b, url, "")
		t.add("minimal path: lines", "/s", m.rate(40_000), "")
		m.close()
		m = newMinimalBatch(b, url, srv.URL)
		t.add("minimal path with the backend: lines", "/s", m.rate(40_000), "minimal path: lines")
		m.close()
		config := filepath.Join(b.TempDir(), "vramjet.yaml")
		if err := os.WriteFile(config, fmt.Appendf(nil, "backends:\n- {name: sim, kind: sim, url: %q}\n", srv.URL), 0o600); err != nil {
			b.Fatal(err)
		}
		dispatcher := start(b, "dispatcher", "vramjet", "dispatcher", "--server", url, "--http", "off")
		worker := start(b, "worker", "vramjet", "worker", "--server", url, "--config", config, "--node", "bench", "--http", "off")
		connect(b, url).serves("embed", 1)
		out := filepath.Join(b.TempDir(), "out.jsonl")
		before := server.cpu()
		began := time.Now()
		batch := start(b, "client", "vramjet", "batch", "run", in, "-o", out, "--server", url, "--in-flight", "1024")
		most, early, late := int64(0), int64(0), int64(0)
		took := time.Duration(0) // by the client
		first := time.Time{}
		for running := true; running; {
			select {
			case <-batch.done:
				running = false
			case <-time.After(200 * time.Millisecond):
				most, took = max(most, batch.rss()), max(took, batch.cpu())
				late = dispatcher.rss()
				if st, err := os.Stat(out); first.IsZero() && err == nil && st.Size() > 0 {
					first = time.Now()
				}
				if early == 0 && !first.IsZero() && time.Since(first) > 5*time.Second {
					early = late
				}
			}
		}
		if code := batch.cmd.ProcessState.ExitCode(); code != 0 {
			b.Fatalf("the batch ended with %d", code)
		}
		t.add("vramjet: lines checked", "/s", float64(lines)/first.Sub(began).Seconds(), "")
		t.add("vramjet: lines of a batch answered", "/s", float64(lines)/time.Since(first).Seconds(), "minimal path: lines")
		for _, part := range []struct {
			name string
			cpu  time.Duration
		}{{"client", took}, {"dispatcher", dispatcher.cpu()}, {"worker", worker.cpu()}, {"nats", server.cpu() - before}} {
			t.add("processor time a line, "+part.name, "us", float64(part.cpu.Microseconds())/float64(lines), "")
		}
		t.add("memory of the client at most", "MiB", float64(most>>20), "")
		t.add("memory of the dispatcher after 5 s", "MiB", float64(early>>20), "")
		t.add("memory of the dispatcher at the end", "MiB", float64(late>>20), "")
		t.print()
	}
}

func writeEmbeddings(b *testing.B, lines int) string {
	b.Helper()
	name := filepath.Join(b.TempDir(), "in.jsonl")
	file, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriter(file)
	for i := range lines {
		fmt.Fprintf(w, `{"custom_id":"text-%d","method":"POST","url":"/v1/embeddings","body":{"model":"embed","input":"the text of line %d"}}`+"\n", i, i)
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := file.Close(); err != nil {
		b.Fatal(err)
	}
	return name
}

// BenchmarkInteractiveBesideBatch prints the time to the first token of interactive
// jobs, alone and beside a batch for the same model that would take all its slots.
func BenchmarkInteractiveBesideBatch(b *testing.B) {
	for b.Loop() {
		var t table
		for _, reserve := range []int{0, 1, 2} {
			url, _ := natsServer(b, "")
			config := filepath.Join(b.TempDir(), "vramjet.yaml")
			srv := httptest.NewServer(sim.New(sim.Config{Models: []sim.Model{{Name: "chat", Slots: 16, FirstToken: 50 * time.Millisecond, TokenInterval: 5 * time.Millisecond, Tokens: 20}}}))
			b.Cleanup(srv.Close)
			yaml := fmt.Appendf(nil, "backends:\n- {name: sim, kind: sim, url: %q}\npolicy: {interactive_reserve: %d}\n", srv.URL, reserve)
			if err := os.WriteFile(config, yaml, 0o600); err != nil {
				b.Fatal(err)
			}
			start(b, "dispatcher", "vramjet", "dispatcher", "--server", url, "--http", "off", "--config", config)
			start(b, "worker", "vramjet", "worker", "--server", url, "--config", config, "--node", "bench", "--http", "off")
			s := &bench{B: b, url: url, nc: dial(b, url), user: connect(b, url)}
			s.user.serves("chat", 1)
			s.interactive(20) // warm
			name := fmt.Sprintf("interactive, first token, p99, %d slots kept", reserve)
			alone := s.interactive(400)
			in := filepath.Join(b.TempDir(), "in.jsonl")
			if err := os.WriteFile(in, chats(20_000), 0o600); err != nil {
				b.Fatal(err)
			}
			batch := start(b, "client", "vramjet", "batch", "run", in, "-o", filepath.Join(b.TempDir(), "out.jsonl"), "--server", url)
			time.Sleep(3 * time.Second) // it fills all that it may have
			beside := s.interactive(400)
			batch.signal(syscall.SIGINT)
			t.add(name+", alone", "ms", ms(percentile(alone, 99)), "")
			t.add(name+", beside a batch", "ms", ms(percentile(beside, 99)), name+", alone")
		}
		t.print()
	}
}

// interactive runs jobs that come 20 a second, whatever becomes of those before, and
// returns the times to their first token.
func (s *bench) interactive(n int) []time.Duration {
	times := make(chan time.Duration, n)
	for range n {
		go func() {
			began := time.Now()
			job := client.Chat("chat", "hi")
			job.Class, job.Inbox = schemas.Interactive, true
			stream, err := s.user.Run(s.Context(), job)
			if err != nil {
				s.Error(err)
				times <- 0
				return
			}
			defer stream.Close()
			first := time.Duration(0)
			for e, err := range stream.All(s.Context()) {
				if err != nil {
					s.Error(err)
				}
				if e.Kind == schemas.EventChunk && first == 0 {
					first = time.Since(began)
				}
			}
			times <- first
		}()
		time.Sleep(50 * time.Millisecond)
	}
	var all []time.Duration
	for range n {
		all = append(all, <-times)
	}
	return all
}

func chats(lines int) (text []byte) {
	for i := range lines {
		text = fmt.Appendf(text, `{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":{"model":"chat","messages":[{"role":"user","content":"line %d"}]}}`+"\n", i, i)
	}
	return text
}
