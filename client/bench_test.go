package client_test

import (
	"testing"

	"github.com/vramjet/vramjet/client"
)

// BenchmarkRun is one short job after another: submitted, answered by a fake node,
// read to its end.
func BenchmarkRun(b *testing.B) {
	for _, inbox := range []bool{false, true} {
		b.Run(map[bool]string{false: "stored", true: "inbox"}[inbox], func(b *testing.B) {
			srv := start(b)
			nc := connect(b, srv)
			setup(b, nc)
			serve(b, srv, func(j *taken) {
				j.accepted()
				j.chunk("Hel")
				j.chunk("lo")
				j.ok("Hello")
			})
			c := newClient(b, nc, client.Options{})
			job := client.Chat("m", "hi")
			job.Inbox = inbox
			for b.Loop() {
				s, err := c.Run(b.Context(), job)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := s.Result(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkChunks is the reading of a long answer: figures are per chunk.
func BenchmarkChunks(b *testing.B) {
	srv := start(b)
	nc := connect(b, srv)
	setup(b, nc)
	const chunks = 2000
	serve(b, srv, func(j *taken) {
		j.accepted()
		for range chunks {
			j.chunk("token")
		}
		j.ok("all")
	})
	c := newClient(b, nc, client.Options{})
	job := client.Chat("m", "hi")
	job.Inbox = true
	b.ReportAllocs()
	for n := 0; n < b.N; n += chunks {
		s, err := c.Run(b.Context(), job)
		if err != nil {
			b.Fatal(err)
		}
		for e, err := range s.All(b.Context()) {
			if err != nil {
				b.Fatal(err)
			}
			_ = e.Text()
		}
	}
}
