package providers

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Kinds of model servers.
const (
	KindOllama      = "ollama"
	KindLlamaCpp    = "llamacpp"    // llama-server with one model
	KindLlamaRouter = "llamarouter" // llama-server without a model: it loads what it's told to
	KindLlamaSwap   = "llamaswap"
	KindVLLM        = "vllm"
	KindOpenAI      = "openai" // OpenAI, and whatever else speaks like it
	KindSim         = "sim"
)

// A Config says where a model server is and how to speak to it.
type Config struct {
	Name string // for error messages; "" means the kind
	Kind string // one of Kinds
	URL  string // of the server; a "/v1" at its end may be left out

	// APIKey is asked for the key before each request. nil, or a key of "", means
	// that the server needs none. It may be called concurrently.
	APIKey func() string

	// HTTP makes the requests. It must have no timeout, as answers take minutes.
	// nil means a client of the provider's own.
	HTTP *http.Client
}

// A quirk is what a kind of server does differently from others that speak
// OpenAI's API.
type quirk struct {
	hosted bool   // its models need no memory of ours
	header string // the header its key goes into, where it isn't Authorization
	bare   bool   // its paths have no "/v1"
}

var quirks = map[string]quirk{
	KindOllama:      {},
	KindLlamaCpp:    {},
	KindLlamaRouter: {},
	KindLlamaSwap:   {},
	KindVLLM:        {},
	KindSim:         {},
	"tgi":           {},
	"localai":       {},
	"lmstudio":      {},
	"sglang":        {},
	KindOpenAI:      {hosted: true},
	"openrouter":    {hosted: true},
	"together":      {hosted: true},
	"litellm":       {hosted: true},
	"anthropic":     {hosted: true},
	"bedrock":       {hosted: true},
	"azure":         {hosted: true, header: "api-key"},
	"vertex":        {hosted: true, bare: true},
}

// Kinds lists the kinds of servers that New knows, sorted.
func Kinds() []string {
	kinds := make([]string, 0, len(quirks))
	for k := range quirks {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	return kinds
}

// Hosted reports whether servers of that kind have memory of their own, so that
// none of ours is needed.
func Hosted(kind string) bool { return quirks[kind].hosted }

// New returns the provider for a server. It makes no request: what is wrong with
// the server shows in the first call, what is wrong with cfg is an error here.
//
// The provider is also an Embedder; a Loader where the kind of server can load
// and unload; a DeviceReporter where it is simulated.
func New(cfg Config) (Provider, error) {
	if _, ok := quirks[cfg.Kind]; !ok {
		return nil, fmt.Errorf("backend %s: the kind %q is none of %s", cfg.Name, cfg.Kind, strings.Join(Kinds(), ", "))
	}
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("backend %s: the url %q is not like http://127.0.0.1:8080", cfg.Name, cfg.URL)
	}
	switch cfg.Kind {
	case KindOllama:
		return NewOllama(cfg), nil
	case KindLlamaCpp:
		return &LlamaServer{NewOpenAI(cfg)}, nil
	case KindLlamaRouter:
		return &LlamaRouter{NewOpenAI(cfg)}, nil
	case KindLlamaSwap:
		return &LlamaSwap{NewOpenAI(cfg)}, nil
	case KindSim:
		return &Sim{LlamaRouter{NewOpenAI(cfg)}}, nil
	default:
		return NewOpenAI(cfg), nil
	}
}
