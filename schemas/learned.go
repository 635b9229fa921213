package schemas

import (
	"encoding/json"
	"slices"
	"time"
)

// A LearnedNeed is what loads of a model took, made in one way: with one context and
// so many slots, by one kind and version of server. It is a value in the KV bucket
// VJ_STATE that every node reads; the node that loads writes it.
type LearnedNeed struct {
	Model    string    `json:"model"` // as its server names it
	Digest   string    `json:"digest,omitempty"`
	Kind     string    `json:"kind"`              // of the backend
	Version  string    `json:"version,omitempty"` // of its server
	Context  int       `json:"context"`           // in tokens, of all slots together; 0: as the server has it
	Parallel int       `json:"parallel"`          // slots; 0: as the server has it
	Samples  []Bytes   `json:"samples"`           // the newest 20 at most, the oldest first
	P95      Bytes     `json:"p95"`               // the 95th percentile of them: what plans count with
	Estimate Amount    `json:"estimate"`          // what was computed beforehand
	At       time.Time `json:"at"`                // of the newest
}

// mostSamples bounds how much of the past counts.
const mostSamples = 20

// With returns n with one more sample, and leaves n as it is.
func (n LearnedNeed) With(sample Bytes, at time.Time) LearnedNeed {
	n.Samples = append(slices.Clone(n.Samples), sample)
	if over := len(n.Samples) - mostSamples; over > 0 {
		n.Samples = n.Samples[over:]
	}
	sorted := slices.Sorted(slices.Values(n.Samples))
	n.P95 = sorted[(len(sorted)*95+99)/100-1]
	n.At = at
	return n
}

// MarshalJSON writes n with an empty list in place of a nil one.
func (n LearnedNeed) MarshalJSON() ([]byte, error) {
	type plain LearnedNeed
	n.Samples = list(n.Samples)
	return json.Marshal(plain(n))
}
