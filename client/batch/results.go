package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/vramjet/vramjet/schemas"
)

const resultsStream = "VJ_RESULTS"

// An ended is the end of a job of a batch.
type ended struct {
	name     jobName
	job      string // its id
	customID string
	status   schemas.Status
	body     []byte
}

// readEnd reads an end. It reports false where it is none of the batch.
func readEnd(subject string, h nats.Header, body []byte, batch string) (*ended, bool) {
	rest, ok := strings.CutSuffix(subject, ".end")
	if !ok {
		return nil, false
	}
	id := rest[strings.LastIndexByte(rest, '.')+1:]
	if !strings.HasPrefix(id, batch) {
		return nil, false
	}
	name, ok := parseJobID(id)
	if !ok || name.batch != batch {
		return nil, false
	}
	return &ended{name, id, h.Get(schemas.HeaderCustomID), schemas.Status(h.Get(schemas.HeaderStatus)), body}, true
}

// page is how many results are asked for at once.
const page = 500

// stored calls do with the ends of jobs that are stored.
func (c *conn) stored(ctx context.Context, jobs []jobName, do func(*ended) error) error {
	for len(jobs) > 0 {
		n := min(page, len(jobs))
		subjects := make([]string, n)
		for i, j := range jobs[:n] {
			subjects[i] = schemas.EndSubject(c.tenant, j.String())
		}
		if err := c.storedPage(ctx, subjects, jobs[0].batch, do); err != nil {
			return err
		}
		jobs = jobs[n:]
	}
	return nil
}

func (c *conn) storedPage(ctx context.Context, subjects []string, batch string, do func(*ended) error) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	for {
		msgs, err := jetstreamext.GetLastMsgsFor(ctx, c.js, resultsStream, subjects)
		if err != nil {
			return fmt.Errorf("read results: %w", err)
		}
		more := false
		got := map[string]bool{}
		for m, err := range msgs {
			if errors.Is(err, jetstreamext.ErrNoMessages) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read results: %w", err)
			}
			got[m.Subject] = true
			more = m.Header.Get(pendingHeader) != "0"
			if e, ok := readEnd(m.Subject, m.Header, m.Data, batch); ok {
				if err := do(e); err != nil {
					return err
				}
			}
		}
		if !more { // else they were more bytes than the server gives at once
			return nil
		}
		subjects = slices.DeleteFunc(subjects, func(s string) bool { return got[s] })
	}
}

// pendingHeader says how many of what was asked for are still to come.
const pendingHeader = "Nats-Num-Pending"

// A conn is a connection, and whose batches are run on it.
type conn struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	tenant string
}
