package batch_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client/batch"
)

func ExampleRun() {
	nc, err := nats.Connect("nats://127.0.0.1:4222", nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	p, err := batch.Run(context.Background(), nc, "prompts.jsonl", "answers.jsonl", batch.Config{InFlight: 500})
	var bad *batch.Problems
	switch {
	case errors.As(err, &bad):
		log.Fatalf("line %d: %s", bad.List[0].Line, bad.List[0].Message)
	case err != nil:
		log.Fatal(err) // run again, it goes on
	}
	fmt.Println(p.OK, "answers,", p.Failed, "failures:", p.Codes)
}

func ExampleCancel() {
	nc, err := nats.Connect("nats://127.0.0.1:4222")
	if err != nil {
		log.Fatal(err)
	}
	record, err := batch.Cancel(context.Background(), nc, "default", "batch_k2j5w7x2m4n6p8q0")
	switch {
	case errors.Is(err, batch.ErrNotFound):
		fmt.Println("no such batch")
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Println(record.OK, "were answered before")
	}
}
