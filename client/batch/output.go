package batch

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// The files of a batch are one for answers and, beside it, one for lines that failed
// and one with what the batch is.
const (
	errorsSuffix   = ".errors"
	manifestSuffix = ".vjbatch"
)

// An entry is one line of a file of answers, in the shape of OpenAI's.
type entry struct {
	ID       string    `json:"id"` // of the job
	CustomID string    `json:"custom_id"`
	Response *response `json:"response"` // null: it was never answered
	Error    *failure  `json:"error"`
}

type response struct {
	StatusCode int             `json:"status_code"`
	RequestID  string          `json:"request_id"`
	Body       json.RawMessage `json:"body"`
}

type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// What OpenAI's batches say of lines that were never answered.
const (
	expired   = "batch_expired"
	cancelled = "batch_cancelled"
)

// statusCodes are how OpenAI's servers answer what has our codes.
var statusCodes = map[schemas.Code]int{
	schemas.InvalidRequest: 400, schemas.ContextOverflow: 400, schemas.ContentFiltered: 400, schemas.Unsupported: 400,
	schemas.Auth: 401, schemas.Permission: 403, schemas.Refused: 403, schemas.ModelNotFound: 404,
	schemas.QuotaExhausted: 429, schemas.RateLimited: 429,
	schemas.Overloaded: 503, schemas.ModelLoading: 503, schemas.OutOfMemory: 503,
	schemas.Unreachable: 502, schemas.UpstreamError: 502, schemas.StreamBroken: 502,
}

// entry returns the line for an end.
func (e *ended) entry() entry {
	out := entry{ID: e.job, CustomID: e.customID}
	if e.status == schemas.StatusOK {
		out.Response = &response{StatusCode: http.StatusOK, RequestID: e.job, Body: e.body}
		return out
	}
	var f struct {
		Error *schemas.Error `json:"error"`
	}
	if err := json.Unmarshal(e.body, &f); err != nil || f.Error == nil {
		f.Error = schemas.Errorf(schemas.Internal, "it ended as %q without an error", e.status)
	}
	switch e.status {
	case schemas.StatusCancelled:
		out.Error = &failure{cancelled, f.Error.Message}
	case schemas.StatusExpired:
		out.Error = &failure{expired, f.Error.Message}
	default:
		body := e.body
		if !json.Valid(body) {
			body = []byte("null")
		}
		out.Response = &response{StatusCode: cmp.Or(statusCodes[f.Error.Code], http.StatusInternalServerError), RequestID: e.job, Body: body}
	}
	return out
}

// outputs are the files of answers and of failures of a batch.
type outputs struct {
	path string
	ok   *appender
	bad  *appender
	done *lineSet

	answered, failed int
	codes            map[schemas.Code]int     // of failures
	examples         map[schemas.Code]Example // likewise
	synced           time.Time
}

// openOutputs opens the files, which may exist, and reads which lines they have. What
// of a last line was not written whole is cut off.
func openOutputs(path, batch string) (*outputs, error) {
	o := &outputs{path: path, done: &lineSet{}, codes: map[schemas.Code]int{}, examples: map[schemas.Code]Example{}}
	var err error
	if o.ok, err = openAppender(path); err != nil {
		return nil, err
	}
	if o.bad, err = openAppender(path + errorsSuffix); err != nil {
		return nil, errors.Join(err, o.ok.close())
	}
	for _, a := range []*appender{o.ok, o.bad} {
		if err := o.index(a, batch); err != nil {
			return nil, errors.Join(err, o.close())
		}
	}
	return o, nil
}

// index reads which lines of the batch a file has.
func (o *outputs) index(a *appender, batch string) error {
	n := 0
	err := a.each(func(text []byte) error {
		n++
		var e entry
		if err := json.Unmarshal(text, &e); err != nil {
			return fmt.Errorf("%s:%d: it is no line of answers: %w", a.name, n, err)
		}
		name, ok := parseJobID(e.ID)
		if !ok || name.batch != batch {
			return fmt.Errorf("%s:%d: it is of another batch (%q): write this one elsewhere", a.name, n, e.ID)
		}
		if !o.done.add(name.line) {
			return fmt.Errorf("%s:%d: line %d of the batch is there twice: the file was changed by somebody else", a.name, n, name.line)
		}
		o.tally(&e, name.line)
		return nil
	})
	return err
}

// tally counts the result of a line, and reports whether it is an answer.
func (o *outputs) tally(e *entry, line int) (ok bool) {
	if e.ok() {
		o.answered++
		return true
	}
	err := e.failure()
	o.failed++
	o.codes[err.Code]++
	if _, ok := o.examples[err.Code]; !ok {
		o.examples[err.Code] = Example{line, e.CustomID, err.Message}
	}
	return false
}

func (e *entry) ok() bool { return e.Response != nil && e.Response.StatusCode == http.StatusOK }

// failure is why a line failed.
func (e *entry) failure() *schemas.Error {
	if e.Error != nil {
		switch e.Error.Code {
		case expired:
			return schemas.Errorf(schemas.Deadline, "%s", e.Error.Message)
		case cancelled:
			return schemas.Errorf(schemas.Cancelled, "%s", e.Error.Message)
		}
	}
	var f struct {
		Error *schemas.Error `json:"error"`
	}
	if e.Response == nil || json.Unmarshal(e.Response.Body, &f) != nil || f.Error == nil {
		return schemas.Errorf(schemas.Internal, "nobody knows why")
	}
	return f.Error
}

// add writes an end, unless its line is there.
func (o *outputs) add(e *ended) error {
	if !o.done.add(e.name.line) {
		return nil
	}
	line := e.entry()
	if o.tally(&line, e.name.line) {
		return o.ok.append(&line)
	}
	return o.bad.append(&line)
}

// syncEvery is how much may be lost when the machine fails, not just the program: it
// is fetched again.
const syncEvery = time.Second

// flush writes what was added to the files, and now and then to the disk.
func (o *outputs) flush(now time.Time) error {
	if err := errors.Join(o.ok.flush(), o.bad.flush()); err != nil {
		return err
	}
	if now.Sub(o.synced) < syncEvery {
		return nil
	}
	o.synced = now
	return errors.Join(o.ok.file.Sync(), o.bad.file.Sync())
}

// close writes all to the disk. A file of failures that has none is not left behind.
func (o *outputs) close() error {
	err := errors.Join(o.flush(time.Now()), o.ok.file.Sync(), o.bad.file.Sync(), o.ok.close(), o.bad.close())
	if st, bad := os.Stat(o.path + errorsSuffix); bad == nil && st.Size() == 0 {
		err = errors.Join(err, os.Remove(o.path+errorsSuffix))
	}
	return err
}

// An appender adds lines of JSON to a file.
type appender struct {
	name string
	file *os.File
	w    *bufio.Writer
	enc  *json.Encoder
}

func openAppender(name string) (*appender, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666) //nolint:gosec // as any program's output
	if err != nil {
		return nil, fmt.Errorf("open the output: %w", err)
	}
	a := &appender{name: name, file: file, w: bufio.NewWriterSize(file, 1<<16)}
	a.enc = json.NewEncoder(a.w)
	a.enc.SetEscapeHTML(false)
	return a, nil
}

// each calls do with each line that is there, cuts off what of a last one is not
// whole, and goes to the end.
func (a *appender) each(do func(text []byte) error) error {
	r := bufio.NewReaderSize(a.file, 1<<16)
	whole := int64(0)
	var text []byte
	for {
		part, err := r.ReadSlice('\n')
		text = append(text, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			if err := a.file.Truncate(whole); err != nil {
				return fmt.Errorf("cut off what is not whole of %s: %w", a.name, err)
			}
			_, err := a.file.Seek(whole, io.SeekStart)
			return err //nolint:wrapcheck // it names the file
		case err != nil:
			return err //nolint:wrapcheck // it names the file
		}
		whole += int64(len(text))
		if err := do(bytes.TrimSuffix(text, []byte("\n"))); err != nil {
			return err
		}
		text = text[:0]
	}
}

func (a *appender) append(v any) error {
	if err := a.enc.Encode(v); err != nil {
		return fmt.Errorf("write %s: %w", a.name, err)
	}
	return nil
}

func (a *appender) flush() error {
	if err := a.w.Flush(); err != nil {
		return fmt.Errorf("write %s: %w", a.name, err)
	}
	return nil
}

func (a *appender) close() error { return a.file.Close() }

// A lineSet is a set of numbers of lines, a bit for each.
type lineSet struct{ bits []uint64 }

// add adds a line, and reports whether it was not in the set.
func (s *lineSet) add(line int) bool {
	i, bit := line/64, uint64(1)<<(line%64)
	if i >= len(s.bits) {
		s.bits = append(s.bits, make([]uint64, i+1-len(s.bits))...)
	}
	was := s.bits[i]&bit != 0
	s.bits[i] |= bit
	return !was
}

func (s *lineSet) has(line int) bool {
	return line/64 < len(s.bits) && s.bits[line/64]&(1<<(line%64)) != 0
}

// exists reports whether there is a file that has something in it.
func exists(name string) (bool, error) {
	st, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && st.Size() > 0, err //nolint:wrapcheck // it names the file
}
