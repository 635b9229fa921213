package batch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/schemas"
)

// Config tunes how batches are run. The zero Config is ready to use.
type Config struct {
	// Tenant is whose jobs they are. "" means schemas.DefaultTenant.
	Tenant string

	// Class is how urgent they are. "" means schemas.Batch.
	Class schemas.Class

	// InFlight is how many lines wait in the queue or run at once: enough that no slot
	// of the fleet is ever free for want of them. The more there are, the longer another
	// batch of the tenant waits behind them. 0 means 1000.
	InFlight int

	// Keep is how long results are kept, from schemas.MinKeep to schemas.MaxKeep. 0
	// means 7 days.
	Keep time.Duration

	// Deadline is when answers are of no use any more. Zero means never.
	Deadline time.Time

	// Progress is told how it goes, four times a second at most, by the goroutine that
	// Run was called on. Nil tells nobody.
	Progress func(Progress)
}

func (c Config) withDefaults() Config {
	c.Tenant = cmp.Or(c.Tenant, schemas.DefaultTenant)
	c.Class = cmp.Or(c.Class, schemas.Batch)
	c.InFlight = cmp.Or(c.InFlight, 1000)
	c.Keep = cmp.Or(c.Keep, 7*24*time.Hour)
	return c
}

func (c Config) check() error {
	switch {
	case !schemas.ValidToken(c.Tenant):
		return fmt.Errorf("the tenant %q is not 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'", c.Tenant)
	case c.Class.Rank() == len(schemas.Classes):
		return fmt.Errorf("the class %q is none of interactive, normal and batch", c.Class)
	case c.InFlight < 0:
		return errors.New("fewer than no lines are to be in flight")
	case c.Keep < schemas.MinKeep || c.Keep > schemas.MaxKeep:
		return fmt.Errorf("results are kept from 1s to 8760h, not %s", c.Keep)
	default:
		return nil
	}
}

// Progress is how far a batch is.
type Progress struct {
	Batch    string               `json:"batch"`
	Jobs     int                  `json:"jobs"` // in all
	OK       int                  `json:"ok"`
	Failed   int                  `json:"failed"`
	InFlight int                  `json:"in_flight"` // in the queue, or running
	Codes    map[schemas.Code]int `json:"codes"`     // of those that failed
	Trouble  string               `json:"trouble,omitempty"`

	// Examples has for each code one of the lines that failed with it.
	Examples map[schemas.Code]Example `json:"examples,omitempty"`
}

// An Example is a line that failed.
type Example struct {
	Line     int    `json:"line"` // from 1
	CustomID string `json:"custom_id"`
	Message  string `json:"message"`
}

// Done is how many lines have their result.
func (p *Progress) Done() int { return p.OK + p.Failed }

// Run runs the batch of a file and writes the answers to another one, as OpenAI's API
// gives them, in the order in which they come; those that failed go to out with
// ".errors" behind. It returns when each line has its result in one of the two.
//
// Run again with the same files goes on where the last one stopped, for whatever
// reason it did. A file that is no batch is a *Problems, and nothing of it is
// submitted then. When ctx ends, what is in the queue goes on: Cancel stops it.
func Run(ctx context.Context, nc *nats.Conn, in, out string, cfg Config) (Progress, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return Progress{}, err
	}
	file, err := Check(in)
	if err != nil {
		return Progress{}, err
	}
	m, fresh, err := begin(out, file, &cfg)
	if err != nil {
		return Progress{}, err
	}
	m.Path = in
	return run(ctx, nc, out, m, fresh, cfg)
}

// Resume goes on with the batch that a file of answers is of.
func Resume(ctx context.Context, nc *nats.Conn, out string, cfg Config) (Progress, error) {
	m, err := readManifest(out)
	if errors.Is(err, fs.ErrNotExist) {
		return Progress{}, fmt.Errorf("%w: there is no %s", ErrNotFound, out+manifestSuffix)
	}
	if err != nil {
		return Progress{}, err
	}
	cfg.Class = cmp.Or(cfg.Class, m.Class)
	return Run(ctx, nc, m.Path, out, cfg)
}

func run(ctx context.Context, nc *nats.Conn, out string, m *manifest, fresh bool, cfg Config) (p Progress, err error) { //nolint:revive // flag-parameter: whether there is anything to go on from
	r, err := newRunner(ctx, nc, m, &cfg)
	if err != nil {
		return Progress{}, err
	}
	defer r.js.CleanupPublisher()
	if r.out, err = openOutputs(out, m.Batch); err != nil {
		return Progress{}, err
	}
	defer func() { err = errors.Join(err, r.out.close()) }()
	err = r.run(ctx, fresh)
	return r.progress(), err
}

// open connects to what keeps batches.
func open(nc *nats.Conn, tenant string, opts ...jetstream.JetStreamOpt) (*conn, error) {
	js, err := jetstream.New(nc, opts...)
	if err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	return &conn{nc: nc, js: js, tenant: tenant}, nil
}
