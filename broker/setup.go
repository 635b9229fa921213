package broker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// setupTimeout bounds one attempt at one stream. A cluster that has just started
// has no leader for seconds and answers nothing.
const setupTimeout = 2 * time.Second

// Codes of JetStream's errors that are read here, beside those that the client
// library names.
const (
	codeNotEnabledForUser jetstream.ErrorCode = 10039
	codeNameInUse         jetstream.ErrorCode = 10058
	codeSubjectOverlap    jetstream.ErrorCode = 10065
	codeReplicasNeedMore  jetstream.ErrorCode = 10074 // replicas on a server without a cluster
	codeWrongSeq          jetstream.ErrorCode = 10071
	codeStreamFull        jetstream.ErrorCode = 10077 // of one subject, or as a whole
	codeWrongSeqInFlight  jetstream.ErrorCode = 10164 // another write of the subject is not decided yet
)

// What to do, in errors.
const (
	noAnswerHint = "is JetStream enabled there (nats-server -js)?"
	deleteHint   = "move what it holds and delete it (nats stream rm %s), or use another NATS account"
)

// Setup makes the streams and the bucket, and changes those that exist to what
// cfg wants. Several processes may call it at once; the last cfg wins.
//
// It tries again, until ctx ends, for as long as JetStream is not there: give ctx
// a deadline. Where a stream stands in the way that is not ours, or that differs
// in what NATS cannot change, nothing of it is changed, and the error says which
// stream it is, what is wanted, and what to do.
func Setup(ctx context.Context, js jetstream.JetStream, cfg StreamsConfig) error {
	for _, want := range cfg.streams() {
		if err := setupStream(ctx, js, want); err != nil {
			return fmt.Errorf("set up stream %s: %w", want.Name, err)
		}
	}
	return nil
}

// Restore makes the streams that are gone, and changes none. It returns their names:
// what they held is lost. It asks each once, and may be called at any time.
func Restore(ctx context.Context, js jetstream.JetStream, cfg StreamsConfig) (made []string, err error) {
	for _, want := range cfg.streams() {
		_, err := js.Stream(ctx, want.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			if _, err = js.CreateStream(ctx, want); err == nil {
				made = append(made, want.Name)
			}
		}
		if err != nil {
			return made, fmt.Errorf("restore stream %s: %w", want.Name, err)
		}
	}
	return made, nil
}

func setupStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) error {
	var last error
	attempt := func() (struct{}, error) {
		tctx, cancel := context.WithTimeout(ctx, setupTimeout)
		defer cancel()
		last = trySetup(tctx, js, want)
		if last != nil && !Transient(last) {
			return struct{}{}, backoff.Permanent(explain(ctx, js, want, last))
		}
		return struct{}{}, last
	}
	_, err := backoff.Retry(ctx, attempt, backoff.WithBackOff(newBackOff()), backoff.WithMaxElapsedTime(0))
	if err != nil && ctx.Err() != nil && last != nil && Transient(last) {
		return fmt.Errorf("%w; last answer: %w; %s", context.Cause(ctx), last, noAnswerHint)
	}
	return err
}

// trySetup makes want, or changes what is there to it.
func trySetup(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) error {
	s, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = js.CreateStream(ctx, want)
		return err
	}
	if err != nil {
		return err
	}
	have := s.CachedInfo().Config
	if diff := unchangeable(have, want); diff != "" {
		return &conflictError{diff: diff, hint: fmt.Sprintf(deleteHint, want.Name)}
	}
	next := merge(have, want)
	if reflect.DeepEqual(next, have) {
		return nil
	}
	_, err = js.UpdateStream(ctx, next)
	return err
}

// A conflictError is a stream in the way.
type conflictError struct{ diff, hint string }

func (e *conflictError) Error() string { return e.diff + ": " + e.hint }

// unchangeable says in which way a stream is not, and cannot become, what is
// wanted; "" where it can.
func unchangeable(have, want jetstream.StreamConfig) string {
	var diff []string
	differ := func(what string, h, w any) {
		if !reflect.DeepEqual(h, w) {
			diff = append(diff, fmt.Sprintf("its %s is %v, but %v is wanted", what, h, w))
		}
	}
	differ("retention", have.Retention, want.Retention)
	differ("storage", have.Storage, want.Storage)
	differ("subjects", have.Subjects, want.Subjects)
	switch {
	case have.Sealed:
		diff = append(diff, "it is sealed")
	case have.Mirror != nil:
		diff = append(diff, "it is a mirror")
	case have.AllowMsgTTL && !want.AllowMsgTTL:
		diff = append(diff, "it allows messages to expire by themselves, which no job may")
	}
	return strings.Join(diff, "; ")
}

// Transient reports whether an error of NATS or JetStream may pass by itself, so
// that the same should be asked again: no answer, no connection for now, a
// cluster that elects a leader or moves a stream. A full stream is not transient:
// whoever publishes there should hear of it.
func Transient(err error) bool {
	switch codeOf(err) {
	case 0: // no answer of JetStream
	case codeNotEnabledForUser, jetstream.JSErrCodeJetStreamNotEnabled, codeStreamFull:
		return false
	case codeNameInUse, jetstream.JSErrCodeStreamNotFound: // another process was faster
		return true
	case codeWrongSeqInFlight:
		return true
	default:
		return unavailable(err)
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) ||
		errors.Is(err, nats.ErrDisconnected) || errors.Is(err, nats.ErrConnectionReconnecting) ||
		errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, errNotConnected)
}

// Full reports whether a stream refused a message because it holds as many as it
// may, of its subject or at all.
func Full(err error) bool { return codeOf(err) == codeStreamFull }

// TooLarge reports whether a message was refused because of its size.
func TooLarge(err error) bool {
	return errors.Is(err, nats.ErrMaxPayload) || codeOf(err) == jetstream.JSErrCodeStreamMessageExceedsMaximum
}

// unavailable reports whether JetStream said that it cannot do it for now.
func unavailable(err error) bool {
	var js jetstream.JetStreamError
	return errors.As(err, &js) && js.APIError() != nil && js.APIError().Code == http.StatusServiceUnavailable
}

// codeOf returns the code of JetStream's answer that err is, 0 where it is none.
func codeOf(err error) jetstream.ErrorCode {
	var js jetstream.JetStreamError
	if errors.As(err, &js) && js.APIError() != nil {
		return js.APIError().ErrorCode
	}
	return 0
}

// explain adds what to do to an error of JetStream that stays.
func explain(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig, err error) error {
	switch codeOf(err) {
	case codeSubjectOverlap:
		others := overlapping(ctx, js, want)
		return fmt.Errorf("the subjects %v, which it needs, belong to stream %s already: %s: %w",
			want.Subjects, strings.Join(others, ", "), fmt.Sprintf(deleteHint, strings.Join(others, " ")), err)
	case codeReplicasNeedMore:
		return fmt.Errorf("%d replicas need a NATS cluster of as many servers: ask for 1, or start a cluster: %w", want.Replicas, err)
	case codeNotEnabledForUser, jetstream.JSErrCodeJetStreamNotEnabled:
		return fmt.Errorf("JetStream is off for this server or account: switch it on (nats-server -js): %w", err)
	default:
		return err
	}
}

// overlapping lists the other streams that have subjects of want.
func overlapping(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) []string {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	var others []string
	names := js.StreamNames(ctx, jetstream.WithStreamListSubject(want.Subjects[0]))
	for name := range names.Name() {
		if name != want.Name {
			others = append(others, name)
		}
	}
	if len(others) == 0 {
		return []string{"(unknown)"}
	}
	return others
}

// newBackOff waits 20 ms, then longer, up to 1 s.
func newBackOff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = 20 * time.Millisecond
	b.Multiplier = 2
	b.MaxInterval = time.Second
	return b
}
