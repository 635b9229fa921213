package integration

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker/embedded"
	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// pictured is a chat about an image of so many bytes.
func pictured(model string, size int) client.Job {
	return client.Job{Model: model, Body: fmt.Appendf(nil,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"What is it?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,%s"}}]}],"stream":true,"max_tokens":20}`,
		bytes.Repeat([]byte("A"), size))}
}

// bodies returns the bucket of bodies, and how many messages it has.
func (u *user) bodies() (bucket jetstream.ObjectStore, messages uint64) {
	u.Helper()
	js, err := jetstream.New(u.nc)
	if err != nil {
		u.Fatal(err)
	}
	if bucket, err = js.ObjectStore(u.Context(), schemas.BucketBodies); err != nil {
		u.Fatal(err)
	}
	status, err := bucket.Status(u.Context())
	if err != nil {
		u.Fatal(err)
	}
	return bucket, status.(*jetstream.ObjectBucketStatus).StreamInfo().State.Msgs
}

// submitObject submits a job by hand whose body is an object, and returns its end.
func (r *rack) submitObject(id, object string) *schemas.Error {
	r.Helper()
	msg := nats.NewMsg("vj.v1.jobs.default.normal.vision")
	for key, value := range map[string]string{schemas.HeaderMsgID: id, schemas.HeaderKind: "chat", schemas.HeaderBody: object} {
		msg.Header.Set(key, value)
	}
	if _, err := r.nc.RequestMsg(msg, patience); err != nil {
		r.Fatal(err)
	}
	_, err := r.Result(r.Context(), id)
	var e *schemas.Error
	if !errors.As(err, &e) {
		r.Fatalf("%s ended with %v", id, err)
	}
	return e
}

// TestLargeBodies: a request of three times the server's max_payload is run as any
// other, is gone at the end, and goes past the dispatcher.
func TestLargeBodies(t *testing.T) {
	const payload = 1 << 20 // as NATS has it
	r := newRackOn(t, embedded.Config{MaxPayload: payload})
	host := newHost(t, sim.Model{Name: "vision", VRAM: gib, Slots: 2})
	r.node("n1", host.ollama())
	read := r.dispatcher.Stats().InBytes
	for range 2 {
		s := r.run(pictured("vision", 3*payload))
		text, chunks, result := r.read(s)
		if text == "" || chunks == 0 || result.Run.Attempt != 1 || result.Usage.CompletionTokens != 20 {
			t.Errorf("%d chunks, %q, %+v", chunks, text, result)
		}
		within(t, patience, "the body is gone", func() bool { _, left := r.bodies(); return left == 0 })
	}
	if n := r.dispatcher.Stats().InBytes - read; n > payload/2 {
		t.Errorf("the dispatcher read %d bytes", n)
	}
	host.unharmed("vision")

	bucket, _ := r.bodies()
	if _, err := bucket.PutBytes(t.Context(), "acme.secret", pictured("vision", payload).Body); err != nil {
		t.Fatal(err)
	}
	if e := r.submitObject("thief", "acme.secret"); e.Code != schemas.Refused || !strings.Contains(e.Message, "no object of the tenant") {
		t.Errorf("with another tenant's body: %v", e)
	}
	if e := r.submitObject("lost", "default.none"); e.Code != schemas.InvalidRequest || !strings.Contains(e.Message, "is not there") {
		t.Errorf("without its body: %v", e)
	}
	if _, err := bucket.GetInfo(t.Context(), "acme.secret"); err != nil {
		t.Errorf("another tenant's body: %v", err)
	}
}
