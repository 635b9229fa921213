package dispatcher

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
)

// A mark in KV says that a queued job was cancelled. Jobs with result subjects
// have their end as well, which is enough to drop them; the mark is for those
// that answer to a reply subject, which only the job itself knows.

func markKey(k jobKey) string { return "cancel." + k.tenant + "." + k.id }

// storeMark stores a mark that goes away by itself.
func (t *term) storeMark(ctx context.Context, k jobKey) error {
	m := nats.NewMsg("$KV." + broker.BucketState + "." + markKey(k))
	m.Header.Set("Nats-TTL", markMemory.String())
	m.Data = []byte(t.cfg.ID)
	if err := broker.PublishStored(ctx, t.nc, m); err != nil {
		return fmt.Errorf("store the mark: %w", err)
	}
	return nil
}

// loadMarks reads the marks that former leaders stored.
func (t *term) loadMarks() {
	t.untilRead("cancelled jobs are not known yet", func() error {
		marks, err := t.readMarks()
		t.post(func() {
			now := time.Now()
			for _, k := range marks {
				t.marks[k] = now
			}
		})
		return err
	})
}

// listMarksWithin is how long a list of the marks may take: there may be very many.
const listMarksWithin = 10 * time.Second

func (t *term) readMarks() ([]jobKey, error) {
	var kv jetstream.KeyValue
	err := untilAnswered(t.ctx, func(ctx context.Context) (err error) {
		kv, err = t.js.KeyValue(ctx, broker.BucketState)
		return err //nolint:wrapcheck // it is below
	})
	if err != nil {
		return nil, fmt.Errorf("open the bucket: %w", err)
	}
	ctx, cancel := context.WithTimeout(t.ctx, listMarksWithin)
	defer cancel()
	keys, err := kv.ListKeysFiltered(ctx, "cancel.>")
	if err != nil {
		return nil, fmt.Errorf("list the marks: %w", err)
	}
	var marks []jobKey
	for key := range keys.Keys() {
		if tenant, id, ok := strings.Cut(strings.TrimPrefix(key, "cancel."), "."); ok {
			marks = append(marks, jobKey{tenant, id})
		}
	}
	return marks, nil
}
