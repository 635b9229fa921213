package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/client"
)

// A load submits jobs at a steady rate, each until the queue has it, and says "ack ID"
// then. One job of ten is long.
type load struct {
	url  string
	rate int
}

const (
	shortTokens = 10  // half a second
	longTokens  = 100 // five
)

// run submits until ctx ends, and then only those jobs again that the queue may not
// have yet.
func (l load) run(ctx context.Context) error {
	nc, err := broker.Connect(ctx, broker.ConnectConfig{URL: l.url, Name: "load"}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	defer nc.Close()
	c, err := client.New(nc, client.Options{})
	if err != nil {
		return err
	}
	boot := strings.ToLower(rand.Text()[:8]) // ids are those of this life
	var all sync.WaitGroup
	defer all.Wait()
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, func() { time.AfterFunc(20*time.Second, end) })()
	tick := time.NewTicker(time.Second / time.Duration(l.rate))
	defer tick.Stop()
	for i := 0; ; i++ {
		tokens := shortTokens
		if i%10 == 9 {
			tokens = longTokens
		}
		all.Go(func() { submit(life, c, fmt.Sprintf("%s-%d", boot, i), tokens) })
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// submit submits one job again and again, until the queue has it.
func submit(ctx context.Context, c *client.Client, id string, tokens int) {
	job := client.Job{ID: id, Model: "sim", Body: fmt.Appendf(nil, `{"messages":[{"role":"user","content":"job %s"}],"stream":true,"max_tokens":%d}`, id, tokens)}
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := c.Submit(try, job)
		cancel()
		if err == nil {
			fmt.Fprintf(os.Stdout, "ack %s\n", id)
			return
		}
		fmt.Fprintf(os.Stderr, "submit %s: %v\n", id, err)
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}
