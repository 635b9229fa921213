package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// validate reports what is wrong with a configuration whose keys and types are
// right.
func validate(cfg *Config, from sources) error {
	v := validator{from: from}
	v.nats(&cfg.NATS)
	if !schemas.ValidToken(cfg.Node) {
		v.fail("node", "%q is not 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'", cfg.Node)
	}
	if cfg.HTTP != "off" {
		if _, _, err := net.SplitHostPort(cfg.HTTP); err != nil {
			v.fail("http", "%q is not host:port, and not off", cfg.HTTP)
		}
	}
	if n := len(cfg.HTTPToken); n > 0 && n < shortestToken {
		v.fail("http_token", "it has %d characters, and needs %d at least: openssl rand -hex 16 makes one", n, shortestToken)
	}
	names := map[string]bool{}
	for i := range cfg.Backends {
		b := &cfg.Backends[i]
		key := "backends[" + strconv.Itoa(i) + "]"
		v.backend(key, b)
		if b.Name != "" && names[b.Name] {
			v.fail(key+".name", "two backends are named %q", b.Name)
		}
		names[b.Name] = true
	}
	for name := range cfg.Models {
		v.model(name)
	}
	for name, t := range cfg.Tenants {
		v.tenant(name, t)
	}
	for name, models := range cfg.Routes {
		v.route(name, models, cfg.Routes)
	}
	v.policy(&cfg.Policy)
	slices.SortFunc(v.problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(v.problems...)
}

// shortestToken is how long a token must be that nobody is to guess.
const shortestToken = 16

type validator struct {
	from     sources
	problems []error
}

// fail notes what is wrong with the value of key, and who set it: the key's
// source, or that of what it stands in.
func (v *validator) fail(key, format string, args ...any) {
	text := key + ": " + fmt.Sprintf(format, args...)
	if s := v.from.of(key); s.rank != byDefault {
		text = s.name + ": " + text
	}
	v.problems = append(v.problems, errors.New(text))
}

func (v *validator) nats(n *NATS) {
	var who []string
	for _, id := range []struct{ key, value string }{
		{"creds", n.Creds}, {"nkey", n.NKey}, {"user", n.User}, {"token_env", n.TokenEnv},
	} {
		if id.value != "" {
			who = append(who, id.key)
		}
	}
	if len(who) > 1 {
		v.fail("nats."+who[1], "only one of %s may be set", strings.Join(who, ", "))
	}
	if (n.Cert == "") != (n.Key == "") {
		v.fail("nats.cert", "cert and key go together")
	}
}

func (v *validator) backend(key string, b *Backend) {
	if b.Name == "" {
		v.fail(key+".name", "a backend needs a name, unique on the node")
	}
	if err := validKind(b.Kind); err != nil {
		v.fail(key+".kind", "%s", err)
	}
	switch known := b.URL == "" && (b.Kind == providers.KindSim || providers.DefaultURL(b.Kind) != ""); { // the simulated one is of this process
	case b.Kind == providers.KindRPC:
		v.service(key, b)
	case !known && !validURL(b.URL):
		v.fail(key+".url", "want http://host:port or https://host")
	}
	if len(b.Devices) > 1 && (slices.Contains(b.Devices, "all") || slices.Contains(b.Devices, "none")) {
		v.fail(key+".devices", "all and none stand alone")
	}
	if b.Slots < 0 {
		v.fail(key+".slots", "it is negative")
	}
	if b.Price.Input < 0 {
		v.fail(key+".price.input", "it is negative")
	}
	if b.Price.Output < 0 {
		v.fail(key+".price.output", "it is negative")
	}
	v.load(key+".load", b)
}

// load checks how a backend is to load its models.
func (v *validator) load(key string, b *Backend) {
	l := &b.Load
	if *l != (Load{}) && providers.Hosted(b.Kind) {
		v.fail(key, "a hosted API loads nothing of ours")
	}
	if l.Context < 0 {
		v.fail(key+".context", "it is negative")
	}
	if l.Parallel < 0 {
		v.fail(key+".parallel", "it is negative")
	}
	if l.KVType != "" && !slices.Contains(kvTypes, l.KVType) {
		hint := "want one of " + strings.Join(kvTypes, ", ")
		if best, ok := nearest(strings.ToLower(l.KVType), kvTypes); ok {
			hint = fmt.Sprintf("did you mean %q?", best)
		}
		v.fail(key+".kv_type", "%q is no type of a cache: %s", l.KVType, hint)
	}
}

// model checks the name of a model, or the pattern, that something is said of.
func (v *validator) model(name string) {
	key := keyPath("models", quoteName(name))
	if name == "" {
		v.fail(key, "a model needs a name, or a pattern such as qwen3:*")
		return
	}
	if _, err := path.Match(name, ""); err != nil {
		v.fail(key, "%q is no pattern: %s", name, err)
	}
}

// validKind says what a kind should be that there is none of.
func validKind(kind string) error {
	kinds := providers.Kinds()
	if slices.Contains(kinds, kind) {
		return nil
	}
	hint := "want one of " + strings.Join(kinds, ", ")
	if best, ok := nearest(kind, kinds); ok {
		hint = fmt.Sprintf("did you mean %q?", best)
	}
	return fmt.Errorf("%q is no kind of backend: %s", kind, hint)
}

// validURL reports whether a server can be at that address.
func validURL(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}

// service checks a backend that is a NATS service: its name leads to it.
func (v *validator) service(key string, b *Backend) {
	if b.Name != "" && !schemas.ValidToken(b.Name) {
		v.fail(key+".name", "%q is not 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-', as it stands in subjects", b.Name)
	}
	if b.URL != "" {
		v.fail(key+".url", "a backend of the kind rpc has none: it is found by its name")
	}
	if len(b.KeysEnv) > 0 {
		v.fail(key+".keys_env", "a backend of the kind rpc has no keys: NATS says who may speak to it")
	}
	if b.Timeouts.Connect > 0 {
		v.fail(key+".timeouts.connect", "a backend of the kind rpc has no connection of its own")
	}
}

func (v *validator) tenant(name string, t Tenant) {
	key := keyPath("tenants", quoteName(name))
	if !schemas.ValidToken(name) {
		v.fail(key, "the tenant %q is not 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'", name)
	}
	if !(t.Weight >= 0) {
		v.fail(key+".weight", "it is negative")
	}
	for name, n := range map[string]int{
		"max_in_flight": t.MaxInFlight, "requests_per_minute": t.RequestsPerMinute,
		"tokens_per_minute": t.TokensPerMinute, "max_queued": t.MaxQueued,
	} {
		if n < 0 {
			v.fail(key+"."+name, "it is negative")
		}
	}
}

// route checks a name that stands for models. These may be ones that nobody serves yet.
func (v *validator) route(name string, models []string, routes map[string][]string) {
	key := keyPath("routes", quoteName(name))
	if _, err := schemas.JobSubject(schemas.Flow{Tenant: schemas.DefaultTenant, Class: schemas.Normal, Model: name}); err != nil {
		v.fail(key, "%q cannot be the name of a model: %s", name, err)
	}
	if len(models) == 0 {
		v.fail(key, "it stands for no model: write %s: [model, another]", quoteName(name))
	}
	seen := map[string]bool{}
	for i, model := range models {
		at := fmt.Sprintf("%s[%d]", key, i)
		switch _, route := routes[model]; {
		case model == "":
			v.fail(at, "the model has no name")
		case seen[model]:
			v.fail(at, "%q stands there twice", model)
		case route && model != name:
			v.fail(at, "%q is a route itself: name its models here", model)
		}
		seen[model] = true
	}
}

func (v *validator) policy(p *Policy) {
	if _, err := p.AffinityLag.slotSeconds(); err != nil {
		v.fail("policy.affinity_lag", "%s", err)
	}
	if p.InteractiveReserve < 0 {
		v.fail("policy.interactive_reserve", "it is negative")
	}
	if !(p.OverflowBudget >= 0) {
		v.fail("policy.overflow_budget", "it is negative")
	}
}

// of returns who set key, or else what it stands in.
func (s sources) of(key string) source {
	for key != "" {
		if from, ok := s[key]; ok {
			return from
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return source{byDefault, "default"}
}
