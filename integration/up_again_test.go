package integration

import (
	"encoding/json"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// TestUpIsStartedAgain: a job that had no time to end when vramjet up was stopped runs again
// as soon as it is started again. Its lease would last for half a minute.
func TestUpIsStartedAgain(t *testing.T) {
	t.Parallel()
	args := []string{"up", "--sim", "--drain", "100ms", "--nats", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--http", "off", "--data", t.TempDir()}
	first := start(t, "up", "vramjet", args...)
	u := connect(t, "nats://"+args[5])
	u.serves("sim-slow", 1)
	job := client.Chat("sim-slow", "Tell me a long story")
	var err error
	if job.Body, err = json.Marshal(map[string]any{"messages": []any{map[string]string{"role": "user", "content": "Tell me a long story"}}, "max_tokens": 300, "stream": true}); err != nil {
		t.Fatal(err)
	}
	stream := u.run(job)
	u.next(stream, schemas.EventChunk)
	first.signal(syscall.SIGINT)
	first.says("stopping: jobs that run have 100ms to end")
	<-first.done
	start(t, "up again", "vramjet", args...).says("leading")
	leads := time.Now()
	for e := u.next(stream, schemas.EventAccepted); e.Attempt != 2; e = u.next(stream, schemas.EventAccepted) {
		t.Logf("attempt %d", e.Attempt)
	}
	if took := time.Since(leads); took > broker.AckWait/3 {
		t.Errorf("the job ran again after %s", took)
	}
}
