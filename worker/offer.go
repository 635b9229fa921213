package worker

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// An offer is one attempt at a job that the dispatcher wants this node to make.
type offer struct {
	job      *schemas.Job
	subject  string // of the job in the queue
	header   nats.Header
	attempt  uint64
	backend  string
	model    string   // as users name it
	evict    []string // models to unload first
	waited   time.Duration
	received time.Time
	reply    string // where the answer goes
}

func (o *offer) key() taskKey {
	return taskKey{tenant: o.job.Flow.Tenant, job: o.job.ID, attempt: o.attempt}
}

// readOffer reads an offer. The dispatcher has checked the job against its
// schema, so the body is not checked again.
func readOffer(h nats.Header, body []byte, received time.Time) (*offer, error) {
	flow, err := schemas.ParseJobSubject(h.Get(schemas.HeaderFlow))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", schemas.HeaderFlow, err)
	}
	id := h.Get(schemas.HeaderJob)
	if !schemas.ValidToken(id) {
		return nil, fmt.Errorf("%s %q is not a job's id", schemas.HeaderJob, id)
	}
	attempt, err := strconv.ParseUint(h.Get(schemas.HeaderAttempt), 10, 64)
	if err != nil || attempt == 0 {
		return nil, fmt.Errorf("%s %q is not a number from 1", schemas.HeaderAttempt, h.Get(schemas.HeaderAttempt))
	}
	var waited int64
	if s := h.Get(schemas.HeaderWaited); s != "" {
		if waited, err = strconv.ParseInt(s, 10, 64); err != nil || waited < 0 || waited > int64(maxWaited/time.Millisecond) {
			return nil, fmt.Errorf("%s %q is not a number of milliseconds", schemas.HeaderWaited, s)
		}
	}
	o := &offer{
		job:      &schemas.Job{ID: id, Flow: flow, Body: body},
		subject:  h.Get(schemas.HeaderFlow),
		header:   h,
		attempt:  attempt,
		backend:  h.Get(schemas.HeaderBackend),
		model:    h.Get(schemas.HeaderModel),
		evict:    h.Values(schemas.HeaderEvict),
		waited:   time.Duration(waited) * time.Millisecond,
		received: received,
	}
	return o, readJob(o.job, h)
}

// maxWaited bounds what an offer may say of its waiting: ten years.
const maxWaited = 10 * 365 * 24 * time.Hour

// readJob reads the job's own headers, and from its body whether it is streamed.
func readJob(j *schemas.Job, h nats.Header) error {
	j.Kind, j.Reply, j.Attempts = schemas.Kind(h.Get(schemas.HeaderKind)), h.Get(schemas.HeaderReply), schemas.DefaultAttempts
	switch j.Kind {
	case schemas.Chat, schemas.Completion, schemas.Embedding:
	default:
		return fmt.Errorf("%s %q is none of chat, completion and embedding", schemas.HeaderKind, j.Kind)
	}
	var err error
	if s := h.Get(schemas.HeaderDeadline); s != "" {
		if j.Deadline, err = time.Parse(time.RFC3339, s); err != nil {
			return fmt.Errorf("%s: %w", schemas.HeaderDeadline, err)
		}
	}
	if s := h.Get(schemas.HeaderTimeout); s != "" {
		if j.Timeout, err = time.ParseDuration(s); err != nil || j.Timeout <= 0 {
			return fmt.Errorf("%s %q is not a duration", schemas.HeaderTimeout, s)
		}
	}
	if s := h.Get(schemas.HeaderAttempts); s != "" {
		if j.Attempts, err = strconv.Atoi(s); err != nil || j.Attempts < 1 {
			return fmt.Errorf("%s %q is not a number from 1", schemas.HeaderAttempts, s)
		}
	}
	switch j.Abandon = schemas.Abandon(h.Get(schemas.HeaderAbandon)); {
	case j.Abandon != "":
	case schemas.IsInbox(j.Reply):
		j.Abandon = schemas.AbandonCancel
	default:
		j.Abandon = schemas.AbandonFinish
	}
	var body struct {
		Stream *bool `json:"stream"`
	}
	if err := json.Unmarshal(j.Body, &body); err != nil {
		return fmt.Errorf("the body is not an OpenAI request: %w", err)
	}
	j.Stream = j.Kind != schemas.Embedding && body.Stream != nil && *body.Stream
	return nil
}
