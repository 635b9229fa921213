package estimate

// pipelineCopies is how many copies llama.cpp keeps of a graph's inputs where several
// devices work on batches in turn (GGML_SCHED_MAX_COPIES).
const pipelineCopies = 4

// inputBytes is what the small inputs take of a token: its id, its position, and
// where its key and its value go.
const inputBytes = 4 + 4 + 8 + 8

// compute returns the bytes of the buffer in which a batch is computed. llama.cpp's
// allocator lets tensors share memory that don't live at the same time, so the buffer
// is as large as the largest moment: of the feed-forward part, or of the attention.
// The logits are never a moment of their own: only the last token of a slot has any.
func (m *Model) compute(s shape) float64 {
	row := s.tokens * f32 // one number for each token of the batch
	moment := max(2*m.embedding+max(m.embedding, m.query)+m.forward, m.outputs(s)) * row
	if !s.flash {
		scores := m.heads * s.slot * row
		moment = max(moment, scores+2*(m.embedding+max(m.embedding, m.query))*row)
		return moment + m.masks(s)*f32 + m.widestValue()*s.tokens*8 + inputBytes*s.tokens
	}
	attention := (2*m.embedding + m.query + m.heads*m.valueLength) * row
	return max(moment, attention+m.unpacked(s)) + m.masks(s)*f16 + inputBytes*s.tokens
}

// outputs is the numbers of a batch's tokens that the logits take, spread over all of
// its tokens: only one of each slot is asked for its own.
func (m *Model) outputs(s shape) float64 {
	return (m.vocabulary + m.embedding) * min(s.parallel, s.tokens) / s.tokens
}

// masks is the numbers of the masks that say which token sees which.
func (m *Model) masks(s shape) float64 {
	cells := s.slot
	if m.window > 0 {
		cells += m.windowCells(s)
	}
	return cells * s.tokens
}

// unpacked is the room in which CUDA's flash attention unpacks a layer's keys and
// values to f16, those of all slots: nothing where they are f16.
// (ggml_cuda_flash_attn_ext_get_alloc_size; since May 2026.)
func (m *Model) unpacked(s shape) float64 {
	if s.kvType == "f16" {
		return 0
	}
	widest := 0.0
	for _, l := range m.layers {
		cells := s.slot
		if l.window {
			cells = m.windowCells(s)
		}
		widest = max(widest, cells*(l.k+l.v))
	}
	return widest * s.parallel * f16
}

// widestValue is the numbers of a token's values in the layer that has most. Without
// flash attention values are kept transposed, and each number has an index of 8 bytes.
func (m *Model) widestValue() float64 {
	widest := 0.0
	for _, l := range m.layers {
		widest = max(widest, l.v)
	}
	return widest
}

// copies is what the further copies of the inputs take on each device where there are
// several.
func (m *Model) copies(s shape) float64 {
	if s.devices == 1 {
		return 0
	}
	mask := m.masks(s) * f16
	if !s.flash {
		mask = m.masks(s) * f32
	}
	return (pipelineCopies - 1) * (mask + m.embedding*s.tokens*f32 + inputBytes*s.tokens)
}
