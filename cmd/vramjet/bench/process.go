package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/dispatcher"
)

// A usage is what a dispatcher in a process of its own took since it was asked last.
type usage struct {
	CPU     time.Duration   `json:"cpu_ns"` // since the process began; 0: the system does not say
	Memory  int64           `json:"memory"` // of the process now, in bytes
	Decided []time.Duration `json:"decided_ns"`
}

// PlayDispatcher runs a dispatcher on a server, as a process that a measurement started:
// so its processor time and its memory are its own. It answers each line of in with its
// usage, and ends with in or ctx.
func PlayDispatcher(ctx context.Context, url string, in io.Reader, out io.Writer) error {
	log := slog.New(slog.DiscardHandler)
	nc, err := broker.Connect(ctx, broker.ConnectConfig{URL: url, Name: "vramjet bench dispatcher"}, log)
	if err != nil {
		return err
	}
	defer nc.Close()
	var mu sync.Mutex
	var decided []time.Duration
	d, err := dispatcher.New(nc, dispatcher.Config{Logger: log, Decided: func(took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		decided = append(decided, took)
	}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	for lines := bufio.NewScanner(in); lines.Scan(); {
		mu.Lock()
		u := usage{CPU: processorTime(), Memory: residentMemory(), Decided: slices.Clone(decided)}
		decided = decided[:0]
		mu.Unlock()
		if err := json.NewEncoder(out).Encode(u); err != nil {
			break // nobody reads
		}
	}
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) { // it may not have begun yet
		return err
	}
	return nil
}

// A played is a dispatcher in a process of its own.
type played struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// play starts a dispatcher in a process of its own.
func (s *site) play() (*played, error) {
	if s.Dispatcher == nil {
		return nil, errors.New("start a dispatcher: nothing says how")
	}
	cmd := s.Dispatcher(s.life, s.srv.ClientURL())
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start a dispatcher: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a dispatcher: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a dispatcher: %w", err)
	}
	return &played{cmd, in, json.NewDecoder(out)}, nil
}

// usage asks what the dispatcher took since it was asked last.
func (p *played) usage() (u usage, err error) {
	if _, err = p.in.Write([]byte("\n")); err == nil {
		err = p.out.Decode(&u)
	}
	if err != nil {
		return u, fmt.Errorf("ask the dispatcher what it took: %w", err)
	}
	slices.Sort(u.Decided)
	return u, nil
}

// end ends the process, if need be by force.
func (p *played) end() {
	late := time.AfterFunc(cleanWithin, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	_ = p.in.Close()
	_ = p.cmd.Wait() // a signal to all of us ends it as well
}
