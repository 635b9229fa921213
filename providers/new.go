package providers

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Kinds of model servers and hosted APIs.
const (
	KindOllama      = "ollama"
	KindLlamaCpp    = "llamacpp"    // llama-server with one model
	KindLlamaRouter = "llamarouter" // llama-server without a model: it loads what it's told to
	KindLlamaSwap   = "llamaswap"
	KindVLLM        = "vllm"
	KindSGLang      = "sglang"
	KindTGI         = "tgi" // Hugging Face Text Generation Inference
	KindLocalAI     = "localai"
	KindLMStudio    = "lmstudio"
	KindOpenAI      = "openai" // OpenAI, and whatever else speaks like it
	KindOpenRouter  = "openrouter"
	KindTogether    = "together"
	KindLiteLLM     = "litellm" // the proxy
	KindAnthropic   = "anthropic"
	KindAzure       = "azure"
	KindBedrock     = "bedrock"
	KindVertex      = "vertex" // Google's Vertex AI, and its Gemini API
	KindRPC         = "rpc"    // a NATS service: see providers/rpc
	KindSim         = "sim"
)

// A Config says where a model server is and how to speak to it.
type Config struct {
	Name string // for error messages; "" means the kind
	Kind string // one of Kinds

	// URL is the server's. A "/v1" at its end may be left out. "" means the public
	// one of a hosted API that has one.
	URL string

	// Keys are what the server asks for. Several are used in turn, and each rests
	// alone when the server turns it down. None: the server needs none.
	Keys []Key

	// Sign signs each request that goes without a key, for APIs whose keys do not
	// travel. body is the request's. nil: nothing signs.
	Sign func(r *http.Request, body []byte) error

	// Models are names to list where a server has no list of its own, such as the
	// deployments of Azure. Patterns among them are left out.
	Models []string

	// Connect bounds how long a connection may take to come about. 0: 2 seconds.
	Connect time.Duration

	// HTTP makes the requests. It must have no timeout, as answers take minutes.
	// nil means a client of the provider's own.
	HTTP *http.Client
}

// named returns the models that the configuration names, without patterns.
func (cfg *Config) named() []string {
	return slices.DeleteFunc(slices.Clone(cfg.Models), func(name string) bool { return strings.ContainsAny(name, "*?[") })
}

// A quirk is what a kind of server does differently from others that speak
// OpenAI's API.
type quirk struct {
	hosted      bool              // its models need no memory of ours
	batches     bool              // it runs as many requests together as arrive
	url         string            // where it is, if nobody says
	header      string            // the header its key goes into, where it isn't Authorization
	headers     map[string]string // sent with every request, by their canonical names
	bare        bool              // its paths have no "/v1"
	deployments bool              // with an api-version in its URL, models are parts of paths
	unlisted    bool              // it lists no models, or others than it serves: Config.Models does
}

var quirks = map[string]quirk{
	KindOllama:      {},
	KindLlamaCpp:    {},
	KindLlamaRouter: {},
	KindLlamaSwap:   {},
	KindVLLM:        {batches: true},
	KindSim:         {},
	KindTGI:         {batches: true},
	KindLocalAI:     {},
	KindLMStudio:    {},
	KindSGLang:      {batches: true},
	KindRPC:         {},
	KindOpenAI:      {hosted: true, url: "https://api.openai.com/v1"},
	KindOpenRouter:  {hosted: true, url: "https://openrouter.ai/api/v1"},
	KindTogether:    {hosted: true, url: "https://api.together.xyz/v1"},
	KindLiteLLM:     {hosted: true},
	KindAnthropic:   {hosted: true, url: "https://api.anthropic.com/v1", header: "X-Api-Key", headers: map[string]string{"Anthropic-Version": "2023-06-01"}},
	KindBedrock:     {hosted: true},
	KindAzure:       {hosted: true, header: "Api-Key", deployments: true, unlisted: true},
	KindVertex:      {hosted: true, bare: true, unlisted: true},
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

// Batches reports whether servers of that kind run as many requests together as
// arrive, up to some hundreds.
func Batches(kind string) bool { return quirks[kind].batches }

// New returns the provider for a server. It makes no request: what is wrong with
// the server shows in the first call, what is wrong with cfg is an error here.
//
// The provider is also a Breaker; an Embedder, a Loader, a PressureReporter and a
// Watcher where the kind of server can do that; a DeviceReporter where it is
// simulated.
func New(cfg Config) (Provider, error) {
	if _, ok := quirks[cfg.Kind]; !ok {
		return nil, fmt.Errorf("backend %s: the kind %q is none of %s", cfg.Name, cfg.Kind, strings.Join(Kinds(), ", "))
	}
	u, err := url.Parse(cmp.Or(cfg.URL, quirks[cfg.Kind].url))
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
	case KindAnthropic:
		return &Anthropic{newServer(cfg)}, nil
	case KindBedrock:
		if strings.Trim(u.Path, "/") == "" { // else it is that of its API like OpenAI's
			return newBedrock(cfg), nil
		}
		return NewOpenAI(cfg), nil
	case KindSim:
		return &Sim{LlamaRouter{NewOpenAI(cfg)}}, nil
	default:
		return NewOpenAI(cfg), nil
	}
}
