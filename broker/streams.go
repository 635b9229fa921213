package broker

import (
	"cmp"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/schemas"
)

// The streams, and the bucket of keys and values. schemas.BucketBodies is one more.
const (
	StreamJobs    = "VJ_JOBS"    // jobs that are not settled: a work queue
	StreamLater   = "VJ_LATER"   // jobs that are not due yet
	StreamResults = "VJ_RESULTS" // events and ends of jobs without a reply subject
	StreamDead    = "VJ_DEAD"    // dead letters
	BucketState   = "VJ_STATE"   // the leader's lease, cancel marks, tags, what was learned
	BucketBatches = "VJ_BATCHES" // what is known of batches
)

// The streams behind the buckets.
const (
	streamState   = "KV_" + BucketState
	streamBatches = "KV_" + BucketBatches
	streamBodies  = "OBJ_" + schemas.BucketBodies
)

// allStreams are the names of all streams.
var allStreams = []string{StreamJobs, StreamLater, StreamResults, StreamDead, streamState, streamBatches, streamBodies}

// maxConsumers is the most consumers of VJ_JOBS that the server allows. It only
// lifts the server's own default of 1000: the dispatcher keeps far fewer.
const maxConsumers = 20_000

// markerTTL is how long the mark of an expired key stays in BucketState. Without
// one, nobody who watches a key would hear that it expired.
const markerTTL = time.Minute

// maxDedup is the longest deduplication window of streams that need none of
// their own; it is the server's default.
const maxDedup = 2 * time.Minute

// StreamsConfig tunes the streams. The zero StreamsConfig is ready to use.
type StreamsConfig struct {
	Replicas       int   // copies of each stream, 1, 3 or 5; 0: 1
	MaxJobsPerFlow int64 // most jobs of one flow, waiting and running; 0: 100_000
	MaxJobsBytes   int64 // most bytes of all jobs; 0: no limit
	MaxJobSize     int32 // most bytes of one job, with its headers; 0: what the server takes
	MaxBodiesBytes int64 // most bytes of all bodies that are objects; 0: no limit
	MaxLater       int64 // most jobs that are not due, of all flows; 0: 1_000_000. The leader keeps 24 bytes of each in memory

	ResultsAge  time.Duration // how long answers are kept at most, whatever their jobs ask for; 0: a day over schemas.MaxKeep
	DeadAge     time.Duration // how long dead letters are kept; 0: 30 days
	BodiesAge   time.Duration // how long bodies that are objects are kept whose job has not ended; 0: 7 days
	BatchesAge  time.Duration // how long batches are known; 0: 90 days
	DedupWindow time.Duration // how long an id of a job is not taken again; 0: 2 min
}

func (c StreamsConfig) withDefaults() StreamsConfig {
	c.Replicas = cmp.Or(c.Replicas, 1)
	c.MaxJobsPerFlow = cmp.Or(c.MaxJobsPerFlow, 100_000)
	c.MaxJobsBytes = cmp.Or(c.MaxJobsBytes, -1)
	c.MaxJobSize = cmp.Or(c.MaxJobSize, -1)
	c.MaxLater = cmp.Or(c.MaxLater, 1_000_000)
	c.ResultsAge = cmp.Or(c.ResultsAge, schemas.MaxKeep+24*time.Hour)
	c.DeadAge = cmp.Or(c.DeadAge, 30*24*time.Hour)
	c.MaxBodiesBytes = cmp.Or(c.MaxBodiesBytes, -1)
	c.BodiesAge = cmp.Or(c.BodiesAge, 7*24*time.Hour)
	c.BatchesAge = cmp.Or(c.BatchesAge, 90*24*time.Hour)
	c.DedupWindow = cmp.Or(c.DedupWindow, 2*time.Minute)
	return c
}

// streams returns the streams as c wants them.
func (c StreamsConfig) streams() []jetstream.StreamConfig {
	c = c.withDefaults()
	all := slices.Concat(c.jobs(), c.results(), []jetstream.StreamConfig{stateStream(), c.batchesStream(), c.bodiesStream()})
	for i := range all {
		all[i].Replicas = c.Replicas
		all[i].Storage = jetstream.FileStorage
	}
	return all
}

// jobs returns the streams of jobs: those that are due, and those that are not.
func (c StreamsConfig) jobs() []jetstream.StreamConfig {
	jobs := jetstream.StreamConfig{
		Name:                 StreamJobs,
		Description:          "vramjet: jobs that are not settled",
		Subjects:             []string{schemas.JobsPrefix + ">"},
		Retention:            jetstream.WorkQueuePolicy,
		Discard:              jetstream.DiscardNew,
		DiscardNewPerSubject: true,
		MaxMsgs:              -1,
		MaxMsgsPerSubject:    c.MaxJobsPerFlow,
		MaxBytes:             c.MaxJobsBytes,
		MaxMsgSize:           c.MaxJobSize,
		MaxConsumers:         maxConsumers,
		Duplicates:           c.DedupWindow,
		AllowDirect:          true,
		RePublish: &jetstream.RePublish{
			Source:      schemas.JobsPrefix + ">",
			Destination: schemas.WaitingPrefix + ">",
			HeadersOnly: true,
		},
	}
	// JetStream's own schedules (Nats-Schedule) would not do here: they take one
	// message a subject, in a stream that drops the old for the new, and deliver
	// into the same stream, so that somebody had to move what is due all the same.
	later := jobs
	later.Name = StreamLater
	later.Description = "vramjet: jobs that are not due yet"
	later.Subjects = []string{schemas.LaterPrefix + ">"}
	later.Retention = jetstream.LimitsPolicy
	later.MaxMsgs = c.MaxLater
	later.MaxConsumers = -1
	later.RePublish = nil
	later.AllowDirect = false // a replica that is behind would take a job for gone
	return []jetstream.StreamConfig{jobs, later}
}

// results returns the streams of what became of jobs.
func (c StreamsConfig) results() []jetstream.StreamConfig {
	// An event says itself how long it is kept (Nats-TTL): MaxAge would remove it
	// earlier all the same, and is only a bound for those that say nothing.
	results := jetstream.StreamConfig{
		Name:              StreamResults,
		Description:       "vramjet: answers of jobs without a reply subject",
		Subjects:          []string{schemas.ResultsPrefix + ">"},
		MaxAge:            c.ResultsAge,
		Duplicates:        min(maxDedup, c.ResultsAge),
		AllowMsgTTL:       true,
		MaxMsgs:           -1,
		MaxMsgsPerSubject: -1,
		MaxBytes:          -1,
		MaxMsgSize:        -1,
		MaxConsumers:      -1,
		AllowDirect:       true,
	}
	dead := results
	dead.Name = StreamDead
	dead.Description = "vramjet: dead letters"
	dead.Subjects = []string{schemas.DeadPrefix + ">"}
	dead.AllowMsgTTL = false
	dead.MaxAge = c.DeadAge
	dead.Duplicates = min(maxDedup, c.DeadAge)
	return []jetstream.StreamConfig{results, dead}
}

// batchesStream returns the stream behind BucketBatches, likewise.
func (c StreamsConfig) batchesStream() jetstream.StreamConfig {
	batches := stateStream()
	batches.Name = streamBatches
	batches.Description = "vramjet: batches"
	batches.Subjects = []string{"$KV." + BucketBatches + ".>"}
	batches.MaxAge = c.BatchesAge
	batches.AllowRollup = false        // else one tenant's message could replace all other tenants'
	batches.SubjectDeleteMarkerTTL = 0 // NATS would allow rollups for it
	return batches
}

// bodiesStream returns the stream of bodies of jobs that are too large for a message,
// as jetstream.CreateObjectStore makes it.
func (c StreamsConfig) bodiesStream() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              streamBodies,
		Description:       "vramjet: bodies of jobs that are too large for a message",
		Subjects:          []string{schemas.ObjectChunks(">"), "$O." + schemas.BucketBodies + ".M.>"},
		Discard:           jetstream.DiscardNew,
		MaxAge:            c.BodiesAge,
		Duplicates:        min(maxDedup, c.BodiesAge),
		MaxBytes:          c.MaxBodiesBytes,
		MaxMsgs:           -1,
		MaxMsgsPerSubject: -1,
		MaxMsgSize:        -1,
		MaxConsumers:      -1,
		AllowRollup:       true,
		AllowDirect:       true,
	}
}

// stateStream returns the stream behind BucketState, as jetstream.CreateKeyValue makes it.
func stateStream() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:                   streamState,
		Description:            "vramjet: what the dispatchers remember",
		Subjects:               []string{"$KV." + BucketState + ".>"},
		Discard:                jetstream.DiscardNew,
		MaxMsgs:                -1,
		MaxMsgsPerSubject:      1,
		MaxBytes:               -1,
		MaxMsgSize:             -1,
		MaxConsumers:           -1,
		Duplicates:             maxDedup,
		AllowRollup:            true,
		DenyDelete:             true,
		AllowDirect:            true,
		AllowMsgTTL:            true,
		SubjectDeleteMarkerTTL: markerTTL,
	}
}

// merge returns have with everything set that want is about. What an operator
// has set beside that, placement and compression, say, stays.
func merge(have, want jetstream.StreamConfig) jetstream.StreamConfig {
	m := have
	m.Description = want.Description
	m.Subjects = want.Subjects
	m.Discard = want.Discard
	m.DiscardNewPerSubject = want.DiscardNewPerSubject
	m.MaxAge = want.MaxAge
	m.MaxMsgs = want.MaxMsgs
	m.MaxMsgsPerSubject = want.MaxMsgsPerSubject
	m.MaxBytes = want.MaxBytes
	m.MaxMsgSize = want.MaxMsgSize
	m.MaxConsumers = want.MaxConsumers
	m.Duplicates = want.Duplicates
	m.Replicas = want.Replicas
	m.RePublish = want.RePublish
	m.AllowRollup = want.AllowRollup
	m.AllowDirect = want.AllowDirect
	m.AllowMsgTTL = want.AllowMsgTTL
	m.SubjectDeleteMarkerTTL = want.SubjectDeleteMarkerTTL
	return m
}
