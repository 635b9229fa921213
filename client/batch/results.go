package batch

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client"
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
		if err := c.storedPage(ctx, jobs[:n], do); err != nil {
			return err
		}
		jobs = jobs[n:]
	}
	return nil
}

// storedPage asks for each end by its subject, which is all that a tenant may ask for,
// and waits for the answers together.
func (c *conn) storedPage(ctx context.Context, jobs []jobName, do func(*ended) error) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	inbox := c.nc.NewInbox()
	answers := make(chan *nats.Msg, len(jobs))
	sub, err := c.nc.ChanSubscribe(inbox, answers)
	if err != nil {
		return fmt.Errorf("read results: %w", err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // fails only where the connection is gone
	for _, j := range jobs {
		if err := c.nc.PublishRequest(directGet+resultsStream+"."+schemas.EndSubject(c.tenant, j.String()), inbox, nil); err != nil {
			return fmt.Errorf("read results: %w", err)
		}
	}
	for range jobs {
		select {
		case m := <-answers:
			if err := c.storedOne(m, jobs[0].batch, do); err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("read results: %w", ctx.Err())
		}
	}
	return nil
}

// directGet begins the subject that gives the last message of a subject of a stream.
const directGet = "$JS.API.DIRECT.GET."

func (*conn) storedOne(m *nats.Msg, batch string, do func(*ended) error) error {
	switch status := m.Header.Get("Status"); status {
	case "":
	case "404":
		return nil
	case "503":
		return fmt.Errorf("read results: %w: there is no stream %s", client.ErrNoVramjet, resultsStream)
	default:
		return fmt.Errorf("read results: the server says %s %s", status, m.Header.Get("Description"))
	}
	if e, ok := readEnd(m.Header.Get(jetstream.SubjectHeader), m.Header, m.Data, batch); ok {
		return do(e)
	}
	return nil
}

// A conn is a connection, and whose batches are run on it.
type conn struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	tenant string
}
