package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/schemas"
)

// Errors to test for with errors.Is. A job that failed is a *schemas.Error
// instead, to look for with errors.As.
var (
	// ErrNoVramjet means that no stream takes jobs on this server and account.
	ErrNoVramjet = errors.New("no vramjet here")

	// ErrFull means that the queue takes no more jobs of this flow, or none at
	// all, or that the bucket of large bodies is full, for now. The job was not submitted.
	ErrFull = errors.New("the queue is full")

	// ErrTooLarge means that the server takes no message of the job's size, and has no
	// bucket for what is larger. The job was not submitted.
	ErrTooLarge = errors.New("the job is too large")

	// ErrDuplicate means that a job of this id was submitted before, so that its
	// events go to whoever submitted it then.
	ErrDuplicate = errors.New("submitted before")

	// ErrNoDispatcher means that no dispatcher answered. Jobs wait in the queue
	// until one is back.
	ErrNoDispatcher = errors.New("no dispatcher answers")

	// ErrNoNode means that no node answers, or none of that name.
	ErrNoNode = errors.New("no node answers")

	// ErrNotFound means that vramjet knows no job of that id.
	ErrNotFound = errors.New("no such job")

	// ErrGap means that chunks of the answer were lost on the way. The end carries
	// the whole answer all the same.
	ErrGap = errors.New("chunks of the answer were lost on the way")

	// ErrLost means that the connection was gone when the job ended, and that its
	// answer is stored nowhere.
	ErrLost = errors.New("the answer was lost with the connection")
)

const (
	codeStreamFull   jetstream.ErrorCode = 10077 // of messages, of bytes, or of messages of one subject
	codeNoMemory     jetstream.ErrorCode = 10023
	codeNoStorage    jetstream.ErrorCode = 10047
	codeInProcess    jetstream.ErrorCode = 10158 // a message of the same id is being stored
	perSubjectFull                       = "maximum messages per subject exceeded"
	msgHeaderPreface                     = len("NATS/1.0\r\n") + len("\r\n")
	msgHeaderLine                        = len(": ") + len("\r\n")
)

// submitError says what the answer to a publish on subject means.
func submitError(subject string, err error) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("submit: %w: no stream takes jobs on %s (is a dispatcher set up on this server and account, and is NATS well, as its /healthz tells?)", ErrNoVramjet, subject)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("submit on %s: the queue did not answer: %w (NATS elects a leader, or cannot write to its disk, which its /healthz tells; to submit again with the same ID is safe)", subject, err)
	case !errors.As(err, &api):
		return fmt.Errorf("submit on %s: %w", subject, err)
	}
	switch {
	case isFull(api):
		if api.Description == perSubjectFull {
			return fmt.Errorf("submit: %w for %s: as many of its jobs wait as the queue holds; try again later", ErrFull, subject)
		}
		return fmt.Errorf("submit: %w: %s; try again later", ErrFull, api.Description)
	case api.ErrorCode == codeInProcess:
		return fmt.Errorf("submit on %s: an earlier submission of the same ID is not settled yet: %w; submit it again", subject, err)
	case api.ErrorCode == jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return fmt.Errorf("submit: %w: the queue takes none of its size: %s", ErrTooLarge, api.Description)
	default:
		return fmt.Errorf("submit on %s: %w", subject, err)
	}
}

// isFull reports whether JetStream had no room.
func isFull(err *jetstream.APIError) bool {
	return err.ErrorCode == codeStreamFull || err.ErrorCode == codeNoMemory || err.ErrorCode == codeNoStorage
}

// checkSize reports a message that the server would close the connection for.
// limit is the server's max_payload in bytes, which counts the headers too.
func checkSize(msg *nats.Msg, limit int64) error {
	size := len(msg.Data)
	if len(msg.Header) > 0 {
		size += msgHeaderPreface
	}
	for key, values := range msg.Header {
		for _, v := range values {
			size += len(key) + len(v) + msgHeaderLine
		}
	}
	if int64(size) <= limit {
		return nil
	}
	return fmt.Errorf("submit: %w: it is %s (%d bytes) with its headers, and the server's max_payload is %s (%d bytes)",
		ErrTooLarge, schemas.Bytes(size), size, schemas.Bytes(limit), limit)
}
