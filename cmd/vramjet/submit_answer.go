package main

import (
	"fmt"
	"io"
	"time"

	"github.com/vramjet/vramjet/client"
)

// An answer is what of a job's answer the user has seen.
type answer struct {
	*app
	hidden bool // it is shown as a whole, at the end
	began  bool
	last   byte
}

func (s *answer) add(text string) {
	if s.hidden || text == "" {
		return
	}
	_, _ = io.WriteString(s.out, text) // a closed stdout ends the program by itself
	s.began, s.last = true, text[len(text)-1]
	s.within.Store(s.last != '\n')
}

// end shows the whole answer where nothing of it was shown.
func (s *answer) end(r *client.Result) {
	text := r.Text()
	if s.hidden {
		s.hidden, text = false, string(r.Body)
	}
	if !s.began {
		s.add(text)
	}
	s.finish()
}

// finish ends the line.
func (s *answer) finish() {
	if s.began && s.last != '\n' {
		s.add("\n")
	}
}

// summary returns the line that stands below an answer.
func summary(r *client.Result) string {
	line := fmt.Sprintf("job %s  node %s  queued %s  ttft %s  %d tok",
		r.ID, orDash(r.Run.Node), ms(r.Run.QueuedMS), ms(r.Run.TTFTMS), r.Usage.CompletionTokens)
	if r.Run.LoadMS > 0 {
		line += "  load " + ms(r.Run.LoadMS)
	}
	if r.Run.TokensPerSec > 0 {
		line += fmt.Sprintf("  %.1f tok/s", r.Run.TokensPerSec)
	}
	return line + fmt.Sprintf("  attempt %d", r.Run.Attempt)
}

// ms returns a time in ms as people read it: 180ms, 1.2s, 2m3s.
func ms(n int64) string {
	d := time.Duration(n) * time.Millisecond
	switch {
	case d < 10*time.Second:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(100 * time.Millisecond).String()
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
