package sim

import (
	"context"
	"net/http"
	"time"
)

// An outcome is how a request ended.
type outcome int

const (
	whole  outcome = iota
	broken         // as it was told to, or by an unload
	gone           // the client left
)

// batch is how much is written at once where tokens come as fast as it goes.
const batch = 48 << 10

// held is how much net/http keeps of what is written and not flushed.
const held = 2 << 10

// frames are the pieces of a stream in one dialect. The text of a token, which
// needs no escapes but for quotes, goes between before and after.
type frames struct {
	kind          string // the content type
	first         []byte
	before, after []byte
	last          []byte
	failure       []byte // a line that says that something went wrong
}

// A writer writes one stream.
type writer struct {
	w    http.ResponseWriter
	out  *http.ResponseController
	f    *frames
	seat *seat
	buf  []byte
}

// stream writes the tokens at the model's pace, and however the answer ends.
func (w *writer) stream(ctx context.Context, tokens []string) outcome {
	w.w.Header().Set("Content-Type", w.f.kind)
	w.w.Header().Set("Cache-Control", "no-cache")
	fail := w.seat.failure
	m := &w.seat.model
	pace := newPace(m.FirstToken, m.TokenInterval)
	defer pace.stop()
	w.buf = append(w.buf, w.f.first...)
	for i, token := range tokens {
		if fail.End != "" && i == fail.After {
			return w.end(ctx, fail.End)
		}
		if end, ok := w.pause(ctx, pace); !ok {
			return end
		}
		w.buf = append(w.buf, w.f.before...)
		w.buf = appendEscaped(w.buf, token)
		w.buf = append(w.buf, w.f.after...)
		if m.TokenInterval > 0 || len(w.buf) >= batch {
			if !w.flush() {
				return gone
			}
		}
	}
	if fail.End != "" {
		return w.end(ctx, fail.End)
	}
	if len(w.buf)+len(w.f.last) > held && !w.flush() {
		return gone
	}
	// The end goes out when the handler returns: whoever reads it finds the slot free.
	if _, err := w.w.Write(append(w.buf, w.f.last...)); err != nil {
		return gone
	}
	return whole
}

// pause waits until the next token is due.
func (w *writer) pause(ctx context.Context, p *pace) (outcome, bool) {
	wait := p.next()
	if wait == nil {
		select {
		case <-ctx.Done():
			return gone, false
		case <-w.seat.cut:
			return w.end(ctx, EndGarbage), false
		default:
			return whole, true
		}
	}
	select {
	case <-ctx.Done():
		return gone, false
	case <-w.seat.cut:
		return w.end(ctx, EndGarbage), false
	case <-wait:
		return whole, true
	}
}

func (w *writer) flush() bool {
	_, err := w.w.Write(w.buf)
	w.buf = w.buf[:0]
	return err == nil && w.out.Flush() == nil
}

// end ends the stream before its time.
func (w *writer) end(ctx context.Context, how End) outcome {
	switch how {
	case EndError:
		w.buf = append(w.buf, w.f.failure...)
	case EndGarbage:
		w.buf = append(w.buf, "proxy error: Failed to read connection"...)
	case EndCut, EndClean, EndStall: // without a word
	}
	w.flush()
	switch how {
	case EndCut:
		panic(http.ErrAbortHandler) // the one way to break a connection from a handler
	case EndStall:
		<-ctx.Done()
		return gone
	default:
		return broken
	}
}

// A pace says when tokens are due: the first after a while, and each other an
// interval after the one before it, counted from the start so that waits don't
// add up.
type pace struct {
	due      time.Time
	interval time.Duration
	timer    *time.Timer
}

func newPace(first, interval time.Duration) *pace {
	return &pace{due: time.Now().Add(first), interval: interval, timer: time.NewTimer(0)}
}

// next returns what to wait for, nil for a token that is due.
func (p *pace) next() <-chan time.Time {
	wait := time.Duration(0)
	if p.interval > 0 || !p.due.IsZero() {
		wait = time.Until(p.due)
	}
	p.due = p.due.Add(p.interval)
	if p.interval == 0 {
		p.due = time.Time{}
	}
	if wait <= 0 {
		return nil
	}
	p.timer.Reset(wait)
	return p.timer.C
}

func (p *pace) stop() { p.timer.Stop() }

// appendEscaped appends a word of the story as the inside of a JSON string.
func appendEscaped(out []byte, word string) []byte {
	for i := range len(word) {
		if word[i] == '"' || word[i] == '\\' {
			out = append(out, '\\')
		}
		out = append(out, word[i])
	}
	return out
}
