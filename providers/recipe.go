package providers

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/ollama/ollama/api"

	"github.com/vramjet/vramjet/schemas"
)

// Recipe implements Describer. The context is the one that the model's own parameters
// ask for: what requests and the server's environment ask for does not show.
func (p *Ollama) Recipe(ctx context.Context, model string) (Recipe, error) {
	var tags struct {
		Models []tagged `json:"models"`
	}
	if err := p.call(ctx, http.MethodGet, p.root+"/api/tags", nil, &tags); err != nil {
		return Recipe{}, err
	}
	i := slices.IndexFunc(tags.Models, func(t tagged) bool { return shortName(t.Name) == shortName(model) })
	if i < 0 {
		return Recipe{}, schemas.Errorf(schemas.ModelNotFound, "%s: there is no model %q", p.name, model)
	}
	t := &tags.Models[i]
	if t.RemoteHost != "" || t.RemoteModel != "" {
		return Recipe{}, schemas.Errorf(schemas.Unsupported, "%s: the model %q runs elsewhere", p.name, model)
	}
	r, err := p.recipe(ctx, t)
	if err != nil {
		return Recipe{}, err
	}
	var version struct {
		Version string `json:"version"`
	}
	if err := p.call(ctx, http.MethodGet, p.root+"/api/version", nil, &version); err != nil && ctx.Err() != nil {
		return Recipe{}, err
	}
	r.Version = version.Version
	return r, nil
}

// recipe returns what never changes of a model, which is asked for once.
func (p *Ollama) recipe(ctx context.Context, t *tagged) (Recipe, error) {
	if known, ok := p.recipes.Load(t.Digest); ok {
		if r, ok := known.(Recipe); ok {
			return r, nil
		}
	}
	show, err := p.show(ctx, t.Name, "")
	if err == nil && abridged(show.ModelInfo) {
		show, err = p.show(ctx, t.Name, `,"verbose":true`)
	}
	if err != nil {
		return Recipe{}, err
	}
	r := Recipe{Size: schemas.Bytes(max(0, t.Size)), Info: show.ModelInfo, Context: parameter(show.Parameters, "num_ctx")}
	for key := range r.Info {
		if strings.HasPrefix(key, "tokenizer.") { // 10 MB of some models
			delete(r.Info, key)
		}
	}
	if len(show.ProjectorInfo) == 0 {
		r.File = from(show.Modelfile)
	}
	p.recipes.Store(t.Digest, r)
	return r, nil
}

func (p *Ollama) show(ctx context.Context, model, more string) (*api.ShowResponse, error) {
	var show api.ShowResponse
	err := p.call(ctx, http.MethodPost, p.root+"/api/show", slicesConcat(`{"model":`, quote(model), more+`}`), &show)
	return &show, err
}

// abridged reports whether lists of the architecture's were left out, as those of more
// than five values are: of models whose layers are not all alike.
func abridged(info map[string]any) bool {
	arch, _ := info["general.architecture"].(string)
	for key, value := range info {
		list, many := value.([]any)
		if strings.HasPrefix(key, arch+".") && (value == nil || many && len(list) == 0) {
			return true
		}
	}
	return false
}

// parameter returns the value of a parameter in Ollama's list of them, which has a
// name and a value on each line; 0 without.
func parameter(list, name string) int {
	for line := range strings.Lines(list) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			return max(0, atoi([]byte(f[1])))
		}
	}
	return 0
}

// from returns the file that a model is made of; "": it's not one file. A model with a
// projector, or an adapter, has more.
func from(modelfile string) string {
	file := ""
	for line := range strings.Lines(modelfile) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case word == "ADAPTER", word == "FROM" && file != "":
			return ""
		case word == "FROM":
			file = strings.Trim(strings.TrimSpace(rest), `"`)
		}
	}
	if !strings.ContainsAny(file, `/\`) { // the name of another model
		return ""
	}
	return file
}

// Recipe implements Describer.
func (p *LlamaRouter) Recipe(ctx context.Context, model string) (Recipe, error) {
	s, err := p.status(ctx, model)
	if err != nil {
		return Recipe{}, err
	}
	r := s.recipe()
	var build struct {
		Info string `json:"build_info"`
	}
	if err := p.call(ctx, http.MethodGet, p.root+"/props", nil, &build); err != nil && ctx.Err() != nil {
		return Recipe{}, err
	}
	r.Version = build.Info
	return r, nil
}

// Recipe implements Describer, for models that run: of the others llama-swap does not
// say how it starts them.
func (p *LlamaSwap) Recipe(ctx context.Context, model string) (Recipe, error) {
	now, err := p.running(ctx)
	if err != nil {
		return Recipe{}, err
	}
	for _, r := range now.Running {
		if r.Model == model {
			return (&loadStatus{Args: strings.Fields(r.Cmd)}).recipe(), nil
		}
	}
	return Recipe{}, nil
}

// recipe reads a llama-server's command line.
func (s *loadStatus) recipe() Recipe {
	r := Recipe{
		File: strings.Trim(s.option("--model", "-m"), `"'`),
		// what is no number, such as "auto", is what the server doesn't tell
		Context:        max(0, atoi([]byte(s.option("--ctx-size", "-c")))),
		Parallel:       max(0, atoi([]byte(s.option("--parallel", "-np")))),
		UBatch:         max(0, atoi([]byte(s.option("--ubatch-size", "-ub")))),
		FlashAttention: s.option("--flash-attn", "-fa"),
	}
	keys, values := s.option("--cache-type-k", "-ctk"), s.option("--cache-type-v", "-ctv")
	switch {
	case keys == values:
		r.KVType = keys
	case keys == "f32", values == "f32":
		r.KVType = "f32"
	default: // one of them isn't quantised, or not as much
		r.KVType = "f16"
	}
	switch r.FlashAttention {
	case "", "on", "off", "auto":
	case "0", "false", "disabled":
		r.FlashAttention = "off"
	default: // the flag of older versions has no value: what follows is another flag
		r.FlashAttention = "on"
	}
	return r
}

// option returns the value of a command-line flag by any of its names, the last one
// as llama-server does; else what the preset says; "" without.
func (s *loadStatus) option(names ...string) string {
	value := ""
	for i := 0; i+1 < len(s.Args); i++ {
		if slices.Contains(names, s.Args[i]) {
			value = s.Args[i+1]
		}
	}
	preset := ""
	for line := range strings.Lines(s.Preset) {
		key, said, ok := strings.Cut(line, "=")
		if ok && slices.ContainsFunc(names, func(n string) bool { return strings.TrimLeft(n, "-") == strings.TrimSpace(key) }) {
			preset = strings.TrimSpace(said)
		}
	}
	return cmp.Or(value, preset)
}
