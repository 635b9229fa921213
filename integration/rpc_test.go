package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// upper starts everything in one process, with a backend that is the example in
// Python, and returns its process.
func upper(t *testing.T) (*user, *process) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed: the example of a backend needs it")
	}
	config := filepath.Join(t.TempDir(), "vramjet.yaml")
	if err := os.WriteFile(config, []byte("backends: [{name: upper, kind: rpc, timeouts: {between_chunks: 500ms}}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	start(t, "vramjet up", "vramjet", "up", "--nats", addr, "--http", "127.0.0.1:0", "--data", t.TempDir(), "--config", config)
	u := connect(t, "nats://"+addr)
	backend := launch(t, "rpc_backend.py", exec.Command(python, "../examples/rpc_backend.py", addr))
	u.serves("upper", 1)
	return u, backend
}

// words is a chat of n words.
func words(n int) client.Job {
	job := client.Chat("upper", strings.TrimSpace(strings.Repeat("again ", n)))
	job.Attempts = 1
	return job
}

// TestRPCBackend: a backend of anybody's, in Python and without HTTP, answers jobs.
func TestRPCBackend(t *testing.T) {
	t.Parallel()
	u, _ := upper(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := u.run(words(5))
	text, chunks := "", 0
	for ev, err := range s.All(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Kind == schemas.EventChunk {
			text += ev.Text()
			chunks++
		}
	}
	if want := strings.Repeat("AGAIN ", 5); text != want || chunks != 6 {
		t.Errorf("%d chunks say %q, want %q", chunks, text, want)
	}
	r, err := s.Result(ctx)
	if err != nil || r.Status != schemas.StatusOK || r.Run.Backend != "upper" || !strings.Contains(string(r.Body), `"content":"AGAIN AGAIN`) {
		t.Errorf("ended %+v, %v", r, err)
	}

	unsupported := client.Job{Model: "upper", Attempts: 1, Body: []byte(`{"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}`)}
	_, err = u.run(unsupported).Result(ctx)
	if e := schemas.AsError(err); e.Code != schemas.Unsupported || !strings.Contains(e.Message, "nothing but text") {
		t.Errorf("its own error: %v", err)
	}
}

// TestRPCBackendIsCancelled: a backend hears that a job is cancelled, and goes on
// with the next.
func TestRPCBackendIsCancelled(t *testing.T) {
	t.Parallel()
	u, _ := upper(t)
	cancels, err := u.nc.SubscribeSync(schemas.RPCSubject("upper", schemas.RPCCancel))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	s := u.run(words(1000))
	u.next(s, schemas.EventChunk)
	if _, err := u.Cancel(ctx, s.ID()); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Result(ctx); r == nil || r.Status != schemas.StatusCancelled {
		t.Errorf("ended %+v, %v", r, err)
	}
	if m, err := cancels.NextMsg(patience); err != nil || !schemas.IsInbox(string(m.Data)) {
		t.Errorf("the backend was told %v, %v", m, err)
	}
	if r, err := u.run(words(1)).Result(ctx); err != nil || r.Status != schemas.StatusOK {
		t.Errorf("the next job ended %+v, %v", r, err)
	}
}

// TestKilledRPCBackend: a job whose backend is killed while it streams has a clear
// end.
func TestKilledRPCBackend(t *testing.T) {
	t.Parallel()
	u, backend := upper(t)
	s := u.run(words(1000))
	u.next(s, schemas.EventChunk)
	backend.signal(syscall.SIGKILL)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := s.Result(ctx)
	e := schemas.AsError(err)
	if r == nil || r.Status != schemas.StatusError || e.Code != schemas.StreamBroken || !strings.Contains(e.Message, "between_chunks") {
		t.Errorf("ended %+v, %v", r, err)
	}
}
