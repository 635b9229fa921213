package broker

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// A stream is read by pages: so many messages, or so many bytes.
const (
	pageMessages = 1000
	pageBytes    = 4 << 20
)

// Stored reads what a stream has on a subject, which may have wildcards, from a sequence
// on, in its order. A page of it is in memory at a time. It takes no consumer: what it
// yields may be a moment behind where a stream has replicas, and ends with the first error.
func Stored(ctx context.Context, js jetstream.JetStream, stream, subject string, from uint64) iter.Seq2[*jetstream.RawStreamMsg, error] {
	return func(yield func(*jetstream.RawStreamMsg, error) bool) {
		for seq, more := max(1, from), true; more; {
			more = false
			page, err := jetstreamext.GetBatch(ctx, js, stream, pageMessages, jetstreamext.GetBatchSeq(seq),
				jetstreamext.GetBatchSubject(subject), jetstreamext.GetBatchMaxBytes(pageBytes))
			if err != nil {
				yield(nil, fmt.Errorf("read %s: %w", stream, err))
				return
			}
			for m, err := range page {
				if errors.Is(err, jetstreamext.ErrNoMessages) {
					return
				}
				if err != nil {
					yield(nil, fmt.Errorf("read %s: %w", stream, err))
					return
				}
				seq, more = m.Sequence+1, m.Header.Get("Nats-Num-Pending") != "0"
				if !yield(m, nil) {
					return
				}
			}
		}
	}
}
