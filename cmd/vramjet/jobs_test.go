package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

func TestJobsTable(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	entry := func(id string, state schemas.JobState, ago time.Duration, change func(*schemas.JobEntry)) schemas.JobEntry {
		e := schemas.JobEntry{JobInfo: schemas.JobInfo{Job: id, State: state, Model: "llama3.1:8b"}, Class: schemas.Normal, At: now.Add(-ago)}
		change(&e)
		return e
	}
	var out bytes.Buffer
	err := printJobs(&out, []schemas.JobEntry{
		entry("report-7", schemas.JobRunning, 3*time.Second, func(e *schemas.JobEntry) { e.Node, e.Attempt = "gpu-1", 1 }),
		entry("report-8", schemas.JobQueued, 192*time.Second, func(*schemas.JobEntry) {}),
		entry("report-6", "error", 2*time.Hour, func(e *schemas.JobEntry) { e.Attempt, e.Code, e.Class = 4, schemas.OutOfMemory, schemas.Batch }),
		entry("17", "ok", 73*time.Hour, func(e *schemas.JobEntry) { e.Attempt, e.Class, e.Model = 1, "", "" }),
		entry("18", schemas.JobRunning, 0, func(e *schemas.JobEntry) { e.Node, e.Attempt, e.Class, e.At = "gpu-2", 1, "", time.Time{} }),
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "jobs-ls.out", out.String())
}

func TestJobsLs(t *testing.T) {
	s := newSite(t)
	s.answerAPI(t, map[string]string{"jobs": `{"jobs":[{"job":"waits","state":"queued","model":"m","class":"batch","at":"2026-01-02T15:04:05Z"}]}`})
	s.serve(t, func(p *played) { p.ok("Hello") })
	s.want(t, exitOK, "submit", "-m", "m", "--id", "ended", "hi")
	stdout, _ := s.want(t, exitOK, "jobs", "ls", "--json")
	var got []schemas.JobEntry
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || len(got) != 2 || got[0].Job != "ended" || got[0].State != "ok" || got[1].Job != "waits" {
		t.Errorf("got %s, %v", stdout, err)
	}
	if stdout, _ := s.want(t, exitOK, "jobs", "ls", "--state", "error,expired", "--since", "1h", "--json"); stdout != "[]\n" {
		t.Errorf("none that failed are %q", stdout)
	}
}

// clock is a time of day in an output.
var clock = regexp.MustCompile(`\d\d:\d\d:\d\d(\.\d+)?`)

func TestJobsWatch(t *testing.T) {
	s := newSite(t)
	t.Chdir(packageDir)
	s.answerAPI(t, map[string]string{"status": `{"job":"j1","state":"queued","model":"llama3.2"}`})
	read, write := io.Pipe()
	go func() {
		run(s.ctx, []string{"jobs", "watch", "j1"}, func(k string) string { return s.env[k] }, streams{out: write, err: io.Discard})
		write.Close()
	}()
	lines := bufio.NewReader(read)
	first, err := lines.ReadString('\n') // it listens now
	for _, e := range []string{
		`{"event":"started","job":"j1","model":"llama3.2","class":"normal","node":"gpu-1","backend":"ollama","attempt":1}`,
		`{"event":"ended","job":"j1","model":"llama3.2","class":"normal","node":"gpu-1","attempt":1,"status":"error","code":"out_of_memory"}`,
	} {
		if err := s.nc.Publish(schemas.JobEventSubject("default", "j1"), []byte(e)); err != nil {
			t.Fatal(err)
		}
	}
	rest, failed := io.ReadAll(lines)
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	golden(t, "jobs-watch.out", clock.ReplaceAllString(first+string(rest), "HH:MM:SS"))
}

func TestJobsResult(t *testing.T) {
	s := newSite(t)
	const queued = `{"job":"j1","state":"queued","model":"m"}`
	s.answerAPI(t, map[string]string{"status": queued})
	_, stderr := s.want(t, exitNotFound, "jobs", "result", "j1")
	if !strings.Contains(stderr, "job j1 has not ended: it is queued (--wait 5m waits for it)") {
		t.Errorf("stderr is %q", stderr)
	}
	s.want(t, exitTimeout, "jobs", "result", "j1", "--wait", "30ms")
	s.serve(t, func(p *played) {
		if p.job.ID == "bad" {
			p.publish(schemas.EventEnd, schemas.StatusError, `{"error":{"message":"no room","type":"server_error","code":"out_of_memory"},"vramjet":{"attempt":1}}`)
			return
		}
		p.ok("Hello")
	})
	s.want(t, exitOK, "submit", "-m", "m", "--id", "j1", "--no-wait", "hi")
	s.want(t, exitOK, "submit", "-m", "m", "--id", "bad", "--no-wait", "hi")
	if stdout, _ := s.want(t, exitOK, "jobs", "result", "j1", "--wait", "20s"); stdout != "Hello\n" {
		t.Errorf("stdout is %q", stdout)
	}
	if stdout, _ := s.want(t, exitOK, "jobs", "result", "j1", "--json"); !strings.Contains(stdout, `"content":"Hello"`) {
		t.Errorf("stdout is %q", stdout)
	}
	stdout, stderr := s.want(t, exitFailed, "jobs", "result", "bad", "--wait", "20s", "--json")
	if !strings.Contains(stdout, `"code":"out_of_memory"`) || !strings.Contains(stderr, "no room") {
		t.Errorf("of the one that failed: %q, %q", stdout, stderr)
	}
}

// bury stores a dead letter.
func (s *site) bury(t *testing.T, flow, id string, code schemas.Code) {
	t.Helper()
	job := &nats.Msg{Subject: schemas.JobsPrefix + flow, Header: nats.Header{schemas.HeaderMsgID: {id}, schemas.HeaderTimeout: {"90s"}}, Data: []byte("Say hi")}
	letter := broker.DeadLetter(job, id, schemas.Errorf(code, "of job %s, after all that was tried here, there and elsewhere, nothing is left", id), time.Now())
	if err := broker.PublishStored(s.ctx, s.nc, letter); err != nil {
		t.Fatal(err)
	}
}

// moment is when a dead letter came, in an output.
var moment = regexp.MustCompile(`20\d\d-\d\d-\d\dT[0-9:.]+Z|\b\d+s ago`)

func TestDead(t *testing.T) {
	s := newSite(t)
	t.Chdir(packageDir)
	if stdout, _ := s.want(t, exitOK, "dead", "--json"); stdout != "[]\n" {
		t.Errorf("none are %q", stdout)
	}
	s.want(t, exitNotFound, "dead", "show", "j1")
	s.want(t, exitNotFound, "dead", "rm", "j1")
	s.want(t, exitNotFound, "dead", "retry", "--all")
	for i, code := range []schemas.Code{schemas.OutOfMemory, schemas.UpstreamError, schemas.OutOfMemory} {
		s.bury(t, "default.normal.llama3.1:8b", fmt.Sprint("j", i+1), code)
	}
	s.bury(t, "default.batch.qwen3:4b", "j4", schemas.Deadline)
	s.bury(t, "acme.batch.qwen3:4b", "foreign", schemas.Deadline)
	for _, c := range []struct{ golden, args string }{
		{"dead-ls.out", "dead"},
		{"dead-ls.json", "dead ls --model qwen3:* --json"},
		{"dead-by-code.out", "dead ls --by code --since 1h"},
		{"dead-by-model.json", "dead ls --by model --json"},
		{"dead-show.out", "dead show j4 --body"},
		{"dead-show.json", "dead show j4 --json"},
		{"dead-export.jsonl", "dead export --code out_of_memory"},
		{"dead-rm-dry.out", "dead rm --all --code out_of_memory --dry-run"},
	} {
		stdout, _ := s.want(t, exitOK, strings.Fields(c.args)...)
		golden(t, c.golden, moment.ReplaceAllString(stdout, "WHEN"))
	}
	if stdout, stderr := s.want(t, exitOK, "dead", "--limit", "1"); strings.Count(stdout, "\n") != 2 || !strings.Contains(stderr, "the newest 1 of 4") {
		t.Errorf("one of four: %q, %q", stdout, stderr)
	}
}

func TestDeadRetryAndRm(t *testing.T) {
	s := newSite(t)
	t.Chdir(packageDir)
	for i := range 4 {
		s.bury(t, "default.normal.m", fmt.Sprint("j", i+1), schemas.OutOfMemory)
	}
	if _, stderr := s.want(t, exitUsage, "dead", "rm", "--all"); !strings.Contains(stderr, "remove 4 dead letters") || !strings.Contains(stderr, "--yes") {
		t.Errorf("more than one without --yes: %q", stderr)
	}
	for _, args := range []string{"dead rm", "dead rm j1 --all", "dead retry --code out_of_memory"} {
		s.want(t, exitUsage, strings.Fields(args)...)
	}
	s.want(t, exitNotFound, "dead", "retry", "j1", "nobody", "--yes")
	stdout, _ := s.want(t, exitOK, "dead", "retry", "j1")
	golden(t, "dead-retry.out", stdout)
	stdout, _ = s.want(t, exitOK, "dead", "retry", "j2", "j3", "--yes", "--json")
	golden(t, "dead-retry.json", stdout)
	stdout, _ = s.want(t, exitOK, "dead", "rm", "j4")
	golden(t, "dead-rm.out", stdout)
	s.want(t, exitNotFound, "dead", "show", "j4")
	got := make(chan string, 3)
	s.serve(t, func(p *played) { got <- p.job.ID + " " + string(p.job.Body) })
	for i := range 3 {
		if want := fmt.Sprintf(`j%d-r%d {"messages":[{"role":"user","content":"Say hi"}],"stream":true}`, i+1, i+1); want != <-got {
			t.Errorf("another job is in the queue than %s", want)
		}
	}
}

func TestJobsRetry(t *testing.T) {
	s := newSite(t)
	t.Chdir(packageDir)
	state := map[string]string{"jobs": `{"jobs":[{"job":"report-6-r1x","state":"queued"},{"job":"report-6-r1","state":"queued"}]}`, "status": `{"job":"j1","state":"cancelled"}`, "show": `{"job":"report-6","state":"error","failure":{"message":"x","type":"y","code":"out_of_memory"}}`}
	s.answerAPI(t, state)
	_, stderr := s.want(t, exitFailed, "jobs", "retry", "j1")
	if !strings.Contains(stderr, "only dead letters can be retried") || !strings.Contains(stderr, "its submitter must submit it again") {
		t.Errorf("stderr is %q", stderr)
	}
	s.bury(t, "default.normal.m", "report-6", schemas.OutOfMemory)
	stdout, _ := s.want(t, exitOK, "jobs", "show", "report-6", "--body")
	golden(t, "jobs-show-dead.out", stdout)
	stdout, _ = s.want(t, exitOK, "jobs", "retry", "report-6")
	golden(t, "jobs-retry.out", stdout)
	if _, stderr := s.want(t, exitFailed, "jobs", "retry", "report-6"); !strings.Contains(stderr, "was submitted again as report-6-r1") {
		t.Errorf("once more: %q", stderr)
	}
}

// TestJobsWhyFailed: why a job failed stands in its end.
func TestJobsWhyFailed(t *testing.T) {
	s := newSite(t)
	s.answerAPI(t, map[string]string{"why": `{"job":"j1","state":"error","why":[]}`})
	s.serve(t, func(j *played) {
		j.publish(schemas.EventEnd, schemas.StatusError, `{"error":{"message":"no node has m","type":"not_found_error","code":"model_not_found"},"vramjet":{}}`)
	})
	s.want(t, exitFailed, "submit", "-m", "m", "--id", "j1", "hi")
	if stdout, _ := s.want(t, exitOK, "jobs", "why", "j1"); !strings.Contains(stdout, "why   job j1: model_not_found: no node has m") {
		t.Errorf("stdout is %q", stdout)
	}
}

func TestTallyTable(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	err := printTallies(&out, "code", []*tally{
		{Code: schemas.OutOfMemory, Count: 17, Newest: now.Add(-2 * time.Hour)}, {Code: schemas.UpstreamError, Count: 2, Newest: now.Add(-72 * time.Hour)},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "dead-tally.out", out.String())
}

func TestDeadExportToAFile(t *testing.T) {
	s := newSite(t)
	s.bury(t, "default.normal.m", "j1", schemas.OutOfMemory)
	if _, stderr := s.want(t, exitOK, "dead", "export", "letters.jsonl"); !strings.Contains(stderr, "1 dead letter written to letters.jsonl") {
		t.Errorf("stderr is %q", stderr)
	}
	s.want(t, exitFailed, "dead", "export", "letters.jsonl") // it is there
}

func TestAgree(t *testing.T) {
	for answer, want := range map[string]int{"y\n": exitOK, "YES\n": exitOK, "n\n": exitFailed, "\n": exitFailed, "": exitUsage} {
		var out bytes.Buffer
		if got := exitCode(agree(strings.NewReader(answer), &out, "remove 3 dead letters")); got != want || out.String() != "Remove 3 dead letters? [y/N] " {
			t.Errorf("%q: %d, want %d; asked %q", answer, got, want, out.String())
		}
	}
}
