package batch_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client/batch"
	"github.com/vramjet/vramjet/schemas"
)

func ExampleRun() {
	nc, prompts, answers, stop := exampleQueue()
	defer stop()

	p, err := batch.Run(context.Background(), nc, prompts, answers, batch.Config{InFlight: 500})
	var bad *batch.Problems
	switch {
	case errors.As(err, &bad):
		log.Fatalf("line %d: %s", bad.List[0].Line, bad.List[0].Message)
	case err != nil:
		log.Fatal(err) // run again, it goes on
	}
	fmt.Println(p.OK, "answers,", p.Failed, "failures")
	// Output: 2 answers, 0 failures
}

func ExampleSubmit() {
	nc, prompts, answers, stop := exampleQueue()
	defer stop()
	ctx := context.Background()

	submitted, err := batch.Submit(ctx, nc, prompts, batch.Config{})
	if err != nil {
		log.Fatal(err)
	}
	// Later, perhaps elsewhere:
	for {
		p, err := batch.Fetch(ctx, nc, "default", submitted.Batch, answers)
		if err != nil {
			log.Fatal(err)
		}
		if p.Done() == p.Jobs {
			fmt.Println(p.OK, "answers")
			return
		}
	}
	// Output: 2 answers
}

func ExampleCancel() {
	nc, _, _, stop := exampleQueue()
	defer stop()

	record, err := batch.Cancel(context.Background(), nc, "default", "batch_k2j5w7x2m4n6p8q0")
	switch {
	case errors.Is(err, batch.ErrNotFound):
		fmt.Println("nobody knows it any more")
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Println(record.OK, "were answered before")
	}
	// Output: nobody knows it any more
}

// exampleQueue is vramjet for the examples: a queue whose jobs are all answered the
// same, and a file of two requests.
func exampleQueue() (nc *nats.Conn, prompts, answers string, stop func()) {
	dir, err := os.MkdirTemp("", "vramjet")
	check(err)
	prompts = filepath.Join(dir, "prompts.jsonl")
	line := `{"custom_id":"%d","method":"POST","url":"/v1/completions","body":{"model":"m","prompt":"hi"}}` + "\n"
	check(os.WriteFile(prompts, fmt.Appendf(nil, line+line, 1, 2), 0o600))
	srv, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true})
	check(err)
	srv.Start()
	nc, err = nats.Connect("", nats.InProcessServer(srv))
	check(err)
	js, err := jetstream.New(nc)
	check(err)
	ctx := context.Background()
	_, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "VJ_BATCHES"})
	check(err)
	_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "VJ_RESULTS", Subjects: []string{schemas.ResultsPrefix + ">"}, AllowDirect: true, AllowMsgTTL: true})
	check(err)
	jobs, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "VJ_JOBS", Subjects: []string{schemas.JobsPrefix + ">"}})
	check(err)
	consumer, err := jobs.CreateConsumer(ctx, jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy})
	check(err)
	consuming, err := consumer.Consume(func(m jetstream.Msg) {
		check(nc.PublishMsg(&nats.Msg{
			Subject: schemas.EndSubject("default", m.Headers().Get(schemas.HeaderMsgID)), Data: []byte(`{"choices":[{"text":"Hi!"}]}`),
			Header: nats.Header{schemas.HeaderStatus: {"ok"}, schemas.HeaderCustomID: m.Headers()[schemas.HeaderCustomID]},
		}))
	})
	check(err)
	return nc, prompts, filepath.Join(dir, "answers.jsonl"), func() {
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
