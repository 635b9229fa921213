package worker

import "github.com/vramjet/vramjet/schemas"

// A ModelConfig is what an operator says of a model.
type ModelConfig struct {
	Need schemas.Amount // what a load takes; unknown: as estimated and learned
	Pin  bool           // never unloaded to make room
}

// A LoadConfig is how a backend's server loads its models, for those who compute what
// that takes. What is zero, the server is asked for.
type LoadConfig struct {
	Context  int    // in tokens, of all slots together
	Parallel int    // slots
	KVType   string // of the key-value cache: f16, q8_0 and so on
}
