package dashboard

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

const (
	mostJobs  = 200  // that are shown
	mostEnded = 60   // of them
	mostHeard = 2000 // that are remembered
)

// A jobKey names a job.
type jobKey struct{ tenant, id string }

// jobView is a job as it is shown: what became of it when. A zero time is one that is
// not known, or has not come.
type jobView struct {
	Job     string           `json:"job"`
	Tenant  string           `json:"tenant"`
	Class   schemas.Class    `json:"class"`
	Model   string           `json:"model"`
	State   schemas.JobState `json:"state"`
	Node    string           `json:"node"`
	Backend string           `json:"backend"`
	Attempt uint64           `json:"attempt"`
	Code    schemas.Code     `json:"code"`
	Tokens  int64            `json:"tokens"` // of its prompt and its answer; 0: unknown
	Queued  time.Time        `json:"queued,omitzero"`
	Started time.Time        `json:"started,omitzero"` // its newest attempt
	Ended   time.Time        `json:"ended,omitzero"`
}

func (j *jobView) key() jobKey { return jobKey{j.Tenant, j.Job} }

// jobsHeard are the jobs of which something was heard lately.
type jobsHeard struct {
	of    map[jobKey]*jobView
	order []jobKey // the first heard of first
}

// get returns a job, and remembers it from now on.
func (h *jobsHeard) get(k jobKey) *jobView {
	if j := h.of[k]; j != nil {
		return j
	}
	if len(h.order) >= mostHeard {
		delete(h.of, h.order[0])
		h.order = h.order[1:]
	}
	j := &jobView{Job: k.id, Tenant: k.tenant}
	h.of[k], h.order = j, append(h.order, k)
	return j
}

// happened takes note of what became of a job. It reports whether there may be a dead
// letter of it.
func (b *board) happened(m *nats.Msg) (dead bool) {
	var e schemas.JobEvent
	tenant, _, _ := strings.Cut(strings.TrimPrefix(m.Subject, schemas.EventsPrefix), ".")
	if json.Unmarshal(m.Data, &e) != nil || e.Job == "" {
		return false
	}
	j := b.jobs.get(jobKey{tenant, e.Job})
	j.Model, j.Class = cmp.Or(e.Model, j.Model), cmp.Or(e.Class, j.Class)
	j.Node, j.Backend = cmp.Or(e.Node, j.Node), cmp.Or(e.Backend, j.Backend)
	j.Attempt, j.Tokens = max(e.Attempt, j.Attempt), max(e.Tokens, j.Tokens)
	note := ""
	switch e.Event {
	case schemas.JobEventDelayed:
		j.State = schemas.JobDelayed
	case schemas.JobEventQueued:
		j.State, j.Queued = schemas.JobQueued, e.At
	case schemas.JobEventStarted:
		j.State, j.Started = schemas.JobRunning, e.At
	case schemas.JobEventRetried:
		j.State, j.Code = schemas.JobQueued, e.Code
		note = string(e.Code)
	case schemas.JobEventEnded:
		j.State, j.Code, j.Ended = schemas.JobState(e.Status), e.Code, e.At
		note = strings.TrimSpace(string(e.Status) + " " + string(e.Code))
		b.rates.add(e.At, e.Tokens)
	default:
		return false
	}
	b.note(eventView{At: e.At, What: string(e.Event), Tenant: tenant, Job: e.Job, Model: j.Model, Class: j.Class, Node: e.Node, Note: note})
	return e.Event == schemas.JobEventEnded && e.Status == schemas.StatusError
}

// jobsView are the jobs that are shown: those that run, that wait and that ended, of
// each the newest first.
type jobsView struct {
	Rows    []jobView `json:"rows"`
	Trouble string    `json:"trouble"`
}

// jobRows lists the jobs that are shown.
func (b *board) jobRows() jobsView {
	v := jobsView{Rows: []jobView{}, Trouble: b.queue.trouble}
	listed := map[jobKey]bool{}
	add := func(j jobView) {
		if k := j.key(); !listed[k] {
			listed[k] = true
			v.Rows = append(v.Rows, j)
		}
	}
	for _, l := range b.queue.jobs {
		j := jobView{
			Job: l.Job, Tenant: l.tenant, Class: l.Class, Model: l.Model, State: l.State, Node: l.Node, Backend: l.Backend,
			Attempt: l.Attempt, Code: l.Code, Queued: l.At,
		}
		if ended := j.ended(); ended {
			j.Queued, j.Ended = time.Time{}, l.At
		}
		if h := b.jobs.of[j.key()]; h != nil {
			j.merge(h)
		}
		add(j)
	}
	for _, k := range b.jobs.order {
		if j := b.jobs.of[k]; j.ended() {
			add(*j)
		}
	}
	slices.SortStableFunc(v.Rows, func(a, b jobView) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), b.newest().Compare(a.newest()), cmp.Compare(a.Job, b.Job))
	})
	if first := slices.IndexFunc(v.Rows, func(j jobView) bool { return j.ended() }); first >= 0 {
		ended := v.Rows[first:]
		live := v.Rows[:min(first, mostJobs-min(len(ended), mostEnded))]
		v.Rows = slices.Concat(live, ended[:min(len(ended), mostEnded)])
	}
	v.Rows = v.Rows[:min(len(v.Rows), mostJobs)]
	return v
}

// merge adds what was heard of a job to what was listed.
func (j *jobView) merge(h *jobView) {
	if h.ended() || h.State == schemas.JobRunning && j.State == schemas.JobQueued {
		queued := j.Queued
		*j = *h
		if j.Queued.IsZero() {
			j.Queued = queued
		}
		return
	}
	if j.State == schemas.JobRunning && h.Attempt == j.Attempt {
		j.Started = h.Started
	}
	j.Code = cmp.Or(j.Code, h.Code)
}

func (j *jobView) ended() bool {
	switch j.State {
	case schemas.JobDelayed, schemas.JobQueued, schemas.JobRunning, "":
		return false
	default:
		return true
	}
}

// rank orders jobs by what they do.
func (j *jobView) rank() int {
	switch {
	case j.State == schemas.JobRunning:
		return 0
	case j.ended():
		return 2
	default:
		return 1
	}
}

func (j *jobView) newest() time.Time {
	if j.ended() {
		return j.Ended
	}
	return j.Queued
}

// rates count jobs that ended, and their tokens, second by second.
type rates struct {
	since   time.Time // counted since then
	seconds [ratesOver]struct{ at, jobs, tokens int64 }
}

// ratesOver is the time in seconds of which rates are the mean.
const ratesOver = 10

func (r *rates) add(at time.Time, tokens int64) {
	s := &r.seconds[at.Unix()%ratesOver]
	if s.at != at.Unix() {
		s.at, s.jobs, s.tokens = at.Unix(), 0, 0
	}
	s.jobs++
	s.tokens += tokens
}

// perSecond returns the rates, over whole seconds before now; nil where nothing was
// counted for long enough.
func (r *rates) perSecond(now time.Time) (jobs, tokens *float64) {
	over := min(ratesOver-1, int64(now.Sub(r.since).Seconds()))
	if over < 2 {
		return nil, nil
	}
	var j, t int64
	for _, s := range r.seconds {
		if ago := now.Unix() - s.at; ago >= 1 && ago <= over {
			j += s.jobs
			t += s.tokens
		}
	}
	perS := func(n int64) *float64 {
		f := float64(10*n/over) / 10
		return &f
	}
	return perS(j), perS(t)
}
