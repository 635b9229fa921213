package providertest

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// A Kind is a kind of server, and all that the suite needs to know of it.
type Kind struct {
	Name string // as in providers.Kinds

	// Label is the kind's row in the table, where it has more than one; "" means
	// its name.
	Label string

	// Config is how the provider is made, beside its name, kind, URL and client.
	Config providers.Config

	Dialect Dialect

	// Serve runs a server with that handler until the test ends and returns a
	// provider for it. nil means HTTP in memory, in a bubble. A nil handler means
	// that nobody is there. What the handler writes line by line are the server's
	// messages; a status says that there is an error instead. There is no connection
	// that could end: a handler that returns or panics is only silent from then on.
	Serve func(t *testing.T, h http.Handler) providers.Provider

	// Server returns a new server that speaks as the vendor documents it, with the
	// models in Models. It is asked what the tests below ask.
	Server func() http.Handler

	Models    []providers.Model // what the server lists, in its order
	Empty     map[string]string // the answers of one that lists nothing, by "METHOD /path"; nil: it has no list of its own
	Exchanges []Exchange
	Failures  []Failure

	// Load is a model of Server that can be unloaded and loaded; "" means that
	// servers of the kind cannot do that.
	Load string

	// Events is what the server streams of what happens to its models, and Changes
	// how often that means that some model's state changed; "" means that servers of
	// the kind don't tell.
	Events  string
	Changes int

	// Pressure is what Server says of the model Models[0]; nil means that servers
	// of the kind say nothing.
	Pressure *providers.Pressure

	// Priorities are what "priority" is when a request reaches Server, by its class, as
	// JSON: "" where there is none. nil means that servers of the kind know none.
	Priorities map[schemas.Class]string

	recorded bool // Dialect.Stream was given
}

// A Dialect is how a kind of server writes streams of a chat.
type Dialect struct {
	ContentType string
	Chunk       func(text string) string // one chunk as it is on the wire
	End         string                   // what ends a whole answer
	Error       string                   // an error in the middle of a stream: the server gave up
	Comment     string                   // what may stand between chunks and means nothing

	// Seal puts right the sums of a part that was changed, where the stream is of
	// binary frames that have some. nil: the stream is lines of text.
	Seal func(part string) string

	// Stream is a whole recorded stream and Text what it says. Without one, the
	// suite makes its own.
	Stream, Text string
}

// An Exchange is a request as it goes in, as it must reach the server, as the
// server answers, and as it must come out.
type Exchange struct {
	Proves  Ability      // "" proves nothing for the table
	Kind    schemas.Kind // "" means chat
	Request string       // OpenAI's; its model is "m"
	Path    string       // where it must arrive; "" doesn't matter
	Sent    string       // JSON that must be in what arrives
	Absent  []string     // members that must not be in it
	Answer  string       // the whole body that the server answers with
	Want    string       // JSON that must be in the answer

	// Code is the error that is wanted instead, and Param the member it must name.
	// The request must not reach the server then.
	Code  schemas.Code
	Param string
}

// A Failure is an error as the server words it.
type Failure struct {
	Status int // 200 means in the middle of a stream
	Header map[string]string
	Body   string
	Want   schemas.Code
	Retry  time.Duration // RetryAfter of the error
}

func (k *Kind) label() string {
	if k.Label != "" {
		return k.Label
	}
	return k.Name
}

// Run runs the suite and notes in proofs what it proved by source.
func Run(t *testing.T, k Kind, proofs *Proofs, source Source) {
	prove := func(name string, ability Ability, test func(*testing.T, *rig)) {
		if t.Run(name, func(t *testing.T) { k.bubble(t, test) }) && ability != "" {
			proofs.Add(k.label(), ability, source)
		}
	}
	streams(&k, prove)
	faults(&k, prove)
	if k.Server == nil {
		return
	}
	prove("discovery", Discovery, discovery)
	prove("unreachable is not empty", "", reachable)
	if k.remembersMemory() {
		prove("memory", Memory, memory)
	}
	for i := range k.Exchanges {
		x := &k.Exchanges[i]
		prove(x.name(i), x.Proves, func(t *testing.T, r *rig) { exchange(t, r, x) })
	}
	if len(k.Failures) > 0 {
		prove("errors", Errors, failures)
	}
	prove("abilities are proven", "", func(t *testing.T, r *rig) { claims(t, r, &k) })
	if k.Load != "" {
		prove("unload", Unload, unload)
		prove("load", Load, load)
		prove("unload of a busy model", "", unloadBusy)
	}
	if k.Pressure != nil {
		prove("pressure", Pressure, pressure)
	}
	if k.Events != "" {
		prove("events", Events, events)
	}
	if k.Priorities != nil {
		prove("priority", Priority, priorities)
	}
}

// bubble runs a test, in a bubble where that can be.
func (k *Kind) bubble(t *testing.T, test func(*testing.T, *rig)) {
	if k.Serve != nil {
		test(t, &rig{t, k})
		return
	}
	synctest.Test(t, func(t *testing.T) { test(t, &rig{t, k}) })
}

// A rig makes servers and providers for one test.
type rig struct {
	*testing.T
	*Kind
}

// serve returns a provider whose server has that handler.
func (r *rig) serve(h http.Handler) providers.Provider {
	r.Helper()
	if r.Serve != nil {
		return r.Serve(r.T, h)
	}
	return r.provider("http://test.invalid", Client(r.T, h))
}

func (r *rig) provider(url string, client *http.Client) providers.Provider {
	r.Helper()
	cfg := r.Config
	cfg.Kind, cfg.HTTP = r.Name, client
	if cfg.Name == "" {
		cfg.Name = "test"
	}
	cfg.URL = url + cfg.URL
	p, err := providers.New(cfg)
	if err != nil {
		r.Fatal(err)
	}
	return p
}
