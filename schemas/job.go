package schemas

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Kind says what a job asks of a model.
type Kind string

// The kinds.
const (
	Chat       Kind = "chat"       // body with "messages"
	Completion Kind = "completion" // body with "prompt"
	Embedding  Kind = "embedding"  // body with "input"
)

// check returns an error for a kind that does not exist.
func (k Kind) check() error {
	switch k {
	case Chat, Completion, Embedding:
		return nil
	default:
		return Errorf(InvalidRequest, "%s %q is none of chat, completion and embedding", HeaderKind, truncate(string(k)))
	}
}

// Abandon says what happens to a job when nobody listens on its inbox any more.
type Abandon string

// The choices. Without one, a job with an inbox is cancelled and any other
// finishes.
const (
	AbandonCancel Abandon = "cancel"
	AbandonFinish Abandon = "finish"
)

// A Job is one inference request as it stands in the queue, read and checked.
type Job struct {
	ID       string
	Flow     Flow
	Kind     Kind
	Stream   bool      // whether the submitter wants chunks
	Reply    string    // where events go; "" for the result subjects
	Deadline time.Time // zero: none
	Timeout  time.Duration
	Attempts int
	Abandon  Abandon
	Session  string        // whose jobs are best run where the last one ran; "": none
	Local    bool          // no hosted API may have it
	At       time.Time     // when it may begin; zero: at once
	Keep     time.Duration // how long its stored events are kept; 0: DefaultKeep
	CustomID string        // what its events are to repeat; "": nothing
	Body     []byte        // an OpenAI request, a JSON object; nil where it is an object that was not read
	Object   string        // the name of the object that is the body; "": the body came with the job
}

// EventSubject is where events of the job go that are not its end.
func (j *Job) EventSubject() string {
	if j.Reply != "" {
		return j.Reply
	}
	return ChunksSubject(j.Flow.Tenant, j.ID)
}

// EndSubject is where the end of the job goes.
func (j *Job) EndSubject() string {
	if j.Reply != "" {
		return j.Reply
	}
	return EndSubject(j.Flow.Tenant, j.ID)
}

// SetAnswer sets what every event of the job has that goes to subject, beside what
// tells the event from others: what the job wants repeated and, where the event is
// stored, for how long.
func (j *Job) SetAnswer(set func(key, value string), subject string) {
	if j.CustomID != "" {
		set(HeaderCustomID, j.CustomID)
	}
	if strings.HasPrefix(subject, ResultsPrefix) { // other streams may take no such message
		set(HeaderTTL, TTL(cmp.Or(j.Keep, DefaultKeep)))
	}
}

// TTL is a duration as a value of HeaderTTL: whole seconds, and a part of one as one.
func TTL(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// Prompt returns what the job has a model read, as JSON: the messages of a chat, the
// prompt of a completion, the input of an embedding. The job is one that ReadJob
// found sound. Of a job whose body was not read it is nil.
func (j *Job) Prompt() []byte {
	if len(j.Body) == 0 {
		return nil
	}
	for key, value := range members(bytes.TrimLeft(j.Body, space)) {
		if i := indexMember(key); i >= 0 && i < len(kindMembers) && kindMembers[i].kind == j.Kind {
			return value
		}
	}
	return nil
}

// Header reads headers of a NATS message: nats.Header.Get, say.
type Header func(key string) string

// JobID returns the id of the job with these headers at this sequence of the
// queue. An id that cannot be a subject's token is an error, and the job goes
// by its sequence.
func JobID(h Header, seq uint64) (string, error) { return jobID(h, strconv.FormatUint(seq, 10)) }

// LaterID is JobID of a job that is not due yet, at this sequence of those.
func LaterID(h Header, seq uint64) (string, error) { return jobID(h, UnnamedLater(seq)) }

// UnnamedLater is the id of a delayed job that was given none.
func UnnamedLater(seq uint64) string { return "later-" + strconv.FormatUint(seq, 10) }

func jobID(h Header, unnamed string) (string, error) {
	key := HeaderLater
	if h(key) == "" {
		key = HeaderMsgID
	}
	switch id := h(key); {
	case id == "":
		return unnamed, nil
	case !ValidToken(id):
		return unnamed, Errorf(InvalidRequest, "%s %q is not 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'", key, truncate(id))
	default:
		return id, nil
	}
}

// ReadJob reads a job: its headers, its body and, from where it was found, its
// flow and its sequence in the stream. replies lists what reply subjects may
// begin with beside inboxes and results. Where the body is an object, nothing is known
// of it but the kind: ReadBody reads it, once somebody has it.
//
// The job it returns is always good enough to be answered, and to be cleared away:
// ID, Flow, Reply and Object are set even where the error, an *Error, says why the job
// cannot be run.
func ReadJob(h Header, body []byte, flow Flow, seq uint64, replies []string) (*Job, error) {
	id, err := JobID(h, seq)
	j := &Job{ID: id, Flow: flow}
	if err := j.readHead(h, replies, err); err != nil {
		return j, err
	}
	if j.Object != "" {
		return j, j.readNoBody(Kind(h(HeaderKind)), body)
	}
	return j, j.readBody(Kind(h(HeaderKind)), body)
}

// ReadLater reads a job that is not due yet, without its body: its headers and,
// from where it was found, its subject and its sequence. See ReadJob; the job that
// it returns has a tenant even where the subject is none of a job.
func ReadLater(h Header, subject string, seq uint64, replies []string) (*Job, error) {
	id, err := LaterID(h, seq)
	flow, bad := ParseJobSubject(DueSubject(subject))
	if bad != nil {
		flow.Tenant = cmp.Or(flow.Tenant, DefaultTenant)
		err = Errorf(InvalidRequest, "the subject %q is no delayed job's: %s", truncate(subject), bad)
	}
	j := &Job{ID: id, Flow: flow}
	if err := j.readHead(h, replies, err); err != nil {
		return j, err
	}
	if j.At.IsZero() {
		return j, Errorf(InvalidRequest, "a job on %s… says by %s when it may begin: a time such as 2026-01-02T15:04:05Z", LaterPrefix, HeaderAt)
	}
	return j, nil
}

// readHead reads the headers of a job whose ID and Flow are set. err is what is
// wrong with these; first come the headers that say how the job is answered.
func (j *Job) readHead(h Header, replies []string, err error) error {
	j.Attempts = DefaultAttempts
	err = errors.Join(err, j.readObject(h), j.ReadAnswer(h))
	if reply := h(HeaderReply); reply != "" {
		if bad := CheckReply(j.Flow.Tenant, reply, replies); bad != nil {
			return Errorf(Refused, "%s", bad)
		}
		j.Reply = reply
	}
	if err != nil {
		return AsError(err)
	}
	return j.readHeaders(h)
}

// ReadAnswer reads what every event of a job has to have, whatever else is wrong
// with the job. See SetAnswer.
func (j *Job) ReadAnswer(h Header) (err error) {
	if s := h(HeaderKeep); s != "" {
		if keep, bad := time.ParseDuration(s); bad == nil && keep >= MinKeep && keep <= MaxKeep {
			j.Keep = keep
		} else {
			err = Errorf(InvalidRequest, "%s %q is not a duration from 1s to 8760h, such as 168h", HeaderKeep, truncate(s))
		}
	}
	if s := h(HeaderCustomID); s != "" {
		if ValidCustomID(s) {
			j.CustomID = s
		} else if err == nil {
			err = Errorf(InvalidRequest, "%s %q is not 1 to %d printable characters without a space at either end", HeaderCustomID, truncate(s), maxCustomID)
		}
	}
	return err
}

// maxCustomID is the longest HeaderCustomID, in characters.
const maxCustomID = 256

// ValidCustomID reports whether s can be what a job's events repeat: 1 to 256
// printable characters, without a space at either end.
func ValidCustomID(s string) bool {
	unfit := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	return s != "" && utf8.RuneCountInString(s) <= maxCustomID && strings.TrimSpace(s) == s &&
		!strings.ContainsFunc(s, unfit)
}

// ReadBody reads the body of a job that has it as an object, as ReadJob reads one that
// comes with its job. The error is an *Error.
func (j *Job) ReadBody(body []byte) error { return j.readBody(j.Kind, body) }

// readHeaders reads what a job says of how it is to be run, and fills in what it
// does not say. Reply is set.
func (j *Job) readHeaders(h Header) error {
	err := j.readTimes(h)
	if err != nil {
		return err
	}
	if s := h(HeaderTimeout); s != "" {
		if j.Timeout, err = time.ParseDuration(s); err != nil || j.Timeout <= 0 {
			return Errorf(InvalidRequest, "%s %q is not a duration such as 90s or 5m", HeaderTimeout, truncate(s))
		}
	}
	if s := h(HeaderAttempts); s != "" {
		if j.Attempts, err = strconv.Atoi(s); err != nil || j.Attempts < 1 || j.Attempts > MaxAttempts {
			return Errorf(InvalidRequest, "%s %q is not a number from 1 to %d", HeaderAttempts, truncate(s), MaxAttempts)
		}
	}
	if j.Session = h(HeaderSession); j.Session != "" && !ValidToken(j.Session) {
		return Errorf(InvalidRequest, "%s %q is not 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'", HeaderSession, truncate(j.Session))
	}
	switch s := h(HeaderLocal); s {
	case "", "false":
	case "true":
		j.Local = true
	default:
		return Errorf(InvalidRequest, "%s %q is neither true nor false", HeaderLocal, truncate(s))
	}
	switch a := Abandon(h(HeaderAbandon)); {
	case a == AbandonCancel, a == AbandonFinish:
		j.Abandon = a
	case a != "":
		return Errorf(InvalidRequest, "%s %q is neither cancel nor finish", HeaderAbandon, truncate(string(a)))
	case IsInbox(j.Reply):
		j.Abandon = AbandonCancel
	default:
		j.Abandon = AbandonFinish
	}
	return nil
}

// readObject reads where the body is. Object is set only where it may be.
func (j *Job) readObject(h Header) error {
	name := h(HeaderBody)
	if name == "" {
		return nil
	}
	if err := checkObject(j.Flow.Tenant, name); err != nil {
		return err
	}
	j.Object = name
	return nil
}

// readNoBody reads the message of a job whose body is an object.
func (j *Job) readNoBody(kind Kind, body []byte) error {
	switch {
	case len(bytes.TrimLeft(body, space)) > 0:
		return Errorf(InvalidRequest, "a job with %s has no other body: leave its message empty", HeaderBody)
	case kind == "":
		return Errorf(InvalidRequest, "a job with %s says its kind by %s: chat, completion or embedding", HeaderBody, HeaderKind)
	}
	j.Kind = kind
	return kind.check()
}

// readTimes reads when a job may begin, and until when it is of use.
func (j *Job) readTimes(h Header) (err error) {
	for _, t := range []struct {
		key string
		of  *time.Time
	}{{HeaderAt, &j.At}, {HeaderDeadline, &j.Deadline}} {
		s := h(t.key)
		if s == "" {
			continue
		}
		if *t.of, err = time.Parse(time.RFC3339, s); err != nil {
			return Errorf(InvalidRequest, "%s %q is not a time such as 2026-01-02T15:04:05Z", t.key, truncate(s))
		}
	}
	if !j.At.IsZero() && !j.Deadline.IsZero() && !j.Deadline.After(j.At) {
		return Errorf(InvalidRequest, "%s %s is no later than %s %s: the job could never begin",
			HeaderDeadline, truncate(h(HeaderDeadline)), HeaderAt, truncate(h(HeaderAt)))
	}
	return nil
}

func (j *Job) readBody(kind Kind, body []byte) error {
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	switch {
	case len(trimmed) == 0:
		return Errorf(InvalidRequest, "the body is empty: send an OpenAI request, or the prompt as plain text")
	case !utf8.Valid(body):
		return Errorf(InvalidRequest, "the body is not UTF-8")
	case trimmed[0] != '{':
		if kind != "" && kind != Chat {
			return Errorf(InvalidRequest, "a body of plain text is a chat, but %s says %q", HeaderKind, truncate(string(kind)))
		}
		body = textBody(body)
	}
	if err := checkSyntax(body); err != nil {
		return err
	}
	s := readShape(body)
	if kind == "" {
		var err error
		if kind, err = s.kind(); err != nil {
			return err
		}
	}
	if err := s.validate(kind, body); err != nil {
		return err
	}
	if s.named && s.model != j.Flow.Model {
		err := Errorf(InvalidRequest, "the body's model %q is not the subject's, %q", truncate(s.model), j.Flow.Model)
		err.Param = "model"
		return err
	}
	j.Kind, j.Body = kind, body
	j.Stream = kind != Embedding && s.stream
	return nil
}

// textBody makes a plain text a chat with one message, streamed.
func textBody(text []byte) []byte {
	content, err := json.Marshal(string(text))
	if err != nil {
		panic(fmt.Sprintf("marshal a string: %v", err)) // encoding/json marshals every string
	}
	return fmt.Appendf(nil, `{"messages":[{"role":"user","content":%s}],"stream":true}`, content)
}

// truncate bounds what of a submitter's text is repeated in a message.
func truncate(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
