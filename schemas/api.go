package schemas

import (
	"bytes"
	"encoding/json"
	"time"
	"unicode/utf8"
)

// MostJobs is how many jobs a JobList has at most, and DefaultJobs how many it has
// where nobody says.
const (
	MostJobs    = 1000
	DefaultJobs = 50
)

// A JobsRequest is the body of the api verb jobs: which jobs of the tenant that have
// not ended to list.
type JobsRequest struct {
	Filter
	State JobState  `json:"state,omitempty"` // JobDelayed, JobQueued or JobRunning; "": the last two
	Since time.Time `json:"since,omitzero"`  // only those that the queue took later
	Limit int       `json:"limit,omitempty"` // 0: DefaultJobs; MostJobs at most

	// Before is where to go on: Next of the answer before. 0: from the newest.
	Before uint64 `json:"before,omitempty"`
}

// A JobEntry is a job in a list, or a change of one.
type JobEntry struct {
	JobInfo
	Class Class     `json:"class,omitempty"`
	Code  Code      `json:"code,omitempty"` // why it ended, or its attempt
	At    time.Time `json:"at,omitzero"`    // when the queue took it or, where it ended, when
}

// A JobList answers the api verb jobs: running ones first, then those that wait, the
// newest first. Running ones are in the first answer only.
type JobList struct {
	Jobs []JobEntry `json:"jobs"`
	Next uint64     `json:"next,omitempty"` // Before of the request that goes on; 0: that was all
}

// JobDetails answers the api verb show: all that is known of a job.
type JobDetails struct {
	JobInfo
	Class     Class             `json:"class,omitempty"`
	Submitted time.Time         `json:"submitted,omitzero"` // when the queue took it
	Ended     time.Time         `json:"ended,omitzero"`
	Headers   map[string]string `json:"headers,omitempty"` // as they were submitted, while the queue has it
	Run       *Run              `json:"vramjet,omitempty"` // once it ended
	Failure   *Error            `json:"failure,omitempty"` // why it did not end well
	Body      json.RawMessage   `json:"body,omitempty"`    // see BodyJSON; where it was asked for, while the queue has it and if it is no object
}

// BodyJSON returns the body of a job as a member of a message: as it is where it is a
// JSON object, and else, a prompt as plain text, as a string.
func BodyJSON(body []byte) json.RawMessage {
	if object := bytes.HasPrefix(bytes.TrimLeft(body, space), []byte("{")); object && json.Valid(body) && utf8.Valid(body) {
		return body
	}
	text, err := json.Marshal(string(body))
	if err != nil {
		panic("marshal a string: " + err.Error()) // encoding/json marshals every string
	}
	return text
}

// A PauseRequest is the body of the api verbs pause and resume. To resume with the
// zero Filter ends all pauses; with any other, those that say the same.
type PauseRequest struct {
	Filter
	By string `json:"by,omitempty"` // who asks, for people
}

// A Pause keeps flows of a tenant from being served.
type Pause struct {
	Filter
	By    string    `json:"by,omitempty"`
	Since time.Time `json:"since"`
}

// A PauseList answers the api verbs pause and resume: what is paused now.
type PauseList struct {
	Pauses []Pause `json:"pauses"`
}

// A PurgeRequest is the body of the api verb purge: which waiting jobs are to end as
// cancelled. One request ends a part of them; the next goes on at Next and Through of
// the answer, until there is no Next.
type PurgeRequest struct {
	Filter
	Prefix  string `json:"prefix,omitempty"`  // only jobs whose ids begin so
	Running bool   `json:"running,omitempty"` // cancel those that run as well
	DryRun  bool   `json:"dry_run,omitempty"` // only count
	From    uint64 `json:"from,omitempty"`    // sequence of the queue to begin at
	Through uint64 `json:"through,omitempty"` // the last one to look at; 0: of the newest job now
}

// A PurgeStep answers the api verb purge. In a dry run it counts what would be.
type PurgeStep struct {
	Waiting int    `json:"waiting"`        // waiting jobs that were ended
	Running int    `json:"running"`        // running jobs that were cancelled
	Next    uint64 `json:"next,omitempty"` // From of the request that goes on; 0: that was all
	Through uint64 `json:"through"`
}

// MarshalJSON writes l with an empty list in place of a nil one.
func (l JobList) MarshalJSON() ([]byte, error) {
	type plain JobList
	l.Jobs = list(l.Jobs)
	return json.Marshal(plain(l))
}

// MarshalJSON writes l with an empty list in place of a nil one.
func (l PauseList) MarshalJSON() ([]byte, error) {
	type plain PauseList
	l.Pauses = list(l.Pauses)
	return json.Marshal(plain(l))
}
