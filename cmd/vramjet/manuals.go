package main

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/vramjet/vramjet/providers"
)

// A manual is what hints know of a kind of server: how it is told what.
type manual struct {
	name    string
	ports   []string // where it listens unless told otherwise
	start   string
	listen  string // on all addresses
	pull    string // how it gets a model
	context string // how its models get a longer context
	layers  string // how its models get onto the GPU
}

// label is the name, or the kind where there is none.
func (m manual) label(kind string) string { return cmp.Or(m.name, kind) }

var manuals = map[string]manual{
	providers.KindOllama: {
		name: "Ollama", ports: []string{"11434"}, start: "ollama serve", listen: "OLLAMA_HOST=0.0.0.0",
		pull: "ollama pull llama3.2", context: "set OLLAMA_CONTEXT_LENGTH=8192 for the server",
		layers: "ollama ps shows how much of it is there; a smaller model or context fits whole",
	},
	providers.KindLlamaCpp: {
		name: "llama-server", ports: []string{"8080", "9931"}, start: "llama-server -m model.gguf", listen: "--host 0.0.0.0",
		pull: "llama-server -m model.gguf", context: "start it with -c 8192, which is shared by its slots (-np)", layers: "-ngl 99",
	},
	providers.KindLlamaRouter: {
		name: "llama-server", ports: []string{"8080", "9931"}, start: "llama-server --models-dir DIR", listen: "--host 0.0.0.0",
		pull: "put GGUF files into its --models-dir", context: "set ctx-size in its presets (--models-preset), or start it with -c 8192", layers: "-ngl 99",
	},
	providers.KindLlamaSwap: {
		name: "llama-swap", ports: []string{"8080"}, start: "llama-swap --config config.yaml", listen: "--listen 0.0.0.0:8080",
		pull: "add it below models: in its configuration", context: "add -c 8192 to the model's cmd", layers: "add -ngl 99 to the model's cmd",
	},
	providers.KindVLLM: {
		name: "vLLM", ports: []string{"8000"}, start: "vllm serve MODEL", listen: "--host 0.0.0.0",
		pull: "vllm serve MODEL", context: "start it with --max-model-len 8192", layers: "vLLM runs on one device: look at its log for which",
	},
	providers.KindSGLang: {
		name: "SGLang", ports: []string{"30000"}, start: "python -m sglang.launch_server --model-path MODEL", listen: "--host 0.0.0.0",
		pull: "python -m sglang.launch_server --model-path MODEL", context: "start it with --context-length 8192", layers: "look at its log for the device",
	},
	providers.KindTGI: {
		name: "Text Generation Inference", ports: []string{"3000"}, start: "text-generation-launcher --model-id MODEL", listen: "--hostname 0.0.0.0",
		pull: "text-generation-launcher --model-id MODEL", context: "start it with --max-total-tokens 8192", layers: "look at its log for the device",
	},
	providers.KindLocalAI: {
		name: "LocalAI", ports: []string{"8080"}, start: "local-ai run", listen: "--address :8080",
		pull: "local-ai models install MODEL", context: "set context_size: 8192 in the model's YAML", layers: "set gpu_layers: 99 in the model's YAML",
	},
	providers.KindLMStudio: {
		name: "LM Studio", ports: []string{"1234"}, start: "lms server start", listen: "lms server start --bind 0.0.0.0",
		pull: "lms get MODEL", context: "lms load MODEL --context-length 8192", layers: "lms load MODEL --gpu max",
	},
	providers.KindLiteLLM: {
		name: "LiteLLM", ports: []string{"4000"}, start: "litellm --config config.yaml", listen: "--host 0.0.0.0",
		pull: "add it to model_list in its configuration",
	},
	providers.KindAzure:  {name: "Azure OpenAI", pull: "name the deployments in models"},
	providers.KindVertex: {name: "Vertex AI", pull: "name them in models"},
	providers.KindSim:    {name: "the simulated server"},
}

// knownPorts lists the ports that model servers usually have.
func knownPorts() []string {
	var ports []string
	for _, m := range manuals {
		ports = append(ports, m.ports...)
	}
	slices.SortFunc(ports, func(a, b string) int {
		x, _ := strconv.Atoi(a) // they are numbers
		y, _ := strconv.Atoi(b)
		return cmp.Compare(x, y)
	})
	return slices.Compact(ports)
}
