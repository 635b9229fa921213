package worker

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// pictured is a chat about an image of so many bytes.
func pictured(size int) []byte {
	return fmt.Appendf(nil, `{"messages":[{"role":"user","content":[{"type":"text","text":"What is it?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,%s"}}]}],"stream":true,"max_tokens":5}`,
		bytes.Repeat([]byte("A"), size))
}

func (r *rig) bucket() jetstream.ObjectStore {
	r.t.Helper()
	bucket, err := r.js.ObjectStore(r.t.Context(), schemas.BucketBodies)
	if err != nil {
		r.t.Fatal(err)
	}
	return bucket
}

// put stores a body as any client of NATS does, and submits a job of it.
func (r *rig) put(id, model string, body []byte, headers ...string) *job {
	r.t.Helper()
	if _, err := r.bucket().PutBytes(r.t.Context(), "acme."+id, body); err != nil {
		r.t.Fatal(err)
	}
	return r.claimed(id, model, headers...)
}

// claimed submits a job whose body is the object of its id.
func (r *rig) claimed(id, model string, headers ...string) *job {
	r.t.Helper()
	return r.submit(id, model, "", append(headers, schemas.HeaderKind, "chat", schemas.HeaderBody, "acme."+id)...)
}

// objects waits until so many messages are in the bucket.
func (r *rig) objects(n uint64) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("there are not %d messages in the bucket", n), func() bool {
		return r.stream("OBJ_"+schemas.BucketBodies).CachedInfo().State.Msgs == n
	})
}

func TestBodyThatIsAnObject(t *testing.T) {
	r := newRig(t, nil)
	j := r.put("j1", "quick", pictured(3<<20)).run()
	if chunks, end := j.ended(1, schemas.StatusOK); len(chunks) == 0 || !strings.Contains(string(end), `"usage"`) {
		t.Errorf("%d chunks, and the end %s", len(chunks), end)
	}
	r.objects(0)
	if c := r.sim.Counts("quick"); c.Finished != 1 {
		t.Errorf("the server: %+v", c)
	}
	r.put("j2", "quick", []byte("Why?")).run().ended(1, schemas.StatusOK) // as it would be in a message
	r.objects(0)
}

// A body that can never be run ends its job, and is deleted with it.
func TestBodyThatCannotBeRun(t *testing.T) {
	r := newRig(t, func(c *Config, _ *pace) { c.MaxBody = schemas.MiB })
	for id, c := range map[string]struct {
		body []byte
		want string
	}{
		"large":  {pictured(2 << 20), "a node takes 1.0 MiB at most"},
		"broken": {[]byte(`{"messages":[`), "not JSON"},
		"bytes":  {[]byte("\xff"), "not UTF-8"},
		"other":  {[]byte(`{"messages":[{"role":"user","content":"x"}],"model":"slow"}`), `the body's model "slow"`},
		"shape":  {[]byte(`{"messages":"x"}`), "messages: is of the type string"},
	} {
		j := r.put(id, "quick", c.body).run()
		if _, end := j.ended(1, schemas.StatusError); !strings.Contains(string(end), `"code":"invalid_request"`) || !strings.Contains(strings.ReplaceAll(string(end), `\"`, `"`), c.want) {
			t.Errorf("%s ended with %s", id, end)
		}
		r.objects(0)
	}
	j := r.claimed("none", "quick").run()
	if _, end := j.ended(1, schemas.StatusError); !strings.Contains(string(end), "acme.none of the bucket VJ_BODIES") || !strings.Contains(string(end), "is not there") {
		t.Errorf("without an object the job ended with %s", end)
	}
	if c := r.sim.Counts("quick"); c.Started != 0 {
		t.Errorf("the server was asked: %+v", c)
	}
}

// A cancelled job has its body deleted; one that is run again has it still.
func TestBodyOutlivesAttempts(t *testing.T) {
	r := newRig(t, nil)
	r.sim.Fail("quick", sim.Failure{Times: 1, Status: 503})
	j := r.put("j1", "quick", pictured(1<<10)).run()
	if d := j.done(); d.RetryMS < 0 {
		t.Errorf("done %+v", d)
	}
	j.next(schemas.EventAccepted)
	j.run().ended(2, schemas.StatusOK)
	r.objects(0)

	k := r.put("k", "slow", pictured(1<<10), schemas.HeaderTimeout, "5s").run("quick")
	r.busy("slow", 1)
	r.cancel("k", schemas.Cancel{})
	k.ended(1, schemas.StatusCancelled)
	r.objects(0)
}

// A dead letter is the job as it was, and its body stays for who runs it again.
func TestBodyOfADeadLetter(t *testing.T) {
	r := newRig(t, nil)
	r.sim.Fail("quick", sim.Failure{After: 2, End: sim.EndCut})
	dead := make(chan *nats.Msg, 1)
	r.subscribe(schemas.DeadPrefix+">", func(m *nats.Msg) { dead <- m })
	r.put("j1", "quick", pictured(1<<20), schemas.HeaderAttempts, "1").run().ended(1, schemas.StatusError)
	m := wait(t, dead)
	if len(m.Data) > 0 || m.Header.Get(schemas.HeaderBody) != "acme.j1" || m.Header.Get(schemas.HeaderKind) != "chat" {
		t.Errorf("the dead letter %v with %d bytes", m.Header, len(m.Data))
	}
	if got, err := r.bucket().GetBytes(t.Context(), "acme.j1"); err != nil || len(got) < 1<<20 {
		t.Errorf("its body: %d bytes, %v", len(got), err)
	}
}

// Where the bucket cannot be asked, the job is tried again.
func TestBodyThatCannotBeReadForNow(t *testing.T) {
	r := newRig(t, func(_ *Config, p *pace) { p.fetch = 50 * time.Millisecond })
	j := r.put("j1", "quick", pictured(1<<10))
	if err := r.js.DeleteStream(t.Context(), "OBJ_"+schemas.BucketBodies); err != nil {
		t.Fatal(err)
	}
	j.run()
	if d := j.done(); d.Code != schemas.Unreachable || d.RetryMS < 0 {
		t.Errorf("done %+v", d)
	}
}
