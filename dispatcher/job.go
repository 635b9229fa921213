package dispatcher

import (
	"cmp"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// jobKey names a job: ids are unique within a tenant.
type jobKey struct{ tenant, id string }

// A job is one delivery that the leader holds, or has handed to a node that has
// not reported its end.
type job struct {
	*schemas.Job
	flow    *flow
	msg     *nats.Msg // as the queue delivered it; nil once a node has it
	ack     string
	seq     uint64
	attempt uint64
	at      time.Time // when the queue took it
	lease   time.Time // until when the delivery is ours at least

	promise   *promise // where it is to run; nil while parked
	cost      float64  // what the tenant was charged
	running   bool     // a node has the go
	shown     uint64   // the first state of that node which shows it
	cancelled bool     // to end instead of getting its go
	postponed bool     // on its way to those that are not due
	parked    time.Time
	avoid     []string   // places that turned it away
	prefixes  []uint64   // of its prompt
	span      trace.Span // of its wait; nil: it was offered to nobody
}

// ask is what the job needs of a node.
func (j *job) ask() placement.Ask {
	return placement.Ask{Model: j.Flow.Model, Kind: j.Kind, Flow: j.flow.Flow, Local: j.Local, Avoid: j.avoid}
}

func (j *job) key() jobKey { return jobKey{j.Flow.Tenant, j.ID} }

// readDelivery reads a delivery of flow f. The error is why the job can't be run;
// the job it returns can be answered all the same.
func readDelivery(m *nats.Msg, f *flow, sent time.Time, replies []string) (j *job, left int, err error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, 0, err //nolint:wrapcheck // a delivery without metadata is none: the caller logs it
	}
	j = &job{
		flow: f, msg: m, ack: m.Reply, seq: meta.Sequence.Stream,
		attempt: meta.NumDelivered, at: meta.Timestamp, lease: sent.Add(broker.AckWait),
	}
	j.Job, err = schemas.ReadJob(m.Header.Get, m.Data, f.Flow.Flow, j.seq, replies)
	return j, int(meta.NumPending), err
}

// offerHeaders are those that the dispatcher adds to each job.
var offerHeaders = [...]string{
	schemas.HeaderJob, schemas.HeaderTenant, schemas.HeaderFlow, schemas.HeaderKind, schemas.HeaderModel, schemas.HeaderBackend,
	schemas.HeaderAttempt, schemas.HeaderWaited,
}

// offer is what a node is asked to run: the job's body and headers, and what the
// dispatcher adds.
func (j *job) offer(now time.Time) *nats.Msg {
	c := j.promise.choice
	m := &nats.Msg{Subject: schemas.NodeSubject(c.Node, "run"), Data: j.Body}
	m.Header = make(nats.Header, len(j.msg.Header)+len(offerHeaders)+1)
	maps.Copy(m.Header, j.msg.Header)
	values := []string{
		j.ID, j.Flow.Tenant, j.flow.subject, string(j.Kind), c.Model, c.Backend,
		strconv.FormatUint(j.attempt, 10), strconv.FormatInt(max(0, now.Sub(j.at).Milliseconds()), 10),
	}
	for i, k := range offerHeaders {
		m.Header[k] = values[i : i+1 : i+1] // parts of one slice: an offer is made for each job
	}
	if parent := j.traceQueue(); parent != "" {
		m.Header.Set(schemas.HeaderTrace, parent)
	}
	m.Header.Del(schemas.HeaderEvict)
	for _, v := range c.Evict {
		m.Header.Add(schemas.HeaderEvict, v.String())
	}
	return m
}

// goMessage gives a node the right to settle the delivery.
func (j *job) goMessage(to string, now time.Time) *nats.Msg {
	m := nats.NewMsg(to)
	m.Header.Set(schemas.HeaderLease, strconv.FormatInt(j.lease.Sub(now).Milliseconds(), 10))
	m.Data = []byte(j.ack)
	return m
}

// mayExist reports whether an end of the job may be stored: it has a name that
// was used before, perhaps, or it was delivered before.
func (j *job) mayExist() bool {
	return j.Reply == "" && (j.attempt > 1 || j.msg.Header.Get(schemas.HeaderMsgID) != "")
}

// end is the event that ends a job which runs no further.
func (j *job) end(err *schemas.Error, now time.Time) *nats.Msg {
	return endMessage(j.Job, j.attempt, err, schemas.Run{
		QueuedMS: now.Sub(j.at).Milliseconds(), TotalMS: now.Sub(j.at).Milliseconds(),
	})
}

// endMessage is an end that the dispatcher publishes: of attempt 1 where there
// was none, since events count from there.
func endMessage(j *schemas.Job, attempt uint64, err *schemas.Error, run schemas.Run) *nats.Msg {
	m := nats.NewMsg(j.EndSubject())
	j.SetAnswer(m.Header.Set, m.Subject)
	m.Header.Set(schemas.HeaderEvent, string(schemas.EventEnd))
	m.Header.Set(schemas.HeaderJob, j.ID)
	m.Header.Set(schemas.HeaderAttempt, strconv.FormatUint(cmp.Or(attempt, 1), 10))
	m.Header.Set(schemas.HeaderSeq, "0")
	m.Header.Set(schemas.HeaderStatus, string(schemas.StatusOf(err.Code)))
	m.Header.Set(schemas.HeaderCode, string(err.Code))
	if subject, bad := schemas.JobSubject(j.Flow); bad == nil { // poison has none
		m.Header.Set(schemas.HeaderFlow, subject)
	}
	m.Data = encode(schemas.Failure{Error: err, Run: run})
	return m
}
