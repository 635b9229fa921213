package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Headers of JetStream that are used here.
const (
	headerExpectSeq = "Nats-Expected-Last-Subject-Sequence"
	headerSubject   = "Nats-Subject"
	headerSequence  = "Nats-Sequence"
	headerStatus    = "Status"
	headerReason    = "Description"
)

// PublishEnd publishes the end of a job on its subject in VJ_RESULTS, and waits
// until it is stored. Of all ends that are published there only the first is
// stored; first reports whether msg is that one. It tries again until ctx ends:
// give ctx a deadline.
//
// first may be false for the end's own publisher: where the confirmation was
// lost, the second attempt finds the end of the first. There is exactly one end
// either way. PublishEnd sets a header of msg, which must have no Nats-Msg-Id.
func PublishEnd(ctx context.Context, nc *nats.Conn, msg *nats.Msg) (first bool, err error) {
	if msg.Header == nil {
		msg.Header = nats.Header{}
	}
	msg.Header[headerExpectSeq] = []string{"0"}
	_, err = request(ctx, nc, msg, stored)
	switch {
	case err == nil:
		return true, nil
	case codeOf(err) == codeWrongSeq:
		return false, nil
	default:
		return false, fmt.Errorf("publish the end on %s: %w", msg.Subject, err)
	}
}

// PublishStored publishes msg and waits until a stream has stored it. It tries
// again until ctx ends: give ctx a deadline, and msg a Nats-Msg-Id where it must
// not be stored twice.
func PublishStored(ctx context.Context, nc *nats.Conn, msg *nats.Msg) error {
	if _, err := request(ctx, nc, msg, stored); err != nil {
		return fmt.Errorf("publish on %s: %w", msg.Subject, err)
	}
	return nil
}

// Ack settles a delivery for good: the job is removed. ackSubject is the
// delivery's, and opaque.
//
// Ack, Nak, Term and Extend return nil once the server has taken them. That
// proves nothing about whose delivery it was: JetStream takes an ack of a stale
// delivery for one of the current. So call none of them after the lease may
// have run out, and let ctx end with the lease. Ack, Nak and Term try again until
// then; without a deadline, for ever.
func Ack(ctx context.Context, nc *nats.Conn, ackSubject string) error {
	return settle(ctx, nc, "ack the job", ackSubject, []byte("+ACK"))
}

// Nak gives a delivery back: the job is delivered again after delay, within 20 ms
// where it is 0. See Ack.
func Nak(ctx context.Context, nc *nats.Conn, ackSubject string, delay time.Duration) error {
	// A server that restarts, or that others elect, knows of a nak only if it has a delay:
	// after one without, the job would wait there for its lease to run out.
	word := append([]byte(nil), `-NAK {"delay": `...)
	word = strconv.AppendInt(word, int64(max(delay, time.Millisecond)), 10)
	return settle(ctx, nc, "nak the job", ackSubject, append(word, '}'))
}

// Term gives a job up: it is removed, and reason stands in JetStream's advisory.
// See Ack.
func Term(ctx context.Context, nc *nats.Conn, ackSubject, reason string) error {
	word := "+TERM"
	if reason != "" {
		word += " " + oneLine(reason)
	}
	return settle(ctx, nc, "term the job", ackSubject, []byte(word))
}

// Extend makes a delivery last for another AckWait. It is one request without a
// second attempt, of 2 s at most: whoever holds leases extends them often. Count
// the new lease from before the call. See Ack.
func Extend(ctx context.Context, nc *nats.Conn, ackSubject string) error {
	msg := &nats.Msg{Subject: ackSubject, Data: []byte("+WPI")}
	if _, err := requestOnce(ctx, nc, msg, anyReply); err != nil {
		return fmt.Errorf("extend the lease: %w", err)
	}
	return nil
}

func settle(ctx context.Context, nc *nats.Conn, what, ackSubject string, word []byte) error {
	msg := &nats.Msg{Subject: ackSubject, Data: word}
	if _, err := request(ctx, nc, msg, anyReply); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// LastMsg returns the last message of a subject in a stream, and whether there
// is one. Its Subject is the one it was stored under. In a cluster, any replica
// may answer, so a message that was stored just now may not be seen yet. It tries
// again until ctx ends, also where there is no such stream: give ctx a deadline.
func LastMsg(ctx context.Context, nc *nats.Conn, stream, subject string) (*nats.Msg, bool, error) {
	ask := &nats.Msg{Subject: lastOf(stream, subject)}
	msg, err := request(ctx, nc, ask, found)
	if errors.Is(err, errNoMessage) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("look up %s in %s: %w", subject, stream, err)
	}
	msg.Subject, msg.Reply = msg.Header.Get(headerSubject), ""
	return msg, true, nil
}

// HasSeq reports whether a stream has a message of a sequence now. Other than with
// LastMsg it is the stream's leader who answers. It tries again until ctx ends: give
// ctx a deadline.
func HasSeq(ctx context.Context, nc *nats.Conn, stream string, seq uint64) (bool, error) {
	ask := &nats.Msg{
		Subject: "$JS.API.STREAM.MSG.GET." + stream,
		Data:    strconv.AppendUint([]byte(`{"seq":`), seq, 10),
	}
	ask.Data = append(ask.Data, '}')
	_, err := request(ctx, nc, ask, func(reply *nats.Msg) error {
		var got struct {
			Message *struct{}           `json:"message"`
			Error   *jetstream.APIError `json:"error"`
		}
		switch err := json.Unmarshal(reply.Data, &got); {
		case err != nil:
			return fmt.Errorf("read the answer: %w", err)
		case got.Error != nil:
			return got.Error
		case got.Message == nil:
			return errors.New("the answer has no message")
		default:
			return nil
		}
	})
	if codeOf(err) == jetstream.JSErrCodeMessageNotFound {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up message %d of %s: %w", seq, stream, err)
	}
	return true, nil
}

// AskLast asks for the last message of a subject in a stream, once. The answer comes to the
// subject reply, for HasLast.
func AskLast(nc *nats.Conn, stream, subject, reply string) error {
	return nc.PublishMsg(&nats.Msg{Subject: lastOf(stream, subject), Reply: reply})
}

// HasLast reads the answer to AskLast: whether there is such a message. An error is an
// answer that does not say it, as there may be while a cluster elects. See LastMsg.
func HasLast(answer *nats.Msg) (bool, error) {
	err := found(answer)
	if errors.Is(err, errNoMessage) {
		return false, nil
	}
	return err == nil, err
}

// lastOf is where the last message of a subject in a stream is asked for.
func lastOf(stream, subject string) string { return "$JS.API.DIRECT.GET." + stream + "." + subject }

// Has reports whether a stream has a message of a subject. See LastMsg.
func Has(ctx context.Context, nc *nats.Conn, stream, subject string) (bool, error) {
	_, ok, err := LastMsg(ctx, nc, stream, subject)
	return ok, err
}

var errNoMessage = errors.New("no message of that subject")

// found is content with a reply that is a message of a stream.
func found(reply *nats.Msg) error {
	if reply.Header.Get(headerSequence) != "" {
		return nil
	}
	switch status := reply.Header.Get(headerStatus); status {
	case "404":
		return errNoMessage
	default:
		return fmt.Errorf("JetStream answered %s %s", status, reply.Header.Get(headerReason))
	}
}
