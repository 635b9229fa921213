package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

var generates = []schemas.Kind{schemas.Chat, schemas.Completion}

// TestProviderLlamaServer: what the provider says and gives is what llama-server
// does.
func TestProviderLlamaServer(t *testing.T) {
	t.Parallel()
	l := findLlama(t)
	dir := l.models(map[string]string{"chat.gguf": shared(t, "models/stories260K.gguf"), "embed.gguf": shared(t, "models/stories-embed.gguf")})
	s := aim(t, providers.KindLlamaCpp, l.serve("-m", dir+"/chat.gguf", "--alias", "tiny", "-c", "1024", "-np", "2"), "tiny")
	embed := aim(t, providers.KindLlamaCpp, l.serve("-m", dir+"/embed.gguf", "--alias", "vectors", "--embeddings", "--sleep-idle-seconds", "1"), "vectors")
	locked := l.serve("-m", dir+"/chat.gguf", "--alias", "tiny", "--api-key", "sesame")

	s.prove(t, providertest.Discovery, func(t *testing.T) {
		s.detected(t)
		models, err := s.Models(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := []providers.Model{{Name: "tiny", Kinds: generates, State: schemas.Resident, Slots: 2, Context: 512, Abilities: []providers.Ability{}}}
		if diff := cmp.Diff(want, models); diff != "" {
			t.Errorf("models (-want +got):\n%s", diff)
		}
		embed.detected(t)
		if diff := cmp.Diff([]schemas.Kind{schemas.Embedding}, embed.find(t, "vectors").Kinds); diff != "" {
			t.Errorf("kinds (-want +got):\n%s", diff)
		}
	})
	s.prove(t, providertest.Chat, s.chats)
	s.prove(t, providertest.Completion, s.completes)
	s.prove(t, providertest.Schema, s.schema)
	s.prove(t, providertest.Embeddings, func(t *testing.T) { embed.embeds(t, "vectors") })
	t.Run("asleep", func(t *testing.T) {
		before := embed.find(t, "vectors")
		before.State = schemas.Installed
		within(t, patience, "it sleeps", func() bool { return sleeps(t, embed.url) })
		embed.detected(t)
		if diff := cmp.Diff(before, embed.find(t, "vectors")); diff != "" {
			t.Errorf("the model (-awake +asleep):\n%s", diff)
		}
		embed.pressed(t, "vectors", providers.Pressure{Slots: before.Slots, KVUsed: -1})
		if !sleeps(t, embed.url) {
			t.Error("asking woke it")
		}
	})
	s.prove(t, providertest.Errors, func(t *testing.T) {
		s.generate(t, "tiny", overflow(), providers.Limits{}).fails(t, schemas.ContextOverflow)
		s.generate(t, "tiny", picture(), providers.Limits{}).fails(t, schemas.Unsupported)
		_, err := s.embed(t, "tiny", "Lily")
		wantCode(t, err, schemas.Unsupported)
		_, err = embed.embed(t, "vectors", strings.Repeat("once upon a time ", 1000))
		wantCode(t, err, schemas.ContextOverflow)
		nobody := aim(t, providers.KindLlamaCpp, fmt.Sprintf("http://127.0.0.1:%d", freePort(t)), "tiny")
		nobody.generate(t, "tiny", chat(), providers.Limits{}).fails(t, schemas.Unreachable)
	})
	t.Run("keys", func(t *testing.T) {
		for _, keys := range [][]string{nil, {"wrong"}} {
			shut := aim(t, providers.KindLlamaCpp, locked, "tiny", keys...)
			shut.detected(t)
			shut.generate(t, "tiny", chat(), providers.Limits{}).fails(t, schemas.Auth)
			_, err := shut.Models(t.Context())
			wantCode(t, err, schemas.Auth)
		}
		open := aim(t, providers.KindLlamaCpp, locked, "tiny", "sesame")
		if m := open.find(t, "tiny"); m.Slots == 0 || m.State != schemas.Resident {
			t.Errorf("with the key: %+v", m)
		}
		if r := open.generate(t, "tiny", chat(), providers.Limits{}).ends(); r.err != nil || !strings.Contains(r.text, story) {
			t.Errorf("with the key: %q, %v", r.text, r.err)
		}
	})
}

// sleeps reports whether a llama-server gave its memory back.
func sleeps(tb testing.TB, url string) bool {
	tb.Helper()
	resp, err := http.Get(url + "/props")
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	var props struct {
		Sleeping bool `json:"is_sleeping"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&props); err != nil {
		tb.Fatal(err)
	}
	return props.Sleeping
}

// TestProviderLlamaRouterSleeps: a look keeps no model awake, a model that sleeps is
// loaded anew and unloaded whole.
func TestProviderLlamaRouterSleeps(t *testing.T) {
	t.Parallel()
	l := findLlama(t)
	s := l.serveRouter(map[string]string{"one.gguf": shared(t, "models/stories260K.gguf")}, "-c", "1024", "--sleep-idle-seconds", "1")
	s.model = "one"
	for range 2 {
		s.loads(t, "one")
		if r := s.generate(t, "one", chat(), providers.Limits{}).ends(); r.err != nil || !strings.Contains(r.text, story) {
			t.Errorf("%q, %v", r.text, r.err)
		}
		s.pressed(t, "one", providers.Pressure{Slots: 2, KVUsed: -1})
		within(t, patience, "it sleeps under our looks", func() bool {
			s.pressed(t, "one", providers.Pressure{Slots: 2, KVUsed: -1})
			return s.find(t, "one").State == schemas.Installed
		})
		if statuses(t, s.url)["one"] != "sleeping" {
			t.Errorf("it is %v", statuses(t, s.url))
		}
	}
	if err := s.loader(t).Unload(t.Context(), "one"); err != nil || s.child(t, "one") != 0 {
		t.Errorf("%v, and its process is %d", err, s.child(t, "one"))
	}
}

// TestProviderLlamaServerBusy: how busy the server is, and that it stops for who
// has gone.
func TestProviderLlamaServerBusy(t *testing.T) {
	t.Parallel()
	l := findLlama(t)
	dir := l.models(map[string]string{"slow.gguf": slowFile(t)})
	url := l.serve("-m", dir+"/slow.gguf", "--alias", "slow", "-c", "1024", "-np", "2", "--metrics")
	s := aim(t, providers.KindLlamaCpp, url, "slow")
	busy := func(running, waiting int) {
		t.Helper()
		s.pressed(t, "slow", providers.Pressure{Running: running, Waiting: waiting, Slots: 2, KVUsed: -1})
	}
	s.prove(t, providertest.Pressure, func(t *testing.T) {
		busy(0, 0)
		one := s.generate(t, "slow", long(), providers.Limits{}).begins(t)
		busy(1, 0)
		two := s.generate(t, "slow", long(), providers.Limits{}).begins(t)
		busy(2, 0)
		three := s.generate(t, "slow", long(), providers.Limits{})
		busy(2, 1)
		one.stop(nil)
		three.begins(t)
		busy(2, 0)
		two.stop(nil)
		three.stop(nil)
		busy(0, 0)
	})
	s.prove(t, providertest.Cancel, func(t *testing.T) { s.cancels(t, "slow") })
}

// TestProviderLlamaServerBreaks: a server that is not there yet, and one that goes
// in the middle of an answer.
func TestProviderLlamaServerBreaks(t *testing.T) {
	t.Parallel()
	l := findLlama(t)
	dir := l.models(map[string]string{"slow.gguf": slowFile(t)})
	args := []string{"-m", dir + "/slow.gguf", "--alias", "slow", "-np", "1"}

	t.Run("loading", func(t *testing.T) {
		for range 10 { // the load may be faster than we are
			url, p := l.start(args...)
			within(t, patience, "it listens", func() bool {
				conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
				if err == nil {
					conn.Close()
				}
				return err == nil
			})
			s := aim(t, providers.KindLlamaCpp, url, "slow")
			_, listed := s.Models(t.Context())
			kind, detected := providers.Detect(t.Context(), url, nil)
			r := s.generate(t, "slow", chat(), providers.Limits{})
			if r.ends().err == nil {
				p.signal(syscall.SIGKILL)
				continue
			}
			r.fails(t, schemas.ModelLoading)
			wantCode(t, listed, schemas.ModelLoading)
			if kind != s.kind || detected != nil {
				t.Errorf("it is detected as %q, %v", kind, detected)
			}
			l.up(url)
			if m := s.find(t, "slow"); m.State != schemas.Resident {
				t.Errorf("when it is up: %+v", m)
			}
			return
		}
		t.Fatal("it was never seen to load")
	})

	broken := func(t *testing.T, lim providers.Limits, s syscall.Signal) {
		url, p := l.start(args...)
		l.up(url)
		r := aim(t, providers.KindLlamaCpp, url, "slow").generate(t, "slow", long(), lim).begins(t)
		p.signal(s)
		began := time.Now()
		r.fails(t, schemas.StreamBroken)
		t.Logf("after %s: %v", time.Since(began).Round(time.Millisecond), r.err)
		if took := time.Since(began); took > lim.BetweenChunks+2*time.Second {
			t.Errorf("it took %s", took)
		}
	}
	s := aim(t, providers.KindLlamaCpp, "http://127.0.0.1:1", "")
	s.prove(t, providertest.Faults, func(t *testing.T) {
		t.Run("SIGKILL", func(t *testing.T) { broken(t, providers.Limits{}, syscall.SIGKILL) })
		// It stops generating, and leaves the stream open for half a minute.
		t.Run("SIGTERM", func(t *testing.T) { broken(t, providers.Limits{BetweenChunks: time.Second}, syscall.SIGTERM) })
	})
}

// A router is a llama-server that loads models from a directory.
type router struct {
	*target
	dir string // as the server sees it
}

// serveRouter runs a router as vramjet wants it: it loads and evicts nothing by
// itself. The model "embed" computes embeddings.
func (l *llama) serveRouter(files map[string]string, args ...string) *router {
	l.Helper()
	preset := filepath.Join(l.TempDir(), "preset.ini")
	if err := os.WriteFile(preset, []byte("[embed]\nembeddings = true\n"), 0o600); err != nil {
		l.Fatal(err)
	}
	if files["embed.gguf"] != "" {
		args = append(args, "--models-preset", l.models(map[string]string{"preset.ini": preset})+"/preset.ini")
	}
	dir := l.models(files)
	args = append(args, "--models-dir", dir, "--models-max", "0", "--no-models-autoload", "-np", "2", "--metrics")
	return &router{aim(l, providers.KindLlamaRouter, l.serve(args...), ""), dir}
}

// child returns the process that holds a model, 0 if there is none.
func (r *router) child(tb testing.TB, model string) int {
	tb.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		tb.Fatal(err)
	}
	for _, file := range files {
		line, _ := os.ReadFile(file) // it may have ended
		if bytes.Contains(line, []byte("\x00"+r.dir+"/"+model+".gguf\x00")) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				return pid
			}
		}
	}
	return 0
}

// TestProviderLlamaRouter: the provider has the router load and unload, and runs
// what it holds.
func TestProviderLlamaRouter(t *testing.T) {
	t.Parallel()
	l := findLlama(t)
	model := shared(t, "models/stories260K.gguf")
	whole, err := os.ReadFile(model)
	if err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged.gguf")
	if err := os.WriteFile(damaged, whole[:len(whole)/4], 0o600); err != nil {
		t.Fatal(err)
	}
	s := l.serveRouter(map[string]string{"one.gguf": model, "two.gguf": model, "damaged.gguf": damaged, "embed.gguf": shared(t, "models/stories-embed.gguf")}, "-c", "4096")
	s.model = "one"

	s.prove(t, providertest.Discovery, func(t *testing.T) {
		before := statuses(t, s.url)
		s.detected(t)
		models, err := s.Models(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var want []providers.Model
		for _, name := range []string{"damaged", "embed", "one", "two"} {
			m := providers.Model{Name: name, Kinds: generates, State: schemas.Installed, Slots: 2, Context: 512}
			if name == "embed" {
				m.Kinds = []schemas.Kind{schemas.Embedding}
			}
			want = append(want, m)
		}
		if diff := cmp.Diff(want, models); diff != "" {
			t.Errorf("models (-want +got):\n%s", diff)
		}
		s.generate(t, "one", chat(), providers.Limits{}).fails(t, schemas.ModelLoading)
		if p, ok := s.Provider.(providers.PressureReporter); ok {
			if now, err := p.Pressure(t.Context(), "one"); err == nil {
				t.Errorf("the pressure of a model that is not there: %+v", now)
			}
		}
		if diff := cmp.Diff(before, statuses(t, s.url)); diff != "" || before["one"] != "unloaded" {
			t.Errorf("asking changed (-before +after):\n%s", diff)
		}
	})
	s.prove(t, providertest.Load, func(t *testing.T) {
		s.loads(t, "one")
		if s.child(t, "one") == 0 {
			t.Error("one has no process")
		}
		if m := s.find(t, "one"); m.Slots != 2 || m.Context != 512 {
			t.Errorf("once it is loaded: %+v", m)
		}
	})
	s.prove(t, providertest.Chat, s.chats)
	s.prove(t, providertest.Completion, s.completes)
	s.prove(t, providertest.Schema, s.schema)
	s.prove(t, providertest.Embeddings, func(t *testing.T) {
		s.loads(t, "embed")
		s.embeds(t, "embed")
	})
	s.prove(t, providertest.Errors, func(t *testing.T) {
		wantCode(t, s.loader(t).Load(t.Context(), "nope"), schemas.ModelNotFound)
		wantCode(t, s.loader(t).Unload(t.Context(), "nope"), schemas.ModelNotFound)
		s.generate(t, "nope", chat(), providers.Limits{}).fails(t, schemas.ModelNotFound)
		wantCode(t, s.loader(t).Load(t.Context(), "damaged"), schemas.UpstreamError)
		s.lists(t, "damaged", schemas.Installed)
		s.generate(t, "one", overflow(), providers.Limits{}).fails(t, schemas.ContextOverflow)
		s.generate(t, "one", picture(), providers.Limits{}).fails(t, schemas.Unsupported)
		_, err := s.embed(t, "one", "Lily")
		wantCode(t, err, schemas.Unsupported)
	})
	s.prove(t, providertest.Unload, func(t *testing.T) {
		s.unloads(t, "embed")
		s.unloads(t, "one")
		if pid := s.child(t, "one"); pid != 0 {
			t.Errorf("one still has the process %d", pid)
		}
		s.generate(t, "one", chat(), providers.Limits{}).fails(t, schemas.ModelLoading)
	})
	t.Run("in turn", func(t *testing.T) {
		for _, name := range []string{"one", "two", "one"} {
			s.loads(t, name)
			if r := s.generate(t, name, chat(), providers.Limits{}).ends(); r.err != nil || !strings.Contains(r.text, story) {
				t.Errorf("%s: %q, %v", name, r.text, r.err)
			}
			s.unloads(t, name)
		}
	})
}

// TestProviderLlamaRouterBusy: a model that runs a request is not unloaded, and one
// whose process was killed can be loaded again.
func TestProviderLlamaRouterBusy(t *testing.T) {
	t.Parallel()
	l := findLlama(t)
	s := l.serveRouter(map[string]string{"slow.gguf": slowFile(t)}, "-c", "1024")
	s.model = "slow"
	s.loads(t, "slow")
	others := aim(t, providers.KindLlamaRouter, s.url, "slow")
	busy := func(t *testing.T, running, waiting int) {
		t.Helper()
		s.pressed(t, "slow", providers.Pressure{Running: running, Waiting: waiting, Slots: 2, KVUsed: -1})
	}

	s.prove(t, providertest.Pressure, func(t *testing.T) {
		busy(t, 0, 0)
		one := s.generate(t, "slow", long(), providers.Limits{}).begins(t)
		busy(t, 1, 0)
		two := s.generate(t, "slow", long(), providers.Limits{}).begins(t)
		three := s.generate(t, "slow", long(), providers.Limits{})
		busy(t, 2, 1)
		for _, r := range []*run{one, two, three} {
			r.stop(nil)
		}
		busy(t, 0, 0)
	})
	s.prove(t, providertest.Cancel, func(t *testing.T) { s.cancels(t, "slow") })
	t.Run("unload", func(t *testing.T) {
		body := long()
		body["max_tokens"] = 60
		r := s.generate(t, "slow", body, providers.Limits{}).begins(t)
		wantCode(t, s.loader(t).Unload(t.Context(), "slow"), schemas.Overloaded)
		wantCode(t, others.loader(t).Unload(t.Context(), "slow"), schemas.Overloaded)
		s.lists(t, "slow", schemas.Resident)
		if r.ends().err != nil || r.answer.Usage.CompletionTokens != 60 || !strings.Contains(r.text, story) {
			t.Errorf("the answer of the busy model: %q, %+v, %v", r.text, r.answer.Usage, r.err)
		}
		s.unloads(t, "slow")
		if pid := s.child(t, "slow"); pid != 0 {
			t.Errorf("slow still has the process %d", pid)
		}
	})
	s.prove(t, providertest.Faults, func(t *testing.T) {
		s.loads(t, "slow")
		r := s.generate(t, "slow", long(), providers.Limits{}).begins(t)
		pid := s.child(t, "slow")
		if pid == 0 {
			t.Fatal("slow has no process")
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.fails(t, schemas.UpstreamError, schemas.StreamBroken)
		s.notices(t, "slow")
		s.loads(t, "slow")
		body := chat()
		body["max_tokens"] = 20
		if again := s.generate(t, "slow", body, providers.Limits{}).ends(); again.err != nil || again.answer.Usage.CompletionTokens != 20 {
			t.Errorf("after its process was killed: %q, %v", again.text, again.err)
		}
	})
}
