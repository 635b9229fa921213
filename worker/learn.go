package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// What loads took is kept in KV, one record for each way to load a model, and every
// node follows all of them.

// learnedPrefix is what the keys of these records begin with.
const learnedPrefix = "need."

// learnedNeed is what loads of a model took.
type learnedNeed = schemas.LearnedNeed

// keyOf names the way in which b loads a model: of the same digest, with the same
// context and slots, by the same kind and version of server.
func (b *backend) keyOf(m *schemas.Model) string {
	e := b.estimates[m.Name]
	name := m.Digest
	if name == "" {
		name = b.serverName(m.Name)
	}
	way := fmt.Sprintf("%s\x00%d\x00%d\x00%s\x00%s\x00%s", name, e.context, e.parallel, e.kvType, b.Kind, e.version)
	sum := sha256.Sum256([]byte(way))
	return learnedPrefix + hex.EncodeToString(sum[:16])
}

// learn takes in what a load took, before the books end its reservation. What the
// devices show counts where nothing else can have made the difference; else only where
// it is near what was expected: more or less may be somebody else's.
func (n *node) learn(ctx context.Context, l *load) {
	b := l.backend
	m, ok := b.model(l.Model)
	if !ok {
		return
	}
	took, sure := n.books.Grown(l.Victim)
	sample, expected := took.Sum(), l.plan.Sum()
	if !sure {
		sample = plausible(sample, expected)
	}
	if sample == 0 {
		return
	}
	key := b.keyOf(&m)
	rec := n.learned[key]
	rec = rec.With(sample, time.Now().UTC())
	e := b.estimates[l.Model]
	rec.Model, rec.Digest, rec.Kind = b.serverName(l.Model), m.Digest, b.Kind
	rec.Context, rec.Parallel, rec.Version, rec.Estimate = e.context, e.parallel, e.version, e.total
	n.learned[key] = rec
	if e.total.Known && e.total.Bytes > 0 {
		n.w.metrics.estimate.WithLabelValues(l.Model).Observe(float64(sample)/float64(e.total.Bytes) - 1)
	}
	n.beside.Go(func() { n.w.store(ctx, key, rec) })
}

// plausible is a measure that something else may have had a part in: 0 unless it is
// within a quarter of what was expected.
func plausible(sample, expected schemas.Bytes) schemas.Bytes {
	if expected == 0 || max(sample, expected)-min(sample, expected) > expected/4 {
		return 0
	}
	return sample
}

// storeWithin bounds a write to KV.
const storeWithin = 10 * time.Second

// store writes a record. What is lost of it is learned again.
func (w *Worker) store(ctx context.Context, key string, rec learnedNeed) {
	ctx, cancel := context.WithTimeout(ctx, storeWithin)
	defer cancel()
	if err := w.put(ctx, key, rec); err != nil {
		w.cfg.Logger.Warn("not stored", "key", key, "err", err)
	}
}

// put writes an entry, or deletes it where v is nil.
func (w *Worker) put(ctx context.Context, key string, v any) error {
	kv, err := w.bucket(ctx)
	if err != nil {
		return err
	}
	if v == nil {
		return kv.Delete(ctx, key)
	}
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = kv.Put(ctx, key, body)
	return err
}

func (w *Worker) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	js, err := jetstream.New(w.nc)
	if err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	kv, err := js.KeyValue(ctx, broker.BucketState)
	if err != nil {
		return nil, fmt.Errorf("open the bucket: %w", err)
	}
	return kv, nil
}

// followState follows the records of all nodes and the pins of this one, until ctx
// ends.
func (w *Worker) followState(ctx context.Context) {
	for {
		err := w.watchState(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			continue
		}
		w.cfg.Logger.Warn("what was learned is not followed", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(jitter(w.pace.poll * 5)):
		}
	}
}

const (
	stateAhead = 1024             // entries that may come while others are read
	stateAgain = 10 * time.Minute // until all are read again, in case that one was missed
)

// watchState reads the entries, and takes in those that are written since, until all have
// to be read again. It hears them as they are published: a consumer for each node would be
// one for the server to look at whenever anything is stored, and to make anew in an
// election.
func (w *Worker) watchState(ctx context.Context) error {
	js, err := jetstream.New(w.nc)
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	filters := [...]string{entryPrefix + learnedPrefix + "*", entryPrefix + w.pinPrefix() + "*"}
	written := make(chan *nats.Msg, stateAhead)
	for _, filter := range filters {
		sub, err := w.nc.ChanSubscribe(filter, written)
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		defer func() { _ = sub.Unsubscribe() }() // fails where the connection is closed
	}
	connected := w.nc.StatusChanged(nats.CONNECTED)
	defer w.nc.RemoveStatusListener(connected)
	for _, filter := range filters {
		for m, err := range broker.Stored(ctx, js, stateStream, filter, 1) {
			if err != nil {
				return err
			}
			w.remember(m.Subject, m.Header, m.Data)
		}
	}
	again := time.NewTimer(jitter(stateAgain))
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-written:
			w.remember(m.Subject, m.Header, m.Data)
		case <-connected: // what was written meanwhile was not heard
			return nil
		case <-again.C:
			return nil
		}
	}
}

// Entries of the bucket are messages of its stream: to delete one writes another.
const (
	entryPrefix = "$KV." + broker.BucketState + "."
	stateStream = "KV_" + broker.BucketState

	headerDeleted = "KV-Operation" // not on what was put
)

func (w *Worker) remember(subject string, header nats.Header, value []byte) {
	gone := header.Get(headerDeleted) != ""
	w.send(remembered{key: strings.TrimPrefix(subject, entryPrefix), gone: gone, value: value})
}

// remembered is an entry of KV.
type remembered struct {
	key   string
	gone  bool
	value []byte
}

func (m remembered) apply(_ context.Context, n *node) {
	var err error
	switch {
	case !strings.HasPrefix(m.key, learnedPrefix):
		err = n.rememberPin(m)
	case m.gone:
		delete(n.learned, m.key)
	default:
		var rec learnedNeed
		if err = json.Unmarshal(m.value, &rec); err == nil && len(rec.Samples) > 0 {
			rec.Samples = slices.Clone(rec.Samples)
			n.learned[m.key] = rec
		}
	}
	if err != nil {
		n.w.cfg.Logger.Warn("an entry cannot be read", "key", m.key, "err", err)
	}
	n.changed = true
}
