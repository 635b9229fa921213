package worker

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
)

// aliveWithin is how long a worker that is well takes at most to turn to what comes.
const aliveWithin = 10 * time.Second

// Alive returns an error where the worker has not turned to anything for 10 s: then
// something is wrong with it that only a restart mends. Anybody may call it.
func (w *Worker) Alive() error {
	if since := time.Since(time.Unix(0, w.turned.Load())); since > aliveWithin {
		return fmt.Errorf("it hangs, for %s", since.Round(time.Second))
	}
	return nil
}

// Serves returns an error where none of the node's backends is healthy, with what ails
// them. Anybody may call it.
func (w *Worker) Serves() error {
	s := w.shown.Load()
	if s == nil || len(s.Backends) == 0 {
		return errors.New("none was found yet")
	}
	var ills []string
	for _, b := range s.Backends {
		if b.Healthy {
			return nil
		}
		ills = append(ills, b.Name+": "+cmp.Or(b.Error, "not asked yet"))
	}
	return errors.New(strings.Join(ills, "; "))
}
