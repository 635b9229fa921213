package integration

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// findOther returns the command of a model server that not every machine has. It
// skips the test where there is none.
func findOther(t *testing.T, name, variable string) []string {
	t.Helper()
	command := strings.Fields(os.Getenv(variable))
	if len(command) == 0 {
		t.Skipf("%s is not installed: set %s to its command", name, variable)
	}
	return command
}

// other runs such a server until the test ends. What it proves is noted nowhere:
// the table claims what can be proven everywhere.
func other(t *testing.T, kind, addr string, command ...string) *target {
	t.Helper()
	launch(t, kind, exec.Command(command[0], command[1:]...))
	s := aim(t, kind, "http://"+addr, "tiny")
	s.proofs = new(providertest.Proofs)
	within(t, patience, kind+" is up", func() bool {
		resp, err := http.Get(s.url)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return true
	})
	return s
}

// holds runs what is tested with every server that loads and unloads: the models
// are tiny, embed and slow, and none is loaded.
func (s *target) holds(t *testing.T) {
	s.prove(t, providertest.Discovery, func(t *testing.T) {
		s.detected(t)
		for model, kinds := range map[string][]schemas.Kind{"tiny": generates, "embed": {schemas.Embedding}, "slow": generates} {
			if m := s.find(t, model); !slices.Equal(m.Kinds, kinds) || m.State != schemas.Installed {
				t.Errorf("it lists %+v, want the kinds %v", m, kinds)
			}
		}
	})
	s.prove(t, providertest.Load, func(t *testing.T) { s.loads(t, "tiny") })
	s.prove(t, providertest.Chat, s.chats)
	s.prove(t, providertest.Completion, s.completes)
	s.prove(t, providertest.Unload, func(t *testing.T) { s.unloads(t, "tiny") })
	s.prove(t, providertest.Embeddings, func(t *testing.T) { s.embeds(t, "embed") })
	s.prove(t, providertest.Cancel, func(t *testing.T) {
		s.loads(t, "slow")
		s.cancels(t, "slow")
	})
	s.prove(t, providertest.Errors, func(t *testing.T) {
		wantCode(t, s.loader(t).Load(t.Context(), "nope"), schemas.ModelNotFound)
		s.generate(t, "nope", chat(), providers.Limits{}).fails(t, schemas.ModelNotFound)
	})
}

func TestProviderOllama(t *testing.T) {
	t.Parallel()
	command := findOther(t, "ollama", "VRAMJET_OLLAMA")
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	command = slices.Concat([]string{"env", "HOME=" + t.TempDir(), "OLLAMA_HOST=" + addr, "OLLAMA_MODELS=" + t.TempDir(), "OLLAMA_NUM_PARALLEL=1"}, command)
	s := other(t, providers.KindOllama, addr, append(slices.Clone(command), "serve")...)
	for model, file := range map[string]string{"tiny": shared(t, "models/stories260K.gguf"), "embed": shared(t, "models/stories-embed.gguf"), "slow": slowFile(t)} {
		from := filepath.Join(t.TempDir(), "Modelfile")
		if err := os.WriteFile(from, []byte("FROM "+file+"\nTEMPLATE {{ .Prompt }}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		create := append(slices.Clone(command), "create", model, "-f", from)
		if out, err := exec.Command(create[0], create[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	s.holds(t)
	s.prove(t, providertest.Memory, func(t *testing.T) {
		if m := s.find(t, "slow"); m.State != schemas.Resident || !m.Need.Known || m.Need.Bytes < 200*schemas.MiB || m.VRAM.Known && m.VRAM.Bytes == 0 {
			t.Errorf("the memory of %+v", m)
		}
	})
}

func TestProviderLlamaSwap(t *testing.T) {
	t.Parallel()
	command := findOther(t, "llama-swap", "VRAMJET_LLAMA_SWAP")
	l := findLlama(t)
	dir := l.models(map[string]string{"tiny": shared(t, "models/stories260K.gguf"), "embed": shared(t, "models/stories-embed.gguf"), "slow": slowFile(t)})
	config := "models:\n"
	for model, flags := range map[string]string{"tiny": "", "embed": " --embeddings", "slow": ""} {
		config += fmt.Sprintf("  %s: {cmd: \"%s -t 1 --host 127.0.0.1 --port ${PORT} -m %s/%s --alias %s%s\"}\n", model, strings.Join(l.command, " "), dir, model, model, flags)
	}
	file := filepath.Join(t.TempDir(), "swap.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	other(t, providers.KindLlamaSwap, addr, append(command, "--config", file, "--listen", addr)...).holds(t)
}
