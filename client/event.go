package client

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// Restarted is the kind of an event that never travels: a Stream makes it where
// another attempt begins, so that its reader can drop what it has.
const Restarted schemas.EventKind = "restarted"

// An Event is one message about a job.
type Event struct {
	Kind    schemas.EventKind // one of schemas, or Restarted
	Attempt uint64            // from 1; 0 on the end of a job that was never tried
	Seq     uint64            // from 0 in each attempt
	Status  schemas.Status    // of an end
	Body    json.RawMessage   // as it came; nil for Restarted

	// CustomID is what the job's submitter wanted repeated, "" for nothing.
	CustomID string

	// Stored is the event's sequence in the stream of results, for Resume: go on
	// from the one after it. 0 means that the event came live.
	Stored uint64

	unread bool // where it is stored, others are behind it
}

// readEvent reads a message about a job. It reports false for what is none.
func readEvent(h nats.Header, data []byte) (Event, bool) {
	e := Event{Kind: schemas.EventKind(h.Get(schemas.HeaderEvent)), CustomID: h.Get(schemas.HeaderCustomID), Body: data}
	switch e.Kind {
	case schemas.EventAccepted, schemas.EventChunk, schemas.EventRetry:
	case schemas.EventEnd:
		e.Status = schemas.Status(h.Get(schemas.HeaderStatus))
	default:
		return Event{}, false
	}
	var ok bool
	if e.Attempt, ok = count(h.Get(schemas.HeaderAttempt)); !ok {
		return Event{}, false
	}
	e.Seq, ok = count(h.Get(schemas.HeaderSeq))
	return e, ok
}

// count reads a header that counts. One that is not there counts 0.
func count(s string) (uint64, bool) {
	if s == "" {
		return 0, true
	}
	n, err := strconv.ParseUint(s, 10, 63)
	return n, err == nil
}

// Text returns what a chunk adds to the text of the answer, and "" for any other
// event. Where the request asked for several choices it is of the first.
func (e *Event) Text() string {
	if e.Kind != schemas.EventChunk {
		return ""
	}
	return text(e.Body)
}

// Accepted returns what an accepted event says.
func (e *Event) Accepted() (schemas.Accepted, error) {
	var a schemas.Accepted
	if err := json.Unmarshal(e.Body, &a); err != nil {
		return a, fmt.Errorf("accepted event: %w", err)
	}
	return a, nil
}

// Failure returns why an attempt failed (of a retry event) or the job (of an end
// that is not ok).
func (e *Event) Failure() (schemas.Failure, error) {
	var f schemas.Failure
	if err := json.Unmarshal(e.Body, &f); err != nil {
		return f, fmt.Errorf("%s event: %w", e.Kind, err)
	}
	if f.Error == nil {
		f.Error = schemas.Errorf(schemas.Internal, "the %s event says no error", e.Kind)
	}
	return f, nil
}

// text returns the text of the first choice of an answer or of a chunk of one.
func text(body []byte) string {
	type content struct {
		Content string `json:"content"`
	}
	var a struct {
		Choices []struct {
			Index   int     `json:"index"`
			Text    string  `json:"text"`
			Delta   content `json:"delta"`
			Message content `json:"message"`
		} `json:"choices"`
	}
	if json.Unmarshal(body, &a) != nil {
		return "" // a content that is no string, say
	}
	for _, c := range a.Choices {
		if c.Index == 0 {
			return c.Text + c.Delta.Content + c.Message.Content
		}
	}
	return ""
}
