package integration

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// story is what the model of the tests answers with at temperature 0.
const story = "little girl named Lily"

// A llama is how a real llama-server is run.
type llama struct {
	testing.TB
	command []string
	root    string // the directory that it sees as its root; "" means the real one
}

// findLlama finds the llama-server of this machine: the command in
// $VRAMJET_LLAMA_SERVER, which may begin with "chroot DIR", or the one in the
// PATH. It skips the test where there is none.
func findLlama(tb testing.TB) *llama {
	tb.Helper()
	command, root := llamaCommand()
	if command == nil {
		tb.Skip("llama-server is not installed: install it or set VRAMJET_LLAMA_SERVER to its command")
	}
	return &llama{TB: tb, command: command, root: root}
}

// llamaCommand returns how llama-server is run here, and the directory that it
// sees as its root; nil: it is not installed.
func llamaCommand() (command []string, root string) {
	command = strings.Fields(os.Getenv("VRAMJET_LLAMA_SERVER"))
	if len(command) == 0 {
		path, err := exec.LookPath("llama-server")
		if err != nil {
			return nil, ""
		}
		return []string{path}, ""
	}
	if filepath.Base(command[0]) == "chroot" && len(command) > 2 {
		root = command[1]
	}
	return command, root
}

// slowDir is where slowModel unpacked, "" if it did not.
var slowDir string

// slowModel unpacks the slow model once, where a server can see it.
var slowModel = sync.OnceValues(func() (file string, err error) {
	from, err := sharedFile("models/stories-slow.gguf.gz")
	if err != nil {
		return "", err
	}
	_, root := llamaCommand()
	if slowDir, err = os.MkdirTemp(filepath.Join(root, os.TempDir()), "vramjet-it-"); err != nil {
		return "", err
	}
	packed, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer packed.Close()
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		return "", err
	}
	to, err := os.Create(filepath.Join(slowDir, "slow.gguf"))
	if err != nil {
		return "", err
	}
	if _, err := io.Copy(to, unpacked); err != nil {
		return "", err
	}
	return to.Name(), to.Close()
})

// slowFile returns a model that takes 15 to 60 ms for a token, for models.
func slowFile(tb testing.TB) string {
	tb.Helper()
	shared(tb, "models/stories-slow.gguf.gz")
	file, err := slowModel()
	if err != nil {
		tb.Fatal(err)
	}
	return file
}

// models copies models to where the server sees them, and returns the directory
// as the server names it. The keys are the names of the copies.
func (l *llama) models(files map[string]string) string {
	l.Helper()
	dir := l.TempDir()
	if l.root != "" {
		var err error
		if dir, err = os.MkdirTemp(filepath.Join(l.root, "tmp"), "vramjet-it-"); err != nil {
			l.Fatal(err)
		}
		l.Cleanup(func() { os.RemoveAll(dir) })
	}
	for name, from := range files {
		to := filepath.Join(dir, name)
		if os.Link(from, to) == nil {
			continue
		}
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, data, 0o600)
		}
		if err != nil {
			l.Fatal(err)
		}
	}
	return strings.TrimPrefix(dir, l.root)
}

// serve runs the server until the test ends, and returns its URL.
func (l *llama) serve(args ...string) (url string) {
	l.Helper()
	url, _ = l.start(args...)
	l.up(url)
	return url
}

// start is serve, before the server is up.
func (l *llama) start(args ...string) (url string, p *process) {
	l.Helper()
	port := fmt.Sprint(freePort(l))
	args = slices.Concat(l.command[1:], []string{"-t", "1", "--host", "127.0.0.1", "--port", port}, args)
	return "http://127.0.0.1:" + port, launch(l, "llama-server", exec.Command(l.command[0], args...))
}

// up waits until a server is ready.
func (l *llama) up(url string) {
	l.Helper()
	within(l, patience, "llama-server is up", func() bool {
		resp, err := http.Get(url + "/health")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// An answer is what OpenAI's API answers, as far as the tests compare it.
type answer struct {
	Choices []struct {
		Text    string `json:"text"`
		Message struct {
			Content string `json:"content"`
		} `json:"message"`
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
	} `json:"choices"`
	Data []struct {
		Embedding []float64 `json:"embedding"`
	} `json:"data"`
	Usage schemas.Usage `json:"usage"`
}

func (a *answer) text() (text string) {
	for _, c := range a.Choices {
		text += c.Text + c.Message.Content + c.Delta.Content
	}
	return text
}

// direct asks a model server without vramjet.
func direct(tb testing.TB, url string, body map[string]any) *answer {
	tb.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		tb.Fatal(err)
	}
	resp, err := http.Post(url, "application/json", bytes.NewReader(data))
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	data, err = io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		tb.Fatalf("%s: %s, %v: %s", url, resp.Status, err, data)
	}
	return read(tb, data)
}

func read(tb testing.TB, data []byte) *answer {
	tb.Helper()
	var a answer
	if err := json.Unmarshal(data, &a); err != nil {
		tb.Fatalf("%v in %s", err, data)
	}
	return &a
}

// queue runs a dispatcher, and a worker with these backends: URLs by name.
func queue(t *testing.T, backends map[string]string) *user {
	t.Helper()
	config := "backends:\n"
	for name, url := range backends {
		config += fmt.Sprintf("  - {name: %s, kind: llamacpp, url: %q}\n", name, url)
	}
	file := filepath.Join(t.TempDir(), "vramjet.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	url, _ := natsServer(t, "")
	start(t, "dispatcher", "vramjet", "dispatcher", "--server", url)
	start(t, "worker", "vramjet", "worker", "--server", url, "--config", file)
	return connect(t, url)
}

// submitted is a request as a job, streamed.
func submitted(tb testing.TB, model string, body map[string]any) client.Job {
	tb.Helper()
	streamed := maps.Clone(body)
	streamed["stream"] = true
	data, err := json.Marshal(streamed)
	if err != nil {
		tb.Fatal(err)
	}
	return client.Job{Model: model, Body: data}
}

// read reads a job to its end: the text of its chunks, how many had any, and the
// result.
func (u *user) read(s *client.Stream) (text string, chunks int, r *client.Result) {
	u.Helper()
	ctx, cancel := context.WithTimeout(u.Context(), patience)
	defer cancel()
	for ev, err := range s.All(ctx) {
		if err != nil {
			u.Fatal(err)
		}
		if t := ev.Text(); t != "" {
			text += t
			chunks++
		}
	}
	r, err := s.Result(ctx)
	if err != nil {
		u.Fatal(err)
	}
	return text, chunks, r
}

// greedy is a request that has one answer only: without the cache of prompts, too,
// as the sums of a cached prompt are rounded differently.
func greedy(key string, value any) map[string]any {
	return map[string]any{key: value, "temperature": 0, "max_tokens": 100, "cache_prompt": false}
}

// TestLlamaServer: a job on a real model gives what the server itself gives.
func TestLlamaServer(t *testing.T) {
	t.Parallel()
	l := findLlama(t)
	dir := l.models(map[string]string{
		"chat.gguf": shared(t, "models/stories260K.gguf"), "embed.gguf": shared(t, "models/stories-embed.gguf"),
	})
	chat := l.serve("-m", dir+"/chat.gguf", "--alias", "stories260K")
	embed := l.serve("-m", dir+"/embed.gguf", "--alias", "stories-embed", "--embeddings")
	u := queue(t, map[string]string{"chat": chat, "embed": embed})
	u.serves("stories260K", 1)
	u.serves("stories-embed", 1)

	for path, body := range map[string]map[string]any{
		"/v1/chat/completions": greedy("messages", []map[string]string{{"role": "user", "content": "Once upon a time"}}),
		"/v1/completions":      greedy("prompt", "Once upon a time"),
	} {
		want := direct(t, chat+path, body)
		streamed, chunks, r := u.read(u.run(submitted(t, "stories260K", body)))
		if !strings.Contains(want.text(), story) {
			t.Fatalf("%s: the model's answer is no story: %q", path, want.text())
		}
		if diff := cmp.Diff(want.text(), streamed); diff != "" {
			t.Errorf("%s: chunks (-direct +queue):\n%s", path, diff)
		}
		if diff := cmp.Diff(want.text(), r.Text()); diff != "" {
			t.Errorf("%s: the whole answer (-direct +queue):\n%s", path, diff)
		}
		if diff := cmp.Diff(want.Usage, r.Usage); diff != "" || r.Usage.CompletionTokens != 100 {
			t.Errorf("%s: usage (-direct +queue):\n%s", path, diff)
		}
		if chunks < 50 {
			t.Errorf("%s: 100 tokens came in %d chunks", path, chunks)
		}
	}

	body := map[string]any{"input": []string{"Once upon a time", "there was a fox"}}
	want := direct(t, embed+"/v1/embeddings", body)
	_, _, r := u.read(u.run(client.Embed("stories-embed", "Once upon a time", "there was a fox")))
	if diff := cmp.Diff(want.Data, read(t, r.Body).Data); diff != "" || len(want.Data) != 2 {
		t.Errorf("%d embeddings (-direct +queue):\n%s", len(want.Data), diff)
	}
	if want.Usage != r.Usage {
		t.Errorf("usage of embeddings: %+v, directly %+v", r.Usage, want.Usage)
	}
}

// TestLlamaRouter: a llama-server without a model, which holds one at a time,
// loads what the jobs ask for.
func TestLlamaRouter(t *testing.T) {
	t.Parallel()
	l := findLlama(t)
	model := shared(t, "models/stories260K.gguf")
	dir := l.models(map[string]string{"one.gguf": model, "two.gguf": model})
	url := l.serve("--models-dir", dir, "--models-max", "1")
	u := queue(t, map[string]string{"router": url})
	body := greedy("messages", []map[string]string{{"role": "user", "content": "Once upon a time"}})
	for _, name := range []string{"one", "two", "one"} {
		u.serves(name, 1)
		if loaded(t, url, name) {
			t.Errorf("%s is loaded before a job asks for it", name)
		}
		text, _, r := u.read(u.run(submitted(t, name, body)))
		if !loaded(t, url, name) {
			t.Errorf("%s is not loaded after its job", name)
		}
		body["model"] = name
		want := direct(t, url+"/v1/chat/completions", body)
		delete(body, "model")
		if text != want.text() || r.Usage != want.Usage || !strings.Contains(text, story) {
			t.Errorf("%s: got %q, %+v; directly %q, %+v", name, text, r.Usage, want.text(), want.Usage)
		}
	}
}

// loaded reports whether a router holds a model.
func loaded(tb testing.TB, url, name string) bool {
	tb.Helper()
	status, ok := statuses(tb, url)[name]
	if !ok {
		tb.Fatalf("%s lists no %s", url, name)
	}
	return status == "loaded"
}

// statuses are what a router says of its models.
func statuses(tb testing.TB, url string) map[string]string {
	tb.Helper()
	resp, err := http.Get(url + "/models")
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct {
		Data []struct {
			ID     string `json:"id"`
			Status struct {
				Value string `json:"value"`
			} `json:"status"`
		} `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		tb.Fatal(err)
	}
	found := map[string]string{}
	for _, m := range list.Data {
		found[m.ID] = m.Status.Value
	}
	return found
}
