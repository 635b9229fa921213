package client

import (
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/schemas"
)

// resultsStream is the stream that keeps the events of jobs without a reply
// subject of their own.
const resultsStream = "VJ_RESULTS"

// Options tune a Client. The zero Options are ready to use.
type Options struct {
	// Tenant is whose jobs they are. The connection's permissions must allow it.
	// "" means schemas.DefaultTenant.
	Tenant string
}

// A Client submits jobs and reads their answers. Its methods may be called
// concurrently.
type Client struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	tenant string
}

// New returns a client on nc, which stays the caller's to close. It sends
// nothing: a server without vramjet shows at the first call.
func New(nc *nats.Conn, opts Options) (*Client, error) {
	if nc == nil {
		return nil, errors.New("client: no connection")
	}
	if opts.Tenant == "" {
		opts.Tenant = schemas.DefaultTenant
	}
	if !schemas.ValidToken(opts.Tenant) {
		return nil, fmt.Errorf("client: the tenant %q is not 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'", opts.Tenant)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return &Client{nc: nc, js: js, tenant: opts.Tenant}, nil
}

// Tenant returns whose jobs the client submits.
func (c *Client) Tenant() string { return c.tenant }
