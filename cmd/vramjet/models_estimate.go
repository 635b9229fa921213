package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/vramjet/vramjet/gpu/estimate"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
	"github.com/vramjet/vramjet/worker"
)

// modelsEstimateCmd estimates what a load takes. The context is also taken from the
// flag --context, which is the global one: this command needs no NATS, and so no
// context of the nats command.
type modelsEstimateCmd struct {
	Model     string `arg:"" help:"A GGUF file, its https:// address, or a model of a server."`
	Tokens    int    `name:"ctx-size" short:"c" placeholder:"N" help:"Tokens that all slots hold together; also --context N (default: what the server says, else what the model was trained with)."`
	Parallel  int    `placeholder:"N" help:"Slots that share them (default: what the server says, else 1)."`
	KVType    string `name:"kv-type" placeholder:"TYPE" help:"How keys and values are kept: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0 or iq4_nl (default: what the server says, else f16)."`
	FlashAttn string `placeholder:"on|off" help:"Whether flash attention is used (default: what the server says, else on)."`
	UBatch    int    `name:"ubatch" placeholder:"N" help:"Tokens that are computed at once (default: what the server says, else 512)."`
	Devices   int    `placeholder:"N" help:"Devices of one size that share the layers (default: 1)."`
}

// Help is shown below the command's summary.
func (*modelsEstimateCmd) Help() string {
	return `Computes it from the header of the GGUF file, and loads nothing. --context is the number of tokens here. A name is asked of the servers of the configuration, or of those that are found on this machine: Ollama, llama-server's router, and llama-swap for models that run. Where such a server's file cannot be read, what the server says has to do, which gives a little more.

It needs no NATS. With --json, it prints bytes.

Examples:

    vramjet models estimate llama3.1:8b --context 8192
    vramjet models estimate ./qwen2.5-32b-q4_k_m.gguf --context 32768 --parallel 4 --kv-type q8_0
    vramjet models estimate https://huggingface.co/OWNER/REPO/resolve/main/model.gguf --context 8192 --json
    vramjet models estimate ./llama3-70b.gguf --context 8192 --devices 2
`
}

// Run prints the estimate.
func (c *modelsEstimateCmd) Run(ctx context.Context, a *app) error {
	if err := c.takeContext(a.globals); err != nil {
		return usage(err)
	}
	m, load, err := c.find(ctx, a)
	if err != nil {
		return err
	}
	c.override(&load)
	found, err := m.Estimate(load)
	if err != nil {
		return usage(err)
	}
	if a.asJSON() {
		return a.printJSON(estimatedParts{found.Weights, found.KV, found.Compute, found.Overhead, found.Total()})
	}
	load.Context = cmp.Or(load.Context, m.Context)
	return c.print(a, m, load, found)
}

// estimatedParts is an estimate as JSON, in bytes.
type estimatedParts struct {
	Weights  schemas.Bytes `json:"weights"`
	KV       schemas.Bytes `json:"kv"`
	Compute  schemas.Bytes `json:"compute"`
	Overhead schemas.Bytes `json:"overhead"`
	Total    schemas.Bytes `json:"total"`
}

// takeContext takes the number of tokens from the global flag.
func (c *modelsEstimateCmd) takeContext(g *globals) error {
	if g.Context == "" {
		return nil
	}
	n, err := strconv.Atoi(g.Context)
	if err != nil || n < 1 || c.Tokens != 0 && c.Tokens != n {
		return fmt.Errorf("--context %s: here, it is how many tokens all slots hold together, such as 8192", g.Context)
	}
	c.Tokens, g.Context = n, ""
	return nil
}

// override sets what the flags say.
func (c *modelsEstimateCmd) override(l *estimate.Load) {
	l.Context, l.Parallel = cmp.Or(c.Tokens, l.Context), cmp.Or(c.Parallel, l.Parallel)
	l.KVType, l.FlashAttention = cmp.Or(c.KVType, l.KVType), cmp.Or(c.FlashAttn, l.FlashAttention)
	l.UBatch, l.Devices = cmp.Or(c.UBatch, l.UBatch), c.Devices
}

// find returns the model, and how its server would load it.
func (c *modelsEstimateCmd) find(ctx context.Context, a *app) (*estimate.Model, estimate.Load, error) {
	info, err := os.Stat(c.Model)
	switch {
	case strings.HasPrefix(c.Model, "https://"), strings.HasPrefix(c.Model, "http://"):
		m, err := estimate.Fetch(ctx, c.Model)
		return m, estimate.Load{}, err
	case err == nil && !info.IsDir(), strings.HasSuffix(c.Model, ".gguf"):
		m, err := estimate.Read(ctx, c.Model)
		if errors.Is(err, os.ErrNotExist) {
			err = &codedError{exitNotFound, err}
		}
		return m, estimate.Load{}, err
	default:
		return c.ask(ctx, a)
	}
}

// ask asks one server after the other. The first that knows the model counts.
func (c *modelsEstimateCmd) ask(ctx context.Context, a *app) (*estimate.Model, estimate.Load, error) {
	cfg, _, err := a.load(nil)
	if err != nil {
		return nil, estimate.Load{}, err
	}
	finder := newBackendFinder(nil, cfg, a.getenv, a.logger())
	var why []string
	for _, b := range finder.want {
		m, load, err := describedBy(ctx, finder, b, c.Model)
		switch {
		case err == nil && m != nil:
			return m, load, nil
		case ctx.Err() != nil:
			return nil, estimate.Load{}, ctx.Err()
		case err != nil && (!finder.found || schemas.AsError(err).Code != schemas.Unreachable):
			why = append(why, "\n  "+redact(b.URL)+": "+err.Error())
		}
	}
	return nil, estimate.Load{}, &codedError{exitNotFound, fmt.Errorf(
		"no server tells how it would load %q: pull it with Ollama, or name its GGUF file or the file's address%s", c.Model, strings.Join(why, ""))}
}

// describedBy returns what a server says of a model; nil: it says nothing.
func describedBy(ctx context.Context, finder *backendFinder, b Backend, model string) (*estimate.Model, estimate.Load, error) {
	if b.Kind == "" || b.Kind == providers.KindLlamaCpp {
		kind, err := finder.detect(ctx, b)
		if err != nil {
			return nil, estimate.Load{}, err
		}
		b.Kind = kind
	}
	if b.URL == "" || providers.Hosted(b.Kind) || b.Kind == providers.KindRPC {
		return nil, estimate.Load{}, nil
	}
	p, err := finder.provider(b)
	if err != nil {
		return nil, estimate.Load{}, err
	}
	describer, ok := p.(providers.Describer)
	if !ok {
		return nil, estimate.Load{}, nil
	}
	r, err := describer.Recipe(ctx, model)
	if err != nil {
		return nil, estimate.Load{}, err
	}
	m, err := worker.ModelOf(ctx, &r)
	return m, estimate.Load{Context: r.Context, Parallel: r.Parallel, UBatch: r.UBatch, KVType: r.KVType, FlashAttention: r.FlashAttention}, err
}

func (c *modelsEstimateCmd) print(a *app, m *estimate.Model, l estimate.Load, found *estimate.Estimate) error {
	fmt.Fprintf(a.out, "%s  %s, context %d in %s, kv %s, flash attention %s, ubatch %d\n",
		c.Model, m.Architecture, l.Context, count(max(1, l.Parallel), "slot"), cmp.Or(l.KVType, "f16"), cmp.Or(l.FlashAttention, "on"), cmp.Or(l.UBatch, 512))
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	columns := []estimate.Parts{found.Parts}
	if len(found.Devices) > 1 {
		columns = append(columns, found.Devices...)
		fmt.Fprint(w, "\tall\t\t")
		for i := range found.Devices {
			fmt.Fprintf(w, "device %d\t\t", i)
		}
		fmt.Fprintln(w)
	}
	for _, line := range []struct {
		name string
		of   func(estimate.Parts) schemas.Bytes
	}{
		{"weights", func(p estimate.Parts) schemas.Bytes { return p.Weights }},
		{"kv", func(p estimate.Parts) schemas.Bytes { return p.KV }},
		{"compute", func(p estimate.Parts) schemas.Bytes { return p.Compute }},
		{"overhead", func(p estimate.Parts) schemas.Bytes { return p.Overhead }},
		{"total", estimate.Parts.Total},
	} {
		fmt.Fprint(w, line.name+"\t")
		for _, p := range columns {
			b := line.of(p)
			fmt.Fprintf(w, "%.1f MiB\t%.2f GiB\t", float64(b)/float64(schemas.MiB), float64(b)/float64(schemas.GiB))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}
