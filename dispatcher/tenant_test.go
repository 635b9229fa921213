package dispatcher

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/schemas"
)

// TestTenantRunsNoMoreThanItMay: a tenant's other jobs wait, and are told why.
func TestTenantRunsNoMoreThanItMay(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{Tenants: map[string]Tenant{"default": {MaxInFlight: 1}}})
	n := s.node("a", nil, "m")
	for i := range 3 {
		s.submit("m", fmt.Sprint("j", i))
	}
	for range 3 {
		r := n.next()
		var list schemas.FlowList
		s.ask("list", "", &list)
		if len(list.Flows) != 1 || list.Flows[0].Running != 1 {
			t.Errorf("%+v: want one job that runs, of two slots", list)
		}
		if list.Flows[0].Waiting == 1 {
			var why schemas.Why
			s.ask("why", "j2", &why)
			if !strings.Contains(why.Reason, "runs as many jobs as it may at once: 1 (tenants.default.max_in_flight)") {
				t.Errorf("why: %+v", why)
			}
		}
		n.finish(r)
	}
	s.wantQueued(0)
}

// TestTenantQueuesNoMoreThanItMay: the job that is too many ends at once, and those
// that waited before it go on.
func TestTenantQueuesNoMoreThanItMay(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{Tenants: map[string]Tenant{"default": {MaxQueued: 2}}})
	n := s.node("a", nil, "m")
	s.submit("m", "j0")
	s.submit("m", "j1")
	first, second := n.next(), n.next()
	for i := range 3 {
		s.submit("m", fmt.Sprint("j", i+2))
	}
	if status, err := s.end("j4"); status != schemas.StatusError || err.Code != schemas.RateLimited || !strings.Contains(err.Message, "tenants.default.max_queued") {
		t.Errorf("the job that is too many ended %s: %v", status, err)
	}
	n.finish(first)
	n.finish(second)
	var went []string
	for range 2 {
		r := n.next()
		went = append(went, r.offer.Header.Get(schemas.HeaderJob))
		n.finish(r)
	}
	slices.Sort(went)
	if !slices.Equal(went, []string{"j2", "j3"}) {
		t.Errorf("%v ran, want those that waited before", went)
	}
	s.wantQueued(0)
}

// TestTenantHasItsRequestsOfAMinute: what is beyond waits for the bucket to fill.
func TestTenantHasItsRequestsOfAMinute(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{Tenants: map[string]Tenant{"default": {RequestsPerMinute: 120}}})
	n := s.node("a", nil, "m")
	for i := range 121 {
		s.submit("m", fmt.Sprint("j", i))
	}
	for range 121 { // the last one comes within a second, as two come each
		n.finish(n.next())
	}
	s.wantQueued(0)
}

// TestBucketGivesNoMoreThanItsRate: whatever is taken when, over any time no more goes
// out than was in it and came since, but for the last draw, which may overdraw.
func TestBucketGivesNoMoreThanItsRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := bucket{perMinute: rapid.IntRange(1, 600).Draw(t, "rate")}
		now := time.Unix(0, 0)
		began, taken, last := now, 0.0, 0.0
		for range rapid.IntRange(1, 50).Draw(t, "draws") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(20*time.Second)).Draw(t, "pause")))
			if b.empty(1, now) {
				continue
			}
			n := rapid.Int64Range(1, 1000).Draw(t, "n")
			b.take(n, now)
			taken, last = taken+float64(n), float64(n)
		}
		if most := float64(b.perMinute)*(1+now.Sub(began).Minutes()) + last; taken > most+1e-6 {
			t.Fatalf("%v were taken, want %v at most", taken, most)
		}
	})
}
