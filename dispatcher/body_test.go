package dispatcher

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// put stores a body under a name.
func (s *system) put(name string) {
	s.Helper()
	bucket, err := s.js.ObjectStore(s.Context(), schemas.BucketBodies)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := bucket.PutBytes(s.Context(), name, make([]byte, 300<<10)); err != nil {
		s.Fatal(err)
	}
}

// claim submits a job whose body is the object of a name.
func (s *system) claim(model, id, name string, header ...string) (seq uint64) {
	s.Helper()
	subject, err := schemas.JobSubject(schemas.Flow{Tenant: "default", Class: schemas.Normal, Model: model})
	if err != nil {
		s.Fatal(err)
	}
	return s.claimOn(subject, id, append(header, schemas.HeaderBody, name)...)
}

func (s *system) claimOn(subject, id string, header ...string) (seq uint64) {
	s.Helper()
	m := nats.NewMsg(subject)
	m.Header.Set(schemas.HeaderMsgID, id)
	m.Header.Set(schemas.HeaderKind, "chat")
	for i := 0; i+1 < len(header); i += 2 {
		m.Header.Set(header[i], header[i+1])
	}
	ack, err := s.js.PublishMsg(s.Context(), m)
	if err != nil {
		s.Fatal(err)
	}
	return ack.Sequence
}

// wantBodies waits until these objects are in the bucket and no others.
func (s *system) wantBodies(names ...string) {
	s.Helper()
	var state string
	for stop := time.Now().Add(patience); time.Now().Before(stop); time.Sleep(5 * time.Millisecond) {
		st, err := s.js.Stream(s.Context(), "OBJ_"+schemas.BucketBodies)
		if err != nil {
			s.Fatal(err)
		}
		metas := 0
		for _, name := range names {
			if _, err := st.GetLastMsgForSubject(s.Context(), schemas.ObjectMeta(name)); err == nil {
				metas++
			}
		}
		msgs := st.CachedInfo().State.Msgs
		if metas == len(names) && msgs == uint64(4*metas) { // 300 KiB are three chunks
			return
		}
		state = strings.Repeat("+", metas) + strings.Repeat(".", int(msgs))
	}
	s.Fatalf("the bodies are not %q: %s", names, state)
}

// A body that is an object is never read here: its job is offered without one. Its
// node deletes it.
func TestBodyIsNotRead(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	s.put("default.one")
	s.claim("m", "j1", "default.one")
	r := n.next()
	h := r.offer.Header
	if len(r.offer.Data) > 0 || h.Get(schemas.HeaderBody) != "default.one" || h.Get(schemas.HeaderKind) != "chat" {
		t.Errorf("the offer %v with %d bytes", h, len(r.offer.Data))
	}
	n.finish(r)
	s.wantQueued(0)
	s.wantBodies("default.one")
}

// Whatever ends a job before a node has it, its body is deleted; but never another
// tenant's.
func TestBodyIsDeletedAtTheEnd(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: 10 * time.Millisecond})
	s.node("a", nil, "m")
	s.put("acme.secret")
	for _, c := range []struct {
		id, model string
		header    []string
		code      schemas.Code
	}{
		{"unknown", "nobody-has-it", nil, schemas.ModelNotFound},
		{"expired", "m", []string{schemas.HeaderDeadline, "2020-01-01T00:00:00Z"}, schemas.Deadline},
		{"refused", "m", []string{schemas.HeaderReply, "$JS.API.STREAM.DELETE.VJ_JOBS"}, schemas.Refused},
		{"invalid", "m", []string{schemas.HeaderAttempts, "many"}, schemas.InvalidRequest},
		{"kind", "m", []string{schemas.HeaderKind, "poem"}, schemas.InvalidRequest},
		{"embeds", "m", []string{schemas.HeaderKind, "embedding"}, schemas.Unsupported},
	} {
		s.put("default." + c.id)
		s.claim(c.model, c.id, "default."+c.id, c.header...)
		if _, err := s.end(c.id); err.Code != c.code {
			t.Errorf("%s ended with %v", c.id, err)
		}
	}
	s.claim("m", "thief", "acme.secret")
	if _, err := s.end("thief"); err.Code != schemas.Refused || !strings.Contains(err.Message, schemas.HeaderBody) {
		t.Errorf("with another tenant's body the job ended with %v", err)
	}
	s.put("default.poison")
	s.claimOn("vj.v1.jobs.default.normal.*", "poison", schemas.HeaderBody, "default.poison")
	s.wantQueued(0)
	s.wantBodies("acme.secret")
}

// A job over its tenant's limit is gone with its body.
func TestBodyOverTheLimit(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Hour, Tenants: map[string]Tenant{"default": {MaxQueued: 1}}})
	s.ask("status", "nobody", &schemas.APIError{}) // there is a leader
	s.put("default.one")
	s.put("default.two")
	s.claim("m", "j1", "default.one")
	s.claim("m", "j2", "default.two")
	if _, err := s.end("j2"); err.Code != schemas.RateLimited {
		t.Errorf("ended with %v", err)
	}
	s.wantBodies("default.one")
}

// A cancelled job's body goes when its turn comes.
func TestBodyOfACancelledJob(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{UnknownModelWait: time.Hour})
	s.put("default.one")
	s.claim("m", "j1", "default.one")
	s.ask("cancel", "j1", &schemas.JobInfo{})
	s.node("a", nil, "m")
	s.wantQueued(0)
	s.wantBodies()
}

// An id that is used again deletes its own body, and not that of the job which runs.
func TestBodyOfAReusedID(t *testing.T) {
	s := newSystem(t)
	if err := broker.Setup(t.Context(), s.js, broker.StreamsConfig{DedupWindow: 100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	s.put("default.one")
	s.put("default.two")
	last := s.claim("m", "j1", "default.one")
	r := n.next()
	for _, name := range []string{"default.two", "default.one"} {
		before := last
		for last == before { // a duplicate is told the first one's sequence
			time.Sleep(20 * time.Millisecond)
			last = s.claim("m", "j1", name)
		}
		s.wantQueued(1)
		s.wantBodies("default.one")
	}
	n.finish(r)
	s.wantQueued(0)
}

// A job that has ended is dropped with its body.
func TestBodyOfAnEndedJob(t *testing.T) {
	s := newSystem(t)
	end := nats.NewMsg(schemas.EndSubject("default", "old"))
	if _, err := broker.PublishEnd(t.Context(), s.nc, end); err != nil {
		t.Fatal(err)
	}
	s.dispatch(Config{})
	s.node("a", nil, "m")
	s.put("default.one")
	s.claim("m", "old", "default.one")
	s.wantQueued(0)
	s.wantBodies()
}

// A job that its nodes died of is a dead letter that can be run again.
func TestBodyOfADeadLetter(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	n := s.node("a", nil, "m")
	s.put("default.one")
	s.claim("m", "j1", "default.one", schemas.HeaderAttempts, "1")
	r := n.next()
	if err := broker.Nak(t.Context(), n.nc, r.ack, 0); err != nil {
		t.Fatal(err)
	}
	n.free(r, schemas.StreamBroken, 0)
	s.end("j1")
	m, ok, err := broker.LastMsg(t.Context(), s.nc, broker.StreamDead, "vj.v1.dead.default.normal.m")
	if err != nil || !ok || m.Header.Get(schemas.HeaderBody) != "default.one" {
		t.Errorf("the dead letter: %v, %v, %v", m, ok, err)
	}
	s.wantQueued(0)
	s.wantBodies("default.one")
}
