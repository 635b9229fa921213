// Package estimate computes how much device memory it takes to load a model, from
// the header of its GGUF file or from what a server says of it, and before
// anything is loaded. docs/vram.md says where the formulas are from and how far
// they are off.
//
// It has llama.cpp in mind, and what runs it: llama-server, Ollama, llama-swap.
// Nothing here asks a device.
package estimate

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/vramjet/vramjet/schemas"
)

// Overhead is the memory that a process takes on a device beside its buffers: the
// CUDA context and the libraries' kernels. Measured as 588.7 to 593.3 MiB on an H100
// with the driver 580 (docs/vram.md); a first answer takes 12 to 24 MiB more.
const Overhead = 590 * schemas.MiB

// A Load is how a model is to be loaded. The zero Load is one slot with the context
// that the model was trained with, on one device.
type Load struct {
	// Context is how many tokens all slots together hold, as llama-server's
	// --ctx-size means it; 0: as many as the model was trained with.
	Context int
	// Parallel is how many slots share it, each with a cache of its own; 0: 1. Slots
	// with one cache for all of them (--kv-unified) count as one.
	Parallel int
	// KVType is how keys and values are kept, as llama-server's --cache-type-k and
	// --cache-type-v name it: one of KVTypes; "": f16. Without flash attention, a
	// quantised one counts as f16.
	KVType string
	// FlashAttention is "on" or "off"; "" and "auto" mean on, as a server finds it
	// possible on every device of today.
	FlashAttention string
	// UBatch is how many tokens are computed at once, as --ubatch-size; 0: 512.
	UBatch int
	// Devices is over how many devices of one size the layers are spread; 0: 1.
	Devices int
	// Overhead is what the process takes on each device beside its buffers; 0:
	// the package's Overhead.
	Overhead schemas.Bytes
}

// Bounds of a Load. They are far above what servers take, and keep the sums in range.
const (
	maxContext  = 1 << 28 // tokens
	maxParallel = 1 << 12
	maxUBatch   = 1 << 20 // tokens
	maxDevices  = 256
)

// kvTypes are how many bytes a value takes in the cache: a block of 32 values is
// their bits and one or two f16 numbers. From ggml's block_q8_0 and its kin.
var kvTypes = map[string]float64{
	"f32": 4, "f16": 2, "bf16": 2,
	"q8_0": 34.0 / 32, "q5_1": 24.0 / 32, "q5_0": 22.0 / 32, "q4_1": 20.0 / 32, "q4_0": 18.0 / 32, "iq4_nl": 18.0 / 32,
}

// KVTypes returns the names that Load.KVType takes, the largest first.
func KVTypes() []string {
	names := make([]string, 0, len(kvTypes))
	for name := range kvTypes {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(kvTypes[b], kvTypes[a]), cmp.Compare(b, a))
	})
	return names
}

// check returns what is wrong with a Load.
func (l *Load) check() error {
	_, known := kvTypes[cmp.Or(l.KVType, "f16")]
	switch {
	case l.Context < 0 || l.Context > maxContext:
		return fmt.Errorf("a context of %d tokens: want 1 to %d, or 0 for what the model was trained with", l.Context, maxContext)
	case l.Parallel < 0 || l.Parallel > maxParallel:
		return fmt.Errorf("%d slots: want 1 to %d", l.Parallel, maxParallel)
	case l.UBatch < 0 || l.UBatch > maxUBatch:
		return fmt.Errorf("a ubatch of %d tokens: want 1 to %d", l.UBatch, maxUBatch)
	case l.Devices < 0 || l.Devices > maxDevices:
		return fmt.Errorf("%d devices: want 1 to %d", l.Devices, maxDevices)
	case !known:
		return fmt.Errorf("the KV type %q is none of %v", l.KVType, KVTypes())
	case !slices.Contains([]string{"", "auto", "on", "off"}, l.FlashAttention):
		return fmt.Errorf("flash attention %q: want on or off", l.FlashAttention)
	default:
		return nil
	}
}

// Parts are what device memory is taken for.
type Parts struct {
	Weights  schemas.Bytes
	KV       schemas.Bytes // keys and values of all slots, and the state of recurrent layers
	Compute  schemas.Bytes // the buffer in which a batch is computed
	Overhead schemas.Bytes // the process's own
}

// Total is the sum of the parts.
func (p Parts) Total() schemas.Bytes { return p.Weights + p.KV + p.Compute + p.Overhead }

// Buffers is the sum without the overhead: what llama.cpp logs as the buffers of its
// devices.
func (p Parts) Buffers() schemas.Bytes { return p.Weights + p.KV + p.Compute }

// plus returns the sum of both.
func (p Parts) plus(q Parts) Parts {
	return Parts{p.Weights + q.Weights, p.KV + q.KV, p.Compute + q.Compute, p.Overhead + q.Overhead}
}

// An Estimate is how much memory a load takes.
type Estimate struct {
	Parts           // of all devices together
	Devices []Parts // of each: layers are spread in order, and the last one has the output
}

// errNoContext says that a context has to be named.
var errNoContext = errors.New("the model does not say which context it was trained with: name one")

// Estimate computes what a load takes. It is never meant to be below what a server
// takes; what it rests on where the architecture is not known, docs/vram.md says.
func (m *Model) Estimate(l Load) (*Estimate, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	l.Context = cmp.Or(l.Context, m.Context)
	if l.Context <= 0 {
		return nil, errNoContext
	}
	s := newShape(l)
	perDevice := m.kv(s)
	weights := m.weights(s.devices)
	compute := m.compute(s)
	if theirs, ok := m.parsed(s); ok { // of an architecture whose graph we don't know, the larger
		compute = max(compute, theirs.compute)
		scale(weights, theirs.weights)
		scale(perDevice, theirs.kv)
	}
	e := &Estimate{Devices: make([]Parts, s.devices)}
	for i := range e.Devices {
		e.Devices[i] = Parts{
			Weights: bytesOf(weights[i]), KV: bytesOf(perDevice[i]), Compute: bytesOf(compute + m.copies(s)),
			Overhead: cmp.Or(l.Overhead, Overhead),
		}
		e.Parts = e.plus(e.Devices[i])
	}
	return e, nil
}

// A shape is a Load as llama.cpp computes with it.
type shape struct {
	slot     float64 // tokens that one slot holds
	parallel float64
	tokens   float64 // tokens that are computed at once
	kvType   string
	kvBytes  float64 // of a value in the cache
	flash    bool
	devices  int
}

// cellsPad is what llama.cpp rounds a slot's context up to (GGML_PAD(n_ctx_seq, 256)
// in llama-context.cpp).
const cellsPad = 256

// defaultUBatch is llama.cpp's --ubatch-size.
const defaultUBatch = 512

func newShape(l Load) shape {
	s := shape{
		parallel: float64(max(1, l.Parallel)), kvType: cmp.Or(l.KVType, "f16"),
		flash: l.FlashAttention != "off", devices: max(1, l.Devices),
	}
	if !s.flash && kvTypes[s.kvType] < 2 { // values can only be quantised with flash attention
		s.kvType = "f16"
	}
	s.kvBytes = kvTypes[s.kvType]
	s.slot = float64(pad(max(1, l.Context/max(1, l.Parallel)), cellsPad))
	s.tokens = min(float64(cmp.Or(l.UBatch, defaultUBatch)), s.slot*s.parallel)
	return s
}

// pad rounds n up to a multiple of to.
func pad(n, to int) int { return (n + to - 1) / to * to }

// bytesOf is x bytes. The sums are made with floats, which are exact up to 8 PiB and
// cannot overflow, whatever a file claims.
func bytesOf(x float64) schemas.Bytes {
	const most = 1 << 53
	return schemas.Bytes(math.Ceil(min(max(x, 0), most)))
}

// scale raises parts in proportion so that their sum is total at least.
func scale(parts []float64, total float64) {
	sum := 0.0
	for _, p := range parts {
		sum += p
	}
	if sum >= total {
		return
	}
	for i := range parts {
		if sum == 0 {
			parts[i] = total / float64(len(parts))
		} else {
			parts[i] *= total / sum
		}
	}
}
