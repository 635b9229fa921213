package batch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vramjet/vramjet/schemas"
)

func TestRetryErrors(t *testing.T) {
	h := newHall(t)
	h.serve()
	in, out := h.file(100), filepath.Join(h.dir, "out.jsonl")
	first := h.run(in, out, Config{})
	p, err := RetryErrors(h.ctx(), h.nc, out, []schemas.Code{schemas.OutOfMemory}, Config{})
	if err != nil || p.Failed != 10 {
		t.Errorf("none has that code: %+v, %v", p, err)
	}
	p, err = RetryErrors(h.ctx(), h.nc, out, nil, Config{})
	if err != nil || p.Batch != first.Batch || p.OK != 90 || p.Failed != 10 {
		t.Errorf("%+v, %v", p, err)
	}
	h.wants(out, 100)
	if n, ok := h.ran.Load(first.Batch + "-10-1"); !ok || n.(*atomic.Int64).Load() != 1 { //nolint:forcetypeassert // what was stored
		t.Error("the line was not run again under a new name")
	}
	other := filepath.Join(t.TempDir(), "fetched.jsonl")
	if got, err := Fetch(h.ctx(), h.nc, schemas.DefaultTenant, p.Batch, other); err != nil || got.Done() != 100 {
		t.Errorf("fetched %+v, %v", got, err)
	}
	h.wants(other, 100)
}

// TestCorrectedLines: lines that failed are run again as they stand in the file now, as
// long as each has its place.
func TestCorrectedLines(t *testing.T) {
	h := newHall(t)
	h.serve()
	in, out := h.file(20), filepath.Join(h.dir, "out.jsonl")
	p := h.run(in, out, Config{})
	if e := p.Examples[schemas.UpstreamError]; p.Failed != 2 || e.Line != 10 || e.CustomID == "" || e.Message == "" {
		t.Fatalf("%+v", p)
	}
	text, err := os.ReadFile(in)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	write := func(lines ...string) {
		t.Helper()
		if err := os.WriteFile(in, []byte(strings.Join(lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(want string) {
		t.Helper()
		if _, err := RetryErrors(h.ctx(), h.nc, out, nil, Config{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	write(lines[1:]...)
	refused("has 19 requests now, and had 20")
	write(append(slices.Clone(lines[1:]), lines[0])...)
	refused(`line 10 had the custom_id "line 9"`)
	write(append(slices.Clone(lines), "{}\n")...)
	refused("line 21: it has no custom_id")

	lines[9] = strings.Replace(lines[9], `"bad"`, `"good"`, 1)
	write(lines...)
	p, err = RetryErrors(h.ctx(), h.nc, out, nil, Config{})
	if err != nil || p.OK != 19 || p.Failed != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	h.run(in, out, Config{}) // the file is that of the batch now
}
