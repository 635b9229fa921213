package estimate

import (
	"math"
	"slices"

	parser "github.com/gpustack/gguf-parser-go"
)

// exact are the architectures whose graphs were measured (docs/vram.md): our formulas
// are right for them, and the parser's, which are meant as a bound, aren't needed.
var exact = []string{"llama", "qwen2", "qwen3", "qwen3moe", "olmoe", "granitemoe", "gemma2", "gemma3"}

// sums are the parser's figures, in bytes on all devices; compute on each.
type sums struct{ weights, kv, compute float64 }

// parserTypes are the parser's names of KV types.
var parserTypes = map[string]parser.GGMLType{
	"f32": parser.GGMLTypeF32, "f16": parser.GGMLTypeF16, "bf16": parser.GGMLTypeBF16,
	"q8_0": parser.GGMLTypeQ8_0, "q5_1": parser.GGMLTypeQ5_1, "q5_0": parser.GGMLTypeQ5_0,
	"q4_1": parser.GGMLTypeQ4_1, "q4_0": parser.GGMLTypeQ4_0, "iq4_nl": parser.GGMLTypeIQ4_NL,
}

// parsed returns what gguf-parser-go makes of an architecture that isn't exact. It is
// asked for one slot on one device: what it makes of several is not what llama.cpp
// does since it gives each slot a cache of its own.
func (m *Model) parsed(s shape) (sums, bool) {
	if m.file == nil || slices.Contains(exact, m.Architecture) || s.slot > math.MaxInt32 {
		return sums{}, false
	}
	batch := int32(max(s.tokens, 1))
	options := []parser.GGUFRunEstimateOption{
		parser.WithLLaMACppContextSize(int32(s.slot)),
		parser.WithLLaMACppLogicalBatchSize(max(batch, 32)), // the least that it takes
		parser.WithLLaMACppPhysicalBatchSize(batch),
		parser.WithLLaMACppCacheKeyType(parserTypes[s.kvType]),
		parser.WithLLaMACppCacheValueType(parserTypes[s.kvType]),
	}
	if s.flash {
		options = append(options, parser.WithFlashAttention())
	}
	run, err := recovered(func() (parser.LLaMACppRunEstimate, error) {
		return m.file.EstimateLLaMACppRun(options...), nil
	})
	if err != nil || len(run.Devices) < 2 { // then our formulas alone have to do
		return sums{}, false
	}
	d := &run.Devices[1] // the first is the host
	return sums{
		weights: float64(d.Weight.Sum()),
		kv:      float64(d.KVCache.Sum()) * s.parallel,
		compute: float64(d.Computation.Sum()),
	}, true
}
