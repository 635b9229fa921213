package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

func ExampleClient_Run() {
	nc, stop := exampleQueue()
	defer stop()
	ctx := context.Background()

	c, err := client.New(nc, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	stream, err := c.Run(ctx, client.Chat("llama3.1:8b", "Say hi"))
	if err != nil {
		log.Fatal(err)
	}
	defer stream.Close()
	for event, err := range stream.All(ctx) {
		switch {
		case errors.Is(err, client.ErrGap):
			// The result has the whole answer.
		case err != nil:
			log.Fatal(err)
		case event.Kind == client.Restarted:
			fmt.Print("\nonce more: ")
		default:
			fmt.Print(event.Text())
		}
	}
	result, err := stream.Result(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("\n%d tokens on %s\n", result.Usage.CompletionTokens, result.Run.Node)
	// Output:
	// Hi there!
	// 3 tokens on gpu-1
}

func ExampleClient_Submit() {
	nc, stop := exampleQueue()
	defer stop()
	ctx := context.Background()

	c, err := client.New(nc, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	job := client.Chat("llama3.1:8b", "Say hi")
	job.Class = schemas.Batch
	job.ID = "nightly-2026-11-23-17" // submitted twice, it runs once
	ticket, err := c.Submit(ctx, job)
	if err != nil {
		log.Fatal(err)
	}

	// Later, perhaps elsewhere:
	result, err := c.Result(ctx, ticket.ID)
	var failed *schemas.Error
	switch {
	case errors.As(err, &failed):
		fmt.Println("the job failed:", failed.Code)
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Println(result.Text())
	}
	// Output: Hi there!
}

func ExampleClient_Resume() {
	nc, stop := exampleQueue()
	defer stop()
	ctx := context.Background()

	c, err := client.New(nc, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	ticket, err := c.Submit(ctx, client.Chat("llama3.1:8b", "Say hi"))
	if err != nil {
		log.Fatal(err)
	}
	var seen uint64 // kept somewhere
	for range 2 {   // a reader that is started again after each event
		stream, err := c.Resume(ctx, ticket.ID, seen+1)
		if err != nil {
			log.Fatal(err)
		}
		event, err := stream.Next(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%q\n", event.Text())
		seen = event.Stored
		stream.Close()
	}
	// Output:
	// "Hi "
	// "there!"
}

func ExampleClient_Events() {
	nc, stop := exampleQueue()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	c, err := client.New(nc, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	events := c.Events(ctx) // before the job, so as to miss none of its events
	job := client.Chat("llama3.1:8b", "Say hi")
	job.CustomID = "question 17"
	if _, err := c.Submit(ctx, job); err != nil {
		log.Fatal(err)
	}
	for event, err := range events {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(event.Event, event.CustomID)
		if event.Event == schemas.JobEventEnded {
			break
		}
	}
	// Output:
	// queued question 17
	// ended question 17
}

// exampleQueue is vramjet for the examples: a queue whose jobs are all answered
// the same.
func exampleQueue() (nc *nats.Conn, stop func()) {
	dir, err := os.MkdirTemp("", "vramjet")
	check(err)
	srv, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true})
	check(err)
	srv.Start()
	nc, err = nats.Connect("", nats.InProcessServer(srv))
	check(err)
	js, err := jetstream.New(nc)
	check(err)
	ctx := context.Background()
	_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "VJ_RESULTS", Subjects: []string{schemas.ResultsPrefix + ">"}, AllowDirect: true})
	check(err)
	jobs, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "VJ_JOBS", Subjects: []string{schemas.JobsPrefix + ">"}})
	check(err)
	consumer, err := jobs.CreateConsumer(ctx, jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy})
	check(err)
	consuming, err := consumer.Consume(func(m jetstream.Msg) {
		meta, err := m.Metadata()
		check(err)
		id, err := schemas.JobID(m.Headers().Get, meta.Sequence.Stream)
		check(err)
		tell := func(event schemas.JobEventKind) {
			body := fmt.Sprintf(`{"event":%q,"job":%q,"custom_id":%q}`, event, id, m.Headers().Get(schemas.HeaderCustomID))
			check(nc.Publish(schemas.JobEventSubject("default", id), []byte(body)))
		}
		tell(schemas.JobEventQueued)
		defer tell(schemas.JobEventEnded)
		say := func(subject, kind, seq, body string) {
			check(nc.PublishMsg(&nats.Msg{Subject: subject, Data: []byte(body), Header: nats.Header{
				schemas.HeaderEvent: {kind}, schemas.HeaderAttempt: {"1"}, schemas.HeaderSeq: {seq}, schemas.HeaderStatus: {"ok"},
			}}))
		}
		say(schemas.ChunksSubject("default", id), "chunk", "0", `{"choices":[{"index":0,"delta":{"content":"Hi "}}]}`)
		say(schemas.ChunksSubject("default", id), "chunk", "1", `{"choices":[{"index":0,"delta":{"content":"there!"}}]}`)
		say(schemas.EndSubject("default", id), "end", "2", `{"choices":[{"index":0,"message":{"role":"assistant","content":"Hi there!"}}],
			"usage":{"completion_tokens":3},"vramjet":{"node":"gpu-1","attempt":1}}`)
	})
	check(err)
	return nc, func() {
		consuming.Stop()
		<-consuming.Closed()
		nc.Close()
		srv.Shutdown()
		srv.WaitForShutdown()
		_ = os.RemoveAll(dir)
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
