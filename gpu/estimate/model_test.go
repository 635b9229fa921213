package estimate_test

import (
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/vramjet/vramjet/gpu/estimate"
	"github.com/vramjet/vramjet/schemas"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		http.DefaultClient.CloseIdleConnections()
		os.Exit(code)
	}))
}

// described makes a Model of metadata: a llama's of 4 layers, and more.
func described(t *testing.T, arch string, more map[string]any) *estimate.Model {
	t.Helper()
	info := map[string]any{"general.architecture": arch}
	for key, value := range map[string]any{
		"block_count": 4.0, "embedding_length": 1024.0, "feed_forward_length": 4096.0, "context_length": 8192.0,
		"attention.head_count": 8.0, "attention.head_count_kv": 2.0,
	} {
		info[arch+"."+key] = value
	}
	for key, value := range more {
		info[arch+"."+key] = value
	}
	m, err := estimate.FromInfo(info, schemas.GiB)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestKV: what the layers of all kinds keep. A layer of the plain model keeps
// 2 · 2 heads · 128 numbers of a token.
func TestKV(t *testing.T) {
	const token, cells = 2 * 2 * 128, 8192
	list := func(v ...any) []any { return v }
	for _, c := range []struct {
		name, arch string
		more       map[string]any
		load       estimate.Load
		want       float64 // bytes
	}{
		{"plain", "llama", nil, estimate.Load{}, 4 * token * cells * 2},
		{"context is of all slots", "llama", nil, estimate.Load{Parallel: 4}, 4 * token * cells * 2},
		{"slots are rounded up", "llama", nil, estimate.Load{Context: 1000, Parallel: 3}, 4 * token * 3 * 512 * 2},
		{"q8_0", "llama", nil, estimate.Load{KVType: "q8_0"}, 4 * token * cells * 34 / 32},
		{"q5_1", "llama", nil, estimate.Load{KVType: "q5_1"}, 4 * token * cells * 24 / 32},
		{"iq4_nl", "llama", nil, estimate.Load{KVType: "iq4_nl"}, 4 * token * cells * 18 / 32},
		{"f32", "llama", nil, estimate.Load{KVType: "f32"}, 4 * token * cells * 4},
		{"quantised needs flash attention", "llama", nil, estimate.Load{KVType: "q4_0", FlashAttention: "off"}, 4 * token * cells * 2},
		{"heads of their own width", "qwen3", map[string]any{"attention.key_length": 192.0, "attention.value_length": 64.0}, estimate.Load{}, 4 * 2 * 256 * cells * 2},
		{"heads by layer", "deci", map[string]any{"attention.head_count_kv": list(2.0, 0.0, 4.0, 2.0)}, estimate.Load{}, 8 * 256 * cells * 2},
		{"heads that nobody tells", "llama", map[string]any{"attention.head_count_kv": nil}, estimate.Load{}, 4 * 8 * 256 * cells * 2},
		{
			"window by layer", "gemma3",
			map[string]any{"attention.sliding_window": 512.0, "attention.sliding_window_pattern": list(true, true, true, false)},
			estimate.Load{Parallel: 2},
			(3*1024 + 4096) * 2 * token * 2,
		},
		{"window by architecture", "gemma2", map[string]any{"attention.sliding_window": 512.0}, estimate.Load{}, (2*1024 + 2*8192) * token * 2},
		{"window that isn't used", "mistral", map[string]any{"attention.sliding_window": 512.0}, estimate.Load{}, 4 * token * cells * 2},
		{
			"compressed", "deepseek2",
			map[string]any{"attention.kv_lora_rank": 512.0, "attention.key_length_mla": 192.0, "rope.dimension_count": 64.0},
			estimate.Load{},
			4 * 576 * cells * 2,
		},
		{
			"recurrent but one", "qwen3next",
			map[string]any{"full_attention_interval": 4.0, "ssm.inner_size": 2048.0, "ssm.state_size": 128.0, "ssm.conv_kernel": 4.0, "ssm.group_count": 16.0},
			estimate.Load{Parallel: 2},
			token*cells*2 + 2*3*4*(3*(2048+2*16*128)+2048*128),
		},
		{"keeps nothing", "bert", nil, estimate.Load{}, 0},
	} {
		if got := of(t, described(t, c.arch, c.more), c.load).KV; float64(got) != c.want {
			t.Errorf("%s: %d bytes, want %.0f", c.name, got, c.want)
		}
	}
}

// TestWindows: models of 6 layers with a window of 512 tokens, whose weights were all
// zero, on llama-server b11669 on a CPU, in MiB. There, the embeddings of a batch are
// in its buffer twice more.
func TestWindows(t *testing.T) {
	for _, c := range []struct {
		arch        string
		load        estimate.Load
		kv, compute float64
	}{
		{"gemma3", estimate.Load{Context: 16384, Parallel: 2}, 4 + 2.5, 13.28},
		{"gemma3", estimate.Load{Context: 8192, KVType: "q8_0"}, 1.0625 + 0.66406, 0},
		{"gemma2", estimate.Load{Context: 16384, Parallel: 2}, 12 + 1.5, 13.28},
		{"gemma2", estimate.Load{Context: 8192, KVType: "q8_0"}, 3.1875 + 0.39844, 0},
		{"qwen3", estimate.Load{Context: 16384, Parallel: 2}, 24, 12.27},
	} {
		e := of(t, described(t, c.arch, map[string]any{
			"block_count": 6.0, "embedding_length": 128.0, "feed_forward_length": 512.0, "attention.head_count": 4.0, "attention.head_count_kv": 2.0,
			"attention.key_length": 32.0, "attention.value_length": 32.0, "attention.sliding_window": 512.0, "vocab_size": 512.0,
		}), c.load)
		const twice = 2 * 128 * 512 * 4 / float64(schemas.MiB)
		if math.Abs(mib(e.KV)-c.kv) > 0.01 || c.compute > 0 && math.Abs(mib(e.Compute)-(c.compute-twice)) > 0.05 {
			t.Errorf("%s %+v: %+v, measured %.2f and %.2f", c.arch, c.load, e.Parts, c.kv, c.compute)
		}
	}
}

// Devices have layers in order, and the last one the output.
func TestDevices(t *testing.T) {
	m := read(t, shapes["llama3-70b"].gguf(mixed))
	one, two := of(t, m, estimate.Load{Context: 8192}), of(t, m, estimate.Load{Context: 8192, Devices: 2})
	if diff := cmp.Diff(one.Parts, one.Devices[0]); diff != "" || len(one.Devices) != 1 {
		t.Errorf("of one device (-all +it):\n%s", diff)
	}
	a, b := two.Devices[0], two.Devices[1]
	if a.Weights+b.Weights != one.Weights || a.KV+b.KV != one.KV || two.Weights != one.Weights {
		t.Errorf("%+v and %+v are not what one device has: %+v", a, b, one)
	}
	if a.KV != 41*one.KV/80 || a.Overhead != estimate.Overhead || a.Compute <= one.Compute {
		t.Errorf("the first of two has %+v of %+v", a, one)
	}
	if math.Abs(off(mib(a.Total()), 22192)) > 3 || math.Abs(off(mib(b.Total()), 22030)) > 3 { // gguf-parser-go's figures
		t.Errorf("two devices take %s and %s", a.Total(), b.Total())
	}
	if got := of(t, m, estimate.Load{Context: 8192, Overhead: schemas.GiB}).Overhead; got != schemas.GiB {
		t.Errorf("the overhead is %s", got)
	}
}

// A model that is only described takes no less than its file says.
func TestDescribedTakesNoLess(t *testing.T) {
	g := shapes["llama3.1-8b"].gguf(mixed)
	exact := read(t, g)
	info := map[string]any{}
	for i := 0; i < len(g.keys); i += 2 {
		key, _ := g.keys[i].(string)
		info[key] = g.keys[i+1]
	}
	m, err := estimate.FromInfo(info, exact.Size)
	if err != nil {
		t.Fatal(err)
	}
	load := estimate.Load{Context: 8192, Parallel: 2, KVType: "q8_0"}
	want, got := of(t, exact, load), of(t, m, load)
	if got.Weights != exact.Size || got.KV != want.KV || got.Compute != want.Compute {
		t.Errorf("described: %+v, from the file: %+v", got.Parts, want.Parts)
	}
}

// What Ollama 0.17.4 says of a model of 1.2 MB.
func TestOllamaInfo(t *testing.T) {
	const shown = `{"general.architecture":"llama","general.file_type":0,"general.parameter_count":292800,"llama.attention.head_count":8,
		"llama.attention.head_count_kv":4,"llama.attention.layer_norm_rms_epsilon":0.00001,"llama.block_count":5,"llama.context_length":512,
		"llama.embedding_length":64,"llama.feed_forward_length":172,"llama.rope.dimension_count":8,"llama.vocab_size":512,"tokenizer.ggml.tokens":null}`
	var info map[string]any
	if err := json.Unmarshal([]byte(shown), &info); err != nil {
		t.Fatal(err)
	}
	m, err := estimate.FromInfo(info, 1186343)
	if err != nil {
		t.Fatal(err)
	}
	e := of(t, m, estimate.Load{})
	if e.Weights != 1186343 || e.KV != 5*2*4*8*512*2 || m.Architecture != "llama" || m.Context != 512 {
		t.Errorf("%+v of %+v", e.Parts, m)
	}
}

// An architecture whose graph is not known takes what the parser says, where that is
// more.
func TestUnknownArchitecture(t *testing.T) {
	g := shapes["llama3.1-8b"].gguf(mixed)
	known := of(t, read(t, g), estimate.Load{Context: 8192})
	g.keys[1] = "starcoder2"
	for i := 2; i < len(g.keys); i += 2 {
		key, _ := g.keys[i].(string)
		g.keys[i] = strings.Replace(key, "llama.", "starcoder2.", 1)
	}
	got := of(t, read(t, g), estimate.Load{Context: 8192})
	if got.Weights < known.Weights || got.KV != known.KV || got.Compute < known.Compute || got.Compute > 2*known.Compute {
		t.Errorf("unknown: %+v, known: %+v", got.Parts, known.Parts)
	}
}

func TestBadLoads(t *testing.T) {
	m := described(t, "llama", map[string]any{"context_length": nil})
	for want, load := range map[string]estimate.Load{
		"name one": {}, "a context of -1": {Context: -1}, "slots": {Context: 1, Parallel: -1}, "ubatch": {Context: 1, UBatch: -1},
		"devices": {Context: 1, Devices: 1000}, `"q3"`: {Context: 1, KVType: "q3"}, `"maybe"`: {Context: 1, FlashAttention: "maybe"},
	} {
		if e, err := m.Estimate(load); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, %v, want %q", load, e, err, want)
		}
	}
}

func TestBadInfo(t *testing.T) {
	good := map[string]any{"general.architecture": "llama", "llama.block_count": 4.0, "llama.embedding_length": 64.0}
	if _, err := estimate.FromInfo(good, 0); err == nil {
		t.Error("a file of no size is taken")
	}
	for want, wrong := range map[string]map[string]any{
		"general.architecture": {"general.architecture": 7.0},
		"block_count":          {"llama.block_count": 1e9},
		"embedding_length":     {"llama.embedding_length": nil},
		"feed_forward_length":  {"llama.feed_forward_length": -1.0},
		"head_count_kv":        {"llama.attention.head_count_kv": []any{"many"}},
		"values":               {"llama.attention.head_count": make([]any, 5000)},
	} {
		info := maps.Clone(good)
		maps.Copy(info, wrong)
		if m, err := estimate.FromInfo(info, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", want, m, err)
		}
	}
}

func TestBadFiles(t *testing.T) {
	header, size := shapes["llama3.2-1b"].gguf(all(typeQ4)).header()
	dir := t.TempDir()
	for name, c := range map[string]struct {
		data []byte
		size int64
		want string
	}{
		"empty.gguf":      {nil, 0, "not a GGUF"},
		"other.gguf":      {[]byte("<!DOCTYPE html>"), 15, "not a GGUF"},
		"cut.gguf":        {header[:len(header)/2], int64(len(header) / 2), "in the middle of its header"},
		"no-data.gguf":    {header, int64(len(header)), "bytes"},
		"old.gguf":        {append([]byte("GGUF\x01"), header[5:]...), size, "version is 1"},
		"many.gguf":       {append(append([]byte{}, header[:8]...), append([]byte("\xff\xff\xff\xff"), header[12:]...)...), size, "4294967295 tensors"},
		"vocabulary.gguf": {func() []byte { h, _ := (&gguf{keys: []any{"general.architecture", "llama"}}).header(); return h }(), 96, "no tensors"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, c.size); err != nil {
			t.Fatal(err)
		}
		if m, err := estimate.Read(t.Context(), path); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v, want %q", name, m, err, c.want)
		}
	}
	if _, err := estimate.Read(t.Context(), filepath.Join(dir, "none.gguf")); !os.IsNotExist(err) && !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a file that isn't there: %v", err)
	}
	if _, err := estimate.Read(t.Context(), dir); err == nil {
		t.Error("a directory is read")
	}
}

// A file on the web is read no further than its header.
func TestFetch(t *testing.T) {
	path := shapes["llama3.1-8b"].gguf(mixed).write(t)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/model.gguf" {
			http.NotFound(w, r)
			return
		}
		http.ServeFile(w, r, path)
	}))
	defer web.Close()
	m, err := estimate.Fetch(t.Context(), web.URL+"/model.gguf")
	if err != nil {
		t.Fatal(err)
	}
	want, err := estimate.Read(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := of(t, m, estimate.Load{}), of(t, want, estimate.Load{}); got.Parts != want.Parts {
		t.Errorf("fetched: %+v, read: %+v", got.Parts, want.Parts)
	}
	for address, want := range map[string]string{web.URL + "/none.gguf": "404", "ftp://host/x": "https://", "https://": "https://", "http://127.0.0.1:1/x": "refused"} {
		if _, err := estimate.Fetch(t.Context(), address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}

// FuzzInfo: no metadata makes it panic, and no estimate is less than the weights.
func FuzzInfo(f *testing.F) {
	f.Add(`{"general.architecture":"llama","llama.block_count":2,"llama.embedding_length":64,"llama.attention.head_count":[1,2],"llama.context_length":1}`, uint64(1), 100, 2, "q8_0")
	f.Add(`{"general.architecture":"x","x.block_count":4,"x.embedding_length":64,"x.attention.sliding_window":1,"x.attention.sliding_window_pattern":[true]}`, uint64(1)<<62, 1<<28, 4096, "")
	f.Add(`{"general.architecture":"x","x.block_count":4096,"x.embedding_length":16777216,"x.ssm.state_size":16777216,"x.ssm.inner_size":16777216,"x.full_attention_interval":2}`, uint64(1), 0, 0, "f32")
	f.Fuzz(func(t *testing.T, text string, size uint64, context, parallel int, kind string) {
		var info map[string]any
		if json.Unmarshal([]byte(text), &info) != nil {
			return
		}
		m, err := estimate.FromInfo(info, schemas.Bytes(size))
		if err != nil {
			return
		}
		for _, l := range []estimate.Load{
			{Context: context, Parallel: parallel, KVType: kind, Devices: 3}, {Context: context, Parallel: parallel, KVType: kind, FlashAttention: "off", UBatch: parallel},
		} {
			e, err := m.Estimate(l)
			if err != nil {
				continue
			}
			if e.Weights < min(m.Size, 1<<52) || e.Total() < e.Weights {
				t.Errorf("%+v for a model of %d bytes", e.Parts, m.Size)
			}
		}
	})
}

// FuzzFile: no file makes it panic or take much memory.
func FuzzFile(f *testing.F) {
	small := dense{"llama", 1, 64, 2, 1, 128, 32, true, true}
	header, _ := small.gguf(all(typeF32)).header()
	f.Add(header, uint32(1<<20))
	f.Add(header[:40], uint32(1<<31))
	g := small.gguf(all(typeQ8))
	g.keys = append(g.keys, "split.tensors.count", 65535, "llama.attention.sliding_window_pattern", []uint32{1, 0})
	header, _ = g.header()
	f.Add(header, uint32(1<<20))
	f.Fuzz(func(t *testing.T, data []byte, size uint32) {
		path := filepath.Join(t.TempDir(), "x.gguf")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, max(int64(size), int64(len(data)))); err != nil {
			t.Fatal(err)
		}
		if m, err := estimate.Read(t.Context(), path); err == nil {
			_, _ = m.Estimate(estimate.Load{Context: 4096, Parallel: 2})
		}
	})
}
