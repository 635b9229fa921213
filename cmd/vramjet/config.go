package main

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
	"github.com/vramjet/vramjet/worker"
)

// Config is the configuration: of a file, of the environment and of flags. Its
// tags are the keys. A key that is not set keeps its default; where none is told
// here or in defaults, that is the zero value.
type Config struct {
	NATS      NATS                `koanf:"nats"`
	Node      string              `koanf:"node"`       // "" in the file means the host's name
	HTTP      string              `koanf:"http"`       // where health and the dashboard are served; "off": nowhere
	HTTPToken Secret              `koanf:"http_token"` // what allows actions on the dashboard; "": nothing does
	MaxBody   Memory              `koanf:"max_body"`   // the largest body of a job that comes as an object
	Backends  []Backend           `koanf:"backends"`
	Models    map[string]Model    `koanf:"models"` // by names as users see them, or patterns
	Routes    map[string][]string `koanf:"routes"` // names for several models, the preferred first
	Tenants   map[string]Tenant   `koanf:"tenants"`
	Policy    Policy              `koanf:"policy"`
}

// defaults are the values of keys that nobody sets.
const defaults = `
nats: {url: "nats://127.0.0.1:4222"}
http: 127.0.0.1:7433
max_body: 64MiB
policy:
  aging: 30s
  affinity_lag: auto
  max_model_wait: {interactive: 2m, normal: 5m, batch: 30m}
  interactive_reserve: 1
  overflow_after: 30s
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
	InboxPrefix string `koanf:"inbox_prefix"` // of reply subjects, where the user may listen to no others
}

// Backend is one model server, or hosted API, behind the node.
type Backend struct {
	Name     string   `koanf:"name"`     // unique on the node
	Kind     string   `koanf:"kind"`     // one of providers.Kinds
	URL      string   `koanf:"url"`      // none of a kind that has no address: rpc
	Devices  []string `koanf:"devices"`  // all (the default), none, or indices and ids
	Slots    int      `koanf:"slots"`    // jobs at once, for each model; 0: what the server tells
	Models   []string `koanf:"models"`   // names or patterns; none: what the server lists
	Prefix   string   `koanf:"prefix"`   // shown to users in front of its models' names
	KeysEnv  []string `koanf:"keys_env"` // names of environment variables that hold its keys
	Timeouts Timeouts `koanf:"timeouts"`
	Price    Price    `koanf:"price"`
	Load     Load     `koanf:"load"`
}

// Load is how a backend's models are loaded, where the server lets us say it.
type Load struct {
	Context  int    `koanf:"context"`  // of one request, in tokens; 0: as the server does
	Parallel int    `koanf:"parallel"` // requests at once; 0: as the server does
	KVType   string `koanf:"kv_type"`  // of the cache: one of kvTypes; "": as the server does
}

// kvTypes are what a cache of keys and values can be made of: the types of
// llama.cpp, and those of vLLM and SGLang.
var kvTypes = []string{
	"f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "fp8", "fp8_e4m3", "fp8_e5m2",
}

// Model is what an operator knows better of models.
type Model struct {
	Need Memory `koanf:"need"` // what a load takes; "": not said
	Pin  bool   `koanf:"pin"`  // it is never unloaded to make room
}

// A Secret is never shown, nor logged. "" is none.
type Secret string

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "redacted"
}

// LogValue hides the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Memory is an amount of memory as it is written: 44GiB. "" says nothing.
type Memory string

// amount returns the amount that is written, which was checked.
func (m Memory) amount() schemas.Amount {
	b, err := schemas.ParseBytes(string(m))
	if err != nil {
		return schemas.Amount{}
	}
	return schemas.Known(b)
}

// Price is what a backend takes for a million tokens, in any currency as long as
// all backends have the same.
type Price struct {
	Input  float64 `koanf:"input"`  // 0: nothing
	Output float64 `koanf:"output"` // 0: nothing
}

// Timeouts bound what a backend may take for a job.
type Timeouts struct {
	Connect       time.Duration `koanf:"connect"`        // 0: 2s
	Queue         time.Duration `koanf:"queue"`          // until the headers of the answer; 0: none but first_token
	FirstToken    time.Duration `koanf:"first_token"`    // 0: 5m
	BetweenChunks time.Duration `koanf:"between_chunks"` // 0: 1m
	Run           time.Duration `koanf:"run"`            // longest run of one attempt; 0: 10m
}

// Tenant is a tenant's share and its limits.
type Tenant struct {
	Weight            float64 `koanf:"weight"`              // 0 means 1
	MaxInFlight       int     `koanf:"max_in_flight"`       // 0: no limit
	RequestsPerMinute int     `koanf:"requests_per_minute"` // 0: no limit
	TokensPerMinute   int     `koanf:"tokens_per_minute"`   // 0: no limit
	MaxQueued         int     `koanf:"max_queued"`          // 0: no limit
}

// Policy tunes the dispatcher.
type Policy struct {
	Aging              time.Duration `koanf:"aging"`               // a class of a model that was not served for so long moves up a class, for one job
	AffinityLag        Lag           `koanf:"affinity_lag"`        // for how long a model in memory is kept against jobs of its class that wait for others
	MaxModelWait       ModelWait     `koanf:"max_model_wait"`      // how long a job waits for its model to be loaded, by its class
	InteractiveReserve int           `koanf:"interactive_reserve"` // slots of each model that jobs of the class batch leave free for a minute after an interactive one
	OverflowAfter      time.Duration `koanf:"overflow_after"`      // how long a job of a route waits for one model before another has it; 0: for ever
	OverflowBudget     float64       `koanf:"overflow_budget"`     // what routes may cost at hosted APIs in a day; 0: no limit
	UnknownModelWait   time.Duration `koanf:"unknown_model_wait"`  // how long a job waits for a node with its model
}

// ModelWait is a time for each class. 0: no limit.
type ModelWait struct {
	Interactive time.Duration `koanf:"interactive"`
	Normal      time.Duration `koanf:"normal"`
	Batch       time.Duration `koanf:"batch"`
}

// Lag is an amount of slot-seconds, as it is written: a duration, or auto.
type Lag string

// slotSeconds returns the amount that is written. 0: auto.
func (l Lag) slotSeconds() (float64, error) {
	if l == "" || l == "auto" {
		return 0, nil
	}
	d, err := time.ParseDuration(string(l))
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is neither auto nor slot-seconds such as 800s", l)
	}
	if d == 0 {
		return -1, nil // nothing is kept
	}
	return d.Seconds(), nil
}

// placement returns what the dispatcher is to do, of a policy that was checked.
func (p *Policy) placement() placement.Policy {
	lag, err := p.AffinityLag.slotSeconds()
	if err != nil {
		lag = 0
	}
	return placement.Policy{
		AgingMS: p.Aging.Milliseconds(), AffinityLag: lag, InteractiveReserve: p.InteractiveReserve,
		OverflowMS: p.OverflowAfter.Milliseconds(),
		MaxModelWaitMS: placement.PerClass[int64]{
			Interactive: p.MaxModelWait.Interactive.Milliseconds(),
			Normal:      p.MaxModelWait.Normal.Milliseconds(),
			Batch:       p.MaxModelWait.Batch.Milliseconds(),
		},
	}
}

// models returns what the worker is to know of models.
func (c *Config) models() map[string]worker.ModelConfig {
	models := make(map[string]worker.ModelConfig, len(c.Models))
	for name, m := range c.Models {
		models[name] = worker.ModelConfig{Need: m.Need.amount(), Pin: m.Pin}
	}
	return models
}

// connect returns how to connect. Where a context was chosen more explicitly
// than a URL (a flag over the environment, say), the context says the URL.
func (n *NATS) connect(from sources, getenv func(string) string) broker.ConnectConfig {
	cfg := broker.ConnectConfig{
		URL: n.URL, Context: n.Context, Creds: n.Creds, NKey: n.NKey, User: n.User,
		CA: n.CA, Cert: n.Cert, Key: n.Key, Name: "vramjet", InboxPrefix: n.InboxPrefix,
	}
	if strings.ContainsRune(n.Context, filepath.Separator) {
		if abs, err := filepath.Abs(n.Context); err == nil { // else it is refused as a name
			cfg.Context = abs
		}
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
