package broker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/schemas"
)

// bodies returns the bucket as any client of NATS has it.
func bodies(t *testing.T, js jetstream.JetStream) jetstream.ObjectStore {
	t.Helper()
	bucket, err := js.ObjectStore(within(t, patience), schemas.BucketBodies)
	if err != nil {
		t.Fatal(err)
	}
	return bucket
}

func stored(t *testing.T, js jetstream.JetStream) (messages uint64) {
	t.Helper()
	return streamInfo(t, js, "OBJ_"+schemas.BucketBodies).State.Msgs
}

// Bodies that any client of NATS stored are read, and deleted without a trace.
func TestBodies(t *testing.T) {
	nc := brokertest.Connect(t, brokertest.Start(t))
	js := brokertest.Setup(t, nc)
	bucket, ctx := bodies(t, js), within(t, patience)
	for name, body := range map[string][]byte{
		"default.small": []byte("Why?"), "default.large": bytes.Repeat([]byte("0123456789"), 300_000), "default.empty": nil,
	} {
		for range 2 { // the second in place of the first
			if _, err := bucket.PutBytes(ctx, name, body); err != nil {
				t.Fatal(err)
			}
		}
		got, err := broker.FetchBody(ctx, nc, name, schemas.MaxBody)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("%s: got %d bytes of %d, %v", name, len(got), len(body), err)
		}
	}
	for _, name := range []string{"default.small", "default.large", "default.empty", "default.none", "default.small"} {
		if err := broker.DeleteBody(ctx, nc, name); err != nil {
			t.Error(err)
		}
	}
	if n := stored(t, js); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

// What is there and is no sound body says what it is, and keeps nobody waiting.
func TestBodiesThatCannotBe(t *testing.T) {
	nc := brokertest.Connect(t, brokertest.Start(t))
	js := brokertest.Setup(t, nc)
	bucket, ctx := bodies(t, js), within(t, patience)
	secret, err := bucket.PutString(ctx, "acme.secret", "secret")
	if err != nil {
		t.Fatal(err)
	}
	describe := func(name string, change func(o *jetstream.ObjectInfo)) {
		o := *secret
		o.Name = name
		change(&o)
		data, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(ctx, schemas.ObjectMeta(name), data); err != nil {
			t.Fatal(err)
		}
	}
	describe("default.cut", func(o *jetstream.ObjectInfo) { o.Size += 5 })
	describe("default.swapped", func(o *jetstream.ObjectInfo) { o.Digest = "SHA-256=" + strings.Repeat("A", 43) + "=" })
	describe("default.short", func(o *jetstream.ObjectInfo) { o.Size = 2 })
	describe("default.huge", func(o *jetstream.ObjectInfo) { o.Size = 1 << 62 })
	describe("default.all", func(o *jetstream.ObjectInfo) { o.NUID = ">" })
	describe("default.digest", func(o *jetstream.ObjectInfo) { o.Digest = "MD5" })
	describe("default.link", func(o *jetstream.ObjectInfo) {
		o.Opts = &jetstream.ObjectMetaOptions{Link: &jetstream.ObjectLink{Bucket: schemas.BucketBodies, Name: "acme.secret"}}
	})
	describe("default.deleted", func(o *jetstream.ObjectInfo) { o.Deleted = true; o.NUID = "none" })
	if _, err := js.Publish(ctx, schemas.ObjectMeta("default.junk"), []byte("[")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"default.none":    "is not there",
		"default.cut":     "is damaged: 6 of its 11 bytes",
		"default.swapped": "is damaged",
		"default.short":   "is damaged",
		"default.huge":    "a node takes 64.0 MiB at most",
		"default.all":     "nuid",
		"default.digest":  "digest",
		"default.link":    "link",
		"default.deleted": "was deleted",
		"default.junk":    "no JSON",
	} {
		_, err := broker.FetchBody(ctx, nc, name, schemas.MaxBody)
		var e *schemas.Error
		if !errors.As(err, &e) || e.Code != schemas.InvalidRequest || !strings.Contains(e.Message, want) || !strings.Contains(e.Message, name) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	for _, name := range []string{"default.all", "default.link", "default.junk"} {
		if err := broker.DeleteBody(ctx, nc, name); err != nil {
			t.Error(err)
		}
		if _, err := broker.FetchBody(ctx, nc, name, schemas.MaxBody); err == nil || !strings.Contains(err.Error(), "is not there") {
			t.Errorf("%s is not gone: %v", name, err)
		}
	}
	if got, err := broker.FetchBody(ctx, nc, "acme.secret", schemas.MaxBody); err == nil && string(got) != "secret" {
		t.Errorf("another tenant's object is %q", got)
	} else if err != nil {
		t.Errorf("another tenant's object is gone: %v", err)
	}
}

// Where nobody can say, nobody says never; and a full bucket is emptied all the same.
func TestBodiesWithoutABucket(t *testing.T) {
	nc := brokertest.Connect(t, brokertest.Start(t))
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = broker.FetchBody(ctx, nc, "default.x", schemas.MaxBody)
	if _, never := errors.AsType[*schemas.Error](err); err == nil || never {
		t.Errorf("without a bucket: %v", err)
	}
	if err := broker.Setup(within(t, patience), js, broker.StreamsConfig{MaxBodiesBytes: 1 << 20, BodiesAge: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if age := streamInfo(t, js, "OBJ_"+schemas.BucketBodies).Config.MaxAge; age != time.Hour {
		t.Errorf("bodies are kept for %s", age)
	}
	if _, err := bodies(t, js).PutBytes(within(t, patience), "default.x", make([]byte, 900<<10)); err != nil {
		t.Fatal(err)
	}
	for { // until nothing more goes in
		if _, err := js.PublishMsg(within(t, patience), nats.NewMsg(schemas.ObjectChunks("fill"))); err != nil {
			break
		}
		if _, err := js.Publish(within(t, patience), schemas.ObjectChunks("fill"), make([]byte, 10<<10)); err != nil {
			break
		}
	}
	if err := broker.DeleteBody(within(t, patience), nc, "default.x"); err != nil {
		t.Error(err)
	}
	if _, err := js.Publish(within(t, patience), schemas.ObjectChunks("fill"), make([]byte, 10<<10)); err != nil {
		t.Errorf("there is no room again: %v", err)
	}
}
