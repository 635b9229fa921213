package dispatcher

import (
	"fmt"
	"time"

	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// What fails every job at once always has a slot free, and would draw all jobs of its
// model. So a model of a backend that failed some jobs in a row is left alone for a
// while, and then has one job at a time until one goes well.
const (
	suspectAfter = 3
	firstRest    = time.Second // doubled with each further failure
	longestRest  = 10 * time.Second
)

// A suspect is a model of a backend that failed the last jobs it had.
type suspect struct {
	failures int
	last     time.Time // when it failed last
	until    time.Time // it is left alone until then
	rests    bool
}

// failed notes that a place failed a job, which it was given at a time. Jobs that ran
// beside each other are one failure: whatever happened, happened to all of them.
func (f *fleet) failed(c placement.Choice, given, now time.Time) {
	n := f.nodes[c.Node]
	if n == nil {
		return
	}
	k := modelKey{c.Backend, c.Model}
	s := n.suspects[k]
	if given.Before(s.last) {
		return
	}
	s.failures, s.last = s.failures+1, now
	if s.failures >= suspectAfter {
		s.rests, s.until = true, now.Add(min(longestRest, firstRest<<min(s.failures-suspectAfter, 10)))
	}
	n.suspects[k] = s
	f.refresh(c.Node, now)
}

// served notes that a place ended a job well.
func (f *fleet) served(c placement.Choice, now time.Time) {
	n := f.nodes[c.Node]
	if n == nil {
		return
	}
	k := modelKey{c.Backend, c.Model}
	if _, suspected := n.suspects[k]; suspected {
		delete(n.suspects, k)
		f.refresh(c.Node, now)
	}
}

// wakeSuspects ends the rests whose time is over, and reports whether there were any.
func (n *node) wakeSuspects(now time.Time) (woke bool) {
	for k, s := range n.suspects {
		if s.rests && now.After(s.until) {
			s.rests, woke = false, true
			n.suspects[k] = s
		}
	}
	return woke
}

// judge closes a model that is left alone, and gives one slot to one that is tried.
func (s suspect) judge(m *placement.Model, now time.Time) {
	if s.failures < suspectAfter {
		return
	}
	m.Slots = min(m.Slots, 1)
	if s.rests {
		m.Closed = fmt.Sprintf("failed its last %d jobs, and is left alone for another %s", s.failures, max(0, s.until.Sub(now)).Round(time.Second))
	}
}

// speaksAgainst reports whether an error is the fault of the place that said it, and
// will be again. Who is asked for a model has said that it serves it.
func speaksAgainst(c schemas.Code) bool {
	v := c.Verdict()
	return c == schemas.ModelNotFound || v.Action == schemas.Elsewhere && v.Blame == schemas.BlameBackend && c != schemas.Overloaded
}
