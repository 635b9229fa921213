package providers_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// recipe asks a server for a recipe; info is shown apart.
func recipe(t *testing.T, kind string, h http.Handler, model string) (r providers.Recipe, info map[string]any, err error) {
	t.Helper()
	d, ok := local(t, kind, h).(providers.Describer)
	if !ok {
		t.Fatalf("%s describes nothing", kind)
	}
	r, err = d.Recipe(t.Context(), model)
	info, r.Info = r.Info, nil
	return r, info, err
}

func wantRecipe(t *testing.T, want, got providers.Recipe) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("recipe (-want +got):\n%s", diff)
	}
}

// recorded serves the first answer that was recorded for each method and path.
func recorded(t *testing.T, names ...string) http.Handler {
	t.Helper()
	mux := map[string]*exchange{}
	for _, name := range names {
		tr := readTrace(t, name)
		for i := range tr.Exchanges {
			x := &tr.Exchanges[i]
			key := strings.Fields(x.Request.Line)[0] + " " + x.path()
			if mux[key] == nil && x.Response != nil {
				mux[key] = x
			}
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if x := mux[r.Method+" "+r.URL.Path]; x != nil {
			x.replay(w, r)
			return
		}
		t.Errorf("%s %s is asked", r.Method, r.URL)
		http.NotFound(w, r)
	})
}

// What real servers say, and nothing is asked that loads.
func TestRecordedRecipes(t *testing.T) {
	r, info, err := recipe(t, providers.KindOllama, recorded(t, "ollama-0.17.4/tags.json", "ollama-0.17.4/show.json", "ollama-0.17.4/root_version.json"), "stories")
	if err != nil {
		t.Fatal(err)
	}
	const blob = "/root/.ollama/models/blobs/sha256-6414cab61df7d1669623da29cfcea606f711b99989e641977c60bfcd42867f5f"
	wantRecipe(t, providers.Recipe{File: blob, Size: 1186343, Version: "0.17.4"}, r)
	if info["general.architecture"] != "llama" || info["llama.block_count"] != 5.0 || info["tokenizer.ggml.model"] != nil {
		t.Errorf("the metadata is %v", info)
	}

	r, _, err = recipe(t, providers.KindLlamaRouter, recordedRouter(t), "stories-slow")
	if err != nil {
		t.Fatal(err)
	}
	wantRecipe(t, providers.Recipe{File: "/models/stories-slow.gguf", Context: 1024, Parallel: 2, Version: "b11669-Debian"}, r)

	swap := recorded(t, "llama-swap-v250/swap_cold_chat.json")
	r, _, err = recipe(t, providers.KindLlamaSwap, swap, "slow")
	if err != nil {
		t.Fatal(err)
	}
	wantRecipe(t, providers.Recipe{File: "/models/stories-slow.gguf", Context: 1024, Parallel: 2}, r)
	if r, _, err = recipe(t, providers.KindLlamaSwap, swap, "stories"); err != nil || r.File != "" {
		t.Errorf("a model that does not run: %+v, %v", r, err)
	}
}

// recordedRouter lists its models at both paths, as the router does.
func recordedRouter(t *testing.T) http.Handler {
	t.Helper()
	idle := recorded(t, "llama-server-router-b11669/router_idle.json")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "" {
			t.Errorf("%s asks for a model", r.URL)
		}
		idle.ServeHTTP(w, r)
	})
}

// TestArguments: all ways to give llama-server its arguments.
func TestArguments(t *testing.T) {
	for _, c := range []struct {
		args, preset string
		want         providers.Recipe
	}{
		{"llama-server", "", providers.Recipe{}},
		{
			"llama-server -m /m/a.gguf -c 8192 -np 4 -ub 2048 -ctk q8_0 -ctv q8_0 -fa off", "",
			providers.Recipe{File: "/m/a.gguf", Context: 8192, Parallel: 4, UBatch: 2048, KVType: "q8_0", FlashAttention: "off"},
		},
		{
			"llama-server --model a.gguf --ctx-size 1 --ctx-size 4096 --parallel 2 --ubatch-size 256 --cache-type-k q4_0 --flash-attn auto", "",
			providers.Recipe{File: "a.gguf", Context: 4096, Parallel: 2, UBatch: 256, KVType: "f16", FlashAttention: "auto"},
		},
		{"llama-server -fa -m a.gguf -np -1", "", providers.Recipe{File: "a.gguf", FlashAttention: "on"}},
		{"llama-server -ctk f32 -ctv bf16 -fa 0", "", providers.Recipe{KVType: "f32", FlashAttention: "off"}},
		{
			"llama-server -c 512", "[m]\nctx-size = 1024\nmodel = /m/b.gguf\nnp = 3\nflash-attn = on\ncache-type-k = q8_0\ncache-type-v = q8_0\n",
			providers.Recipe{File: "/m/b.gguf", Context: 512, Parallel: 3, KVType: "q8_0", FlashAttention: "on"},
		},
	} {
		args, err := json.Marshal(strings.Fields(c.args))
		if err != nil {
			t.Fatal(err)
		}
		preset, err := json.Marshal(c.preset)
		if err != nil {
			t.Fatal(err)
		}
		list := `{"data":[{"id":"m","status":{"value":"unloaded","args":` + string(args) + `,"preset":` + string(preset) + `}}]}`
		got, _, err := recipe(t, providers.KindLlamaRouter, providertest.Routes(map[string]string{"GET /models": list, "GET /v1/models": list}), "m")
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
		}
		wantRecipe(t, c.want, got)
	}
}

// A model is shown once; lists that were left out are asked for.
func TestOllamaRecipe(t *testing.T) {
	const info = `"general.architecture":"gemma3n","gemma3n.block_count":6,"tokenizer.ggml.tokens":[]`
	shown := 0
	h := http.NewServeMux()
	h.HandleFunc("GET /api/tags", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"models":[{"name":"m:latest","size":7,"digest":"d"},{"name":"two","size":9,"digest":"e"},{"name":"cloud","size":1,"digest":"f","remote_host":"https://ollama.com"}]}`))
	})
	h.HandleFunc("POST /api/show", func(w http.ResponseWriter, r *http.Request) {
		shown++
		var req struct {
			Model   string
			Verbose bool
		}
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		heads, more := `null`, ""
		if req.Verbose {
			heads = `[1,2,1,2,1,2]`
		}
		if req.Model == "two" {
			heads, more = "2", `,"projector_info":{"clip.vision.block_count":27}`
		}
		w.Write([]byte(`{"modelfile":"# x\nFROM /blobs/sha256-1\n","parameters":"num_ctx   4096\nstop   \"num_ctx\"","model_info":{` + info + `,"gemma3n.attention.head_count_kv":` + heads + `}` + more + `}`))
	})
	p, ok := local(t, providers.KindOllama, h).(providers.Describer)
	if !ok {
		t.Fatal("Ollama describes nothing")
	}
	want := providers.Recipe{File: "/blobs/sha256-1", Size: 7, Context: 4096, Info: map[string]any{
		"general.architecture": "gemma3n", "gemma3n.block_count": 6.0, "gemma3n.attention.head_count_kv": []any{1.0, 2.0, 1.0, 2.0, 1.0, 2.0},
	}}
	for range 2 {
		got, err := p.Recipe(t.Context(), "m")
		if err != nil {
			t.Fatal(err)
		}
		wantRecipe(t, want, got)
	}
	if shown != 2 {
		t.Errorf("the model was shown %d times", shown)
	}
	if got, err := p.Recipe(t.Context(), "two"); err != nil || got.File != "" || got.Size != 9 {
		t.Errorf("a model with a projector: %+v, %v", got, err)
	}
	for model, code := range map[string]schemas.Code{"nowhere": schemas.ModelNotFound, "cloud": schemas.Unsupported} {
		if _, err := p.Recipe(t.Context(), model); err == nil || schemas.AsError(err).Code != code {
			t.Errorf("%s: %v, want %s", model, err, code)
		}
	}
}
