// Package providers speaks to model servers: it finds out what they serve, has
// them load and unload, and runs requests on them.
//
// A request goes in as the OpenAI body its author wrote, an answer comes out as
// OpenAI chunks: where the server speaks OpenAI, its bytes are relayed as they
// are. The package knows neither NATS nor jobs.
package providers

import (
	"context"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// A Provider is one model server or hosted API. Its methods may be called
// concurrently. All errors it returns are *schemas.Error, or ctx's cause where
// ctx ended.
type Provider interface {
	// Models lists what the server can serve, now and after a load. It never
	// makes the server load anything. A server that cannot be reached is an
	// error with the code schemas.Unreachable, never an empty list.
	Models(ctx context.Context) ([]Model, error)

	// Generate runs a chat or a completion and calls emit with each chunk as it
	// arrives, in order, on the calling goroutine. An error of emit ends the run
	// and is returned as it is.
	//
	// A nil error means that the answer is whole: its final marker came. A stream
	// that only stops is an error with the code schemas.StreamBroken. When ctx
	// ends, the request is closed at once, which every server takes as a cancel.
	Generate(ctx context.Context, req Request, emit func(chunk []byte) error) (Answer, error)
}

// An Embedder is a Provider that computes embeddings.
type Embedder interface {
	// Embed runs an embeddings request. The vectors are in the order of the input.
	Embed(ctx context.Context, req Request) (Answer, error)
}

// A Loader is a Provider that can be told what to hold in memory.
type Loader interface {
	// Load returns once model is resident, or with the error that kept it from
	// it. Loading a resident model is no error. It blocks as long as that takes:
	// ctx bounds it. Where a server takes no order to load and does so for a
	// request, Load does nothing.
	Load(ctx context.Context, model string) error

	// Unload returns once the server no longer holds model. It's no error if it
	// did not. While the provider runs requests for the model, or the server tells
	// that it does, Unload is refused with the code schemas.Overloaded: a server
	// may cut short what the model is running.
	Unload(ctx context.Context, model string) error
}

// A PressureReporter is a Provider whose server tells how busy it is, with
// everybody's requests and not only ours.
type PressureReporter interface {
	// Pressure asks how busy a model is that is resident. It never makes the
	// server load anything. It returns schemas.Unsupported where the server could
	// tell, but was not started so that it does.
	Pressure(ctx context.Context, model string) (Pressure, error)
}

// A Pressure is how busy a model is.
type Pressure struct {
	Running int     // requests that generate now; -1: the server doesn't tell
	Waiting int     // requests in the server's own queue; -1: the server doesn't tell
	Slots   int     // requests that it runs at once; 0: the server doesn't tell
	KVUsed  float64 // share of the key-value cache in use, 0 to 1; -1: the server doesn't tell
}

// A Watcher is a Provider whose server tells at once when models come and go.
type Watcher interface {
	// Watch calls changed when the server says that a model came, goes or is on
	// the way, until ctx or the server's events end, and returns why. An event is a
	// reason to ask for Models, and never an outcome: events get lost.
	Watch(ctx context.Context, changed func()) error
}

// A Breaker is a Provider that leaves a server alone for a while which keeps
// failing, or which turned down all of its keys.
type Breaker interface {
	// Open returns why no request would be sent now, as an *Error with
	// RetryAfter; nil: one would be.
	Open() error
}

// A DeviceReporter is a Provider that knows the devices it loads models on: a
// simulated server does.
type DeviceReporter interface {
	Devices(ctx context.Context) ([]schemas.Device, error)
}

// A Describer is a Provider whose server says how it would load a model.
type Describer interface {
	// Recipe asks how the server loads a model, or has loaded it. It never makes the
	// server load anything. Where the server tells nothing of the model, the Recipe
	// is the zero one.
	Recipe(ctx context.Context, model string) (Recipe, error)
}

// A Recipe is what a server says of how it loads a model. The zero value of a field
// means that it doesn't tell.
type Recipe struct {
	File           string         // path of the GGUF file, as the server's machine names it
	Size           schemas.Bytes  // of the model's files
	Info           map[string]any // the file's metadata, without the tokenizer's; not to be changed
	Context        int            // tokens that all slots hold together
	Parallel       int            // slots
	UBatch         int            // tokens that are computed at once
	KVType         string         // how keys and values are kept, such as "q8_0"
	FlashAttention string         // "on", "off" or "auto"
	Version        string         // of the server
}

// A Model is one model of a server.
type Model struct {
	Name    string // as the server names it
	Kinds   []schemas.Kind
	State   schemas.ModelState
	VRAM    schemas.Amount // device memory it takes now, as the server says
	Need    schemas.Amount // device memory a load takes, as the server says
	Slots   int            // jobs it runs at once; 0: the server doesn't tell
	Context int            // longest context in tokens; 0: the server doesn't tell
	Digest  string

	// Abilities are what the model can do beside text; nil: the server doesn't
	// tell, empty: nothing of these.
	Abilities []Ability
}

// An Ability is something that not every model can do.
type Ability string

// The abilities.
const (
	Tools     Ability = "tools"     // calls the tools that a request offers
	Vision    Ability = "vision"    // takes images
	Reasoning Ability = "reasoning" // thinks before it answers
)

// A Request is one inference request.
type Request struct {
	Kind  schemas.Kind
	Model string // as the server names it; replaces the body's
	Body  []byte // an OpenAI request, a JSON object; not changed, not kept

	// Class is how urgent the request is, for servers that order requests by their
	// member "priority". These get one of ours, and never the body's. "" means
	// schemas.Normal.
	Class schemas.Class

	// Limits bound the run. ctx bounds it too.
	Limits Limits

	priority priority
}

// Limits are how long a server may take. 0 means no limit.
type Limits struct {
	// Queue is from the request to the headers of the answer. Some servers send
	// them when they begin with a request, some only with the first token.
	Queue time.Duration
	// FirstToken is from the request to the first chunk. It includes the time in
	// the server's own queue, in which most servers show no sign of life.
	FirstToken time.Duration
	// BetweenChunks is from one chunk to the next. Pings don't count as chunks.
	BetweenChunks time.Duration
}

// An Answer is a whole answer.
type Answer struct {
	// Body is what OpenAI's API answers without "stream": a chat.completion, a
	// text_completion or a list of embeddings, with usage.
	Body  []byte
	Usage schemas.Usage
	Model string // as the server named it in the answer
}
