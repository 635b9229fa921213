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
	"time"

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
	defer os.Remove(tmp.Name()) //nolint:errcheck // it was renamed, or is of no use
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
		return nil, false, fmt.Errorf("%s holds the answers to another file, or %s has changed since: choose another output, or remove %s, %s and %s to begin anew",
			out, f.Path, out, out+errorsSuffix, out+manifestSuffix)
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

const bucket = "VJ_BATCHES"

// A store keeps the records of batches.
type store struct {
	kv     jetstream.KeyValue
	tenant string
}

func openStore(ctx context.Context, js jetstream.JetStream, tenant string) (*store, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	kv, err := js.KeyValue(ctx, bucket)
	switch {
	case errors.Is(err, jetstream.ErrBucketNotFound), errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		return nil, fmt.Errorf("open the batches: %w: there is no bucket %s (is a dispatcher set up on this server and account?)", client.ErrNoVramjet, bucket)
	case err != nil:
		return nil, fmt.Errorf("open the batches: %w", err)
	}
	return &store{kv, tenant}, nil
}

// apiTimeout bounds a request to the server.
const apiTimeout = 10 * time.Second

func (s *store) key(batch string) string { return s.tenant + "." + batch }

// put stores a record.
func (s *store) put(ctx context.Context, r *schemas.BatchRecord) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("store the batch: %w", err)
	}
	if _, err := s.kv.Put(ctx, s.key(r.Batch), data); err != nil {
		return fmt.Errorf("store the batch: %w", err)
	}
	return nil
}

// get reads a record.
func (s *store) get(ctx context.Context, batch string) (*schemas.BatchRecord, error) {
	r, _, err := s.read(ctx, batch)
	return r, err
}

// read reads a record, and at which revision it is.
func (s *store) read(ctx context.Context, batch string) (*schemas.BatchRecord, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if !ValidID(batch) {
		return nil, 0, fmt.Errorf("%w: %q is no id of a batch", ErrNotFound, batch)
	}
	e, err := s.kv.Get(ctx, s.key(batch))
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return nil, 0, fmt.Errorf("%w as %s of the tenant %s", ErrNotFound, batch, s.tenant)
	case err != nil:
		return nil, 0, fmt.Errorf("read the batch: %w", err)
	}
	r := &schemas.BatchRecord{}
	if err := json.Unmarshal(e.Value(), r); err != nil {
		return nil, 0, fmt.Errorf("the record of %s is none: %w", batch, err)
	}
	return r, e.Revision(), nil
}

// change changes a record, where do says so, unless somebody else changes it at the
// same time: then it is an error that isConflict knows.
func (s *store) change(ctx context.Context, batch string, do func(*schemas.BatchRecord) bool) error {
	r, revision, err := s.read(ctx, batch)
	if err != nil || !do(r) {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("store the batch: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if _, err := s.kv.Update(ctx, s.key(batch), data, revision); err != nil {
		return fmt.Errorf("store the batch: %w", err)
	}
	return nil
}

func isConflict(err error) bool { return codeOf(err) == jetstream.JSErrCodeStreamWrongLastSequence }

// list returns the records of a tenant, the newest first.
func (s *store) list(ctx context.Context) ([]schemas.BatchRecord, error) {
	keys, err := s.kv.ListKeysFiltered(ctx, s.tenant+".*")
	if err != nil {
		return nil, fmt.Errorf("list the batches: %w", err)
	}
	var all []schemas.BatchRecord
	for key := range keys.Keys() {
		r, err := s.get(ctx, key[len(s.tenant)+1:])
		if errors.Is(err, ErrNotFound) {
			continue // it expired just now
		}
		if err != nil {
			return nil, errors.Join(err, keys.Stop())
		}
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b schemas.BatchRecord) int { return b.Created.Compare(a.Created) })
	return all, nil
}
