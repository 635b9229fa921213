package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// ggufOf writes a GGUF file of 8 layers, 1024 wide, with 256 MiB of weights.
func ggufOf(t *testing.T, name string) {
	t.Helper()
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			if s, ok := v.(string); ok {
				_ = binary.Write(&b, binary.LittleEndian, uint64(len(s)))
				b.WriteString(s)
				continue
			}
			_ = binary.Write(&b, binary.LittleEndian, v)
		}
	}
	keys := []struct {
		key   string
		value uint32
	}{{"block_count", 8}, {"context_length", 4096}, {"embedding_length", 1024}, {"feed_forward_length", 4096}, {"attention.head_count", 8}, {"attention.head_count_kv", 2}}
	b.WriteString("GGUF")
	put(uint32(3), uint64(8), uint64(1+len(keys)), "general.architecture", uint32(8), "llama")
	for _, k := range keys {
		put("llama."+k.key, uint32(4), k.value)
	}
	const tensorSize = 32 << 20 // of f32
	for i := range 8 {
		put(fmt.Sprintf("blk.%d.ffn_up.weight", i), uint32(2), uint64(1024), uint64(tensorSize/4/1024), uint32(0), uint64(i*tensorSize))
	}
	size := int64(b.Len()+31)/32*32 + 8*tensorSize
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
}

func TestModelsEstimate(t *testing.T) {
	sh := newShell(t)
	ggufOf(t, "tiny.gguf")
	var out []string
	for _, args := range []string{
		"tiny.gguf", "tiny.gguf --context 8192 --parallel 4 --kv-type q8_0 --ubatch 1024", "./tiny.gguf -c 8192 --flash-attn off", "tiny.gguf --context 8192 --devices 2",
	} {
		stdout, stderr := sh.want(t, exitOK, append([]string{"models", "estimate"}, strings.Fields(args)...)...)
		out = append(out, "$ vramjet models estimate "+args+"\n"+stdout+stderr)
	}
	t.Chdir(packageDir)
	golden(t, "models-estimate.out", strings.Join(out, "\n"))
}

// TestModelsEstimateJSON: it has exactly these keys, in bytes.
func TestModelsEstimateJSON(t *testing.T) {
	sh := newShell(t)
	ggufOf(t, "tiny.gguf")
	stdout, _ := sh.want(t, exitOK, "models", "estimate", "tiny.gguf", "--context", "8192", "--parallel", "2", "--json")
	var got map[string]uint64
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 5 || got["weights"] != 256<<20 || got["kv"] != 8*2*2*128*8192*2 || got["total"] != got["weights"]+got["kv"]+got["compute"]+got["overhead"] || got["compute"] == 0 {
		t.Errorf("got %v", got)
	}
	t.Chdir(packageDir)
	golden(t, "models-estimate.json", stdout)
}

// A name is asked of the servers: of their file where it's here, else of what they say.
func TestModelsEstimateNames(t *testing.T) {
	sh := newShell(t)
	ggufOf(t, "tiny.gguf")
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	show := func(modelfile string) string {
		return `{"modelfile":"` + modelfile + `","parameters":"num_ctx 2048","capabilities":["completion"],"model_info":{"general.architecture":"llama","llama.block_count":8,` +
			`"llama.context_length":4096,"llama.embedding_length":1024,"llama.feed_forward_length":4096,"llama.attention.head_count":8,"llama.attention.head_count_kv":2}}`
	}
	tags := `{"models":[{"name":"tiny:latest","model":"tiny:latest","size":300000000,"digest":"d1"}]}`
	ollama := func(modelfile string) string {
		return serveHTTP(t, paths(map[string]string{"/api/tags": tags, "/api/version": `{"version":"0.17.4"}`, "/api/show": show(modelfile)}))
	}
	list := `{"data":[{"id":"routed","status":{"value":"unloaded","args":["llama-server","-m","` + dir + `/tiny.gguf","-c","8192","-np","4","-ctk","q8_0","-ctv","q8_0"]}}]}`
	router := serveHTTP(t, paths(map[string]string{"/models": list, "/v1/models": list, "/props": `{"role":"router","build_info":"b1"}`}))
	for _, c := range []struct{ backend, args, want string }{
		{"kind: ollama, url: " + ollama(`FROM `+dir+`/tiny.gguf`), "tiny", "weights    256.0 MiB"},
		{"kind: ollama, url: " + ollama(`FROM /nowhere/blob`), "tiny", "weights    286.1 MiB"},
		{"kind: ollama, url: " + ollama(`FROM /nowhere/blob`), "tiny --context 1024 --parallel 2", "context 1024 in 2 slots"},
		{"kind: ollama, url: " + ollama(`FROM /nowhere/blob`), "tiny:latest", "context 2048 in 1 slot"},
		{"kind: llamacpp, url: " + router, "routed", "context 8192 in 4 slots, kv q8_0"},
		{"kind: llamacpp, url: " + router, "routed --kv-type f16", "context 8192 in 4 slots, kv f16"},
	} {
		sh.env["VRAMJET_BACKENDS"] = `[{name: gpu, ` + c.backend + `}]`
		stdout, _ := sh.want(t, exitOK, append([]string{"models", "estimate"}, strings.Fields(c.args)...)...)
		if !strings.Contains(strings.Join(strings.Fields(stdout), " "), strings.Join(strings.Fields(c.want), " ")) {
			t.Errorf("%s of %s: %s", c.args, c.backend, stdout)
		}
	}
}

// What cannot be estimated is an error that says what to do.
func TestModelsEstimateErrors(t *testing.T) {
	sh := newShell(t)
	ggufOf(t, "tiny.gguf")
	if err := os.WriteFile("text", []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	sh.env["VRAMJET_BACKENDS"] = `[{name: gpu, kind: ollama, url: "` + serveHTTP(t, paths(map[string]string{"/api/tags": `{"models":[]}`})) + `"}]`
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"nowhere", exitNotFound, "name its GGUF file"},
		{"nowhere.gguf", exitNotFound, "no such file"},
		{"text", exitFailed, "not a GGUF file"},
		{"http://127.0.0.1:1/x.gguf", exitFailed, "refused"},
		{"tiny.gguf --context prod", exitUsage, "such as 8192"},
		{"tiny.gguf --context 8 -c 9", exitUsage, "such as 8192"},
		{"tiny.gguf --kv-type q3", exitUsage, "q8_0"},
		{"tiny.gguf --flash-attn maybe", exitUsage, "on or off"},
		{"tiny.gguf --parallel=-1", exitUsage, "slots"},
	} {
		if _, stderr := sh.want(t, c.code, append([]string{"models", "estimate"}, strings.Fields(c.args)...)...); !strings.Contains(stderr, c.want) {
			t.Errorf("%s: stderr is %q", c.args, stderr)
		}
	}
}
