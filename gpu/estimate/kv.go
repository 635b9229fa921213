package estimate

// f32 is the size of a number in a buffer of computations, and of a recurrent
// layer's state.
const f32 = 4

// f16 is the size of a number in the mask of flash attention, and in its copies of
// quantised keys and values.
const f16 = 2

// A layer is what one block keeps of each token.
type layer struct {
	k, v   float64 // width of its keys and values, in numbers
	window bool    // it looks back no further than the model's window
	state  float64 // of a recurrent layer: numbers that it keeps for a slot, whatever the context
}

// kv returns the bytes of keys, values and states on each device.
func (m *Model) kv(s shape) []float64 {
	parts := make([]float64, s.devices)
	for i, l := range m.layers {
		cells := s.slot
		if l.window {
			cells = m.windowCells(s)
		}
		parts[m.device(i, s.devices)] += s.parallel * (cells*(l.k+l.v)*s.kvBytes + l.state*f32)
	}
	return parts
}

// windowCells is how many tokens of a slot a layer with a window keeps: the window
// and the batch that is computed, rounded up (llama-kv-cache-iswa.cpp).
func (m *Model) windowCells(s shape) float64 {
	return min(s.slot, float64(pad(int(m.window+s.tokens), cellsPad)))
}

// device returns which device has a block. The output counts as one more block, the
// last (llama-model.cpp, load_tensors).
func (m *Model) device(block, devices int) int {
	return min(block*devices/(len(m.layers)+1), devices-1)
}

// weights returns the bytes of weights on each device. The embeddings of tokens stay
// in the host's memory, but for a copy where they are the output too.
func (m *Model) weights(devices int) []float64 {
	parts := make([]float64, devices)
	if m.tensors == nil { // nobody says where they belong: all of them count
		for i := range parts {
			parts[i] = float64(m.Size) / float64(devices)
		}
		return parts
	}
	for i, w := range m.tensors.blocks {
		parts[m.device(i, devices)] += w
	}
	parts[devices-1] += m.tensors.output
	if !m.tensors.untied {
		parts[devices-1] += m.tensors.embedding
	}
	return parts
}
