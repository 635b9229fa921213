package main

import (
	"bytes"
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vramjet/vramjet/client/batch"
	"github.com/vramjet/vramjet/schemas"
)

func TestSubmit(t *testing.T) {
	s := newSite(t)
	t.Chdir(packageDir)
	s.serve(t, func(j *played) {
		j.publish(schemas.EventAccepted, "", `{"node":"gpu-1","backend":"ollama"}`)
		j.chunk("Hi ")
		j.chunk("there!")
		j.ok("Hi there!")
	})
	stdout, stderr := s.want(t, exitOK, "submit", "-m", "llama3.2", "--id", "j1", "Say", "hi")
	golden(t, "submit.out", stdout)
	golden(t, "submit.err", stderr)

	stdout, _ = s.want(t, exitOK, "submit", "-m", "llama3.2", "--id", "j2", "--json", "Say hi")
	var body struct {
		Run schemas.Run `json:"vramjet"`
	}
	if err := json.Unmarshal([]byte(stdout), &body); err != nil || body.Run.Node != "gpu-1" {
		t.Errorf("--json printed %q: %v", stdout, err)
	}
}

func TestSubmitSends(t *testing.T) {
	s := newSite(t)
	jobs := make(chan *schemas.Job, 1)
	s.serve(t, func(j *played) { jobs <- j.job; j.ok("x") })
	s.stdin = "from stdin\n"
	s.env["VRAMJET_TENANT"] = "acme"
	before := time.Now()
	s.want(t, exitOK, "submit", "-m", "m", "--class", "batch", "--system", "be brief", "--max-tokens", "7", "--temperature", "0",
		"--timeout", "90s", "--deadline", "1h", "--session", "s-1", "-")
	got := <-jobs
	if got.Flow != (schemas.Flow{Tenant: "acme", Class: schemas.Batch, Model: "m"}) || got.Timeout != 90*time.Second || got.Session != "s-1" ||
		got.Deadline.Before(before.Add(59*time.Minute)) || got.Deadline.After(time.Now().Add(time.Hour)) || !got.Stream {
		t.Errorf("the job is %+v", got)
	}
	want := `{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"from stdin\n"}],"stream":true,"max_tokens":7,"temperature":0}`
	if string(got.Body) != want {
		t.Errorf("the body is %s, want %s", got.Body, want)
	}

	stdout, _ := s.want(t, exitOK, "submit", "-m", "m", "--embed", "--tenant", "other", "text")
	got = <-jobs
	if string(got.Body) != `{"input":"text"}` || got.Kind != schemas.Embedding || got.Flow.Tenant != "other" {
		t.Errorf("the job is %+v, body %s", got, got.Body)
	}
	if !json.Valid([]byte(stdout)) {
		t.Errorf("an embedding is printed as %q", stdout)
	}
}

// A job that is to begin later is put with those, and whoever waits for it is told so.
func TestSubmitLater(t *testing.T) {
	s := newSite(t)
	before := time.Now()
	stdout, _ := s.want(t, exitOK, "submit", "-m", "m", "--at", "1h", "--keep", "36h", "--no-wait", "hi")
	if stdout != "later-1\n" {
		t.Errorf("stdout is %q", stdout)
	}
	later, err := s.js.Stream(s.ctx, "VJ_LATER")
	if err != nil {
		t.Fatal(err)
	}
	m, err := later.GetMsg(s.ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	j, err := schemas.ReadLater(m.Header.Get, m.Subject, 1, nil)
	if err != nil || j.Keep != 36*time.Hour || j.At.Before(before.Add(time.Hour)) || j.At.After(time.Now().Add(time.Hour)) {
		t.Errorf("the job is %+v, %v", j, err)
	}
	_, stderr := s.want(t, exitUsage, "submit", "-m", "m", "--at", "noon", "hi")
	if !strings.Contains(stderr, `--at "noon" is neither a duration`) {
		t.Errorf("stderr is %q", stderr)
	}
	s.answerAPI(t, map[string]string{"status": `{"job":"j1","state":"delayed","model":"m","due":"2126-01-02T15:04:05Z"}`})
	_, stderr = s.want(t, exitTimeout, "submit", "-m", "m", "--at", "2126-01-02T15:04:05Z", "--id", "j1", "--wait", "3500ms", "hi")
	if !strings.Contains(stderr, "job j1 begins at 2126-01-02") {
		t.Errorf("stderr is %q", stderr)
	}
	if stdout, _ := s.want(t, exitOK, "jobs", "status", "j1"); stdout != "job j1  delayed  model m  due 2126-01-02T15:04:05Z\n" {
		t.Errorf("stdout is %q", stdout)
	}
}

// An answer of which no chunk came is shown all the same, and a line's end is
// not doubled.
func TestSubmitWithoutChunks(t *testing.T) {
	s := newSite(t)
	s.serve(t, func(j *played) { j.ok("whole\n") })
	if stdout, _ := s.want(t, exitOK, "submit", "-m", "m", "hi"); stdout != "whole\n" {
		t.Errorf("stdout is %q", stdout)
	}
}

func TestSubmitRestarts(t *testing.T) {
	s := newSite(t)
	s.serve(t, func(j *played) {
		j.chunk("Hal")
		j.attempt, j.seq = 2, 0
		j.chunk("Hello")
		j.ok("Hello")
	})
	stdout, stderr := s.want(t, exitOK, "submit", "-m", "m", "hi")
	if stdout != "Hal\nHello\n" || !strings.Contains(stderr, "attempt 2 begins") {
		t.Errorf("stdout is %q, stderr %q", stdout, stderr)
	}
}

func TestSubmitFails(t *testing.T) {
	s := newSite(t)
	s.serve(t, func(j *played) {
		j.publish(schemas.EventEnd, schemas.StatusError, `{"error":{"message":"no node has m","type":"not_found_error","code":"model_not_found"},"vramjet":{}}`)
	})
	stdout, stderr := s.want(t, exitFailed, "submit", "-m", "m", "--id", "j1", "hi")
	if stdout != "" || stderr != "vramjet: job j1: model_not_found: no node has m\n" {
		t.Errorf("stdout is %q, stderr %q", stdout, stderr)
	}
}

func TestSubmitNoWait(t *testing.T) {
	s := newSite(t)
	if stdout, _ := s.want(t, exitOK, "submit", "-m", "m", "--no-wait", "hi"); stdout != "1\n" {
		t.Errorf("stdout is %q", stdout)
	}
	stdout, _ := s.want(t, exitOK, "submit", "-m", "m", "--no-wait", "--json", "--id", "j2", "hi")
	if want := "{\n  \"id\": \"j2\",\n  \"seq\": 2\n}\n"; stdout != want {
		t.Errorf("stdout is %q, want %q", stdout, want)
	}
}

// With nobody to run the job its submitter is told so, and may stop waiting.
func TestSubmitTimesOut(t *testing.T) {
	s := newSite(t)
	_, stderr := s.want(t, exitTimeout, "submit", "-m", "m", "--id", "j1", "--wait", "3500ms", "hi")
	for _, want := range []string{"no dispatcher is running", "vramjet jobs cancel j1", "timed out"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("stderr is %q, want %q in it", stderr, want)
		}
	}
}

// What a job waits for is told where it takes long.
func TestSubmitTellsWhy(t *testing.T) {
	s := newSite(t)
	s.answerAPI(t, map[string]string{
		"status": `{"job":"j1","state":"queued"}`,
		"why":    `{"job":"j1","state":"queued","reason":"all 4 slots of m are busy","why":["gpu-1/ollama: all 4 slots are busy"]}`,
	})
	_, stderr := s.want(t, exitTimeout, "submit", "-m", "m", "--id", "j1", "--wait", "3500ms", "hi")
	if want := "job j1 waits: all 4 slots of m are busy: gpu-1/ollama: all 4 slots are busy (more: vramjet jobs why j1)\n"; !strings.Contains(stderr, want) {
		t.Errorf("stderr is %q, want %q in it", stderr, want)
	}
}

// A line of the log that comes in the middle of an answer, or of a bar, begins on a line of
// its own.
func TestOwnLine(t *testing.T) {
	var out strings.Builder
	a := &app{globals: &globals{LogLevel: "info"}, streams: streams{out: &out, err: &out}}
	log := a.logger()
	shown := &answer{app: a}
	shown.add("Hel")
	log.Warn("one")
	log.Warn("two")
	shown.add("lo\n")
	log.Warn("three")
	bar := a.newBatchProgress("done")
	bar.bar = true
	bar.show(batch.Progress{Jobs: 2})
	log.Warn("four")
	bar.end()
	text := regexp.MustCompile(`time=\S+ level=WARN msg=`).ReplaceAllString(out.String(), "> ")
	if want := "Hel\n> one\n> two\nlo\n> three\n\r\x1b[K[....................] 0/2 done  0 %\n> four\n"; text != want {
		t.Errorf("%q, want %q", text, want)
	}
}

// The answer to an id that was used before is that of then, and is called so.
func TestSubmitTwice(t *testing.T) {
	s := newSite(t)
	s.serve(t, func(j *played) { j.ok("Hello") })
	const note = "job j1 was submitted before: this is its answer from then\n"
	if _, stderr := s.want(t, exitOK, "submit", "-m", "m", "--id", "j1", "hi"); strings.Contains(stderr, note) {
		t.Errorf("the first time: %q", stderr)
	}
	if stdout, stderr := s.want(t, exitOK, "submit", "-m", "m", "--id", "j1", "hi"); stdout != "Hello\n" || !strings.Contains(stderr, note) {
		t.Errorf("stdout is %q, stderr %q", stdout, stderr)
	}
}

// A trigger calls a function at the first write.
type trigger func()

func (f trigger) Write(p []byte) (int, error) { f(); return len(p), nil }

func TestSubmitInterrupted(t *testing.T) {
	s := newSite(t)
	s.answerAPI(t, map[string]string{"cancel": `{"job":"j1","state":"cancelled"}`})
	s.serve(t, func(j *played) { j.chunk("Hel") })
	ctx, interrupt := context.WithCancel(s.ctx)
	defer interrupt()
	var stderr bytes.Buffer
	args := []string{"submit", "-m", "m", "--id", "j1", "hi"}
	code := run(ctx, args, env(s.env), streams{out: trigger(interrupt), err: &stderr})
	if code != exitInterrupted || stderr.String() != "job j1 cancelled\n" {
		t.Errorf("the exit code is %d, stderr %q", code, stderr.String())
	}
}

func TestSubmitWhereVramjetIsNot(t *testing.T) {
	s := newSite(t)
	if err := s.js.DeleteStream(s.ctx, "VJ_JOBS"); err != nil {
		t.Fatal(err)
	}
	if _, stderr := s.want(t, exitNoDispatcher, "submit", "-m", "m", "--no-wait", "hi"); !strings.Contains(stderr, "no vramjet here") {
		t.Errorf("stderr is %q", stderr)
	}
}
