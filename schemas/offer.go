package schemas

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// An Offer is one attempt at a job that the dispatcher wants a node to make. It
// travels with the job's own headers, those of an offer beside them, and the
// body as ReadJob left it: with none where that is an object.
type Offer struct {
	Job     *Job
	Subject string // of the job in the queue
	Attempt uint64 // from 1
	Backend string
	Model   string   // as users name it
	Evict   []Victim // models to unload first
	Waited  time.Duration
}

// A Victim is a model that is unloaded to make room for another. It may be another
// backend's, where that has devices in common.
type Victim struct {
	Backend string `json:"backend"` // has no whitespace
	Model   string `json:"model"`   // as users name it
}

// String returns v as it stands in HeaderEvict: "backend model".
func (v Victim) String() string { return v.Backend + " " + v.Model }

// parseVictim reads a value of HeaderEvict.
func parseVictim(value string) (Victim, error) {
	backend, model, ok := strings.Cut(value, " ")
	if !ok || backend == "" || model == "" {
		return Victim{}, Errorf(InvalidRequest, "%s %q is not a backend and a model", HeaderEvict, truncate(value))
	}
	return Victim{Backend: backend, Model: model}, nil
}

// maxWaited bounds what an offer may say of its waiting: ten years.
const maxWaited = 10 * 365 * 24 * time.Hour

// ReadOffer reads an offer. Its error, an *Error, names the header that is wrong.
// The dispatcher has checked the job against its JSON Schema, and where it may be
// answered, so neither is checked again.
func ReadOffer(header map[string][]string, body []byte) (*Offer, error) {
	h := Header(func(key string) string {
		if values := header[key]; len(values) > 0 {
			return values[0]
		}
		return ""
	})
	o := &Offer{Subject: h(HeaderFlow), Backend: h(HeaderBackend), Model: h(HeaderModel)}
	for _, value := range header[HeaderEvict] {
		v, err := parseVictim(value)
		if err != nil {
			return nil, err
		}
		o.Evict = append(o.Evict, v)
	}
	if err := o.readNumbers(h); err != nil {
		return nil, err
	}
	flow, err := ParseJobSubject(o.Subject)
	if err != nil {
		return nil, Errorf(InvalidRequest, "%s: %s", HeaderFlow, err)
	}
	o.Job = &Job{ID: h(HeaderJob), Flow: flow, Kind: Kind(h(HeaderKind)), Reply: h(HeaderReply), Attempts: DefaultAttempts, Body: body}
	if !ValidToken(o.Job.ID) {
		return nil, Errorf(InvalidRequest, "%s %q is not a job's id", HeaderJob, truncate(o.Job.ID))
	}
	if err := o.Job.Kind.check(); err != nil {
		return nil, err
	}
	if err := errors.Join(o.Job.readObject(h), o.Job.ReadAnswer(h), o.Job.readHeaders(h)); err != nil {
		return nil, AsError(err)
	}
	if o.Job.Object != "" {
		o.Job.Body = nil
		return o, nil
	}
	if err := checkSyntax(body); err != nil {
		return nil, err
	}
	s := readShape(body)
	o.Job.Stream = o.Job.Kind != Embedding && s.stream
	return o, nil
}

func (o *Offer) readNumbers(h Header) error {
	var err error
	if o.Attempt, err = strconv.ParseUint(h(HeaderAttempt), 10, 64); err != nil || o.Attempt == 0 {
		return Errorf(InvalidRequest, "%s %q is not a number from 1", HeaderAttempt, truncate(h(HeaderAttempt)))
	}
	if s := h(HeaderWaited); s != "" {
		ms, err := strconv.ParseInt(s, 10, 64)
		if err != nil || ms < 0 || ms > maxWaited.Milliseconds() {
			return Errorf(InvalidRequest, "%s %q is not a number of milliseconds", HeaderWaited, truncate(s))
		}
		o.Waited = time.Duration(ms) * time.Millisecond
	}
	return nil
}
