package batch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// ErrSubmitted means that a file was submitted before.
var ErrSubmitted = errors.New("submitted before")

// Submit has a file run without anybody waiting for the answers: it returns when all of
// it is in the queue, which takes as long as the queue has no room for it. Fetch writes
// the results.
//
// Which batch the file is stands beside it, in a file with ".vjbatch" behind. Submit
// again goes on where it stopped, and is ErrSubmitted once all was submitted.
func Submit(ctx context.Context, nc *nats.Conn, in string, cfg Config) (*schemas.BatchRecord, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	file, err := Check(in)
	if err != nil {
		return nil, err
	}
	m, err := readManifest(in)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		m = newManifest(file, &cfg)
		if err := m.write(in); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case m.SHA256 != file.SHA256:
		return nil, fmt.Errorf("%s has changed since it was submitted as %s: remove %s to submit it as another batch", in, m.Batch, in+manifestSuffix)
	case m.Submitted == m.Lines:
		return &m.BatchRecord, fmt.Errorf("%s: %w as %s: remove %s to submit it as another batch", in, ErrSubmitted, m.Batch, in+manifestSuffix)
	}
	r, err := newRunner(ctx, nc, m, &cfg)
	if err != nil {
		return nil, err
	}
	defer r.js.CleanupPublisher()
	r.out = &outputs{done: &lineSet{}}
	if err := r.announce(ctx); err != nil {
		return nil, err
	}
	return &m.BatchRecord, r.submitAll(ctx, in)
}

// newManifest returns the manifest of a new batch.
func newManifest(f *File, cfg *Config) *manifest {
	return &manifest{BatchRecord: schemas.BatchRecord{
		Batch: newID(), Tenant: cfg.Tenant, State: schemas.BatchInProgress, Class: cfg.Class, Input: filepath.Base(f.Path), SHA256: f.SHA256,
		Lines: f.Lines, Jobs: f.Jobs, Models: f.Models, Created: time.Now().UTC().Round(time.Second), Keep: cfg.Keep.String(),
	}}
}

// submitAll submits a group of lines after the other.
func (r *runner) submitAll(ctx context.Context, in string) error {
	requests, closeFile, err := read(in)
	if err != nil {
		return err
	}
	defer closeFile()
	var group []*flight
	bytes := 0
	for q := range requests {
		if q.err != nil {
			return q.err
		}
		if q.line <= r.m.Submitted {
			continue
		}
		name := jobName{batch: r.m.Batch, line: q.line}
		msg, err := r.message(q.request, name.String())
		if err != nil {
			return fmt.Errorf("line %d: %w", q.line, err)
		}
		group, bytes = append(group, &flight{name, msg}), bytes+len(msg.Data)
		if len(group) < r.cfg.InFlight && bytes < maxBytes {
			continue
		}
		if err := r.submitGroup(ctx, in, group, q.line); err != nil {
			return err
		}
		group, bytes = group[:0], 0
	}
	return r.submitGroup(ctx, in, group, r.m.Lines)
}

// submitGroup returns when the queue has the whole group, whose last line is noted.
func (r *runner) submitGroup(ctx context.Context, in string, group []*flight, last int) error {
	since, delay := time.Now(), 50*time.Millisecond
	for len(group) > 0 {
		left, err := r.tryGroup(ctx, group)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("submitted up to line %d, run it again to go on: %w", r.m.Submitted, context.Cause(ctx))
		case err == nil:
		case errors.Is(err, client.ErrTooLarge), isTooLarge(err):
			return fmt.Errorf("line %d: the queue takes no job of its size: %w", left[0].name.line, err)
		case len(left) < len(group), isFull(err):
			since = time.Now()
		case time.Since(since) > patience:
			return fmt.Errorf("nothing could be submitted for %s, run it again to go on: %w", patience, err)
		}
		if group = left; len(group) == 0 {
			break
		}
		r.report(err, group[0].name.line-1)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		delay = min(2*delay, 2*time.Second)
	}
	r.m.Submitted = last
	r.report(nil, last)
	return r.m.write(in)
}

func (r *runner) report(trouble error, submitted int) {
	if r.cfg.Progress == nil {
		return
	}
	p := Progress{Batch: r.m.Batch, Jobs: r.m.Jobs, InFlight: min(submitted, r.m.Jobs)}
	if trouble != nil {
		p.Trouble = trouble.Error()
	}
	r.cfg.Progress(p)
}

// tryGroup submits jobs, and returns those that the queue has not taken, and why.
func (r *runner) tryGroup(ctx context.Context, group []*flight) (left []*flight, last error) {
	acks := map[*flight]jetstream.PubAckFuture{}
	for _, f := range group {
		var ack jetstream.PubAckFuture
		var err error
		if r.isLarge(f) {
			err = r.publishLarge(f)
		} else if ack, err = r.js.PublishMsgAsync(f.msg); err == nil {
			acks[f] = ack
		}
		if err != nil {
			left, last = append(left, f), err
		}
	}
	for _, f := range group {
		ack := acks[f]
		if ack == nil {
			continue
		}
		select {
		case <-ack.Ok():
			continue
		case last = <-ack.Err():
		case <-ctx.Done():
		}
		left = append(left, f)
	}
	for {
		select {
		case <-r.failed: // told by its future as well
		default:
			return left, last
		}
	}
}
