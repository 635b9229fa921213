// Command actor plays what stands around vramjet in its tests with containers: a model
// server that says what it runs, and a client that submits jobs for as long as it lives.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/vramjet/vramjet/providers/sim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := act(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "actor:", err)
		os.Exit(1)
	}
}

// act plays the role that the first argument names.
func act(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("the first argument is backend, load, fill, write or rm")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	go func() { _ = http.ListenAndServe(":7433", promhttp.Handler()) }() //nolint:gosec // until the process ends, for who tests
	switch args[0] {
	case "backend":
		slots := flags.Int("slots", 32, "jobs at a time")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return backend(ctx, *slots)
	case "load":
		l := load{}
		flags.StringVar(&l.url, "server", "", "NATS servers")
		flags.IntVar(&l.rate, "rate", 20, "jobs in a second")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return l.run(ctx)
	case "fill":
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return fill(flags.Arg(0))
	case "write": // a file and what is to be in it
		return os.WriteFile(args[1], []byte(args[2]), 0o644)
	case "rm":
		return os.Remove(args[1])
	default:
		return fmt.Errorf("there is no role %q", args[0])
	}
}

// jobID is where a request says which job it is of.
var jobID = regexp.MustCompile(`job ([A-Za-z0-9_-]+)`)

// backend serves the simulated model "sim" on port 8000. It says "run ID" each time it
// begins with a job.
func backend(ctx context.Context, slots int) error {
	model := sim.New(sim.Config{Models: []sim.Model{{Name: "sim", LoadTime: 50 * time.Millisecond, FirstToken: 20 * time.Millisecond, TokenInterval: 50 * time.Millisecond, Slots: slots}}})
	srv := &http.Server{Addr: ":8000", ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // whoever asked is gone
		}
		if id := jobID.FindSubmatch(body); id != nil {
			fmt.Fprintf(os.Stdout, "run %s\n", id[1])
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		model.ServeHTTP(w, r)
	})}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })() // its requests are cut, as by a server that is stopped
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// fill writes a file until there is no room for any more.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for len(block) > 0 {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2] // to the last byte
		}
	}
	return nil
}
