package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/schemas"
)

// Bodies are read by few requests of their own, and not by the client library's object
// store: who wrote an object is not to be trusted. What describes it may claim any
// size, link to any other object and name chunks by a wildcard; and whoever reads
// chunks that are gone must not wait for them.

// FetchBody returns the content of an object in schemas.BucketBodies, of most bytes at
// most. Where that can never be had, the error is a *schemas.Error; any other may pass.
// It tries again until ctx ends: give ctx a deadline.
func FetchBody(ctx context.Context, nc *nats.Conn, name string, most schemas.Bytes) ([]byte, error) {
	o, err := findObject(ctx, nc, name)
	if err != nil {
		return nil, err
	}
	if o.Size > uint64(most) {
		return nil, badObject(name, "has %s, and a node takes %s at most", schemas.Bytes(o.Size), most)
	}
	body := make([]byte, 0, o.Size)
	for seq := uint64(1); uint64(len(body)) < o.Size; {
		chunk, err := getChunk(ctx, nc, msgRequest{Seq: seq, NextFor: schemas.ObjectChunks(o.NUID)})
		switch {
		case errors.Is(err, errNoMessage):
			return nil, badObject(name, "is damaged: %d of its %d bytes are there", len(body), o.Size)
		case err != nil:
			return nil, fmt.Errorf("read the object %s: %w", name, err)
		}
		body, seq = append(body, chunk.Data...), chunk.Seq+1
	}
	if sum := sha256.Sum256(body); uint64(len(body)) != o.Size || !bytes.Equal(sum[:], o.digest) {
		return nil, badObject(name, "is damaged: its content has not the size or the digest that it says")
	}
	return body, nil
}

// DeleteBody deletes an object of schemas.BucketBodies. That there is none is no error.
// It tries again until ctx ends: give ctx a deadline.
func DeleteBody(ctx context.Context, nc *nats.Conn, name string) error {
	o, err := findObject(ctx, nc, name)
	var none *schemas.Error
	switch {
	case errors.As(err, &none): // there is none, or its chunks are not to be found
	case err != nil:
		return err
	default:
		if err := purge(ctx, nc, schemas.ObjectChunks(o.NUID)); err != nil {
			return fmt.Errorf("delete the object %s: %w", name, err)
		}
	}
	if err := purge(ctx, nc, schemas.ObjectMeta(name)); err != nil {
		return fmt.Errorf("delete the object %s: %w", name, err)
	}
	return nil
}

// An object is what describes one, checked.
type object struct {
	jetstream.ObjectInfo
	digest []byte // SHA-256
}

func findObject(ctx context.Context, nc *nats.Conn, name string) (object, error) {
	msg, err := getMsg(ctx, nc, msgRequest{LastFor: schemas.ObjectMeta(name)})
	switch {
	case errors.Is(err, errNoMessage):
		return object{}, badObject(name, "is not there: it was never stored, was deleted when another job with it ended, or was kept for as long as it is")
	case err != nil:
		return object{}, fmt.Errorf("look for the object %s: %w", name, err)
	default:
		return readObject(name, msg.Data)
	}
}

// readObject reads what describes an object. Its error is a *schemas.Error.
func readObject(name string, data []byte) (object, error) {
	var o object
	if err := json.Unmarshal(data, &o.ObjectInfo); err != nil {
		return o, badObject(name, "cannot be read: what describes it is no JSON of an object: %s", err)
	}
	switch {
	case o.Deleted:
		return o, badObject(name, "was deleted")
	case o.Opts != nil && o.Opts.Link != nil:
		return o, badObject(name, "is a link, which is not followed")
	case !schemas.ValidToken(o.NUID): // a wildcard, say
		return o, badObject(name, "cannot be read: its nuid is none")
	}
	var err error
	if o.digest, err = jetstream.DecodeObjectDigest(o.Digest); err != nil {
		return o, badObject(name, "cannot be read: its digest is none")
	}
	return o, nil
}

// badObject says why a body can never be had.
func badObject(name, format string, args ...any) *schemas.Error {
	return schemas.Errorf(schemas.InvalidRequest, "the object %s of the bucket %s, which is the job's body, %s", name, schemas.BucketBodies, fmt.Sprintf(format, args...))
}

// A msgRequest asks for a message of the bodies' stream: the last of a subject, or the
// first of one from a sequence on.
type msgRequest struct {
	Seq     uint64 `json:"seq,omitempty"`
	LastFor string `json:"last_by_subj,omitempty"`
	NextFor string `json:"next_by_subj,omitempty"`
}

type storedMsg struct {
	Seq  uint64 `json:"seq"`
	Data []byte `json:"data"`
}

// getChunk asks whichever replica for a message, which gives it as it is, at a fifth of
// the cost. One that has none may be behind: then the leader has the last word. The
// error is errNoMessage where there is none.
func getChunk(ctx context.Context, nc *nats.Conn, ask msgRequest) (storedMsg, error) {
	data, err := json.Marshal(ask)
	if err != nil {
		return storedMsg{}, err
	}
	reply, err := request(ctx, nc, &nats.Msg{Subject: "$JS.API.DIRECT.GET." + streamBodies, Data: data}, found)
	switch {
	case errors.Is(err, errNoMessage):
		return getMsg(ctx, nc, ask)
	case err != nil:
		return storedMsg{}, err
	}
	seq, err := strconv.ParseUint(reply.Header.Get(headerSequence), 10, 64)
	return storedMsg{Seq: seq, Data: reply.Data}, err
}

// getMsg asks the stream's leader for a message: unlike a replica, it has everything
// that was acknowledged. The error is errNoMessage where there is none.
func getMsg(ctx context.Context, nc *nats.Conn, ask msgRequest) (storedMsg, error) {
	msg, err := askBodies(ctx, nc, "STREAM.MSG.GET", ask)
	if codeOf(err) == jetstream.JSErrCodeMessageNotFound {
		err = errNoMessage
	}
	return msg, err
}

// purge deletes all messages of a subject of the bodies' stream. Unlike a marker that
// takes their place, it needs no room.
func purge(ctx context.Context, nc *nats.Conn, subject string) error {
	_, err := askBodies(ctx, nc, "STREAM.PURGE", map[string]string{"filter": subject})
	return err
}

// askBodies asks JetStream something about the bodies' stream.
func askBodies(ctx context.Context, nc *nats.Conn, what string, ask any) (storedMsg, error) {
	var answer struct {
		Message storedMsg           `json:"message"`
		Error   *jetstream.APIError `json:"error"`
	}
	data, err := json.Marshal(ask)
	if err != nil {
		return storedMsg{}, err
	}
	msg := &nats.Msg{Subject: "$JS.API." + what + "." + streamBodies, Data: data}
	_, err = request(ctx, nc, msg, func(reply *nats.Msg) error {
		answer.Error = nil
		if err := json.Unmarshal(reply.Data, &answer); err != nil {
			return fmt.Errorf("somebody other than JetStream answered %.40q", reply.Data)
		}
		if answer.Error != nil {
			return answer.Error
		}
		return nil
	})
	return answer.Message, err
}
