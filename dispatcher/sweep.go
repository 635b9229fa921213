package dispatcher

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

const (
	countEvery   = 2 * time.Second // the stream is counted so often, which heals lost hints
	extendEvery  = broker.AckWait / 3
	parkedAtMost = 25 * time.Second // then a job is looked at as if it came just now
	memory       = time.Minute      // how long failed and void runs are remembered
	lossMemory   = time.Hour        // how long lost nodes are, after the last
	markMemory   = 24 * time.Hour   // as long as results are kept
	endingAtOnce = 64               // jobs of an unknown model that are ended at a time
)

// sweep looks at what only time changes.
func (t *term) sweep(now time.Time) {
	if t == nil {
		return
	}
	if !t.counting && now.Sub(t.counted) > countEvery {
		t.count()
	}
	t.moveDue(now)
	t.saveShares(now)
	t.budget(now)
	t.dropLostPulls(now)
	t.sweepOffers(now)
	t.sweepFlows(now)
	t.sweepParked(now)
	t.sweepResults(now)
	maps.DeleteFunc(t.fleet.lost, func(_ string, at time.Time) bool { return now.Sub(at) > backWithin })
	maps.DeleteFunc(t.voided, func(_ jobKey, v voided) bool { return now.Sub(v.at) > memory })
	maps.DeleteFunc(t.avoid, func(_ jobKey, a avoided) bool { return now.Sub(a.at) > memory })
	maps.DeleteFunc(t.losses, func(_ jobKey, l losses) bool { return now.Sub(l.at) > lossMemory })
	maps.DeleteFunc(t.marks, func(_ jobKey, at time.Time) bool { return now.Sub(at) > markMemory })
}

// dropLostPulls gives up on pulls that nothing will answer.
func (t *term) dropLostPulls(now time.Time) {
	for _, f := range t.flows {
		for range f.lost(now) {
			w, _ := f.unheard(now)
			t.unwant(f, w, now)
		}
	}
}

// sweepFlows ends the jobs of models that nobody has, and forgets the flows that
// hold nothing.
func (t *term) sweepFlows(now time.Time) {
	for subject, f := range t.flows {
		busy := f.Waiting() > 0 || len(f.awaiting) > 0
		switch {
		case !busy && f.held == 0 && f.consumer == nil:
			delete(t.flows, subject)
			delete(t.byKey, f.Flow.Flow)
			delete(f.tenant.flows, f)
			t.fleet.place.Forget(f.Flow)
		case !busy || t.fleet.place.Serves(placement.Ask{Model: f.Model}) || f.pause != nil || !t.pauses.known || t.fleet.expects(f.Model, now):
			f.unknown = time.Time{}
		case f.unknown.IsZero():
			f.unknown = now
		case now.Sub(f.unknown) >= t.cfg.UnknownModelWait:
			t.endUnknown(f, now)
		}
	}
	for _, f := range t.paused {
		f.regard(now)
	}
	t.paused = t.paused[:0]
	for _, x := range t.tenants {
		x.regard(now)
	}
}

// endUnknown has jobs fetched that are to end, a few at a time.
func (t *term) endUnknown(f *flow, now time.Time) {
	if f.consumer == nil && !t.consumers.open(t, f, now) {
		return
	}
	for f.Waiting() > 0 && len(f.awaiting)+f.held < endingAtOnce {
		f.wait(f.Waiting()-1, now)
		f.awaiting = append(f.awaiting, want{})
	}
	t.fetch(f, now)
}

// modelNotFound is the error of jobs that name a model nobody has.
func (t *term) modelNotFound(model string) *schemas.Error {
	known := t.fleet.place.Models()
	if len(known) == 0 {
		return schemas.Errorf(schemas.ModelNotFound, "no node serves the model %q: no node serves any model now", model)
	}
	near := nearest(model, known, 3)
	return schemas.Errorf(schemas.ModelNotFound, "no node serves the model %q; the nearest that are served: %s", model, strings.Join(near, ", "))
}

// sweepParked keeps the deliveries that wait here ours, and ends jobs that nobody can
// run any more. None is given back to the queue while it is ours: that would count as
// an attempt.
func (t *term) sweepParked(now time.Time) {
	extend := now.Sub(t.extended) > extendEvery
	if extend {
		t.extended = now
	}
	for _, j := range slices.Clone(t.parked) {
		switch {
		case now.After(j.lease):
			t.unpark(j, now)
			t.giveBack(j, time.Second)
			continue
		case !j.Deadline.IsZero() && now.After(j.Deadline), now.Sub(j.parked) > parkedAtMost:
			if err := t.mayRun(j, now); err != nil {
				t.unpark(j, now)
				t.finish(j, schemas.AsError(err), now)
				continue
			}
		}
		if extend {
			t.extend(j, now)
		}
	}
}

func (t *term) extend(j *job, now time.Time) {
	t.spawn(func() {
		ctx, cancel := context.WithTimeout(t.ctx, 2*time.Second)
		defer cancel()
		if err := broker.Extend(ctx, t.nc, j.ack); err != nil {
			return // the lease says when to stop hoping
		}
		t.post(func() { j.lease = now.Add(broker.AckWait) })
	})
}

// nearest lists the n names that differ least from name.
func nearest(name string, known []string, n int) []string {
	sorted := slices.Clone(known)
	slices.SortStableFunc(sorted, func(a, b string) int { return distance(name, a) - distance(name, b) })
	return sorted[:min(n, len(sorted))]
}

// distance is the number of bytes to insert, delete or replace to turn a into b
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
