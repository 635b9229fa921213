package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// List returns the batches of a tenant, the newest first.
func List(ctx context.Context, nc *nats.Conn, tenant string) ([]schemas.BatchRecord, error) {
	s, err := openStore(nc, tenant)
	if err != nil {
		return nil, err
	}
	return s.list(ctx)
}

// Status returns what is known of a batch. How many lines have their result is as of
// At, unless nobody runs it: then the stored results are counted.
func Status(ctx context.Context, nc *nats.Conn, tenant, batch string) (*schemas.BatchRecord, error) {
	s, err := openStore(nc, tenant)
	if err != nil {
		return nil, err
	}
	rec, revision, err := s.get(ctx, batch)
	if err != nil || rec.State == schemas.BatchCompleted || time.Since(rec.At) < 2*heartbeat {
		return rec, err
	}
	ok, failed := 0, 0
	err = s.results(ctx, rec, &lineSet{}, func(e *ended) error {
		if e.status == schemas.StatusOK {
			ok++
		} else {
			failed++
		}
		return nil
	})
	if err == nil && ok+failed >= rec.OK+rec.Failed { // else some are kept no longer
		rec.OK, rec.Failed, rec.At = ok, failed, time.Now().UTC()
	}
	if rec.State == schemas.BatchInProgress && rec.OK+rec.Failed == rec.Jobs {
		rec.State = schemas.BatchCompleted
		err = errors.Join(err, s.put(ctx, rec, revision))
		publishEvent(s.conn, "completed", rec, rec.OK, rec.Failed)
	}
	return rec, err
}

// results calls do with the stored results of all lines of a batch but those in has,
// of each the last round's.
func (c *conn) results(ctx context.Context, rec *schemas.BatchRecord, has *lineSet, do func(*ended) error) error {
	for round := rec.Round; round >= 0; round-- {
		var jobs []jobName
		for line := 1; line <= rec.Lines; line++ {
			if !has.has(line) {
				jobs = append(jobs, jobName{rec.Batch, line, round})
			}
			if len(jobs) < page && line < rec.Lines {
				continue
			}
			err := c.stored(ctx, jobs, func(e *ended) error {
				has.add(e.name.line)
				return do(e)
			})
			if err != nil {
				return err
			}
			jobs = jobs[:0]
		}
	}
	return nil
}

// Fetch writes the results of a batch that are stored and that out has not, as Run
// does: on any machine, and without the file of requests. It returns how far the batch
// is.
func Fetch(ctx context.Context, nc *nats.Conn, tenant, batch, out string) (p Progress, err error) {
	s, err := openStore(nc, tenant)
	if err != nil {
		return p, err
	}
	rec, _, err := s.get(ctx, batch)
	if err != nil {
		return p, err
	}
	m, err := readManifest(out)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if there, err := exists(out); err != nil || there {
			return p, errors.Join(err, fmt.Errorf("%s exists, and is no output of a batch: choose another one, or remove it", out))
		}
		m = &manifest{BatchRecord: *rec}
		if err := m.write(out); err != nil {
			return p, err
		}
	case err != nil:
		return p, err
	case m.Batch != batch:
		return p, fmt.Errorf("%s holds the answers of %s", out, m.Batch)
	}
	o, err := openOutputs(out, batch)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	has := &lineSet{bits: slices.Clone(o.done.bits)}
	if err := s.results(ctx, rec, has, o.add); err != nil {
		return p, err
	}
	return Progress{Batch: batch, Jobs: rec.Jobs, OK: o.answered, Failed: o.failed, Codes: o.codes, Examples: o.examples}, nil
}

// Cancel has nothing more of a batch run: what waits and what runs ends as cancelled.
// What has its result keeps it.
func Cancel(ctx context.Context, nc *nats.Conn, tenant, batch string) (*schemas.BatchRecord, error) {
	s, err := openStore(nc, tenant)
	if err != nil {
		return nil, err
	}
	var rec *schemas.BatchRecord
	const tries = 10 // somebody else may be just about to change it
	for range tries {
		err = s.change(ctx, batch, func(r *schemas.BatchRecord) {
			rec = r
			if r.State == schemas.BatchInProgress {
				r.State, r.At = schemas.BatchCancelled, time.Now().UTC()
			}
		})
		if !isConflict(err) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if rec.State == schemas.BatchCompleted {
		return rec, fmt.Errorf("%s is completed: there is nothing to cancel", batch)
	}
	publishEvent(s.conn, "cancelled", rec, rec.OK, rec.Failed)
	return rec, s.purge(ctx, batch)
}

// RetryErrors runs the lines of a completed batch again that failed: all, or those
// with one of the codes. Their old results are taken out of the files. Those that were
// at fault themselves may have been corrected in the file of requests meanwhile.
func RetryErrors(ctx context.Context, nc *nats.Conn, out string, codes []schemas.Code, cfg Config) (Progress, error) {
	m, err := readManifest(out)
	if errors.Is(err, fs.ErrNotExist) {
		return Progress{}, fmt.Errorf("%w: there is no %s", ErrNotFound, out+manifestSuffix)
	}
	if err != nil {
		return Progress{}, err
	}
	o, err := openOutputs(out, m.Batch)
	if err != nil {
		return Progress{}, err
	}
	done := o.answered + o.failed
	kept, again, err := o.split(codes)
	if err = errors.Join(err, o.close()); err != nil {
		return Progress{}, err
	}
	switch {
	case done < m.Jobs:
		return Progress{}, fmt.Errorf("%d of %d lines have a result: finish the batch first (resume)", done, m.Jobs)
	case len(again) == 0:
		return Progress{Batch: m.Batch, Jobs: m.Jobs, OK: o.answered, Failed: o.failed, Codes: o.codes, Examples: o.examples}, nil
	}
	if err := m.takeCorrections(again); err != nil {
		return Progress{}, err
	}
	m.Round++ // first, so that no result of the round before is taken for one of this
	if err := m.write(out); err != nil {
		return Progress{}, err
	}
	if err := replaceFile(out+errorsSuffix, kept); err != nil {
		return Progress{}, err
	}
	return Resume(ctx, nc, out, cfg)
}

// takeCorrections takes a file of requests that was changed since it was submitted. The
// lines that are to be run again, and how many there are, must be what they were, by
// their custom_ids.
func (m *manifest) takeCorrections(again map[int]string) error {
	f, err := Check(m.Path)
	if err != nil || f.SHA256 == m.SHA256 {
		return err
	}
	if f.Lines != m.Lines || f.Jobs != m.Jobs {
		return fmt.Errorf("%s has %d requests now, and had %d: correct lines in their place, and add and remove none", m.Path, f.Jobs, m.Jobs)
	}
	requests, closeFile, err := read(m.Path)
	if err != nil {
		return err
	}
	defer closeFile()
	for q := range requests {
		if q.err != nil {
			return q.err
		}
		if id, ok := again[q.line]; ok && id != q.CustomID {
			return fmt.Errorf("%s: line %d had the custom_id %q: correct lines in their place, and add and remove none", m.Path, q.line, id)
		}
	}
	m.SHA256, m.Models = f.SHA256, f.Models
	return nil
}

// split returns what stays of the file of failures, and which are to be run again, by
// their lines.
func (o *outputs) split(codes []schemas.Code) (kept []byte, again map[int]string, err error) {
	if _, err := o.bad.file.Seek(0, 0); err != nil {
		return nil, nil, fmt.Errorf("read the failures: %w", err)
	}
	again = map[int]string{}
	err = o.bad.each(func(text []byte) error {
		var e entry
		if err := json.Unmarshal(text, &e); err != nil {
			return fmt.Errorf("read the failures: %w", err)
		}
		if name, ok := parseJobID(e.ID); ok && (len(codes) == 0 || slices.Contains(codes, e.failure().Code)) {
			again[name.line] = e.CustomID
			return nil
		}
		kept = append(append(kept, text...), '\n')
		return nil
	})
	return kept, again, err
}

func openStore(nc *nats.Conn, tenant string) (*store, error) {
	if !schemas.ValidToken(tenant) {
		return nil, fmt.Errorf("the tenant %q is not 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'", tenant)
	}
	c, err := open(nc, tenant)
	return &store{c}, err
}

// purge ends what waits and what runs of a batch.
func (c *conn) purge(ctx context.Context, batch string) error {
	api, err := client.New(c.nc, client.Options{Tenant: c.tenant})
	if err != nil {
		return err //nolint:wrapcheck // the client says what is wrong
	}
	if _, err := api.Purge(ctx, schemas.PurgeRequest{Prefix: batch + "-", Running: true}, nil); err != nil {
		return fmt.Errorf("%s is cancelled, and what of it is in the queue is not: cancel it again: %w", batch, err)
	}
	return nil
}
