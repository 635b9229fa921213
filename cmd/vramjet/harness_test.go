package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/broker/embedded"
	"github.com/vramjet/vramjet/schemas"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMain ignores a goroutine of the NATS client that may stay behind where somebody
// published asynchronously, as an object store does, and was done at once.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// golden compares got with a file below testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}

// A shell runs command lines.
type shell struct {
	ctx   context.Context //nolint:containedctx // the test's
	env   map[string]string
	stdin string
}

// newShell returns a shell with a home of its own.
func newShell(t *testing.T) *shell {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	t.Chdir(t.TempDir())
	return &shell{ctx: ctx, env: map[string]string{"HOME": t.TempDir(), "VRAMJET_NODE": "n1"}}
}

func (s *shell) run(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(s.ctx, args, func(k string) string { return s.env[k] }, streams{in: strings.NewReader(s.stdin), out: &out, err: &err})
	return code, out.String(), err.String()
}

// want runs a command line and checks its exit code.
func (s *shell) want(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	got, stdout, stderr := s.run(args...)
	if got != code {
		t.Errorf("vramjet %s: the exit code is %d, want %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	return stdout, stderr
}

// A site is a NATS server that vramjet was set up on, and a shell that knows it.
type site struct {
	*shell
	srv *embedded.Server
	nc  *nats.Conn
	js  jetstream.JetStream
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{shell: newShell(t), srv: brokertest.Start(t)}
	s.nc = brokertest.Connect(t, s.srv)
	s.js = brokertest.Setup(t, s.nc)
	s.env["VRAMJET_SERVER"] = s.srv.ClientURL()
	return s
}

// serve plays each job until the test ends, as a dispatcher and a node would.
func (s *site) serve(t *testing.T, play func(j *played)) {
	t.Helper()
	cons, err := s.js.CreateConsumer(s.ctx, "VJ_JOBS", jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	cc, err := cons.Consume(func(m jetstream.Msg) {
		defer func() { _ = m.Ack() }()
		flow, err := schemas.ParseJobSubject(m.Subject())
		if err != nil {
			t.Error(err)
			return
		}
		job, err := schemas.ReadJob(m.Headers().Get, m.Data(), flow, 1, nil)
		if err != nil {
			t.Errorf("the job is refused: %v", err)
			return
		}
		play(&played{t: t, nc: s.nc, job: job, attempt: 1})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Stop(); <-cc.Closed() })
}

// answerAPI answers the dispatcher's verbs of all tenants.
func (s *site) answerAPI(t *testing.T, answers map[string]string) {
	t.Helper()
	_, err := s.nc.Subscribe(schemas.APIPrefix+"*.*", func(m *nats.Msg) {
		verb := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
		_ = m.Respond([]byte(answers[verb]))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

// A played job is one in the hands of a fake node.
type played struct {
	t       *testing.T
	nc      *nats.Conn
	job     *schemas.Job
	attempt int
	seq     int
}

func (p *played) publish(kind schemas.EventKind, status schemas.Status, body string) {
	m := nats.NewMsg(p.job.EventSubject())
	if kind == schemas.EventEnd {
		m.Subject = p.job.EndSubject()
	}
	m.Header.Set(schemas.HeaderEvent, string(kind))
	m.Header.Set(schemas.HeaderAttempt, strconv.Itoa(p.attempt))
	m.Header.Set(schemas.HeaderSeq, strconv.Itoa(p.seq))
	m.Header.Set(schemas.HeaderStatus, string(status))
	m.Data = []byte(body)
	p.seq++
	if err := p.nc.PublishMsg(m); err != nil {
		p.t.Error(err)
	}
}

func (p *played) chunk(text string) {
	p.publish(schemas.EventChunk, "", fmt.Sprintf(`{"choices":[{"index":0,"delta":{"content":%q}}]}`, text))
}

func (p *played) ok(text string) {
	p.publish(schemas.EventEnd, schemas.StatusOK, fmt.Sprintf(`{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":%q}}],`+
		`"usage":{"prompt_tokens":2,"completion_tokens":9,"total_tokens":11},`+
		`"vramjet":{"node":"gpu-1","backend":"ollama","attempt":%d,"queued_ms":12,"load_ms":0,"ttft_ms":180,"total_ms":280,"tokens_per_s":92.13}}`, text, p.attempt))
}
