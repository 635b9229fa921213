package schemas

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Subjects of protocol version 1.
const (
	JobsPrefix    = "vj.v1.jobs."    // + tenant.class.model…
	LaterPrefix   = "vj.v1.later."   // + tenant.class.model…: jobs that are not due yet
	WaitingPrefix = "vj.v1.waiting." // + tenant.class.model…: JetStream's copy of a job's headers
	DeadPrefix    = "vj.v1.dead."    // + tenant.class.model…
	ResultsPrefix = "vj.v1.results." // + tenant.job.chunks or .end
	NodePrefix    = "vj.v1.node."    // + node.run, .state, .done or .control
	CancelPrefix  = "vj.v1.cancel."  // + tenant.job
	EventsPrefix  = "vj.v1.events."  // + tenant.jobs.job or .batches.batch
	APIPrefix     = "vj.v1.api."     // + tenant.verb
	RPCPrefix     = "vj.v1.rpc."     // + service.verb
	NodesPing     = "vj.v1.nodes.ping"
)

// ReservedInboxes begins the inboxes of users that are no tenants, where NATS has users:
// dispatchers, nodes, operators. No job may have its events published there.
const ReservedInboxes = "_INBOX.vj."

// TenantInbox begins the inboxes of a tenant, where NATS has users. Its jobs may have
// their events published there, and no other tenant's.
func TenantInbox(tenant string) string { return "_INBOX_" + tenant }

// DefaultTenant is the tenant of those who name none.
const DefaultTenant = "default"

// A Class says how urgent a job is.
type Class string

// The classes, the most urgent first.
const (
	Interactive Class = "interactive"
	Normal      Class = "normal"
	Batch       Class = "batch"
)

// Classes lists the classes, the most urgent first.
var Classes = []Class{Interactive, Normal, Batch}

// Rank is 0 for the most urgent class. A class that does not exist ranks last.
func (c Class) Rank() int {
	for i, k := range Classes {
		if c == k {
			return i
		}
	}
	return len(Classes)
}

// A Flow is what all jobs with the same tenant, class and model share: their
// subject. It is comparable.
type Flow struct {
	Tenant string
	Class  Class
	Model  string // as users name it, unescaped
}

// JobSubject returns the subject that jobs of f are published on. It returns an
// error where f cannot be one.
func JobSubject(f Flow) (string, error) {
	if !ValidToken(f.Tenant) {
		return "", fmt.Errorf("the tenant %q is not 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'", f.Tenant)
	}
	if f.Class.Rank() == len(Classes) {
		return "", fmt.Errorf("the class %q is none of interactive, normal and batch", f.Class)
	}
	tail, err := EscapeModel(f.Model)
	if err != nil {
		return "", err
	}
	return JobsPrefix + f.Tenant + "." + string(f.Class) + "." + tail, nil
}

// LaterSubject is where a job is published whose subject is job once it is due.
func LaterSubject(job string) string { return LaterPrefix + strings.TrimPrefix(job, JobsPrefix) }

// DueSubject is the subject in the queue of a job that is published on later.
func DueSubject(later string) string { return JobsPrefix + strings.TrimPrefix(later, LaterPrefix) }

// ParseJobSubject returns the flow of a job's subject. Where the subject is no
// flow's, the error says why; the tenant is set even then if it could be read,
// so that somebody can be told.
func ParseJobSubject(subject string) (Flow, error) {
	rest, ok := strings.CutPrefix(subject, JobsPrefix)
	if !ok {
		return Flow{}, fmt.Errorf("the subject does not begin with %q", JobsPrefix)
	}
	tenant, rest, _ := strings.Cut(rest, ".")
	if !ValidToken(tenant) {
		return Flow{}, errors.New("the tenant is not 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'")
	}
	f := Flow{Tenant: tenant}
	class, tail, _ := strings.Cut(rest, ".")
	if Class(class).Rank() == len(Classes) {
		return f, errors.New("the class is none of interactive, normal and batch")
	}
	f.Class = Class(class)
	model, err := UnescapeModel(tail)
	if err != nil {
		return f, err
	}
	f.Model = model
	return f, nil
}

// ValidToken reports whether s can be a tenant or a job id: 1 to 64 characters
// of A-Z, a-z, 0-9, '_' and '-'.
func ValidToken(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// ChunksSubject is where the events of a job go that has no reply subject, but
// for its end.
func ChunksSubject(tenant, job string) string { return ResultsPrefix + tenant + "." + job + ".chunks" }

// EndSubject is where the end of a job goes that has no reply subject.
func EndSubject(tenant, job string) string { return ResultsPrefix + tenant + "." + job + ".end" }

// ResultSubjects matches all events of a job that has no reply subject.
func ResultSubjects(tenant, job string) string { return ResultsPrefix + tenant + "." + job + ".*" }

// NodeSubject is a subject of one node; what is run, state, done or control.
func NodeSubject(node, what string) string { return NodePrefix + node + "." + what }

// CancelSubject tells whichever node runs the job to stop it.
func CancelSubject(tenant, job string) string { return CancelPrefix + tenant + "." + job }

// JobEventSubject is where the dispatcher tells anyone who listens what becomes of a
// job.
func JobEventSubject(tenant, job string) string { return EventsPrefix + tenant + ".jobs." + job }

// APISubject is where a client asks the dispatcher.
func APISubject(tenant, verb string) string { return APIPrefix + tenant + "." + verb }

// RPCSubject is where a worker asks a service that is a backend: service is a token
// of ValidToken, verb one of the RPC verbs.
func RPCSubject(service, verb string) string { return RPCPrefix + service + "." + verb }

// ParseRPCSubject returns the service and the verb of a subject of a service, and
// false where it is none.
func ParseRPCSubject(subject string) (service, verb string, ok bool) {
	rest, ok := strings.CutPrefix(subject, RPCPrefix)
	service, verb, dot := strings.Cut(rest, ".")
	if !ok || !dot || !ValidToken(service) || !slices.Contains(rpcVerbs, verb) {
		return "", "", false
	}
	return service, verb, true
}

// CheckReply reports why a job of tenant may not have its events published on
// subject: it may name an inbox that is not reserved and no other tenant's, its own
// results, or what begins with one of also, written "team." or "team.>"; an empty one
// allows nothing. Anything else would let a submitter make a privileged node publish for
// it.
func CheckReply(tenant, subject string, also []string) error {
	if !literal(subject) {
		return fmt.Errorf("%s %q is not a subject to publish on", HeaderReply, subject)
	}
	if strings.HasPrefix(subject, ReservedInboxes) {
		return fmt.Errorf("%s may not be below %s: those are inboxes of dispatchers, nodes and operators", HeaderReply, ReservedInboxes)
	}
	allowed := append([]string{"_INBOX.", TenantInbox(tenant) + ".", ResultsPrefix + tenant + "."}, also...)
	for _, prefix := range allowed {
		prefix = strings.TrimSuffix(prefix, ">")
		if prefix != "" && strings.HasPrefix(subject, prefix) && len(subject) > len(prefix) {
			return nil
		}
	}
	return fmt.Errorf("%s may only be below %s", HeaderReply, strings.Join(allowed, ", "))
}

// CheckAsker reports why a request may not be answered on reply; one that wants no answer
// says "". A NATS server does not ask whether who sends a request may publish on its reply
// subject: so whoever answers would publish there with rights of its own, on a subject of
// JetStream's or of vramjet's, say.
func CheckAsker(reply string) error {
	if reply == "" {
		return nil
	}
	if !literal(reply) || strings.HasPrefix(reply, "$") || strings.HasPrefix(reply, subjectRoot) {
		return fmt.Errorf("%q is no inbox to be answered on", reply)
	}
	return nil
}

// subjectRoot begins all subjects of this protocol.
const subjectRoot = "vj.v1."

// FromJetStream reports whether a message was published by JetStream for somebody: it
// answers a reader wherever that says, with what is stored, and so the reader may have no
// right to publish there. h returns a header of the message.
func FromJetStream(h func(key string) string, reply string) bool {
	return strings.HasPrefix(reply, "$JS.") || h("Nats-Stream") != "" || h("Nats-Sequence") != ""
}

// IsInbox reports whether a reply subject belongs to a client that listens now,
// rather than to a stream.
func IsInbox(subject string) bool {
	return strings.HasPrefix(subject, "_INBOX.") || strings.HasPrefix(subject, "_INBOX_")
}

// literal reports whether subject can be published on and names one subject: no
// wildcard, no empty token, nothing unprintable, not longer than a protocol line
// has room for.
func literal(subject string) bool {
	if subject == "" || len(subject) > 1024 || !utf8.ValidString(subject) {
		return false
	}
	for token := range strings.SplitSeq(subject, ".") {
		if token == "" || token == "*" || token == ">" {
			return false
		}
		for i := range len(token) {
			if token[i] <= 0x20 || token[i] == 0x7f {
				return false
			}
		}
	}
	return true
}
