package client

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/schemas"
)

// Bodies are written as the client library's object store writes them, but with no
// right except to publish: its own way takes the right to ask for the state of the
// bucket, which tells the names of everybody's objects.

const (
	// offerRoom is what of a message's size is kept for the headers that a job gets on
	// its way to a node.
	offerRoom = 4 << 10

	// chunkSize is what of a body goes into one message: few, since each is synced to
	// disk, and none that holds up others for long.
	chunkSize = 512 << 10
)

// lighten moves the body of a job into the bucket of bodies where the message is too
// large for the server, or so large that it could not be passed on to a node. It
// returns the object, nil where there is none.
func (c *Client) lighten(ctx context.Context, msg *nats.Msg) (*jetstream.ObjectInfo, error) {
	if checkSize(msg, c.nc.MaxPayload()-offerRoom) == nil {
		return nil, nil
	}
	tooLarge := checkSize(msg, c.nc.MaxPayload())
	kind := schemas.Kind(msg.Header.Get(schemas.HeaderKind))
	if kind == "" {
		var err error
		if kind, err = schemas.KindOf(msg.Data); err != nil {
			return nil, fmt.Errorf("submit: %w", err)
		}
	}
	body, err := c.put(ctx, msg.Data)
	switch {
	case err == nil:
		msg.Header.Set(schemas.HeaderKind, string(kind))
		msg.Header.Set(schemas.HeaderBody, body.Name)
		msg.Data = nil
		return body, nil
	case !errors.Is(err, errNoBucket):
		return nil, err
	case tooLarge != nil:
		return nil, fmt.Errorf("%w; ask the operator for the bucket %s (a dispatcher of this version makes it), or for a larger max_payload", tooLarge, schemas.BucketBodies)
	default:
		return nil, nil
	}
}

var errNoBucket = errors.New("there is no bucket " + schemas.BucketBodies)

// put stores a body as a new object: no two submissions have the same, so that
// whoever ends a job deletes nobody else's.
func (c *Client) put(ctx context.Context, body []byte) (*jetstream.ObjectInfo, error) {
	size := min(chunkSize, int(c.nc.MaxPayload()/2))
	sum := sha256.New()
	_, _ = sum.Write(body) // never fails
	o := &jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{
			Name: schemas.ObjectName(c.tenant, rand.Text()),
			Opts: &jetstream.ObjectMetaOptions{ChunkSize: uint32(size)},
		},
		Bucket: schemas.BucketBodies, NUID: rand.Text(),
		Size: uint64(len(body)), Digest: jetstream.GetObjectDigestValue(sum),
	}
	for chunk := range slices.Chunk(body, size) {
		if _, err := c.js.Publish(ctx, schemas.ObjectChunks(o.NUID), chunk); err != nil {
			c.discard(o)
			return nil, putError(len(body), err)
		}
		o.Chunks++
	}
	if _, err := c.js.PublishMsg(ctx, objectMeta(o)); err != nil {
		c.discard(o)
		return nil, putError(len(body), err)
	}
	return o, nil
}

// discard gives up an object that no job needs. What is lost of that, the bucket
// deletes when it is old.
func (c *Client) discard(o *jetstream.ObjectInfo) {
	if o == nil {
		return
	}
	gone := *o
	gone.Deleted, gone.Size, gone.Chunks, gone.Digest = true, 0, 0, ""
	empty := nats.NewMsg(schemas.ObjectChunks(o.NUID))
	empty.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	for _, msg := range []*nats.Msg{objectMeta(&gone), empty} {
		_ = c.nc.PublishMsg(msg)
	}
}

// objectMeta is what describes an object, in place of what did before.
func objectMeta(o *jetstream.ObjectInfo) *nats.Msg {
	msg := nats.NewMsg(schemas.ObjectMeta(o.Name))
	msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	var err error
	if msg.Data, err = json.Marshal(o); err != nil {
		panic(fmt.Sprintf("marshal an object's description: %v", err)) // plain members
	}
	return msg
}

// putError says why a body was not stored.
func putError(size int, err error) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("submit: %w", errNoBucket)
	case errors.As(err, &api) && isFull(api):
		return fmt.Errorf("submit: %w: the bucket %s has no room for the %s of its body: %s; try again later", ErrFull, schemas.BucketBodies, schemas.Bytes(size), api.Description)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("submit: store the %s of the body in the bucket %s: %w (may this user publish on $O.%s.>?)", schemas.Bytes(size), schemas.BucketBodies, err, schemas.BucketBodies)
	default:
		return fmt.Errorf("submit: store the %s of the body in the bucket %s: %w", schemas.Bytes(size), schemas.BucketBodies, err)
	}
}
