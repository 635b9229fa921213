package estimate_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// The types of tensors that the tests use, as GGUF numbers them.
const (
	typeF32 = 0
	typeF16 = 1
	typeQ4  = 2
	typeQ8  = 8
	typeQ4K = 12
	typeQ5K = 13
	typeQ6K = 14
)

// blocks are how many numbers of a type make a block, and how many bytes that has.
var blocks = map[uint32][2]uint64{
	typeF32: {1, 4}, typeF16: {1, 2}, typeQ4: {32, 18}, typeQ8: {32, 34},
	typeQ4K: {256, 144}, typeQ5K: {256, 176}, typeQ6K: {256, 210},
}

// A gguf is the header of a GGUF file, to be written.
type gguf struct {
	keys    []any // key, value, key, value, …
	tensors []tensor
}

type tensor struct {
	name string
	kind uint32
	dims []uint64
}

func (t *tensor) bytes() uint64 {
	n := uint64(1)
	for _, d := range t.dims {
		n *= d
	}
	b := blocks[t.kind]
	return n / b[0] * b[1]
}

func (g *gguf) add(name string, kind uint32, dims ...uint64) {
	g.tensors = append(g.tensors, tensor{name, kind, dims})
}

// header returns the file without its tensors' data, and its size with that.
func (g *gguf) header() (header []byte, size int64) {
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	text := func(s string) { put(uint64(len(s))); b.WriteString(s) }
	b.WriteString("GGUF")
	put(uint32(3))
	put(uint64(len(g.tensors)))
	put(uint64(len(g.keys) / 2))
	for i := 0; i < len(g.keys); i += 2 {
		text(fmt.Sprint(g.keys[i]))
		switch v := g.keys[i+1].(type) {
		case string:
			put(uint32(8))
			text(v)
		case []uint32:
			put(uint32(9))
			put(uint32(4))
			put(uint64(len(v)))
			put(v)
		case int:
			put(uint32(4))
			put(uint32(v))
		}
	}
	const align = 32
	offset := uint64(0)
	for i := range g.tensors {
		t := &g.tensors[i]
		text(t.name)
		put(uint32(len(t.dims)))
		put(t.dims)
		put(t.kind)
		put(offset)
		offset += (t.bytes() + align - 1) / align * align
	}
	b.Write(make([]byte, -b.Len()&(align-1)))
	return b.Bytes(), int64(b.Len()) + int64(offset)
}

// write writes the file. It has holes where its tensors would be, and takes no room.
func (g *gguf) write(t *testing.T) string {
	t.Helper()
	header, size := g.header()
	path := filepath.Join(t.TempDir(), "model.gguf")
	if err := os.WriteFile(path, header, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// A dense is the shape of a model without a mixture of experts.
type dense struct {
	arch                                              string
	layers, embedding, heads, kv, forward, vocabulary uint64
	tied, bias                                        bool
}

// The models that were measured.
var shapes = map[string]dense{
	"llama3.2-1b": {"llama", 16, 2048, 32, 8, 8192, 128256, true, false},
	"llama3.1-8b": {"llama", 32, 4096, 32, 8, 14336, 128256, false, false},
	"qwen2.5-32b": {"qwen2", 64, 5120, 40, 8, 27648, 152064, false, true},
	"llama3-70b":  {"llama", 80, 8192, 64, 8, 28672, 128256, false, false},
}

// kinds say of which type the tensors of a file are.
type kinds func(name string, layer, layers uint64) uint32

// all is a file whose tensors are of one type.
func all(kind uint32) kinds { return func(string, uint64, uint64) uint32 { return kind } }

// mixed is Q4_K_M: some tensors, and those of some layers, have more bits.
func mixed(name string, layer, layers uint64) uint32 {
	more := layer < layers/8 || layer >= 7*layers/8 || (layer-layers/8)%3 == 2
	switch {
	case name == "output", more && name == "ffn_down", more && name == "attn_v":
		return typeQ6K
	case name == "attn_v" && layers == 80: // 70B models share keys and values among more heads
		return typeQ5K
	default:
		return typeQ4K
	}
}

// gguf returns the header of such a model.
func (d dense) gguf(of kinds) *gguf {
	g := &gguf{keys: []any{
		"general.architecture", d.arch,
		d.arch + ".block_count", int(d.layers), d.arch + ".context_length", 131072, d.arch + ".embedding_length", int(d.embedding),
		d.arch + ".feed_forward_length", int(d.forward), d.arch + ".attention.head_count", int(d.heads),
		d.arch + ".attention.head_count_kv", int(d.kv), d.arch + ".vocab_size", int(d.vocabulary),
	}}
	e, kv := d.embedding, d.embedding/d.heads*d.kv
	g.add("token_embd.weight", of("token_embd", 0, d.layers), e, d.vocabulary)
	if !d.tied {
		g.add("output.weight", of("output", 0, d.layers), e, d.vocabulary)
	}
	g.add("output_norm.weight", typeF32, e)
	for l := range d.layers {
		for _, t := range []struct {
			name     string
			in, out  uint64
			withBias bool
		}{
			{"attn_q", e, e, d.bias},
			{"attn_k", e, kv, d.bias},
			{"attn_v", e, kv, d.bias},
			{"attn_output", e, e, false},
			{"ffn_gate", e, d.forward, false},
			{"ffn_up", e, d.forward, false},
			{"ffn_down", d.forward, e, false},
		} {
			g.add(fmt.Sprintf("blk.%d.%s.weight", l, t.name), of(t.name, l, d.layers), t.in, t.out)
			if t.withBias {
				g.add(fmt.Sprintf("blk.%d.%s.bias", l, t.name), typeF32, t.out)
			}
		}
		g.add(fmt.Sprintf("blk.%d.attn_norm.weight", l), typeF32, e)
		g.add(fmt.Sprintf("blk.%d.ffn_norm.weight", l), typeF32, e)
	}
	return g
}
