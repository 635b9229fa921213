package worker

import (
	"context"
	"errors"
	"testing"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/gpu"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// described is a server that says how it loads.
type described struct {
	providers.Provider
	recipes map[string]providers.Recipe
}

var errNoRecipe = errors.New("no recipe")

func (d described) Recipe(_ context.Context, model string) (providers.Recipe, error) {
	r, ok := d.recipes[model]
	if !ok {
		return r, errNoRecipe
	}
	return r, nil
}

// llama8B is what Ollama says of llama3.1:8b.
func llama8B() map[string]any {
	return map[string]any{
		"general.architecture": "llama", "llama.block_count": float64(32), "llama.context_length": float64(131072),
		"llama.embedding_length": float64(4096), "llama.feed_forward_length": float64(14336),
		"llama.attention.head_count": float64(32), "llama.attention.head_count_kv": float64(8), "llama.vocab_size": float64(128256),
	}
}

func newDescribed(t *testing.T, kind string, total schemas.Bytes, load LoadConfig, recipes map[string]providers.Recipe) (*estimator, *Worker) {
	t.Helper()
	w := &Worker{
		metrics: newMetrics("n1"),
		cfg:     Config{Logger: brokertest.Log(t), GPU: gpu.Fixed([]schemas.Device{{ID: "d", Total: schemas.Known(total)}})},
		owners:  newOwners(brokertest.Log(t)), messages: make(chan message, 100), done: make(chan struct{}),
	}
	return newEstimator(w, Backend{Name: "b", Kind: kind, Prefix: "far/", Load: load, Provider: described{recipes: recipes}}), w
}

// TestEstimates: what a load takes goes by how the server loads, and the
// configuration knows better.
func TestEstimates(t *testing.T) {
	const weights = 4_920_000_000
	kv := func(tokens int) schemas.Bytes { return schemas.Bytes(tokens) * 128 * schemas.KiB } // of f16
	for name, tt := range map[string]struct {
		kind    string
		total   schemas.Bytes
		load    LoadConfig
		recipe  providers.Recipe
		kv      schemas.Bytes
		context int
	}{
		"as the server says":        {kind: "llamarouter", recipe: providers.Recipe{Context: 8192, Parallel: 4}, kv: kv(8192), context: 8192},
		"as configured":             {kind: "llamarouter", load: LoadConfig{Context: 4096, Parallel: 4}, recipe: providers.Recipe{Context: 8192, Parallel: 1}, kv: kv(16384), context: 16384},
		"of another type":           {kind: "llamarouter", load: LoadConfig{KVType: "q8_0"}, recipe: providers.Recipe{Context: 8192}, kv: kv(8192) * 17 / 32, context: 8192},
		"Ollama on a small device":  {kind: "ollama", total: 16 * gib, kv: kv(4096), context: 4096},
		"Ollama on a larger one":    {kind: "ollama", total: 40 * gib, load: LoadConfig{Parallel: 2}, kv: kv(65536), context: 65536},
		"Ollama up to the training": {kind: "ollama", total: 80 * gib, kv: kv(131072), context: 131072},
	} {
		t.Run(name, func(t *testing.T) {
			tt.recipe.Info, tt.recipe.Size = llama8B(), weights
			e, w := newDescribed(t, tt.kind, tt.total, tt.load, map[string]providers.Recipe{"m": tt.recipe})
			e.look(t.Context(), []providers.Model{{Name: "m", State: schemas.Installed}})
			got, ok := (<-w.messages).(estimated)
			if !ok || got.model != "far/m" || got.context != tt.context {
				t.Fatalf("%+v", got)
			}
			if rest := int64(got.total.Bytes) - weights - int64(tt.kv); rest < int64(600*schemas.MiB) || rest > int64(2*gib) {
				t.Errorf("%s beside %d of weights leave %d for the rest", got.total, weights, rest)
			}
		})
	}
}

// TestEstimatesOnce: a model is computed once for a digest, a few at a time, and one
// that cannot be is left alone for a while.
func TestEstimatesOnce(t *testing.T) {
	recipes := map[string]providers.Recipe{}
	models := []providers.Model{{Name: "none"}, {Name: "remote", State: schemas.Remote}}
	for _, name := range []string{"a", "b", "c", "d"} {
		recipes[name] = providers.Recipe{Info: llama8B(), Size: gib, Context: 4096}
		models = append(models, providers.Model{Name: name, Digest: "1"})
	}
	e, w := newDescribed(t, "ollama", gib, LoadConfig{}, recipes)
	for _, want := range []int{3, 1, 0} {
		e.look(t.Context(), models)
		if got := len(w.messages); got != want {
			t.Errorf("%d were computed, want %d", got, want)
		}
		for range len(w.messages) {
			<-w.messages
		}
	}
	models[2].Digest = "2"
	e.look(t.Context(), models)
	if len(w.messages) != 1 {
		t.Errorf("another digest: %d were computed", len(w.messages))
	}
}
