package worker

import (
	"context"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// noResponders is the status by which the server answers a request that nobody
// heard.
const noResponders = "503"

// onGone reads the server's answer to a probe. Anybody else's is not for us.
func (w *Worker) onGone(msg *nats.Msg) {
	if len(msg.Data) > 0 || msg.Header.Get("Status") != noResponders {
		return
	}
	task, probe, _ := strings.Cut(lastToken(msg.Subject), "-")
	number, err := strconv.ParseUint(task, 10, 64)
	if err != nil {
		return
	}
	if asked, err := strconv.Atoi(probe); err == nil {
		w.send(unheard{number: number, probe: asked})
	}
}

// unheard says that nobody listened when a probe was published.
type unheard struct {
	number uint64
	probe  int
}

// apply cancels the job at the second probe in a row: a client that connects
// again is gone for a moment only.
func (m unheard) apply(_ context.Context, n *node) {
	t := n.numbers[m.number]
	if t == nil {
		return
	}
	if m.probe == t.probe+1 {
		t.end(errGone)
	}
	t.probe = m.probe
}

// pinged asks for the state, now.
type pinged struct{}

func (pinged) apply(_ context.Context, n *node) { n.changed = true }
