package schemas

import (
	"encoding/json"
	"time"
)

// NodeState is what a node says of itself, on its state subject: every second,
// on each change, and when somebody publishes on NodesPing. The one with the
// highest Seq of the newest Boot replaces all before.
type NodeState struct {
	Node         string        `json:"node"`
	Boot         string        `json:"boot"` // a new one each time the worker starts
	Seq          uint64        `json:"seq"`  // counts states since then
	At           time.Time     `json:"at"`
	Version      string        `json:"version"`
	Draining     bool          `json:"draining"`      // takes no more jobs
	DeviceSource string        `json:"device_source"` // who tells what the devices are, or why nobody does, for people
	Devices      []Device      `json:"devices"`
	Backends     []Backend     `json:"backends"`
	Running      []RunningJob  `json:"running"`
	Reservations []Reservation `json:"reservations"`
}

// A Device is one GPU, or one slice of it.
type Device struct {
	ID       string `json:"id"`   // unique on the node and stable: a UUID where there is one
	Name     string `json:"name"` // as the vendor calls it
	Kind     string `json:"kind"` // cuda, rocm, intel, metal, cpu, sim: whose memory it is
	Total    Amount `json:"total"`
	Used     Amount `json:"used"`            // by anybody
	Free     Amount `json:"free"`            // as measured
	Reserved Amount `json:"reserved"`        // by the driver
	MIG      bool   `json:"mig"`             // a slice of a device
	Error    string `json:"error,omitempty"` // why nothing is loaded on it; "": it is fine

	// What the node's own books say: who has the memory, and what a load may take.
	Ours      Amount `json:"ours"`      // models of the node's backends
	Others    Amount `json:"others"`    // anybody else
	Promised  Bytes  `json:"promised"`  // to loads that have not taken it yet
	Available Amount `json:"available"` // what a load may take now, less a margin for safety
	Lacking   Bytes  `json:"lacking"`   // what must come free first before a load may take any of it

	// What the device does; null where it does not tell.
	Utilization *int `json:"utilization"` // percent of the time that something ran on it lately
	Temperature *int `json:"temperature"` // in degrees Celsius
	Power       *int `json:"power"`       // in watts
}

// A Backend is one model server, or hosted API, behind a node.
type Backend struct {
	Name    string   `json:"name"` // unique on the node
	Kind    string   `json:"kind"`
	Healthy bool     `json:"healthy"`
	Error   string   `json:"error,omitempty"` // why it is not healthy
	Devices []string `json:"devices"`         // ids of the devices its models load on
	Split   Split    `json:"split"`           // how a model lies on several of them
	Loads   bool     `json:"loads"`           // can be told to load and unload
	Price   Price    `json:"price,omitzero"`
	Models  []Model  `json:"models"`
}

// A Price is what a backend takes for a million tokens, in the currency that all
// backends of the fleet are priced in. 0 is for what costs nothing more, such as a
// server of one's own.
type Price struct {
	Input  float64 `json:"input"`  // for tokens of prompts
	Output float64 `json:"output"` // for generated tokens
}

// Of returns what tokens cost.
func (p Price) Of(u Usage) float64 {
	const million = 1e6
	return (p.Input*float64(max(0, u.PromptTokens)) + p.Output*float64(max(0, u.CompletionTokens))) / million
}

// A Split is how a server lays a model on several devices.
type Split string

// The ways.
const (
	// Spread: on one device where one has the room, else on as many as it takes.
	Spread Split = "spread"
	// Proportional: on all devices, on each in proportion to what is free there.
	Proportional Split = "proportional"
	// Equal: the same share on all devices, as tensor parallelism has it.
	Equal Split = "equal"
)

// A NeedSource says how it is known what a load takes.
type NeedSource string

// The sources, the weightiest first.
const (
	NeedConfigured NeedSource = "config"   // an operator says so
	NeedLearned    NeedSource = "learned"  // earlier loads took so much
	NeedEstimated  NeedSource = "estimate" // computed from what the model is made of
	NeedTold       NeedSource = "server"   // the server says so
	NeedUnknown    NeedSource = ""
)

// A ModelState says where a model is.
type ModelState string

// The states.
const (
	Resident  ModelState = "resident"  // in memory, ready
	Loading   ModelState = "loading"   // on the way there
	Installed ModelState = "installed" // the backend can load it
	Remote    ModelState = "remote"    // a hosted API has it: it needs no memory of ours
)

// A Model is one model that a backend serves.
type Model struct {
	Name    string     `json:"name"` // as users name it
	Kinds   []Kind     `json:"kinds"`
	State   ModelState `json:"state"`
	VRAM    Amount     `json:"vram"`    // device memory it takes now
	Need    Amount     `json:"need"`    // device memory a load of it takes: what plans count with
	Slots   int        `json:"slots"`   // jobs it runs at once
	Busy    int        `json:"busy"`    // jobs it runs now, or is about to
	Context int        `json:"context"` // longest context, in tokens; 0: unknown
	Digest  string     `json:"digest,omitempty"`
	LoadMS  int64      `json:"load_ms"` // how long the last load took; 0: unknown

	NeedFrom NeedSource       `json:"need_from"`
	Estimate Amount           `json:"estimate"` // of Need, computed
	Learned  Amount           `json:"learned"`  // of Need, measured at earlier loads
	Pinned   bool             `json:"pinned"`   // never unloaded to make room
	Devices  map[string]Bytes `json:"devices"`  // where it is, by device id; empty: unknown, or nowhere
}

// A RunningJob is a job that a node has accepted and not settled.
type RunningJob struct {
	Job     string `json:"job"`
	Tenant  string `json:"tenant"`
	Attempt uint64 `json:"attempt"`
	Model   string `json:"model"`
	Backend string `json:"backend"`
}

// A Reservation is memory that a load was promised and has not taken yet.
type Reservation struct {
	Model   string           `json:"model"`
	Backend string           `json:"backend"`
	Devices map[string]Bytes `json:"devices"` // by device id
	Arrived Amount           `json:"arrived"` // how much of it is there; unknown where that cannot be told
	Expires time.Time        `json:"expires"`
}

// JobDone tells the dispatcher that a job's slot is free again, on the node's
// done subject. States are sent at most 20 times a second, and a slot that
// served a short answer must not wait for the next.
type JobDone struct {
	Node    string `json:"node"`
	Boot    string `json:"boot"`
	Job     string `json:"job"`
	Tenant  string `json:"tenant"`
	Attempt uint64 `json:"attempt"`
	BusyMS  int64  `json:"busy_ms"` // how long it held the slot
	Tokens  int64  `json:"tokens"`  // of its prompt and its answer; 0: unknown, or none

	// Cost is what these cost by the backend's price; 0: nothing, or unknown.
	Cost float64 `json:"cost,omitempty"`

	// Code is why the attempt failed, "" for ok. RetryMS is when the queue
	// delivers the job again, from now; -1: it does not. Status is how the job
	// ended, "" where it did not, or somebody else ends it.
	Code    Code   `json:"code,omitempty"`
	RetryMS int64  `json:"retry_ms"`
	Status  Status `json:"status,omitempty"`
}

// The lists of a state are never null on the wire, so that a reader in any
// language can go through them without a look.

// MarshalJSON writes s with empty lists in place of nil ones.
func (s NodeState) MarshalJSON() ([]byte, error) {
	type plain NodeState
	s.Devices = list(s.Devices)
	s.Backends = list(s.Backends)
	s.Running = list(s.Running)
	s.Reservations = list(s.Reservations)
	return json.Marshal(plain(s))
}

// MarshalJSON writes b with empty lists in place of nil ones.
func (b Backend) MarshalJSON() ([]byte, error) {
	type plain Backend
	b.Devices = list(b.Devices)
	b.Models = list(b.Models)
	return json.Marshal(plain(b))
}

// MarshalJSON writes m with an empty list and object in place of nil ones.
func (m Model) MarshalJSON() ([]byte, error) {
	type plain Model
	m.Kinds = list(m.Kinds)
	if m.Devices == nil {
		m.Devices = map[string]Bytes{}
	}
	return json.Marshal(plain(m))
}

// MarshalJSON writes r with an empty object in place of a nil map.
func (r Reservation) MarshalJSON() ([]byte, error) {
	type plain Reservation
	if r.Devices == nil {
		r.Devices = map[string]Bytes{}
	}
	return json.Marshal(plain(r))
}

func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
