package schemas

import "time"

// Headers of a job, which its submitter sets. All are optional.
const (
	HeaderMsgID    = "Nats-Msg-Id"  // the job's id; without one, its stream sequence in decimal
	HeaderKind     = "Vj-Kind"      // a Kind; without one, told from the body
	HeaderReply    = "Vj-Reply"     // where the events go; without one, the result subjects
	HeaderDeadline = "Vj-Deadline"  // RFC 3339; after it the job is not started, and a running one is stopped
	HeaderTimeout  = "Vj-Timeout"   // Go duration: longest run of one attempt
	HeaderAttempts = "Vj-Attempts"  // most attempts, 1 to 100; without one, DefaultAttempts
	HeaderAbandon  = "Vj-Abandon"   // an Abandon
	HeaderSession  = "Vj-Session"   // 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-': jobs of one prefer the place that has their cache
	HeaderLocal    = "Vj-Local"     // "true": no hosted API may have the job
	HeaderAt       = "Vj-At"        // RFC 3339; before it the job is not begun
	HeaderKeep     = "Vj-Keep"      // Go duration, MinKeep to MaxKeep: how long its stored events are kept; without one, DefaultKeep
	HeaderCustomID = "Vj-Custom-Id" // 1 to 256 printable characters, which every event of the job repeats
	HeaderBody     = "Vj-Body"      // the object in BucketBodies that is the job's body, see ObjectName; HeaderKind is required with it
	HeaderTrace    = "traceparent"  // W3C trace context; lower case, since NATS headers are case-sensitive
)

// Headers of an event.
const (
	HeaderEvent   = "Vj-Event"   // an EventKind
	HeaderJob     = "Vj-Job"     // the job's id
	HeaderAttempt = "Vj-Attempt" // from 1; a reader keeps the highest and drops the rest
	HeaderSeq     = "Vj-Seq"     // from 0 in each attempt, without gaps
	HeaderStatus  = "Vj-Status"  // on an end: a Status
	HeaderCode    = "Vj-Code"    // on an end that is not ok: the Code of its error
	HeaderNode    = "Vj-Node"    // on an end: the node that ran the job; none where no node did
	HeaderTTL     = "Nats-TTL"   // on one that is stored: how long, in seconds
)

// HeaderLater is the id of a job that was delayed. A dispatcher sets it as it moves
// the job between the queue and those that are not due, where Nats-Msg-Id is what
// keeps the move from being made twice.
const HeaderLater = "Vj-Later"

// Headers of an offer, which the dispatcher adds to the job's.
const (
	HeaderTenant  = "Vj-Tenant"  // the job's tenant
	HeaderModel   = "Vj-Model"   // the model, as users name it
	HeaderBackend = "Vj-Backend" // the backend to run it on
	HeaderEvict   = "Vj-Evict"   // a backend and a model to unload first, see Victim; may stand several times
	HeaderWaited  = "Vj-Waited"  // how long the job waited in the queue, in ms
	HeaderFlow    = "Vj-Flow"    // the job's subject in the queue; also on an end
)

// HeaderLease stands on a go: how long the lease still lasts at least, in ms.
const HeaderLease = "Vj-Lease"

// Headers of a dead letter, beside those of the job and HeaderJob.
const (
	HeaderDeadCode    = "Vj-Dead-Code"    // a Code
	HeaderDeadMessage = "Vj-Dead-Message" // one line
	HeaderDeadAt      = "Vj-Dead-At"      // RFC 3339
)

// DefaultAttempts is how often a job is tried that says nothing of it.
const DefaultAttempts = 4

// MaxAttempts is the most that HeaderAttempts may ask for.
const MaxAttempts = 100

// How long stored events are kept.
const (
	DefaultKeep = 24 * time.Hour
	MinKeep     = time.Second
	MaxKeep     = 365 * 24 * time.Hour
)
