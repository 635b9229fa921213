package worker

import (
	"cmp"
	"maps"
	"path"
	"slices"

	"github.com/vramjet/vramjet/schemas"
)

// A ModelConfig is what an operator knows better of a model. The zero ModelConfig
// says nothing.
type ModelConfig struct {
	// Need is the device memory that a load takes, whatever else is known of it.
	// Unknown: what was learned, estimated or told counts.
	Need schemas.Amount

	// Pin keeps the model from being unloaded to make room for others.
	Pin bool
}

// A LoadConfig is how the models of a backend are loaded, where its server lets us
// say it, and what estimates count with. The zero LoadConfig leaves all of it to
// the server.
type LoadConfig struct {
	Context  int    // longest context of one request, in tokens; 0: as the server does
	Parallel int    // requests that run at once; 0: as the server does
	KVType   string // what the cache of keys and values is made of: f16, q8_0, fp8; "": as the server does
}

// configOf returns what is said of a model, as users name it: under its name, else
// under the longest pattern (see path.Match) that it matches, of equal ones the
// first. A pattern is not added to a name: only one of them counts.
func configOf(models map[string]ModelConfig, name string) ModelConfig {
	if m, ok := models[name]; ok {
		return m
	}
	patterns := slices.SortedFunc(maps.Keys(models), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
	for _, p := range patterns {
		if ok, err := path.Match(p, name); ok && err == nil {
			return models[p]
		}
	}
	return ModelConfig{}
}
