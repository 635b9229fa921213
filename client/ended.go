package client

import (
	"context"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/schemas"
)

// endedJobs lists jobs that ended, the newest first. A stream can only be read
// forwards: so it's read by windows, from its end on, each twice as wide as the one
// before, until there are enough. Only headers travel, and of each window no more are
// kept than are still wanted.
func (c *Client) endedJobs(ctx context.Context, f *JobFilter) (all []schemas.JobEntry, err error) {
	ends := schemas.EndSubject(c.tenant, "*")
	last := uint64(0)
	for m, err := range c.scan(ctx, resultsStream, ends, jetstream.OrderedConsumerConfig{HeadersOnly: true, DeliverPolicy: jetstream.DeliverLastPolicy}) {
		if err != nil {
			return nil, err
		}
		last = m.seq
	}
	for width := uint64(1000); last > 0 && len(all) < f.Limit; width *= 2 {
		first := last - min(last, width) + 1
		page, old, err := c.endedBetween(ctx, first, last, f, f.Limit-len(all))
		if err != nil {
			return nil, err
		}
		slices.Reverse(page)
		all = append(all, page...)
		if old {
			break
		}
		last = first - 1
	}
	return all, nil
}

// endedBetween lists the newest jobs that ended between two sequences of the stream,
// the oldest first. old means that some there are older than those that are meant.
func (c *Client) endedBetween(ctx context.Context, first, last uint64, f *JobFilter, most int) (page []schemas.JobEntry, old bool, err error) {
	cfg := jetstream.OrderedConsumerConfig{HeadersOnly: true, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: first}
	for m, err := range c.scan(ctx, resultsStream, schemas.EndSubject(c.tenant, "*"), cfg) {
		if err != nil {
			return nil, false, err
		}
		if m.seq > last {
			break
		}
		if m.at.Before(f.Since) {
			old = true
			continue
		}
		e, ok := readEnded(m)
		if !ok || !f.wants(e.State) || !f.Match(e.Class, e.Model) {
			continue
		}
		if e.At = m.at; len(page) == 2*most {
			page = append(page[:0], page[most:]...)
		}
		page = append(page, e)
	}
	return page[max(0, len(page)-most):], old, nil
}

// readEnded reads an end without its body.
func readEnded(m found) (schemas.JobEntry, bool) {
	h := m.Headers()
	end, ok := readEvent(h, nil)
	if !ok || end.Kind != schemas.EventEnd {
		return schemas.JobEntry{}, false
	}
	id := strings.TrimSuffix(m.Subject()[strings.LastIndexByte(strings.TrimSuffix(m.Subject(), ".end"), '.')+1:], ".end")
	e := schemas.JobEntry{
		JobInfo: schemas.JobInfo{Job: id, State: schemas.JobState(end.Status), Attempt: end.Attempt, Node: h.Get(schemas.HeaderNode)},
		Code:    schemas.Code(h.Get(schemas.HeaderCode)),
	}
	if flow, err := schemas.ParseJobSubject(h.Get(schemas.HeaderFlow)); err == nil {
		e.Class, e.Model = flow.Class, flow.Model
	}
	return e, true
}
