package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// A Job is one inference request. Model and Body are required.
type Job struct {
	// Model is the model's name, as vramjet's users write it.
	Model string

	// Class says how urgent the job is. "" means schemas.Normal.
	Class schemas.Class

	// ID names the job: 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'. With an
	// ID a job may be submitted again after an error, and is not run twice.
	// "" means one that Submit or Run chooses.
	ID string

	// Body is an OpenAI request, with "messages" (chat), "prompt" (completion) or
	// "input" (embedding). Its chunks are sent only with "stream": true. What does
	// not begin with '{' is a prompt as plain text: a streamed chat.
	Body json.RawMessage

	// Kind is for a body that does not tell. "" means that it does.
	Kind schemas.Kind

	// Reply is the subject for the events: an inbox, or a subject below the
	// tenant's results. "" means the result subjects, where they are stored. Run
	// sets it.
	Reply string

	// Inbox has Run read the answer on an inbox of its own: the lowest latency,
	// and nothing is stored. The job is cancelled when the reader goes away, unless
	// Abandon says otherwise.
	Inbox bool

	// At is when the job may begin. Zero, or a time in the past, means now.
	At time.Time

	// Keep is how long the events of a job without a reply subject are kept, from
	// schemas.MinKeep to schemas.MaxKeep. 0 means schemas.DefaultKeep. When its end is
	// gone, a job of the same ID is a new one.
	Keep time.Duration

	// CustomID is repeated by all events of the job, so that whoever reads them knows
	// which of its own requests it was: 1 to 256 printable characters without a space
	// at either end. "" means none.
	CustomID string

	// Deadline is when the answer is of no use any more. Zero means never.
	Deadline time.Time

	// Timeout is the longest run of one attempt. 0 means what the node is set to.
	Timeout time.Duration

	// Attempts is how often the job is tried at most, 1 to schemas.MaxAttempts.
	// 0 means schemas.DefaultAttempts.
	Attempts int

	// Abandon says what happens when nobody listens on the inbox any more. ""
	// means schemas.AbandonCancel for an inbox.
	Abandon schemas.Abandon

	// Session names jobs that begin alike, such as the turns of one chat: 1 to 64
	// characters of A-Z, a-z, 0-9, '_' and '-'. They run where the last one ran, whose
	// cache saves work, as long as a slot is free there. "" means that this is told
	// from the request.
	Session string

	// Local keeps the job from hosted APIs: only servers of the fleet's own may have
	// it. Where none serves the model, it ends with schemas.Refused.
	Local bool

	// Trace is a W3C traceparent. "" means none.
	Trace string
}

// Chat returns a streamed chat with one message of the user.
func Chat(model, prompt string) Job {
	return Job{Model: model, Body: request(map[string]any{
		"messages": []map[string]string{{"role": "user", "content": prompt}},
		"stream":   true,
	})}
}

// Completion returns a streamed completion of prompt.
func Completion(model, prompt string) Job {
	return Job{Model: model, Body: request(map[string]any{"prompt": prompt, "stream": true})}
}

// Embed returns a request for the embeddings of input, in its order.
func Embed(model string, input ...string) Job {
	return Job{Model: model, Body: request(map[string]any{"input": input})}
}

// request returns members, which are strings and the like, as a body.
func request(members map[string]any) json.RawMessage {
	data, err := json.Marshal(members)
	if err != nil {
		panic(fmt.Sprintf("marshal strings: %v", err)) // encoding/json marshals every string
	}
	return data
}

// message returns the job as it is published.
func (j *Job) message(tenant string) (*nats.Msg, error) {
	flow := schemas.Flow{Tenant: tenant, Class: j.Class, Model: j.Model}
	if flow.Class == "" {
		flow.Class = schemas.Normal
	}
	subject, err := schemas.JobSubject(flow)
	if err != nil {
		return nil, fmt.Errorf("submit: %w", err)
	}
	if err := j.check(tenant); err != nil {
		return nil, fmt.Errorf("submit: %w", err)
	}
	if !j.At.IsZero() {
		subject = schemas.LaterSubject(subject)
	}
	msg := &nats.Msg{Subject: subject, Data: j.Body, Header: nats.Header{}}
	for _, h := range []struct{ key, value string }{
		{schemas.HeaderMsgID, j.ID},
		{schemas.HeaderKind, string(j.Kind)},
		{schemas.HeaderReply, j.Reply},
		{schemas.HeaderAbandon, string(j.Abandon)},
		{schemas.HeaderSession, j.Session},
		{schemas.HeaderCustomID, j.CustomID},
		{schemas.HeaderTrace, j.Trace},
	} {
		if h.value != "" {
			msg.Header.Set(h.key, h.value)
		}
	}
	if !j.At.IsZero() {
		msg.Header.Set(schemas.HeaderAt, j.At.UTC().Format(time.RFC3339Nano))
	}
	if j.Keep != 0 {
		msg.Header.Set(schemas.HeaderKeep, j.Keep.String())
	}
	if !j.Deadline.IsZero() {
		msg.Header.Set(schemas.HeaderDeadline, j.Deadline.UTC().Format(time.RFC3339Nano))
	}
	if j.Local {
		msg.Header.Set(schemas.HeaderLocal, "true")
	}
	if j.Timeout != 0 {
		msg.Header.Set(schemas.HeaderTimeout, j.Timeout.String())
	}
	if j.Attempts != 0 {
		msg.Header.Set(schemas.HeaderAttempts, strconv.Itoa(j.Attempts))
	}
	return msg, nil
}

// check reports what would come back as a failed job, where it can be told
// without knowing the request.
func (j *Job) check(tenant string) error {
	switch {
	case len(j.Body) == 0:
		return errors.New("the body is empty: it takes an OpenAI request, or a prompt as plain text")
	case j.ID != "" && !schemas.ValidToken(j.ID):
		return fmt.Errorf("the id %q is not 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'", j.ID)
	case j.Session != "" && !schemas.ValidToken(j.Session):
		return fmt.Errorf("the session %q is not 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'", j.Session)
	case j.CustomID != "" && !schemas.ValidCustomID(j.CustomID):
		return fmt.Errorf("the custom id %.80q is not 1 to 256 printable characters without a space at either end", j.CustomID)
	case j.Keep != 0 && (j.Keep < schemas.MinKeep || j.Keep > schemas.MaxKeep):
		return fmt.Errorf("answers are kept from 1s to 8760h, not %s", j.Keep)
	case !j.At.IsZero() && !j.Deadline.IsZero() && !j.Deadline.After(j.At):
		return fmt.Errorf("the deadline %s is no later than %s, when the job may begin", j.Deadline.Format(time.RFC3339), j.At.Format(time.RFC3339))
	case j.Timeout < 0:
		return fmt.Errorf("the timeout %s is negative", j.Timeout)
	case j.Attempts < 0 || j.Attempts > schemas.MaxAttempts:
		return fmt.Errorf("attempts are 1 to %d, not %d", schemas.MaxAttempts, j.Attempts)
	case j.Reply != "":
		return schemas.CheckReply(tenant, j.Reply, nil)
	default:
		return nil
	}
}
