package providers

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/vramjet/vramjet/schemas"
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
	hosted  bool              // its models need no memory of ours
	single  bool              // it holds the one model that it was started with
	batches bool              // it runs as many requests together as arrive
	url     string            // where it is, if nobody says
	like    string            // what its URL looks like, for messages
	header  string            // the header its key goes into, where it isn't Authorization
	headers map[string]string // sent with every request, by their canonical names

	bare        bool   // its paths have no "/v1"
	query       string // behind the paths of jobs
	deployments bool   // with the date of an api-version in its URL, models are parts of paths
	list        string // the path of its list of models, where it isn't "/models"
	listAbove   bool   // its list of models is at "/v1/models" also where the rest is below "/openai"
	unlisted    bool   // it lists others than it serves: Config.Models does
	prefix      string // what its list puts in front of names

	kinds        []schemas.Kind // what its API has paths for; nil: all
	stopsAtTools bool           // its streams finish with "stop" where they call tools
	saysNoReason bool           // its streams may end with [DONE] and no finish reason
}

var quirks = map[string]quirk{
	KindOllama:      {},
	KindLlamaCpp:    {single: true},
	KindLlamaRouter: {query: "?autoload=false"}, // what is loaded is ours to decide
	KindLlamaSwap:   {},
	KindVLLM:        {single: true, batches: true},
	KindSim:         {},
	KindTGI:         {single: true, batches: true, saysNoReason: true},
	KindLocalAI:     {},
	KindLMStudio:    {},
	KindSGLang:      {single: true, batches: true},
	KindRPC:         {},
	KindOpenAI:      {hosted: true, url: "https://api.openai.com/v1"},
	KindOpenRouter:  {hosted: true, url: "https://openrouter.ai/api/v1", list: "/models?output_modalities=all"}, // else it leaves out those that embed
	KindTogether:    {hosted: true, url: "https://api.together.xyz/v1"},
	KindLiteLLM:     {hosted: true, like: "http://127.0.0.1:4000"},
	KindAnthropic:   {hosted: true, url: "https://api.anthropic.com/v1", header: "X-Api-Key", headers: map[string]string{"Anthropic-Version": "2023-06-01"}},
	KindBedrock:     {hosted: true, like: "https://bedrock-runtime.REGION.amazonaws.com/openai/v1", listAbove: true, kinds: []schemas.Kind{schemas.Chat}},
	KindAzure:       {hosted: true, like: "https://RESOURCE.openai.azure.com/openai/v1", header: "Api-Key", deployments: true, unlisted: true},
	KindVertex: {
		hosted: true, like: "https://generativelanguage.googleapis.com/v1beta/openai", bare: true, prefix: "models/",
		kinds: []schemas.Kind{schemas.Chat, schemas.Embedding}, stopsAtTools: true,
	},
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

// DefaultURL is where a hosted API of that kind is; "" where somebody has to say.
func DefaultURL(kind string) string { return quirks[kind].url }

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
	if cfg.Kind == KindRPC {
		return nil, fmt.Errorf("backend %s: a provider of the kind %q is made by providers/rpc, as it needs a connection to NATS", cfg.Name, cfg.Kind)
	}
	u, err := url.Parse(cmp.Or(cfg.URL, quirks[cfg.Kind].url))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		like := cmp.Or(quirks[cfg.Kind].like, quirks[cfg.Kind].url, "http://127.0.0.1:8080")
		return nil, fmt.Errorf("backend %s: the url %q is not like %s", cfg.Name, shownURL(cfg.URL), like)
	}
	if cfg.URL, err = complete(cfg.Kind, u); err != nil {
		return nil, fmt.Errorf("backend %s: %w", cfg.Name, err)
	}
	switch cfg.Kind {
	case KindOllama:
		return NewOllama(cfg), nil
	case KindLlamaCpp:
		return &LlamaServer{OpenAI: NewOpenAI(cfg)}, nil
	case KindLlamaRouter:
		return &LlamaRouter{NewOpenAI(cfg)}, nil
	case KindLlamaSwap:
		return &LlamaSwap{OpenAI: NewOpenAI(cfg)}, nil
	case KindVLLM:
		return &VLLM{OpenAI: NewOpenAI(cfg)}, nil
	case KindSGLang:
		return newSGLang(cfg), nil
	case KindLMStudio:
		return &LMStudio{NewOpenAI(cfg)}, nil
	case KindLocalAI:
		return &LocalAI{OpenAI: NewOpenAI(cfg)}, nil
	case KindTGI:
		return NewTGI(cfg), nil
	case KindAnthropic:
		return &Anthropic{newServer(cfg)}, nil
	case KindLiteLLM:
		return &LiteLLM{OpenAI: NewOpenAI(cfg)}, nil
	case KindBedrock:
		if rest, err := url.Parse(cfg.URL); err == nil && strings.Trim(rest.Path, "/") == "" { // else it is that of its API like OpenAI's
			return newBedrock(cfg), nil
		}
		return NewOpenAI(cfg), nil
	case KindSim:
		return &Sim{LlamaRouter{NewOpenAI(cfg)}}, nil
	default:
		return NewOpenAI(cfg), nil
	}
}
