package dispatcher

import (
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// prefixLengths are how much of a prompt's beginning is looked at, in bytes. Below
// the first, reading it anew costs a model server next to nothing.
var prefixLengths = [...]int{1 << 10, 4 << 10, 16 << 10, 64 << 10}

// prefixSeed is of this process, as what is remembered by the hashes is too: so they
// may be the fastest there are, and nobody can make up two prompts of one hash.
var prefixSeed = maphash.MakeSeed()

// prefixKeys returns what a model server may have in its cache of a job, the best
// first: its session, which is its tenant's own, then the beginnings of its prompt,
// the longest first. Embeddings have none: nothing of them is cached.
func prefixKeys(j *schemas.Job) []uint64 {
	if j.Kind == schemas.Embedding {
		return nil
	}
	var keys []uint64
	var h maphash.Hash
	h.SetSeed(prefixSeed)
	prompt, done := j.Prompt(), 0
	for _, n := range prefixLengths {
		if len(prompt) < n {
			break
		}
		_, _ = h.Write(prompt[done:n]) // never fails
		done = n
		keys = append(keys, h.Sum64())
	}
	if j.Session != "" {
		keys = append(keys, maphash.Comparable(prefixSeed, [2]string{j.Flow.Tenant, j.Session}))
	}
	slices.Reverse(keys)
	return keys
}

// mostPrefixes is how many prefixes are remembered: of some ten thousand prompts, in
// about 20 MB.
const mostPrefixes = 100_000

// prefixes remembers where prompts with a beginning ran last, as many as are used
// most recently.
type prefixes struct {
	most  int
	known map[prefix]*lastRun
	ends  lastRun // is newer than the newest and older than the oldest
}

// A prefix is the beginning of a prompt, or a session, as one model reads it.
type prefix struct {
	model string
	key   uint64
}

// A lastRun is where a prefix ran last, in a ring of them by age.
type lastRun struct {
	prefix
	place        string // "node/backend"
	older, newer *lastRun
}

func newPrefixes(most int) *prefixes {
	p := &prefixes{most: most, known: map[prefix]*lastRun{}}
	p.ends.older, p.ends.newer = &p.ends, &p.ends
	return p
}

// ran notes where a job with these keys runs.
func (p *prefixes) ran(model string, keys []uint64, place string) {
	for _, key := range slices.Backward(keys) { // the best is the newest
		k := prefix{model, key}
		r := p.known[k]
		if r == nil {
			r = &lastRun{prefix: k}
			p.known[k] = r
		} else {
			r.leave()
		}
		r.place, r.older, r.newer = place, p.ends.older, &p.ends
		r.older.newer, r.newer.older = r, r
		if len(p.known) > p.most {
			p.drop(p.ends.newer)
		}
	}
}

// holds returns where the first of the keys that is known ran last.
func (p *prefixes) holds(model string, keys []uint64) (place string, ok bool) {
	for _, key := range keys {
		if r := p.known[prefix{model, key}]; r != nil {
			return r.place, true
		}
	}
	return "", false
}

// lost forgets a node.
func (p *prefixes) lost(node string) {
	for _, r := range p.known {
		if strings.HasPrefix(r.place, node+"/") {
			p.drop(r)
		}
	}
}

func (p *prefixes) drop(r *lastRun) {
	delete(p.known, r.prefix)
	r.leave()
}

// leave takes r out of the ring.
func (r *lastRun) leave() { r.older.newer, r.newer.older = r.newer, r.older }

// nearCache moves a job's slot to the place that may have its prompt in its cache,
// where that could take the job now just as well. A session goes there as long as a
// slot is free. The beginning of a prompt, which all users of an application may have
// in common, only tips the scales between places with as few jobs: else all of them
// would crowd one place while others idle.
func (t *term) nearCache(j *job, now time.Time) {
	keys := j.prefixes
	if len(keys) > 0 && j.Session != "" {
		if place, ok := t.fleet.prefixes.holds(j.promise.choice.Model, keys[:1]); ok && t.moveTo(j, place, math.MaxInt, now) {
			return
		}
		keys = keys[1:]
	}
	if place, ok := t.fleet.prefixes.holds(j.promise.choice.Model, keys); ok {
		t.moveTo(j, place, 0, now)
	}
}

// moveTo gives a job a slot at a place instead of the one that it has, where its model
// is in memory at both and at most so many more jobs run there than others here. It
// reports whether the job has one there now. A slot that costs more is not taken, nor
// one that is kept for others.
func (t *term) moveTo(j *job, place string, more int, now time.Time) bool {
	from := j.promise.choice
	if place == from.Place() {
		return true
	}
	node, backend, _ := strings.Cut(place, "/")
	to := placement.Choice{Node: node, Backend: backend, Model: from.Model}
	here, cost, _ := t.fleet.inMemory(from, now)
	there, dearer, ok := t.fleet.inMemory(to, now)
	kept := t.fleet.place.Kept(to.Model, j.flow.Class, there.Slots, t.fleet.ms(now))
	switch {
	case !ok, from.Load, here.State != schemas.Resident, dearer > cost, slices.Contains(j.avoid, place),
		!slices.Contains(there.Kinds, j.Kind), there.Slots-there.Busy <= kept, there.Busy-(here.Busy-1) > more:
		return false
	}
	t.fleet.release(j.promise, now)
	j.promise = t.fleet.promise(to, now)
	return true
}
