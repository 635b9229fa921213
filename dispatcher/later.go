package dispatcher

import (
	"container/heap"
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
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

// soonest is a heap: the job that is due first is the first.
type soonest []delayed

func (s soonest) Len() int           { return len(s) }
func (s soonest) Less(i, j int) bool { return s[i].before(s[j]) }
func (s soonest) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *soonest) Push(d any)        { *s = append(*s, d.(delayed)) } //nolint:errcheck,forcetypeassert // heap.Push passes nothing else
func (s *soonest) Pop() any {
	last := len(*s) - 1
	d := (*s)[last]
	*s = (*s)[:last]
	return d
}

// before orders jobs that are due at the same time as they came.
func (d delayed) before(e delayed) bool { return d.due < e.due || d.due == e.due && d.seq < e.seq }

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

func (l *later) add(d delayed) { heap.Push(&l.waiting, d) }

// become moves those that are due to the backlogs of their flows.
func (l *later) become(now time.Time) {
	for len(l.waiting) > 0 && l.waiting[0].due <= now.UnixNano() {
		d, _ := heap.Pop(&l.waiting).(delayed)
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
		d, ok := heap.Remove(&l.waiting, i).(delayed)
		return d, ok
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

// followLater reads what is in the stream of delayed jobs, and what comes, until the
// term ends.
func (t *term) followLater() {
	t.spawn(func() {
		r := &laterReader{t: t}
		for t.ctx.Err() == nil {
			err := r.read()
			if t.ctx.Err() != nil {
				return
			}
			t.cfg.Logger.Warn("delayed jobs are not followed for now", "err", err)
			r.all = true // those that are known must do
			r.pass()
			select {
			case <-t.ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
}

// A laterReader reads the stream of delayed jobs. It belongs to its own goroutine.
type laterReader struct {
	t     *term
	last  uint64    // sequence that was read
	batch []delayed // read, and not passed on
	all   bool      // what comes now was not there when the term began
}

// Jobs are passed on in batches: of so many, or of what came until nothing did for so
// long.
const (
	laterBatch = 1000
	laterPause = 20 * time.Millisecond
)

// read reads on until something fails or the term ends.
func (r *laterReader) read() error {
	cfg := jetstream.OrderedConsumerConfig{HeadersOnly: true, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.last + 1}
	c, err := r.t.js.OrderedConsumer(r.t.ctx, broker.StreamLater, cfg)
	if err != nil {
		return err //nolint:wrapcheck // the caller says what this is about
	}
	msgs, err := c.Messages()
	if err != nil {
		return err //nolint:wrapcheck // as above
	}
	defer msgs.Stop()
	if c.CachedInfo().NumPending == 0 {
		r.all = true
		r.pass()
	}
	for {
		opt := jetstream.NextContext(r.t.ctx)
		if len(r.batch) > 0 {
			opt = jetstream.NextMaxWait(laterPause)
		}
		switch m, err := msgs.Next(opt); {
		case err == nil:
			r.take(m)
		case len(r.batch) == 0:
			return err //nolint:wrapcheck // as above
		default: // no more for now
			r.all = r.all || errors.Is(err, nats.ErrTimeout)
			r.pass()
		}
	}
}

// take takes one job.
func (r *laterReader) take(m jetstream.Msg) {
	meta, err := m.Metadata()
	if err != nil {
		return // it's none of a consumer's
	}
	r.last = meta.Sequence.Stream
	j, bad := schemas.ReadLater(m.Headers().Get, m.Subject(), r.last, r.t.cfg.Replies)
	r.batch = append(r.batch, r.t.later.of(j, m.Subject(), r.last, bad))
	if r.all && bad == nil && j.At.After(time.Now()) {
		r.t.tell(j, schemas.JobEvent{Event: schemas.JobEventDelayed, Due: j.At})
	}
	r.all = r.all || meta.NumPending == 0
	if meta.NumPending == 0 || len(r.batch) == laterBatch {
		r.pass()
	}
}

// pass passes on what was read.
func (r *laterReader) pass() {
	batch, all := r.batch, r.all
	r.batch = nil
	r.t.post(func() { r.t.arrivedLater(batch, all, time.Now()) })
}

// arrivedLater takes in delayed jobs that were read. all says that those that were
// there are known now.
func (t *term) arrivedLater(jobs []delayed, all bool, now time.Time) { //nolint:revive // flag-parameter: a fact, not a mode
	for _, d := range jobs {
		t.later.read(d)
	}
	if all && !t.later.loaded {
		t.later.loaded = true
		for _, do := range t.later.asked {
			do()
		}
		t.later.asked = nil
	}
	t.moveDue(now)
}

// whenLaterKnown does what needs to know which jobs are delayed.
func (t *term) whenLaterKnown(do func()) {
	if t.later.loaded {
		do()
		return
	}
	t.later.asked = append(t.later.asked, do)
}

// moveDue has the jobs moved into the queue that are due.
func (t *term) moveDue(now time.Time) {
	if !t.closing.IsZero() {
		return
	}
	l := &t.later
	l.become(now)
	for flow := range l.due {
		for l.movers < mostMovers && l.due[flow] != nil {
			jobs := l.take(flow, moveBatch, now)
			if len(jobs) == 0 {
				break
			}
			l.movers++
			t.move(flow, jobs)
		}
	}
	if len(l.waiting) == 0 || l.waiting[0].due == l.armed {
		return
	}
	next := time.Unix(0, l.waiting[0].due).Sub(now)
	if next > 2*sweepEvery {
		return // a sweep comes before it is due
	}
	l.armed = l.waiting[0].due
	time.AfterFunc(next, func() { t.post(func() { t.moveDue(time.Now()) }) })
}

// Bounds of moving. A mover has one job in memory at a time.
const (
	mostMovers  = 16
	moveBatch   = 64
	moveTimeout = 10 * time.Second // of one job
	fullRest    = time.Second
	failedRest  = 5 * time.Second
)

// move moves jobs into the queue, in their order.
func (t *term) move(flow uint32, jobs []delayed) {
	t.spawn(func() {
		left, err := t.moveAll(jobs)
		t.post(func() {
			now := time.Now()
			rest := now
			switch {
			case broker.Full(err):
				rest = now.Add(fullRest)
			case err != nil:
				rest = now.Add(failedRest)
				t.cfg.Logger.Warn("jobs that are due were not queued", "err", err)
			}
			t.later.movers--
			t.later.moved(flow, jobs, left, rest)
			t.moveDue(now)
		})
	})
}

// moveAll moves jobs into the queue, and returns how many are left, and why.
func (t *term) moveAll(jobs []delayed) (left int, err error) {
	stream, err := t.laterStream(t.ctx)
	for i := range jobs {
		if err == nil {
			err = t.ctx.Err()
		}
		if err == nil {
			err = t.moveOne(stream, jobs[i].seq)
		}
		if err != nil {
			return len(jobs) - i, err
		}
	}
	return 0, nil
}

// laterStream returns the stream of delayed jobs.
func (t *term) laterStream(ctx context.Context) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	return t.js.Stream(ctx, broker.StreamLater) //nolint:wrapcheck // the caller says what this is about
}
