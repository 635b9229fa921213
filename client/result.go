package client

import (
	"encoding/json"
	"fmt"

	"github.com/vramjet/vramjet/schemas"
)

// A Result is how a job ended.
type Result struct {
	ID       string
	CustomID string // as the job's submitter gave it
	Status   schemas.Status

	// Body is the end as it came: the whole answer as OpenAI's API gives it
	// without "stream", or the error.
	Body json.RawMessage

	Usage schemas.Usage // zero where the backend counted nothing
	Run   schemas.Run
}

// Text returns the text of the answer, of the first choice where there are
// several, and "" where there is none.
func (r *Result) Text() string { return text(r.Body) }

// readResult reads an end. A job that did not end well is an error that wraps a
// *schemas.Error; the result is good even then.
func readResult(id string, end *Event) (*Result, error) {
	r := &Result{ID: id, CustomID: end.CustomID, Status: end.Status, Body: end.Body}
	var body struct {
		Usage schemas.Usage  `json:"usage"`
		Run   schemas.Run    `json:"vramjet"`
		Error *schemas.Error `json:"error"`
	}
	if err := json.Unmarshal(end.Body, &body); err != nil {
		return r, fmt.Errorf("job %s: read its end: %w", id, err)
	}
	r.Usage, r.Run = body.Usage, body.Run
	switch {
	case end.Status == schemas.StatusOK:
		return r, nil
	case body.Error == nil:
		return r, fmt.Errorf("job %s: %w", id, schemas.Errorf(schemas.Internal, "it ended as %q without an error", end.Status))
	default:
		return r, fmt.Errorf("job %s: %w", id, body.Error)
	}
}
