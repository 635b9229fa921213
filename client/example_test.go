package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

func Example() {
	nc, err := nats.Connect("nats://127.0.0.1:4222")
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.New(nc, client.Options{Tenant: "acme"})
	if err != nil {
		log.Fatal(err)
	}
	stream, err := c.Run(context.Background(), client.Chat("llama3.1:8b", "Say hi"))
	if err != nil {
		log.Fatal(err)
	}
	for event, err := range stream.All(context.Background()) {
		fmt.Print(event.Text(), err)
	}
}

func ExampleClient_Run() {
	ctx, c, stop := exampleClient()
	defer stop()

	stream, err := c.Run(ctx, client.Chat("llama3.1:8b", "Say hi"))
	if err != nil {
		log.Fatal(err)
	}
	for event, err := range stream.All(ctx) {
		switch {
		case err != nil:
			log.Fatal(err)
		case event.Kind == client.Restarted:
			fmt.Print("\nonce more: ")
		default:
			fmt.Print(event.Text())
		}
	}
	result, err := stream.Result(ctx)
	fmt.Printf("\n%d tokens on %s %v\n", result.Usage.CompletionTokens, result.Run.Node, err)
	// Output:
	// Hi there!
	// 3 tokens on gpu-1 <nil>
}

func ExampleClient_Submit() {
	ctx, c, stop := exampleClient()
	defer stop()

	job := client.Chat("llama3.1:8b", "Say hi")
	job.Class = schemas.Batch
	job.ID = "nightly-17" // submitted twice, it runs once
	if _, err := c.Submit(ctx, job); err != nil {
		log.Fatal(err)
	}

	// Later, perhaps elsewhere:
	result, err := c.Result(ctx, "nightly-17")
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
	ctx, c, stop := exampleClient()
	defer stop()

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
		fmt.Printf("%q %v\n", event.Text(), err)
		seen = event.Stored
		stream.Close()
	}
	// Output:
	// "Hi " <nil>
	// "there!" <nil>
}

func ExampleClient_Cancel() {
	ctx, c, stop := exampleClient()
	defer stop()

	info, err := c.Cancel(ctx, "nightly-17")
	switch {
	case errors.Is(err, client.ErrNotFound):
		fmt.Println("nobody submitted it, or its results are kept no longer")
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Println(info.Job, info.State)
	}
	// Output: nightly-17 cancelled
}

// exampleClient is a client of a queue whose jobs are all answered the same.
func exampleClient() (context.Context, *client.Client, func()) {
	nc, stop := exampleQueue()
	c, err := client.New(nc, client.Options{})
	check(err)
	return context.Background(), c, stop
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

// Jobs of the last hour that failed, and the dead letters among them once more.
func ExampleClient_Jobs() {
	nc, stop := exampleQueue()
	defer stop()
	ctx := context.Background()

	c, err := client.New(nc, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	failed, err := c.Jobs(ctx, client.JobFilter{
		States: []schemas.JobState{schemas.JobState(schemas.StatusError)}, Since: time.Now().Add(-time.Hour),
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, job := range failed {
		fmt.Println(job.Job, job.Model, job.Code)
		for letter, err := range c.Letters(ctx, client.LetterFilter{Job: job.Job}) {
			if err != nil {
				log.Fatal(err)
			}
			ticket, err := c.RetryLetter(ctx, letter.Seq)
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println("again as", ticket.ID)
		}
	}
	fmt.Println(len(failed), "failed")
	// Output: 0 failed
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
	_, err = nc.Subscribe(schemas.APISubject("default", "cancel"), func(m *nats.Msg) {
		check(m.Respond([]byte(`{"job":"nightly-17","state":"cancelled"}`)))
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
