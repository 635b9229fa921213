package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/providers"
)

// backendsCmd looks at model servers.
type backendsCmd struct {
	Check backendsCheckCmd `cmd:"" help:"Check the model servers, and say how to fix what is wrong."`
}

type backendsCheckCmd struct {
	URL        string `name:"url" placeholder:"URL" help:"Check the server there, and not those of the configuration."`
	Kind       string `placeholder:"KIND" help:"The kind of the server at --url (default: it is found out)."`
	KeyEnv     string `placeholder:"NAME" help:"The environment variable that holds the key of the server at --url."`
	Model      string `short:"m" placeholder:"MODEL" help:"Try this model. It is loaded for that if need be, and unloaded again; a hosted API costs what it costs (default: a local model that is loaded already)."`
	NoGenerate bool   `help:"Try no model."`
}

// Help is shown below the command's summary.
func (*backendsCheckCmd) Help() string {
	return `Checks the backends of the configuration, or where it has none, every address of this machine where a worker looks for model servers. Of each: whether it is reached, what it is, its models, how busy it is, its keys, and a short generation. Below stands how to fix what is wrong.

It needs no NATS, but for backends of the kind rpc. It loads nothing and spends nothing unless --model says so. The exit code is 1 where something failed; a warning is none.

Examples:

    vramjet backends check
    vramjet backends check --config /etc/vramjet/config.yaml --json
    vramjet backends check --url http://10.0.0.7:11434 --model llama3.2
    vramjet backends check --url https://api.openai.com/v1 --kind openai --key-env OPENAI_API_KEY
`
}

// Run checks the backends.
func (c *backendsCheckCmd) Run(ctx context.Context, a *app) error {
	cfg, err := c.config(a)
	if err != nil {
		return err
	}
	nc, err := servicesAt(ctx, a, cfg)
	if err != nil {
		return err
	}
	defer nc.Close()
	inspector := newInspector(newBackendFinder(nc, cfg, a.getenv, a.logger()), c.Model, c.NoGenerate)
	found := inspector.all(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if a.asJSON() {
		err = a.printJSON(found)
	} else {
		err = printChecked(a.out, found)
	}
	if err != nil {
		return err
	}
	return inspector.conclude(found)
}

// servicesAt connects to NATS where backends are services there; else it returns
// nil, which can be closed as well.
func servicesAt(ctx context.Context, a *app, cfg *Config) (*nats.Conn, error) {
	if slices.ContainsFunc(cfg.Backends, func(b Backend) bool { return b.Kind == providers.KindRPC }) {
		return a.connect(ctx)
	}
	return nil, nil
}

// config returns the configuration with the backends to check.
func (c *backendsCheckCmd) config(a *app) (*Config, error) {
	if c.URL == "" {
		if c.Kind != "" || c.KeyEnv != "" {
			return nil, usage(errors.New("--kind and --key-env are about the server at --url: name that too"))
		}
		cfg, _, err := a.load(nil)
		return cfg, err
	}
	if !validURL(c.URL) {
		return nil, usage(fmt.Errorf("--url: %q is not like http://127.0.0.1:11434 or https://host", redact(c.URL)))
	}
	b := Backend{URL: c.URL, Kind: c.Kind}
	if c.Kind == providers.KindRPC {
		return nil, usage(errors.New("--kind: a backend of the kind rpc is no server with a URL: name it in the configuration"))
	}
	if c.Kind != "" {
		if err := validKind(c.Kind); err != nil {
			return nil, usage(fmt.Errorf("--kind: %w", err))
		}
	}
	if c.KeyEnv != "" {
		b.KeysEnv = []string{c.KeyEnv}
	}
	return &Config{Backends: []Backend{b}}, nil
}

// conclude returns what a check has come to.
func (c *inspector) conclude(found []checkedBackend) error {
	bad, absent, tried := 0, 0, false
	for i := range found {
		switch found[i].Result {
		case resultFailed:
			bad++
		case resultSkipped:
			absent++
		case resultOK, resultWarning:
		}
		tried = tried || found[i].Trial != nil
	}
	switch {
	case bad > 0:
		return fmt.Errorf("%d of %d backends failed", bad, len(found)-absent)
	case absent == len(found) && inContainer(c.root):
		return errors.New("no model server was found in this container: name the host's with --url or in the configuration, such as http://host.docker.internal:11434")
	case absent == len(found):
		return errors.New("no model server was found on this machine: start one, or name it with --url or in the configuration")
	case c.model != "" && !c.idle && !tried:
		return fmt.Errorf("no backend has the model %q", c.model)
	default:
		return nil
	}
}

// all checks one backend after the other.
func (c *inspector) all(ctx context.Context) []checkedBackend {
	names := map[string]bool{}
	found := make([]checkedBackend, 0, len(c.finder.want))
	for _, b := range c.finder.want {
		if ctx.Err() != nil {
			break
		}
		one := c.one(ctx, b)
		if one.Name == "" && one.Kind != "" {
			one.Name = freeName(one.Kind, names)
		}
		names[one.Name] = true
		found = append(found, one)
	}
	return found
}

// one checks one backend.
func (c *inspector) one(ctx context.Context, b Backend) checkedBackend {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if b.URL == "" && b.Kind == providers.KindSim { // a simulated server of this process, as a worker would run it
		url, err := simServer(ctx)
		if err != nil {
			return checkedBackend{Name: b.Name, Kind: b.Kind, Result: resultFailed, Findings: []finding{{Step: stepReachable, Result: resultFailed, Text: err.Error()}}}
		}
		b.URL = url
	}
	k := newInspection(c, b)
	defer k.transport.CloseIdleConnections()
	k.run(ctx)
	return k.result()
}
