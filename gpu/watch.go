package gpu

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	patience  = 2 * time.Second // that a caller has with a driver
	freshness = 5 * time.Second // of a reading that stands in for a new one
)

// A reading is what a source said, and when it was asked.
type reading struct {
	devices []Device
	err     error
	at      time.Time
}

// A watched reader calls its source on one goroutine, which alone may hang in a
// driver. Callers ask it, and leave when they lose patience.
type watched struct {
	source string
	why    string              // not another source; "": there was none better
	asks   chan chan<- reading // each has room for the answer
	last   atomic.Pointer[reading]
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended
	closed error         // of the source; good after done
}

// watch starts the goroutine, which Close ends.
func watch(s source) *watched {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watched{source: s.name(), asks: make(chan chan<- reading), cancel: cancel, done: make(chan struct{})}
	go w.run(ctx, s)
	return w
}

// run reads once for all who ask at the same time. Who asks during a reading
// waits for the next, as what was read may be from before the question.
func (w *watched) run(ctx context.Context, s source) {
	defer close(w.done)
	defer func() { w.closed = s.close() }()
	for {
		var waiting []chan<- reading
		select {
		case <-ctx.Done():
			return
		case a := <-w.asks:
			waiting = append(waiting, a)
		}
		for more := true; more; {
			select {
			case a := <-w.asks:
				waiting = append(waiting, a)
			default:
				more = false
			}
		}
		r := reading{at: time.Now()}
		r.devices, r.err = s.read(ctx)
		if r.err == nil {
			w.last.Store(&r)
		}
		for _, a := range waiting {
			a <- r
		}
	}
}

// Devices implements Reader.
func (w *watched) Devices(ctx context.Context) ([]Device, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the driver does not answer"))
	defer cancel()
	answer := make(chan reading, 1)
	select {
	case w.asks <- answer:
	case <-w.done:
		return nil, errors.New("the reader is closed")
	case <-ctx.Done():
		return w.stale(context.Cause(ctx))
	}
	select {
	case r := <-answer:
		if r.err != nil {
			return w.stale(r.err)
		}
		return cloneDevices(r.devices), nil
	case <-ctx.Done():
		return w.stale(context.Cause(ctx))
	}
}

// stale returns the last reading in place of one that failed, with the error
// where it is too old.
func (w *watched) stale(err error) ([]Device, error) {
	last := w.last.Load()
	if last == nil {
		return nil, fmt.Errorf("read devices by %s: %w", w.source, err)
	}
	age := time.Since(last.at)
	if age <= freshness {
		return cloneDevices(last.devices), nil
	}
	return cloneDevices(last.devices), fmt.Errorf("read devices by %s, last done %s ago: %w", w.source, age.Round(time.Second), err)
}

// Source implements Reader.
func (w *watched) Source() string {
	if w.why == "" {
		return w.source
	}
	return fmt.Sprintf("%s (not %s)", w.source, w.why)
}

// Close implements Reader.
func (w *watched) Close() error {
	w.cancel()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-w.done:
		return w.closed
	case <-late.C:
		return fmt.Errorf("close %s: a driver call hangs", w.source)
	}
}
