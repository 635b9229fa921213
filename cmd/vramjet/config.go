package main

import (
	"time"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// Config is the configuration: of a file, of the environment and of flags. Its
// tags are the keys. A key that is not set keeps its default; where none is told
// here or in defaults, that is the zero value.
type Config struct {
	NATS     NATS                `koanf:"nats"`
	Node     string              `koanf:"node"` // "" in the file means the host's name
	HTTP     string              `koanf:"http"` // where metrics and health are served; "off": nowhere
	Backends []Backend           `koanf:"backends"`
	Models   map[string]Override `koanf:"models"` // by the model's name, as users write it
	Tenants  map[string]Tenant   `koanf:"tenants"`
	Routes   map[string][]string `koanf:"routes"` // a name that users may write, and the models it stands for
	Policy   Policy              `koanf:"policy"`
}

// defaults are the values of keys that nobody sets.
const defaults = `
nats: {url: "nats://127.0.0.1:4222"}
http: 127.0.0.1:7433
policy:
  affinity_lag: auto
  max_model_wait: {interactive: 120s, normal: 5m, batch: 30m}
  aging: 30s
  unknown_model_wait: 10s
`

// NATS says where NATS is and who connects. At most one of Creds, NKey, User and
// TokenEnv may be set.
type NATS struct {
	URL         string `koanf:"url"`     // one or several, separated by commas
	Context     string `koanf:"context"` // of the nats command: where URL is not set
	Creds       string `koanf:"creds"`   // a file
	NKey        string `koanf:"nkey"`    // a file with the seed
	User        string `koanf:"user"`
	PasswordEnv string `koanf:"password_env"` // the name of an environment variable
	TokenEnv    string `koanf:"token_env"`    // the name of an environment variable
	CA          string `koanf:"ca"`           // a PEM file
	Cert        string `koanf:"cert"`         // a PEM file, with Key
	Key         string `koanf:"key"`          // a PEM file
}

// Backend is one model server, or hosted API, behind the node.
type Backend struct {
	Name     string   `koanf:"name"` // unique on the node
	Kind     string   `koanf:"kind"` // one of backendKinds
	URL      string   `koanf:"url"`
	Devices  []string `koanf:"devices"`  // all (the default), none, or indices and ids
	Slots    int      `koanf:"slots"`    // jobs at once, for each model; 0: what the server tells
	Models   []string `koanf:"models"`   // names or patterns; none: what the server lists
	Prefix   string   `koanf:"prefix"`   // shown to users in front of its models' names
	KeysEnv  []string `koanf:"keys_env"` // names of environment variables that hold its keys
	Timeouts Timeouts `koanf:"timeouts"`
	Price    Price    `koanf:"price"`
	Load     Load     `koanf:"load"`
}

// Timeouts bound a backend. 0 means its kind's default.
type Timeouts struct {
	Connect       time.Duration `koanf:"connect"`
	FirstToken    time.Duration `koanf:"first_token"`
	BetweenChunks time.Duration `koanf:"between_chunks"`
	Run           time.Duration `koanf:"run"` // longest run of one attempt
}

// Price is what a million tokens cost, in a currency of the user's choice. 0
// means that they cost nothing: the backend is local.
type Price struct {
	Input  float64 `koanf:"input"`
	Output float64 `koanf:"output"`
}

// Load is what a load asks for, where the server lets us.
type Load struct {
	Context  int    `koanf:"context"`  // in tokens
	Parallel int    `koanf:"parallel"` // requests at once
	KVType   string `koanf:"kv_type"`  // f16, q8_0, …
}

// Override is what the operator knows better of a model.
type Override struct {
	Need size `koanf:"need"` // memory that a load takes; 0: as estimated and learned
	Pin  bool `koanf:"pin"`  // never evicted
}

// Tenant is a tenant's share.
type Tenant struct {
	Weight      float64 `koanf:"weight"`        // 0 means 1
	MaxInFlight int     `koanf:"max_in_flight"` // most jobs that run at once; 0: no limit
}

// Policy tunes the dispatcher.
type Policy struct {
	AffinityLag      slotSeconds   `koanf:"affinity_lag"`
	MaxModelWait     MaxModelWait  `koanf:"max_model_wait"`
	Aging            time.Duration `koanf:"aging"`              // a flow that was not served for so long moves up a class
	UnknownModelWait time.Duration `koanf:"unknown_model_wait"` // how long a job waits for a node with its model
}

// MaxModelWait is how long jobs of a class wait at most for a model that is not
// resident while others use the memory.
type MaxModelWait struct {
	Interactive time.Duration `koanf:"interactive"`
	Normal      time.Duration `koanf:"normal"`
	Batch       time.Duration `koanf:"batch"`
}

// backendKinds are the values of a backend's kind.
var backendKinds = []string{
	"ollama", "llamacpp", "llamaswap", "vllm", "tgi", "localai", "lmstudio", "sglang", "openai", "openrouter",
	"together", "litellm", "anthropic", "azure", "bedrock", "vertex", "rpc", "sim",
}

// size is an amount of memory in the configuration: 44GiB.
type size schemas.Bytes

// UnmarshalText reads what schemas.ParseBytes reads.
func (s *size) UnmarshalText(text []byte) error {
	b, err := schemas.ParseBytes(string(text))
	*s = size(b)
	return err
}

func (s size) String() string { return schemas.Bytes(s).String() }

// connect returns how to connect. Where a context was chosen more explicitly
// than a URL (a flag over the environment, say), the context says the URL.
func (n *NATS) connect(from sources, getenv func(string) string) broker.ConnectConfig {
	cfg := broker.ConnectConfig{
		URL: n.URL, Context: n.Context, Creds: n.Creds, NKey: n.NKey, User: n.User,
		CA: n.CA, Cert: n.Cert, Key: n.Key, Name: "vramjet",
	}
	if n.PasswordEnv != "" {
		cfg.Password = getenv(n.PasswordEnv)
	}
	if n.TokenEnv != "" {
		cfg.Token = getenv(n.TokenEnv)
	}
	if cfg.Context == "" && from["nats.url"].rank == byDefault {
		cfg.Context = selectedContext(getenv)
	}
	if cfg.Context != "" && from["nats.url"].rank < max(from["nats.context"].rank, byFile) {
		cfg.URL = ""
	}
	return cfg
}
