package schemas

import (
	"encoding/json"
	"time"
)

// An OfferAnswer is what a node answers an offer. Accepted comes with a reply
// subject of its own, where the dispatcher sends the go: the delivery's ack
// subject as the body, HeaderLease as its only header. Without a go within 5 s
// the node forgets the offer.
type OfferAnswer struct {
	Accepted bool   `json:"accepted"`
	Reason   string `json:"reason,omitempty"` // of a refusal, for people
	Seq      uint64 `json:"seq"`              // of the first state that shows the job

	// State is the node's state at a refusal, so that the same offer is not made
	// again.
	State *NodeState `json:"state,omitempty"`
}

// A JobRequest is the body of the api verbs cancel, status, why and show.
type JobRequest struct {
	Job  string `json:"job"`
	Body bool   `json:"body,omitempty"` // show the request as well
}

// A JobState says where a job is.
type JobState string

// The states. Beside them, a job that ended is in the state of its Status.
const (
	JobDelayed JobState = "delayed" // not due yet
	JobQueued  JobState = "queued"
	JobRunning JobState = "running"
)

// A JobInfo answers the api verbs cancel and status.
type JobInfo struct {
	Job     string   `json:"job"`
	State   JobState `json:"state"` // delayed, queued, running, or a Status
	Node    string   `json:"node,omitempty"`
	Backend string   `json:"backend,omitempty"`
	Model   string   `json:"model,omitempty"`
	Attempt uint64   `json:"attempt,omitempty"`

	// Due is when a delayed job may begin.
	Due time.Time `json:"due,omitzero"`
}

// An APIError answers an api verb that failed.
type APIError struct {
	Error *Error `json:"error"`
}

// A ControlRequest is the body of a request on a node's control subject.
type ControlRequest struct {
	Do      string `json:"do"` // state, drain, undrain, load, unload, pin or unpin
	Backend string `json:"backend,omitempty"`
	Model   string `json:"model,omitempty"`
}

// A Cancel is the body of a message on CancelSubject. Attempt bounds it to that
// attempt and those before; 0 means all. Void means that the attempts were given
// to somebody else: they stop without a word, as their lease is not theirs.
type Cancel struct {
	Attempt uint64 `json:"attempt,omitempty"`
	Void    bool   `json:"void,omitempty"`
}

// Why answers the api verb why: where a job is and, where it waits, why, what happens
// next and what one could do about it, in words for people.
type Why struct {
	JobInfo
	Class    Class    `json:"class,omitempty"`
	WaitedMS int64    `json:"waited_ms"`
	Before   int      `json:"before"`           // jobs of its tenant, class and model that go first
	Reason   string   `json:"reason,omitempty"` // in a sentence
	Why      []string `json:"why"`              // for each place that serves its model, why it is not there
	Next     string   `json:"next,omitempty"`   // what happens next
	ETAMS    *int64   `json:"eta_ms,omitempty"` // until it begins, roughly; none: nobody can say
	Fix      []string `json:"fix,omitempty"`    // what one could do
}

// A FlowInfo says how many jobs of one class and model wait and run, and of the first that
// waits since when and why.
type FlowInfo struct {
	Class    Class    `json:"class"`
	Model    string   `json:"model"`
	Waiting  int      `json:"waiting"`
	Running  int      `json:"running"` // fetched, and not over
	Paused   bool     `json:"paused,omitempty"`
	OldestMS int64    `json:"oldest_ms,omitempty"` // at most; 0: nothing waits
	Reason   string   `json:"reason,omitempty"`    // of the first FlowReasons flows; "": nothing waits
	ETAMS    *int64   `json:"eta_ms,omitempty"`    // until it begins; nil: nobody knows
	Why      []string `json:"why,omitempty"`       // for the first places that serve its model, why it is not there
	Next     string   `json:"next,omitempty"`      // what has to happen before
	Fix      []string `json:"fix,omitempty"`       // what one could do
}

// FlowReasons is of how many flows a FlowList says why they wait, and FlowPlaces of how many
// places each: it takes a moment of the leader's.
const (
	FlowReasons = 100
	FlowPlaces  = 8
)

// FlowList answers the api verb list.
type FlowList struct {
	Flows  []FlowInfo `json:"flows"`
	Pauses []Pause    `json:"pauses,omitempty"` // of the tenant, also where nothing waits
}

// MarshalJSON writes w with an empty list in place of a nil one.
func (w Why) MarshalJSON() ([]byte, error) {
	type plain Why
	w.Why = list(w.Why)
	return json.Marshal(plain(w))
}

// MarshalJSON writes l with an empty list in place of a nil one.
func (l FlowList) MarshalJSON() ([]byte, error) {
	type plain FlowList
	l.Flows = list(l.Flows)
	return json.Marshal(plain(l))
}
