package batch

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/schemas"
)

const someBatch = "batch_x"

func endOf(line int, status schemas.Status, code schemas.Code) *ended {
	e := localEnd(jobName{someBatch, line, 0}, "c\"<", status, schemas.Errorf(code, "why"))
	if status == schemas.StatusOK {
		e.body = []byte(`{"choices":[]}`)
	}
	return e
}

// TestEntries: the lines are those of OpenAI's API.
func TestEntries(t *testing.T) {
	for want, e := range map[string]*ended{
		`{"id":"batch_x-1","custom_id":"c\"<","response":{"status_code":200,"request_id":"batch_x-1","body":{"choices":[]}},"error":null}`:                                                                                                                                                          endOf(1, schemas.StatusOK, ""),
		`{"id":"batch_x-2","custom_id":"c\"<","response":{"status_code":429,"request_id":"batch_x-2","body":{"error":{"message":"why","type":"rate_limit_error","code":"rate_limited"},"vramjet":{"attempt":0,"queued_ms":0,"load_ms":0,"ttft_ms":0,"total_ms":0,"tokens_per_s":0}}},"error":null}`: endOf(2, schemas.StatusError, schemas.RateLimited),
		`{"id":"batch_x-3","custom_id":"c\"<","response":null,"error":{"code":"batch_expired","message":"why"}}`:                                                                                                                                                                                    endOf(3, schemas.StatusExpired, schemas.Deadline),
		`{"id":"batch_x-4","custom_id":"c\"<","response":null,"error":{"code":"batch_cancelled","message":"why"}}`:                                                                                                                                                                                  endOf(4, schemas.StatusCancelled, schemas.Cancelled),
		`{"id":"batch_x-5","custom_id":"c\"<","response":{"status_code":500,"request_id":"batch_x-5","body":null},"error":null}`:                                                                                                                                                                    {name: jobName{someBatch, 5, 0}, job: "batch_x-5", customID: "c\"<", status: schemas.StatusError, body: []byte("torn")},
	} {
		got := e.entry()
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want+"\n", b.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		var f schemas.Failure
		if json.Unmarshal(e.body, &f) == nil && f.Error != nil && (got.failure().Code != f.Error.Code || got.failure().Message != "why") {
			t.Errorf("%s is read as %s", f.Error, got.failure())
		}
	}
}

// TestOutputsGoOn: however often the files are closed, torn and opened, each line is
// there once.
func TestOutputsGoOn(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		path := filepath.Join(dir, rapid.StringMatching(`[a-z]{12}`).Draw(r, "name"))
		want := map[int]bool{}
		for range rapid.IntRange(1, 5).Draw(r, "opened") {
			o, err := openOutputs(path, someBatch)
			if err != nil {
				r.Fatal(err)
			}
			for line := range want {
				if !o.done.has(line) {
					r.Fatalf("line %d is forgotten", line)
				}
			}
			for range rapid.IntRange(0, 30).Draw(r, "lines") {
				line := rapid.IntRange(1, 200).Draw(r, "line")
				status := rapid.SampledFrom([]schemas.Status{schemas.StatusOK, schemas.StatusError, schemas.StatusCancelled}).Draw(r, "status")
				if err := o.add(endOf(line, status, schemas.OutOfMemory)); err != nil {
					r.Fatal(err)
				}
				want[line] = true
			}
			if o.answered+o.failed != len(want) {
				r.Fatalf("%d and %d of %d", o.answered, o.failed, len(want))
			}
			if err := o.close(); err != nil {
				r.Fatal(err)
			}
			if rapid.Bool().Draw(r, "torn") {
				tear(r, path, want)
			}
		}
	})
}

// tear cuts the end off a file, as a kill does.
func tear(r *rapid.T, path string, want map[int]bool) {
	data, err := os.ReadFile(path)
	if err != nil || len(data) == 0 {
		return
	}
	whole := strings.SplitAfter(string(data), "\n")
	last := whole[len(whole)-2]
	if err := os.Truncate(path, int64(len(data)-rapid.IntRange(1, len(last)-1).Draw(r, "cut"))); err != nil {
		r.Fatal(err)
	}
	var e entry
	if err := json.Unmarshal([]byte(last), &e); err != nil {
		r.Fatal(err)
	}
	name, _ := parseJobID(e.ID)
	delete(want, name.line)
}

func TestOutputsOfOthers(t *testing.T) {
	for name, text := range map[string]string{
		"another batch": `{"id":"batch_y-1"}` + "\n",
		"no job":        `{"id":"7"}` + "\n",
		"no JSON":       "hello\n",
		"twice":         `{"id":"batch_x-1"}` + "\n" + `{"id":"batch_x-1"}` + "\n",
	} {
		path := filepath.Join(t.TempDir(), "out")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if o, err := openOutputs(path, someBatch); err == nil {
			t.Errorf("%s: no error", name)
			_ = o.close()
		}
		if data, _ := os.ReadFile(path); string(data) != text {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestLineSet(t *testing.T) {
	var s lineSet
	for _, line := range []int{1, 64, 1_000_000} {
		if s.has(line) || !s.add(line) || s.add(line) || !s.has(line) {
			t.Errorf("line %d", line)
		}
	}
	if s.has(63) || s.has(65) {
		t.Error("neighbours are in the set")
	}
}

func TestFlushSyncs(t *testing.T) {
	o, err := openOutputs(filepath.Join(t.TempDir(), "out"), someBatch)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := o.add(endOf(1, schemas.StatusOK, "")); err != nil {
		t.Fatal(err)
	}
	if err := o.flush(now); err != nil || !o.synced.Equal(now) {
		t.Errorf("flushed: %v, synced %v", err, o.synced)
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(o.path + errorsSuffix); err == nil {
		t.Error("an empty file of failures is left behind")
	}
}
