package dispatcher

import (
	"hash/maphash"
	"slices"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// Jobs that are not due yet are in a stream of their own, VJ_LATER. The leader reads
// their headers as they come, and those that are there when it begins to lead. It
// keeps in memory when each is due, and moves it into the queue then.

// A delayed is what is kept of a job that is not due: little, as there may be a
// million of them.
type delayed struct {
	due  int64  // in ns since 1970; 0: at once
	seq  uint64 // in the stream
	job  uint32 // a hash of its tenant and its id
	flow uint32 // a hash of its subject
}

// before orders jobs that are due at the same time as they came.
func (d delayed) before(e delayed) bool { return d.due < e.due || d.due == e.due && d.seq < e.seq }

// soonest is a heap: the job that is due first is the first.
type soonest []delayed

func (s *soonest) push(d delayed) {
	*s = append(*s, d)
	s.up(len(*s) - 1)
}

// remove takes out the job at i.
func (s *soonest) remove(i int) delayed {
	h := *s
	last := len(h) - 1
	d := h[i]
	h[i] = h[last]
	*s = h[:last]
	if i < last {
		s.up(s.down(i))
	}
	return d
}

// up moves the job at i up to its place.
func (s *soonest) up(i int) {
	h := *s
	for i > 0 && h[i].before(h[(i-1)/2]) {
		h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
		i = (i - 1) / 2
	}
}

// down moves the job at i down to its place, and returns where that is.
func (s *soonest) down(i int) int {
	h := *s
	for {
		first := i
		for _, child := range []int{2*i + 1, 2*i + 2} {
			if child < len(h) && h[child].before(h[first]) {
				first = child
			}
		}
		if first == i {
			return i
		}
		h[i], h[first] = h[first], h[i]
		i = first
	}
}

// A backlog is the jobs of one flow that are due, and not in the queue yet.
type backlog struct {
	jobs []delayed // in their order
	rest time.Time // until when the queue is left alone, as it was full
}

// later is what the leader knows of the jobs that are not due.
type later struct {
	seed    maphash.Seed
	waiting soonest
	due     map[uint32]*backlog // by flow
	moving  map[uint64]delayed  // by sequence
	movers  int
	armed   int64           // when the first one is due that a timer was set for
	last    uint64          // sequence that was read
	gone    map[uint64]bool // those after that which were cancelled
	loaded  bool            // all that were there are known
	asked   []func()        // what waits for that
}

func newLater() later {
	return later{seed: maphash.MakeSeed(), due: map[uint32]*backlog{}, moving: map[uint64]delayed{}, gone: map[uint64]bool{}}
}

// of returns what is kept of a job.
func (l *later) of(j *schemas.Job, subject string, seq uint64, err error) delayed {
	d := delayed{seq: seq, job: l.jobHash(j.Flow.Tenant, j.ID), flow: uint32(maphash.String(l.seed, subject))}
	if err == nil && j.At.Unix() > 0 {
		d.due = j.At.Unix() * int64(time.Second)
		if d.due/int64(time.Second) != j.At.Unix() {
			d.due = 1<<63 - 1 // after 2262
		} else {
			d.due += int64(j.At.Nanosecond())
		}
	}
	return d
}

func (l *later) jobHash(tenant, id string) uint32 {
	return uint32(maphash.String(l.seed, tenant+"."+id))
}

// read takes in a job that was read.
func (l *later) read(d delayed) {
	l.last = max(l.last, d.seq)
	if l.gone[d.seq] {
		delete(l.gone, d.seq)
		return
	}
	l.add(d)
}

// restore takes in a job again that was taken out.
func (l *later) restore(d delayed) {
	if l.gone[d.seq] {
		delete(l.gone, d.seq) // it's read later
		return
	}
	l.add(d)
}

func (l *later) add(d delayed) { l.waiting.push(d) }

// become moves those that are due to the backlogs of their flows.
func (l *later) become(now time.Time) {
	for len(l.waiting) > 0 && l.waiting[0].due <= now.UnixNano() {
		d := l.waiting.remove(0)
		b := l.due[d.flow]
		if b == nil {
			b = &backlog{}
			l.due[d.flow] = b
		}
		b.jobs = append(b.jobs, d)
	}
}

// take takes up to most jobs of a backlog that is not at rest, to be moved.
func (l *later) take(flow uint32, most int, now time.Time) []delayed {
	b := l.due[flow]
	if now.Before(b.rest) {
		return nil
	}
	n := min(most, len(b.jobs))
	jobs := b.jobs[:n:n]
	b.jobs = b.jobs[n:]
	if len(b.jobs) == 0 {
		delete(l.due, flow)
	}
	for _, d := range jobs {
		l.moving[d.seq] = d
	}
	return jobs
}

// moved takes back what take gave, of which the last left could not be moved. They
// are tried again after the rest.
func (l *later) moved(flow uint32, jobs []delayed, left int, rest time.Time) {
	for _, d := range jobs {
		delete(l.moving, d.seq)
	}
	if left == 0 {
		return
	}
	b := l.due[flow]
	if b == nil {
		b = &backlog{}
		l.due[flow] = b
	}
	b.jobs = append(jobs[len(jobs)-left:], b.jobs...)
	b.rest = rest
}

// find returns the sequences of jobs that may be this one: hardly ever more than one.
func (l *later) find(k jobKey) (seqs []uint64) {
	hash := l.jobHash(k.tenant, k.id)
	look := func(jobs []delayed) {
		for i := range jobs {
			if jobs[i].job == hash {
				seqs = append(seqs, jobs[i].seq)
			}
		}
	}
	look(l.waiting)
	for _, b := range l.due {
		look(b.jobs)
	}
	for _, d := range l.moving {
		look([]delayed{d})
	}
	return seqs
}

// remove takes a job out. It reports false where there is none, or where it is on its
// way into the queue.
func (l *later) remove(seq uint64) (delayed, bool) {
	if seq > l.last {
		l.gone[seq] = true
		return delayed{seq: seq}, true
	}
	is := func(d delayed) bool { return d.seq == seq }
	if i := slices.IndexFunc(l.waiting, is); i >= 0 {
		return l.waiting.remove(i), true
	}
	for flow, b := range l.due {
		if i := slices.IndexFunc(b.jobs, is); i >= 0 {
			d := b.jobs[i]
			if b.jobs = slices.Delete(b.jobs, i, i+1); len(b.jobs) == 0 {
				delete(l.due, flow)
			}
			return d, true
		}
	}
	return delayed{}, false
}
