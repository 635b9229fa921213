package schemas

import "time"

// A BatchState is where a batch is.
type BatchState string

// The states.
const (
	BatchInProgress BatchState = "in_progress"
	BatchCompleted  BatchState = "completed" // every line has its result
	BatchCancelled  BatchState = "cancelled" // what had not ended by then is not run
)

// A BatchRecord is what is known of a batch beside its jobs, in the bucket VJ_BATCHES
// under its tenant and its id with a dot between. The job of line 7 has the
// id of the batch, a dash and 7; in later rounds another dash and the round.
type BatchRecord struct {
	Batch   string         `json:"batch"` // its id
	Tenant  string         `json:"tenant"`
	State   BatchState     `json:"state"`
	Class   Class          `json:"class"`
	Input   string         `json:"input"`  // the name of the file
	SHA256  string         `json:"sha256"` // of the file, in hex
	Lines   int            `json:"lines"`  // the number of its last line
	Jobs    int            `json:"jobs"`   // requests in it; lines that are empty are none
	Models  map[string]int `json:"models"` // how many requests each has
	Created time.Time      `json:"created"`
	Keep    string         `json:"keep"`            // how long its results are kept: a Go duration
	Round   int            `json:"round,omitempty"` // how often failed lines were run again

	// What who ran it last knew, and when.
	OK     int       `json:"ok"`
	Failed int       `json:"failed"`
	At     time.Time `json:"at"`
}

// A BatchEvent tells other programs what became of a batch, on BatchEventSubject.
type BatchEvent struct {
	Event  string    `json:"event"` // started, completed or cancelled
	Batch  string    `json:"batch"`
	Input  string    `json:"input"`
	Jobs   int       `json:"jobs"`
	OK     int       `json:"ok"`
	Failed int       `json:"failed"`
	At     time.Time `json:"at"`
}

// BatchEventSubject is where a BatchEvent is published, by core NATS.
func BatchEventSubject(tenant, batch string) string {
	return EventsPrefix + tenant + ".batches." + batch
}
