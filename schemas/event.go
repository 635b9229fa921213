package schemas

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// An EventKind says what a message about a job is.
type EventKind string

// The kinds of events. Every job that the queue accepted gets exactly one end.
const (
	EventAccepted EventKind = "accepted" // a node was chosen; body: Accepted
	EventChunk    EventKind = "chunk"    // a piece of the answer; body: an OpenAI chunk object
	EventRetry    EventKind = "retry"    // the attempt is over and another follows; body: Failure
	EventEnd      EventKind = "end"      // the last event; body: the whole answer, or Failure
)

// A Status says how a job ended.
type Status string

// The statuses.
const (
	StatusOK        Status = "ok"
	StatusError     Status = "error"
	StatusCancelled Status = "cancelled"
	StatusExpired   Status = "expired" // its deadline passed
)

// StatusOf returns how a job ends that fails with code for good.
func StatusOf(code Code) Status {
	switch code {
	case Cancelled:
		return StatusCancelled
	case Deadline:
		return StatusExpired
	default:
		return StatusError
	}
}

// Accepted is the body of an accepted event.
type Accepted struct {
	Node     string `json:"node"`
	Backend  string `json:"backend"`
	WaitedMS int64  `json:"waited_ms"` // in the queue
	Load     bool   `json:"load"`      // whether the model must be loaded first
}

// Run is how a job was run. It stands as "vramjet" in the body of every end.
// Times are in ms; those since submission count from when the queue took the job.
type Run struct {
	Node         string  `json:"node,omitempty"` // empty where the job reached no node
	Backend      string  `json:"backend,omitempty"`
	Attempt      uint64  `json:"attempt"`      // 0 where there was none
	QueuedMS     int64   `json:"queued_ms"`    // from submission until a node had it
	LoadMS       int64   `json:"load_ms"`      // waiting for the model to be loaded
	TTFTMS       int64   `json:"ttft_ms"`      // from submission to the first token; 0 without one
	TotalMS      int64   `json:"total_ms"`     // from submission to the end
	TokensPerSec float64 `json:"tokens_per_s"` // generated, after the first token; 0 where unknown
}

// Failure is the body of an end that is not ok, and of a retry.
type Failure struct {
	Error *Error `json:"error"`
	Run   Run    `json:"vramjet"`
}

// Usage counts tokens, as OpenAI's servers do.
type Usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
}

// AddRun returns an answer, a JSON object, with run as its member "vramjet".
func AddRun(answer []byte, run *Run) ([]byte, error) {
	answer = bytes.TrimSpace(answer)
	if len(answer) < 2 || answer[0] != '{' || answer[len(answer)-1] != '}' {
		return nil, fmt.Errorf("the answer is not a JSON object: %.40q", answer)
	}
	member, err := json.Marshal(run)
	if err != nil {
		return nil, fmt.Errorf("encode the run: %w", err)
	}
	open := bytes.TrimRight(answer[:len(answer)-1], " \t\r\n")
	out := make([]byte, 0, len(open)+len(member)+len(`,"vramjet":}`))
	out = append(out, open...)
	if len(open) > 1 {
		out = append(out, ',')
	}
	out = append(out, `"vramjet":`...)
	out = append(out, member...)
	return append(out, '}'), nil
}

// A JobEventKind says what became of a job.
type JobEventKind string

// The kinds of job events.
const (
	JobEventDelayed JobEventKind = "delayed" // it is in the system, and not due yet
	JobEventQueued  JobEventKind = "queued"  // it waits for its turn
	JobEventStarted JobEventKind = "started" // a node has it
	JobEventRetried JobEventKind = "retried" // an attempt is over, and another follows
	JobEventEnded   JobEventKind = "ended"   // it is over: its end is published, or about to be
)

// A JobEvent tells anyone who listens what became of a job, on JobEventSubject. It
// is sent at most once, and never stored.
type JobEvent struct {
	Event    JobEventKind `json:"event"`
	Job      string       `json:"job"`
	Model    string       `json:"model,omitempty"` // as users name it; "": of a job that was assigned by a former leader
	Class    Class        `json:"class,omitempty"` // likewise
	At       time.Time    `json:"at"`              // of the event
	Due      time.Time    `json:"due,omitzero"`    // of a delayed job: when it may begin
	Node     string       `json:"node,omitempty"`
	Backend  string       `json:"backend,omitempty"`
	Attempt  uint64       `json:"attempt,omitempty"`
	Status   Status       `json:"status,omitempty"` // of an ended job
	Code     Code         `json:"code,omitempty"`   // why it, or its attempt, failed
	Tokens   int64        `json:"tokens,omitempty"` // of its prompt and its answer; 0: unknown, or none
	Cost     float64      `json:"cost,omitempty"`   // of these by the backend's price; 0: nothing, or unknown
	CustomID string       `json:"custom_id,omitempty"`
}
