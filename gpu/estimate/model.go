package estimate

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	parser "github.com/gpustack/gguf-parser-go"

	"github.com/vramjet/vramjet/schemas"
)

// A Model is what is known of a model that may be loaded. It isn't changed any more
// once it is made, and may be used concurrently.
type Model struct {
	Architecture string
	Context      int           // tokens that it was trained with; 0: it doesn't say
	Size         schemas.Bytes // of its weights; of the whole file where it was described

	layers      []layer
	window      float64 // tokens that layers with a window see; 0: there are none
	embedding   float64 // numbers of a token between the layers
	vocabulary  float64
	heads       float64
	query       float64 // numbers of a token's queries, of all heads
	valueLength float64 // numbers of a head's value
	forward     float64 // numbers of a token in the feed-forward part at its largest moment

	tensors *placed          // nil: not known
	file    *parser.GGUFFile // nil: only described
}

// placed are the bytes of tensors by the place that llama.cpp gives them.
type placed struct {
	embedding float64   // of tokens: in the host's memory
	blocks    []float64 // by layer
	output    float64   // what follows the last layer, and what belongs to none
	untied    bool      // the output has a tensor of its own
}

// Bounds of what a header may claim: far above the largest models, and low enough to
// be allocated for.
const (
	maxLayers = 1 << 12
	maxWidth  = 1 << 24 // numbers of a token
)

// FromInfo makes a Model of GGUF metadata, as in the model_info of Ollama's /api/show,
// and of the size of its file. Where the tensors are not known, all of them count as
// being on the device, also the embeddings that llama.cpp leaves in the host's memory.
func FromInfo(info map[string]any, size schemas.Bytes) (*Model, error) {
	arch, _ := info["general.architecture"].(string)
	if arch == "" {
		return nil, errors.New("the metadata has no general.architecture: it isn't a GGUF model's")
	}
	if size == 0 {
		return nil, errors.New("the size of the model's file is not known")
	}
	return fromMeta(meta{arch: arch, values: info}, size)
}

func fromMeta(of meta, size schemas.Bytes) (*Model, error) {
	blocks := of.number("block_count", 0)
	m := &Model{
		Architecture: of.arch, Size: size,
		Context:    int(min(of.number("context_length", 0), maxContext)),
		embedding:  of.number("embedding_length", 0),
		vocabulary: of.number("vocab_size", float64(of.length("tokenizer.ggml.tokens"))),
	}
	switch {
	case of.bad != nil:
		return nil, of.bad
	case blocks < 1 || blocks > maxLayers:
		return nil, fmt.Errorf("the metadata has %s.block_count = %v: want 1 to %d", of.arch, blocks, maxLayers)
	case m.embedding < 1:
		return nil, fmt.Errorf("the metadata has no %s.embedding_length", of.arch)
	}
	n := int(blocks)
	m.heads = max(1, of.number("attention.head_count", 1))
	keys := of.number("attention.key_length", m.embedding/m.heads)
	m.valueLength = of.number("attention.value_length", m.embedding/m.heads)
	m.query = m.heads * keys
	m.forward = of.forward(n, m.embedding)
	m.layers = of.layers(n, head{keys, m.valueLength})
	if slices.ContainsFunc(m.layers, func(l layer) bool { return l.window }) {
		m.window = of.number("attention.sliding_window", 0)
	}
	return m, of.bad
}

// meta reads the metadata of one architecture. bad is the first value that made no
// sense.
type meta struct {
	arch   string
	values map[string]any
	bad    error
}

// number returns a value of the architecture, or what to take where there is none. Of
// values by layer, it is the largest.
func (of *meta) number(key string, without float64) float64 {
	return slices.Max(of.each(key, without, 1))
}

// each returns a value of the architecture for each of n layers, at least; without
// where there is none.
func (of *meta) each(key string, without float64, n int) []float64 {
	value, ok := of.values[of.arch+"."+key]
	list, many := value.([]any)
	if !ok || value == nil || many && len(list) == 0 {
		return slices.Repeat([]float64{without}, n)
	}
	if !many {
		return slices.Repeat([]float64{of.read(key, value)}, n)
	}
	if len(list) > maxLayers {
		of.fail("%s.%s has %d values: want %d at most", of.arch, key, len(list), maxLayers)
		list = list[:1]
	}
	each := make([]float64, 0, max(n, len(list)))
	for _, v := range list {
		each = append(each, of.read(key, v))
	}
	for len(each) < n { // of a layer that it says nothing of, the worst
		each = append(each, slices.Max(each))
	}
	return each
}

// read reads a number. What isn't one, or can't be meant, is an error.
func (of *meta) read(key string, value any) float64 {
	f := math.NaN()
	switch v := value.(type) {
	case float64:
		f = v
	case json.Number:
		f, _ = v.Float64()
	case int:
		f = float64(v)
	case bool:
		f = 0
		if v {
			f = 1
		}
	}
	limit := float64(maxWidth)
	if key == "context_length" || key == "attention.sliding_window" {
		limit = math.MaxUint32
	}
	if !(f >= 0 && f <= limit) { // NaN is neither
		of.fail("%s.%s = %v: want a number up to %.0f", of.arch, key, value, limit)
		return 0
	}
	return math.Trunc(f)
}

func (of *meta) fail(format string, args ...any) {
	if of.bad == nil {
		of.bad = fmt.Errorf("the metadata has "+format, args...)
	}
}

// length returns the length of a list that isn't the architecture's own; 0 without.
func (of *meta) length(key string) int {
	switch list := of.values[key].(type) {
	case []any:
		return min(len(list), maxWidth)
	case int:
		return min(max(list, 0), maxWidth)
	default:
		return 0
	}
}

// says reports whether there is a value of the architecture.
func (of *meta) says(key string) bool { return of.values[of.arch+"."+key] != nil }

// forward returns how many numbers of a token the feed-forward part of a layer holds
// at its largest moment. A dense one holds the gate, the other branch, and their
// product. A mixture holds these of each expert that is used, and all the results
// beside them where they don't fit where the first two were; a shared expert runs
// beside the others.
func (of *meta) forward(layers int, embedding float64) float64 {
	dense := 3 * slices.Max(of.each("feed_forward_length", 0, layers))
	used := of.number("expert_used_count", 0)
	if used == 0 {
		return dense
	}
	expert := used * of.number("expert_feed_forward_length", dense/3)
	shared := of.number("expert_shared_feed_forward_length", of.number("expert_shared_count", 0)*expert/used)
	mixture := 3*expert + 3*shared + of.number("expert_count", 0)
	if down := used * embedding; down > 2*expert {
		mixture += down
	}
	return max(mixture, dense)
}

// cacheless are the architectures that only embed and keep nothing.
var cacheless = []string{"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert", "eurobert", "t5encoder"}

// windows are the architectures whose layers have a window, but one in so many, where
// the file doesn't say which (set_swa_pattern in llama-model.cpp). The window of any
// other architecture is not used, or not known: its layers keep everything.
var windows = map[string]int{"gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "gptoss": 2, "cohere2": 4}

// A head is how many numbers one head has of a token.
type head struct{ key, value float64 }

// layers returns what each layer keeps.
func (of *meta) layers(n int, full head) []layer {
	layers := make([]layer, n)
	if slices.Contains(cacheless, of.arch) || of.says("attention.causal") && of.number("attention.causal", 1) == 0 {
		return layers
	}
	if rank := of.number("attention.kv_lora_rank", 0); rank > 0 && of.says("attention.key_length_mla") {
		// one compressed vector for keys and values, and what carries the position
		for i := range layers {
			layers[i].k = rank + of.number("rope.dimension_count", 0)
		}
		return layers
	}
	heads := of.each("attention.head_count_kv", slices.Max(of.each("attention.head_count", 1, n)), n)
	window := of.windowed(n)
	narrow := head{of.number("attention.key_length_swa", full.key), of.number("attention.value_length_swa", full.value)}
	state, own := of.state(), n-int(of.number("attention.shared_kv_layers", 0))
	every := int(of.number("full_attention_interval", 0)) // of layers that attend; the rest are recurrent
	for i := range layers {
		attends := i < own && heads[i] > 0 && (every < 1 || (i+1)%every == 0)
		if h := full; attends {
			if window[i] {
				h = narrow
			}
			layers[i] = layer{k: heads[i] * h.key, v: heads[i] * h.value, window: window[i]}
		}
		if !attends || every < 1 { // some have both in one layer
			layers[i].state = state
		}
	}
	return layers
}

// windowed returns which layers have a window.
func (of *meta) windowed(n int) []bool {
	window := make([]bool, n)
	if of.number("attention.sliding_window", 0) == 0 {
		return window
	}
	const pattern = "attention.sliding_window_pattern"
	if list, ok := of.values[of.arch+"."+pattern].([]any); ok && len(list) > 0 {
		for i, w := range of.each(pattern, 0, n)[:n] {
			window[i] = w != 0 && i < len(list)
		}
		return window
	}
	every := int(of.number(pattern, float64(windows[of.arch])))
	for i := range window {
		window[i] = every > 0 && i%every != every-1
	}
	return window
}

// state returns how many numbers a recurrent layer keeps for a slot
// (n_embd_r and n_embd_s in llama-hparams.cpp): the last inputs of its convolution,
// and its state.
func (of *meta) state() float64 {
	embedding := of.number("embedding_length", 0)
	if size := of.number("wkv.head_size", 0); size > 0 {
		return of.number("token_shift_count", 2)*embedding + size*embedding
	}
	if cache := of.number("shortconv.l_cache", 0); cache > 0 {
		return (cache - 1) * embedding
	}
	inner, size := of.number("ssm.inner_size", 0), of.number("ssm.state_size", 0)
	convolution := max(0, of.number("ssm.conv_kernel", 0)-1) * (inner + 2*of.number("ssm.group_count", 0)*size)
	return convolution + inner*size
}

// setTensors notes where the tensors of a file belong.
func (m *Model) setTensors(tensors []tensor) {
	m.tensors = &placed{blocks: make([]float64, len(m.layers))}
	for _, t := range tensors {
		var block int
		switch {
		case strings.HasPrefix(t.name, "token_embd."), strings.HasPrefix(t.name, "token_types."), strings.HasPrefix(t.name, "position_embd."):
			m.tensors.embedding += t.size
		case scanned(t.name, &block) && block < len(m.layers):
			m.tensors.blocks[block] += t.size
		default:
			m.tensors.output += t.size
			m.tensors.untied = m.tensors.untied || t.name == "output.weight"
		}
	}
}

// scanned reads the number of the layer that a tensor belongs to.
func scanned(name string, block *int) bool {
	n, err := fmt.Sscanf(name, "blk.%d.", block)
	return err == nil && n == 1 && *block >= 0
}

// A tensor is a tensor of a file.
type tensor struct {
	name string
	size float64 // in bytes
}
