package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vramjet/vramjet/client/batch"
	"github.com/vramjet/vramjet/schemas"
)

// batchID is what differs from one run of a batch to another.
var (
	batchID = regexp.MustCompile(`batch_[a-z0-9]{16}`)
	dates   = regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?`)
	rates   = regexp.MustCompile(`  [0-9.]+/s  \S+ left`)
)

func blur(text string) string {
	text = batchID.ReplaceAllString(text, "batch_k2j5w7x2m4n6p8q0")
	text = dates.ReplaceAllString(text, "2026-01-02 15:04:05")
	return rates.ReplaceAllString(text, "")
}

func writePrompts(t *testing.T, n int) {
	t.Helper()
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, `{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":{"model":"%s","messages":[{"role":"user","content":"hi"}]}}`+"\n",
			i, map[bool]string{true: "qwen3:8b", false: "llama3.2"}[i%5 == 4])
	}
	if err := os.WriteFile("prompts.jsonl", b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBatch(t *testing.T) {
	s := newSite(t)
	s.serve(t, func(j *played) {
		if j.job.Flow.Model == "qwen3:8b" {
			j.publish(schemas.EventEnd, schemas.StatusError, `{"error":{"message":"no room","type":"server_error","code":"out_of_memory"},"vramjet":{}}`)
			return
		}
		j.ok("Hello")
	})
	printed := map[string]string{}
	defer func() {
		t.Chdir(packageDir)
		for name, text := range printed {
			golden(t, name, blur(text))
		}
	}()
	writePrompts(t, 20)
	stdout, _ := s.want(t, exitOK, "batch", "run", "prompts.jsonl", "-o", "answers.jsonl", "--dry-run")
	printed["batch-dry-run.out"] = stdout
	stdout, stderr := s.want(t, exitFailedLines, "batch", "run", "prompts.jsonl", "-o", "answers.jsonl")
	printed["batch-run.out"] = stdout
	for _, want := range []string{"4 lines failed", `  line 5, custom_id "4": out_of_memory: no room`, "vramjet batch retry-errors answers.jsonl"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("stderr is %q, want %q in it", stderr, want)
		}
	}
	answers, err := os.ReadFile("answers.jsonl")
	if err != nil || strings.Count(string(answers), "\n") != 16 {
		t.Errorf("%d answers, %v", strings.Count(string(answers), "\n"), err)
	}
	id := batchID.FindString(stdout)
	stdout, _ = s.want(t, exitOK, "batch", "status", id)
	printed["batch-status.out"] = stdout
	stdout, _ = s.want(t, exitOK, "batch", "status", id, "--json")
	printed["batch-status.json"] = stdout
	stdout, _ = s.want(t, exitOK, "batch", "ls")
	printed["batch-ls.out"] = stdout
	stdout, _ = s.want(t, exitOK, "batch", "fetch", id, "-o", "fetched.jsonl")
	printed["batch-fetch.out"] = stdout
	s.want(t, exitFailedLines, "batch", "resume", "answers.jsonl")
	stdout, _ = s.want(t, exitFailedLines, "batch", "retry-errors", "answers.jsonl", "--codes", "out_of_memory", "--json")
	if !strings.Contains(stdout, `"failed": 4`) {
		t.Errorf("stdout is %s", stdout)
	}
	s.want(t, exitUsage, "batch", "retry-errors", "answers.jsonl", "--codes", "sunspots")
	s.want(t, exitNotFound, "batch", "status", "batch_nobody")
	s.want(t, exitNotFound, "batch", "resume", "nothing.jsonl")
	stdout, _ = s.want(t, exitOK, "batch", "submit", "prompts.jsonl")
	if !batch.ValidID(strings.TrimSpace(stdout)) {
		t.Errorf("stdout is %q", stdout)
	}
	s.want(t, exitFailed, "batch", "submit", "prompts.jsonl")
}

func TestBadBatch(t *testing.T) {
	s := newSite(t)
	if err := os.WriteFile("bad.jsonl", []byte(`{"custom_id":"a","method":"POST","url":"/v1/images","body":{}}`+"\n[]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr := s.want(t, exitUsage, "batch", "run", "bad.jsonl", "-o", "out.jsonl")
	for _, name := range []string{"out.jsonl", "out.jsonl.vjbatch"} {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s was made for a file that is no batch", name)
		}
	}
	t.Chdir(packageDir)
	golden(t, "batch-bad.err", stderr)
}

func TestBatchProgress(t *testing.T) {
	var out bytes.Buffer
	a := &app{streams: streams{err: &out}}
	p := a.newBatchProgress("done")
	now := p.began
	p.at(&batch.Progress{Jobs: 1000}, now)
	p.at(&batch.Progress{Jobs: 1000, OK: 50}, now.Add(time.Second)) // too early for another line
	now = now.Add(10 * time.Second)
	p.at(&batch.Progress{Jobs: 1000, OK: 190, Failed: 10, Codes: map[schemas.Code]int{schemas.RateLimited: 7, schemas.Deadline: 3}}, now)
	p.at(&batch.Progress{Jobs: 1000, OK: 190, Failed: 10, Trouble: "the queue is full"}, now.Add(time.Second))
	p.bar = true
	p.at(&batch.Progress{Jobs: 1000, OK: 500}, now.Add(2*time.Second))
	p.end()
	golden(t, "batch-progress.err", out.String())
}
