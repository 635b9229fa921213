package schemas

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Code says what went wrong with a job, in one word.
type Code string

// The codes.
const (
	InvalidRequest  Code = "invalid_request"  // the job can never be run as it stands
	ModelNotFound   Code = "model_not_found"  // no backend has the model
	ContextOverflow Code = "context_overflow" // the prompt is longer than the model's context
	ContentFiltered Code = "content_filtered" // the backend's filter turned it down
	Unsupported     Code = "unsupported"      // the backend or the model cannot do this
	Auth            Code = "auth"             // the backend does not know our key
	Permission      Code = "permission"       // the key may not do this
	QuotaExhausted  Code = "quota_exhausted"  // no money or quota left: not a rate limit
	RateLimited     Code = "rate_limited"     // too many requests for now
	Overloaded      Code = "overloaded"       // the backend is full for now
	ModelLoading    Code = "model_loading"    // the backend still loads the model
	OutOfMemory     Code = "out_of_memory"    // the device has no room
	Unreachable     Code = "unreachable"      // no connection to the backend
	UpstreamError   Code = "upstream_error"   // the backend failed
	StreamBroken    Code = "stream_broken"    // the answer stopped without its final marker
	Deadline        Code = "deadline"         // out of time
	Cancelled       Code = "cancelled"        // somebody asked to stop it
	Refused         Code = "refused"          // not allowed: a reply subject, say
	JobNotFound     Code = "job_not_found"    // asked about a job that nobody knows
	Internal        Code = "internal"         // a defect of vramjet
)

// An Action is what may be done about an error.
type Action int

// The actions. The zero Action is Elsewhere: a forgotten case costs a retry, and
// never loses a job.
const (
	Elsewhere Action = iota // another backend now, else this one later
	Later                   // this backend later, after RetryAfter if it is set
	Free                    // free memory, then once more
	Never                   // no retry can help
)

// Blame says whose mistake an error is.
type Blame int

// The parties. A caller's mistake never trips a breaker, evicts a model or makes
// a job fail over.
const (
	BlameBackend Blame = iota
	BlameCaller
	BlameNobody
)

// A Verdict is what follows from an error.
type Verdict struct {
	Action Action
	Blame  Blame
	Type   string // OpenAI's type of the error
}

var verdicts = map[Code]Verdict{
	InvalidRequest:  {Never, BlameCaller, "invalid_request_error"},
	ModelNotFound:   {Elsewhere, BlameCaller, "not_found_error"},
	ContextOverflow: {Never, BlameCaller, "invalid_request_error"},
	ContentFiltered: {Never, BlameCaller, "invalid_request_error"},
	Unsupported:     {Elsewhere, BlameCaller, "invalid_request_error"},
	Auth:            {Elsewhere, BlameBackend, "authentication_error"},
	Permission:      {Elsewhere, BlameBackend, "permission_error"},
	QuotaExhausted:  {Elsewhere, BlameBackend, "insufficient_quota"},
	RateLimited:     {Later, BlameBackend, "rate_limit_error"},
	Overloaded:      {Elsewhere, BlameBackend, "overloaded_error"},
	ModelLoading:    {Later, BlameNobody, "overloaded_error"},
	OutOfMemory:     {Free, BlameBackend, "server_error"},
	Unreachable:     {Elsewhere, BlameBackend, "server_error"},
	UpstreamError:   {Elsewhere, BlameBackend, "server_error"},
	StreamBroken:    {Elsewhere, BlameBackend, "server_error"},
	Deadline:        {Elsewhere, BlameNobody, "timeout_error"},
	Cancelled:       {Never, BlameNobody, "cancelled"},
	Refused:         {Never, BlameCaller, "permission_error"},
	JobNotFound:     {Never, BlameCaller, "not_found_error"},
	Internal:        {Elsewhere, BlameNobody, "server_error"},
}

// Verdict returns what follows from c. A code that does not exist is Internal.
func (c Code) Verdict() Verdict {
	if v, ok := verdicts[c]; ok {
		return v
	}
	return verdicts[Internal]
}

// Valid reports whether c is one of the codes.
func (c Code) Valid() bool {
	_, ok := verdicts[c]
	return ok
}

// An Error is why a job, or an attempt at it, failed. It travels in end, retry
// and refusal messages.
type Error struct {
	Message string `json:"message"`         // for people: what is wrong and what to do
	Type    string `json:"type"`            // as OpenAI's servers name it
	Code    Code   `json:"code"`            // for programs
	Param   string `json:"param,omitempty"` // the member of the request that is to blame

	// RetryAfter is how long the backend asked to be left alone. 0: it did not say.
	RetryAfter time.Duration `json:"-"`
}

// Error returns the code and the message.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Errorf returns an Error with the code and the message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Type: code.Verdict().Type, Message: fmt.Sprintf(format, args...)}
}

// AsError returns err as an Error. What is none becomes Deadline or Cancelled
// where a context ended, and else Internal.
func AsError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return Errorf(Deadline, "out of time")
	case errors.Is(err, context.Canceled):
		return Errorf(Cancelled, "cancelled")
	default:
		return Errorf(Internal, "%s", err)
	}
}
