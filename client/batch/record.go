package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// ErrNotFound means that no such batch is known.
var ErrNotFound = errors.New("no such batch")

// A manifest says, beside the files of answers, of which batch they are. It is there
// before the first job is submitted.
type manifest struct {
	schemas.BatchRecord
	Path      string `json:"path,omitempty"`      // of the input
	Submitted int    `json:"submitted,omitempty"` // the last line that was, where nobody waits for the answers
}

// readManifest reads the manifest of an output. It's an error of fs.ErrNotExist where
// there is none.
func readManifest(out string) (*manifest, error) {
	data, err := os.ReadFile(out + manifestSuffix)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	m := &manifest{}
	if err := json.Unmarshal(data, m); err != nil || !ValidID(m.Batch) {
		return nil, fmt.Errorf("%s is no manifest of a batch: remove it and %s to begin anew", out+manifestSuffix, out)
	}
	return m, nil
}

// write writes the manifest so that it is there whole, or not at all.
func (m *manifest) write(out string) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	return replaceFile(out+manifestSuffix, append(data, '\n'))
}

// replaceFile has a file say what data is, whatever happens meanwhile.
func replaceFile(name string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(tmp.Name()) // it was renamed, or is of no use
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(tmp.Name(), name); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// begin returns the manifest of an output: the one that is there, if it is of this
// input, or a new one.
func begin(out string, f *File, cfg *Config) (m *manifest, fresh bool, err error) {
	m, err = readManifest(out)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, false, err
	case m.SHA256 != f.SHA256:
		return nil, false, fmt.Errorf("%s holds the answers to another file, or %s has changed since: choose another output, or remove %s, %s and %s to begin anew (lines that failed and were corrected since: vramjet batch retry-errors %s)",
			out, f.Path, out, out+errorsSuffix, out+manifestSuffix, out)
	default:
		return m, false, nil
	}
	for _, name := range []string{out, out + errorsSuffix} {
		if there, err := exists(name); err != nil || there {
			return nil, false, errors.Join(err, fmt.Errorf("%s exists, and is no output of a batch that could go on: choose another one, or remove it", name))
		}
	}
	path, err := filepath.Abs(f.Path)
	if err != nil {
		return nil, false, fmt.Errorf("find the input: %w", err)
	}
	m = newManifest(f, cfg)
	m.Path = path
	return m, true, m.write(out)
}

// Records are keys and values of a bucket. They are read and written by their
// subjects, since what the NATS client does for a bucket needs rights on the bucket as
// a whole, and a tenant has none but on its own keys.
const (
	bucketStream  = "KV_VJ_BATCHES"
	bucketSubject = "$KV.VJ_BATCHES."
)

// A store keeps the records of batches.
type store struct{ *conn }

// apiTimeout bounds a request to the server.
const apiTimeout = 10 * time.Second

func (s *store) subject(batch string) string { return bucketSubject + s.tenant + "." + batch }

// put stores a record: a new one where revision is 0, else one that nobody changed
// since it was read. Where somebody did it is an error that isConflict knows.
func (s *store) put(ctx context.Context, r *schemas.BatchRecord, revision uint64) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("store the batch: %w", err)
	}
	_, err = s.js.PublishMsg(ctx, &nats.Msg{Subject: s.subject(r.Batch), Data: data}, jetstream.WithExpectLastSequencePerSubject(revision))
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("store the batch: %w", errNoBucket)
	case err != nil:
		return fmt.Errorf("store the batch: %w", err)
	}
	return nil
}

var errNoBucket = fmt.Errorf("%w: there is no bucket VJ_BATCHES (is a dispatcher set up on this server and account?)", client.ErrNoVramjet)

// get reads a record, and at which revision it is.
func (s *store) get(ctx context.Context, batch string) (*schemas.BatchRecord, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if !ValidID(batch) {
		return nil, 0, fmt.Errorf("%w: %q is no id of a batch", ErrNotFound, batch)
	}
	m, err := s.nc.RequestWithContext(ctx, directGet+bucketStream+"."+s.subject(batch), nil)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, 0, fmt.Errorf("read the batch: %w", errNoBucket)
	case err != nil:
		return nil, 0, fmt.Errorf("read the batch: %w", err)
	}
	switch status := m.Header.Get("Status"); status {
	case "":
	case "404":
		return nil, 0, fmt.Errorf("%w as %s of the tenant %s", ErrNotFound, batch, s.tenant)
	default:
		return nil, 0, fmt.Errorf("read the batch: the server says %s %s", status, m.Header.Get("Description"))
	}
	revision, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return nil, 0, fmt.Errorf("read the batch: its sequence: %w", err)
	}
	r, err := readRecord(m.Data)
	return r, revision, err
}

func readRecord(data []byte) (*schemas.BatchRecord, error) {
	r := &schemas.BatchRecord{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("the record of a batch is none: %w", err)
	}
	return r, nil
}

// change changes a record, unless somebody else changes it at the same time: then it
// is an error that isConflict knows.
func (s *store) change(ctx context.Context, batch string, do func(*schemas.BatchRecord)) error {
	r, revision, err := s.get(ctx, batch)
	if err != nil {
		return err
	}
	do(r)
	return s.put(ctx, r, revision)
}

func isConflict(err error) bool { return codeOf(err) == jetstream.JSErrCodeStreamWrongLastSequence }

// list returns the records of a tenant, the newest first.
func (s *store) list(ctx context.Context) ([]schemas.BatchRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	cons, err := s.js.OrderedConsumer(ctx, bucketStream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{s.subject("*")}, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, InactiveThreshold: time.Minute,
	})
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, fmt.Errorf("list the batches: %w", errNoBucket)
	case err != nil:
		return nil, fmt.Errorf("list the batches: %w", err)
	}
	msgs, err := cons.Messages()
	if err != nil {
		return nil, fmt.Errorf("list the batches: %w", err)
	}
	defer msgs.Stop()
	var all []schemas.BatchRecord
	for left := cons.CachedInfo().NumPending; left > 0; {
		m, err := msgs.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, fmt.Errorf("list the batches: %w", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return nil, fmt.Errorf("list the batches: %w", err)
		}
		left = meta.NumPending
		if r, err := readRecord(m.Data()); err == nil && r.Batch != "" {
			all = append(all, *r)
		}
	}
	slices.SortFunc(all, func(a, b schemas.BatchRecord) int { return b.Created.Compare(a.Created) })
	return all, nil
}
