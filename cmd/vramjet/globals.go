package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

const globalGroup = "global"

// globals are the flags of every command. The environment behind them is read by
// the configuration.
type globals struct {
	Help     helpFlag `short:"h" group:"global" help:"Show this help."`
	Server   string   `short:"s" group:"global" placeholder:"URL" help:"NATS servers, separated by commas ($$VRAMJET_SERVER, then $$NATS_URL; default: the selected context of the nats command, then nats://127.0.0.1:4222)."`
	Context  string   `group:"global" placeholder:"NAME" help:"Context of the nats command to connect with ($$VRAMJET_NATS_CONTEXT)."`
	Creds    string   `group:"global" placeholder:"FILE" help:"NATS credentials ($$VRAMJET_NATS_CREDS)."`
	Tenant   string   `group:"global" placeholder:"NAME" help:"Whose jobs they are ($$VRAMJET_TENANT; default: default)."`
	Config   string   `group:"global" placeholder:"FILE" help:"Configuration ($$VRAMJET_CONFIG; default: ./vramjet.yaml, then vramjet/config.yaml in $$XDG_CONFIG_HOME or ~/.config, then /etc/vramjet/config.yaml)."`
	JSON     bool     `group:"global" name:"json" help:"Same as --output=json."`
	Output   string   `group:"global" enum:"table,json" default:"table" help:"What to print: table or json."`
	LogLevel string   `group:"global" enum:"debug,info,warn,error" default:"info" help:"Least level of log lines: debug, info, warn or error."`
}

// settings returns what of the configuration the flags set, by key.
func (g *globals) settings() map[string]string {
	return map[string]string{"nats.url": g.Server, "nats.context": g.Context, "nats.creds": g.Creds}
}

// app is what every command gets.
type app struct {
	*globals
	streams
	getenv func(string) string

	within atomic.Bool // the user's line is not ended: an answer is shown, or a bar
}

// asJSON reports whether to print JSON.
func (a *app) asJSON() bool { return a.JSON || a.Output == "json" }

// printJSON prints v as indented JSON.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// logger writes lines of --log-level and above to stderr.
func (a *app) logger() *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.LogLevel)); err != nil {
		level = slog.LevelInfo // kong let through only levels
	}
	return slog.New(slog.NewTextHandler(ownLine{a}, &slog.HandlerOptions{Level: level}))
}

// ownLine writes what begins on a line of its own, whatever is shown meanwhile.
type ownLine struct{ *app }

// Write writes whole lines.
func (o ownLine) Write(lines []byte) (int, error) {
	if o.within.Swap(false) {
		if _, err := io.WriteString(o.err, "\n"); err != nil {
			return 0, err
		}
	}
	return o.err.Write(lines)
}

// load reads the configuration. flags are those of the command that set
// something in it, by key; "" sets nothing.
func (a *app) load(flags map[string]string) (*Config, sources, error) {
	all := a.settings()
	maps.Copy(all, flags)
	cfg, from, err := loadConfig(a.Config, a.getenv, all)
	if err != nil {
		return nil, nil, usage(err)
	}
	return cfg, from, nil
}

// connect connects to NATS as the configuration says.
func (a *app) connect(ctx context.Context) (*nats.Conn, error) {
	cfg, from, err := a.load(nil)
	if err != nil {
		return nil, err
	}
	nc, err := broker.Connect(ctx, cfg.NATS.connect(from, a.getenv), a.logger())
	if err != nil {
		return nil, &codedError{exitNoNATS, err}
	}
	return nc, nil
}

// client connects to NATS, and returns a client of the tenant and what closes
// the connection.
func (a *app) client(ctx context.Context) (*client.Client, func(), error) {
	nc, err := a.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	c, err := client.New(nc, client.Options{Tenant: a.tenant()})
	if err != nil {
		nc.Close()
		return nil, nil, usage(err)
	}
	return c, nc.Close, nil
}

// tenant is whose jobs they are.
func (a *app) tenant() string {
	return cmp.Or(a.Tenant, a.getenv("VRAMJET_TENANT"), schemas.DefaultTenant)
}

// note writes a line for the user that is no part of the output.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.err, format+"\n", args...)
}
