package bench

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// warmPart is the share of a point's time that goes by before anything counts.
const warmPart = 10

// drainWithin is how long what is under way at the end of a point may take.
const drainWithin = time.Minute

var (
	errNothing = errors.New("nothing ended in time: take a longer --time")
	errStuck   = errors.New("jobs did not end")
)

// A load is calls that are made again and again, so many at a time.
type load struct {
	inFlight int
	time     time.Duration
	spread   time.Duration // over which the first calls begin, so that not all end at once
}

// A sample is what a load came to.
type sample struct {
	took    []time.Duration // of each call, the shortest first
	elapsed time.Duration
}

func (s sample) rate() float64 { return float64(len(s.took)) / s.elapsed.Seconds() }

// at returns the percentile p of what calls took; 0 where there were none.
func (s sample) at(p float64) time.Duration { return percentile(s.took, p) }

// percentile returns the smallest value that p percent are not above.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(math.Ceil(p/100*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// run makes the calls until the load's time is over, and waits for those under way. A
// call returns how long what is measured of it took. The first error ends the load.
func (l load) run(ctx context.Context, call func(context.Context) (time.Duration, error)) (sample, error) {
	w := newWindow(l.time)
	var mu sync.Mutex
	var calls []ended
	ctx, cancel := context.WithDeadlineCause(ctx, w.until.Add(drainWithin), errStuck)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for i := range l.inFlight {
		group.Go(func() error {
			if err := pause(ctx, l.spread*time.Duration(i)/time.Duration(l.inFlight)); err != nil {
				return err
			}
			for time.Now().Before(w.until) {
				took, err := call(ctx)
				if err != nil {
					return err
				}
				mu.Lock()
				calls = append(calls, ended{time.Now(), took})
				mu.Unlock()
			}
			return nil
		})
	}
	err := group.Wait()
	s := w.sample(calls)
	if err == nil && len(s.took) == 0 {
		err = errNothing
	}
	return s, err
}

// A window is the time of a load: what happens in its warm-up does not count, and what
// it leaves under way does.
type window struct{ from, until time.Time }

func newWindow(d time.Duration) window {
	now := time.Now()
	return window{now.Add(d / warmPart), now.Add(d)}
}

// An ended call is when it ended, and how long it took.
type ended struct {
	at   time.Time
	took time.Duration
}

// sample returns the calls that count, and the time until the last of them ended.
func (w window) sample(calls []ended) sample {
	s := sample{elapsed: 1}
	for _, c := range calls {
		if c.at.After(w.from) {
			s.took = append(s.took, c.took)
			s.elapsed = max(s.elapsed, c.at.Sub(w.from))
		}
	}
	slices.Sort(s.took)
	return s
}

// timed makes a call of which all is measured.
func timed(call func(context.Context) error) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		began := time.Now()
		err := call(ctx)
		return time.Since(began), err
	}
}

// A flow is jobs of which so many are kept under way, whatever becomes of each.
type flow struct {
	inFlight int
	time     time.Duration
	submit   func(context.Context) error
	ended    <-chan struct{} // has an element for each job that ended
}

// rate submits jobs, waits for the ends of all, and returns how many ended a second.
func (f flow) rate(ctx context.Context) (float64, error) {
	w := newWindow(f.time)
	ctx, cancel := context.WithDeadlineCause(ctx, w.until.Add(drainWithin), errStuck)
	defer cancel()
	room := make(chan struct{}, f.inFlight)
	submitted := make(chan error, 1)
	go func() { submitted <- f.fill(ctx, room, w.until) }()
	var ends []ended
	for filling := true; filling || len(room) > 0; {
		select {
		case <-f.ended:
			ends = append(ends, ended{at: time.Now()})
			<-room
		case err := <-submitted:
			if err != nil {
				return 0, err
			}
			filling = false
		case <-ctx.Done():
			if filling {
				<-submitted //nolint:errcheck // it's ctx's
			}
			return 0, context.Cause(ctx)
		}
	}
	s := w.sample(ends)
	if len(s.took) == 0 {
		return 0, errNothing
	}
	return s.rate(), nil
}

// fill submits jobs wherever there is room, until a time.
func (f flow) fill(ctx context.Context, room chan struct{}, until time.Time) error {
	group, ctx := errgroup.WithContext(ctx)
	for range f.inFlight {
		group.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case room <- struct{}{}:
				}
				if !time.Now().Before(until) {
					<-room
					return nil
				}
				if err := f.submit(ctx); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
