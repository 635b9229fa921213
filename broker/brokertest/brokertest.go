// Package brokertest gives tests a real NATS server in their process.
package brokertest

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/embedded"
)

// patience is how long anything here may take before the test fails.
const patience = 30 * time.Second

// Start starts a server with a directory of its own, on a free port. It syncs
// now and then only. It is stopped when tb ends.
func Start(tb testing.TB) *embedded.Server {
	tb.Helper()
	return StartServer(tb, embedded.Config{})
}

// StartServer starts a server as cfg says. Dir "" is a new directory, Port 0 any
// free port, SyncInterval 0 an hour. It is stopped when tb ends, if not before.
func StartServer(tb testing.TB, cfg embedded.Config) *embedded.Server {
	tb.Helper()
	if cfg.Dir == "" {
		cfg.Dir = tb.TempDir()
	}
	if cfg.Port == 0 {
		cfg.Port = -1
	}
	if cfg.SyncInterval == 0 {
		cfg.SyncInterval = time.Hour
	}
	srv, err := embedded.Start(cfg, Log(tb))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(srv.Shutdown)
	return srv
}

// Connect connects to srv, over its port if it has one. The connection is closed
// when tb ends, if not before.
func Connect(tb testing.TB, srv *embedded.Server) *nats.Conn {
	tb.Helper()
	cfg := broker.ConnectConfig{URL: srv.ClientURL(), Name: tb.Name()}
	if cfg.URL == "" {
		cfg.InProcess = srv.InProcess()
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	nc, err := broker.Connect(ctx, cfg, Log(tb))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	return nc
}

// Setup makes the streams, with their defaults.
func Setup(tb testing.TB, nc *nats.Conn) jetstream.JetStream {
	tb.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	if err := broker.Setup(ctx, js, broker.StreamsConfig{}); err != nil {
		tb.Fatal(err)
	}
	return js
}

// Log returns a logger that writes to the output of tb, for as long as it runs.
func Log(tb testing.TB) *slog.Logger {
	tb.Helper()
	return slog.New(slog.NewTextHandler(output{tb}, nil))
}

// output drops what is logged while a test is cleaned up: a test that is over
// must not be written to.
type output struct{ tb testing.TB }

func (o output) Write(p []byte) (int, error) {
	select {
	case <-o.tb.Context().Done():
		return len(p), nil
	default:
		return o.tb.Output().Write(p)
	}
}
