package dispatcher

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// scrape returns what the dispatcher tells, by name and labels, as "name{a=b,c=d}":
// histograms by how often they were observed.
func (s *system) scrape() map[string]float64 {
	s.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(s.d); err != nil {
		s.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		s.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			all[fmt.Sprintf("%s{%s}", f.GetName(), strings.Join(labels, ","))] =
				m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// wantMetrics waits until the dispatcher tells what is wanted.
func (s *system) wantMetrics(want map[string]float64) {
	s.Helper()
	var got map[string]float64
	for stop := time.Now().Add(patience); time.Now().Before(stop); time.Sleep(20 * time.Millisecond) {
		got = s.scrape()
		ok := true
		for name, v := range want {
			if have, there := got[name]; !there || have != v {
				ok = false
			}
		}
		if ok {
			return
		}
	}
	for name, v := range want {
		if got[name] != v {
			s.Errorf("%s is %v, want %v", name, got[name], v)
		}
	}
}

// TestMetrics: what becomes of jobs is counted.
func TestMetrics(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{Tenants: map[string]Tenant{"default": {Weight: 3, MaxInFlight: 2}}})
	a := s.node("a", nil, "m")
	s.wantMetrics(map[string]float64{"vramjet_leader{}": 1}) // what comes before is not counted
	s.ask("status", "nobody", &schemas.APIError{})           // and it has subscribed when it answers
	s.submit("m", "j1")
	s.submit("m", "j2")
	s.submit("m", "j3")
	first, second := a.next(), a.next()
	s.wantMetrics(map[string]float64{
		"vramjet_leader{}": 1, "vramjet_failovers_total{}": 1, "vramjet_leases{}": 2,
		"vramjet_jobs_submitted_total{class=normal,model=m,tenant=default}":   3,
		"vramjet_queue_jobs{class=normal,model=m,state=blocked}":              1,
		"vramjet_queue_jobs{class=normal,model=m,state=waiting}":              0,
		"vramjet_tenant_throttled_total{reason=max_in_flight,tenant=default}": 1,
		"vramjet_tenant_weight{tenant=default}":                               3,
		"vramjet_node_up{node=a}":                                             1,
		"vramjet_node_slots{kind=total,node=a}":                               2,
		"vramjet_route_total{reason=resident}":                                2,
		"vramjet_dispatch_seconds{}":                                          2,
		"vramjet_queue_wait_seconds{cause=capacity,class=normal,model=m}":     2,
	})
	if got := s.scrape()["vramjet_queue_oldest_seconds{class=normal,model=m}"]; got <= 0 || got > patience.Seconds() {
		t.Errorf("the oldest job waits for %v s", got)
	}
	a.finish(first)
	a.free(second, schemas.StreamBroken, 0) // before it comes again, as a node says it
	if err := broker.Nak(t.Context(), a.nc, second.ack, 0); err != nil {
		t.Fatal(err)
	}
	a.finish(a.next())
	third := a.next()
	s.wantMetrics(map[string]float64{
		"vramjet_jobs_finished_total{class=normal,model=m,outcome=ok,tenant=default}": 2,
		"vramjet_job_duration_seconds{class=normal,model=m,outcome=ok}":               2,
		"vramjet_job_retries_total{reason=stream_broken}":                             1,
	})
	b := s.node("b", nil, "m")
	a.kill()
	if r := b.next(); r.job() != third.job() {
		t.Errorf("b got %s", r.job())
	} else {
		b.finish(r)
	}
	s.wantMetrics(map[string]float64{
		"vramjet_job_losses_total{node=a}": 1, "vramjet_rescue_seconds{}": 1, "vramjet_leases{}": 0,
		"vramjet_jobs_finished_total{class=normal,model=m,outcome=ok,tenant=default}": 3,
	})
	s.submit("unknown", "j4", schemas.HeaderDeadline, time.Now().Add(-time.Second).UTC().Format(time.RFC3339))
	s.wantMetrics(map[string]float64{"vramjet_jobs_finished_total{class=normal,model=unknown,outcome=expired,tenant=default}": 1})
}

// TestStandbyCountsNothing: the sum over all dispatchers is what happened.
func TestStandbyCountsNothing(t *testing.T) {
	s := newSystem(t)
	s.dispatch(Config{})
	a := s.node("a", nil, "m")
	s.submit("m", "j1")
	a.finish(a.next())
	leads := s.d
	s.dispatch(Config{})
	if s.d == leads {
		t.Fatal("there is one dispatcher only")
	}
	s.submit("m", "j2")
	a.finish(a.next())
	for name, v := range s.scrape() {
		if v != 0 && !strings.Contains(name, "_sum") {
			t.Errorf("the standby says that %s is %v", name, v)
		}
	}
	s.d = leads
	s.wantMetrics(map[string]float64{"vramjet_jobs_finished_total{class=normal,model=m,outcome=ok,tenant=default}": 2})
}

func TestBounded(t *testing.T) {
	b := bounded{most: 2}
	for _, c := range []struct{ name, want string }{{"a", "a"}, {"b", "b"}, {"c", others}, {"a", "a"}, {"d", others}} {
		if got := b.label(c.name); got != c.want {
			t.Errorf("%s is counted as %s, want %s", c.name, got, c.want)
		}
	}
}

// TestOldest: the first job that waits came after the one that was fetched last, and after
// nothing waited.
func TestOldest(t *testing.T) {
	fleet := newFleet()
	at := func(s int) time.Time { return fleet.began.Add(time.Duration(s) * time.Second) }
	f := &flow{Flow: fleet.place.Flow(schemas.Flow{Tenant: "t", Class: schemas.Normal, Model: "m"}, 1), fleet: fleet}
	want := func(now int, want time.Duration) {
		t.Helper()
		if got := f.oldest(at(now)); got != want {
			t.Errorf("at %d s: %s, want %s", now, got, want)
		}
	}
	want(1, 0)
	f.arrived(at(1))
	f.arrived(at(4))
	want(5, 4*time.Second)
	f.next = at(3)
	want(5, 2*time.Second)
	f.wait(0, at(6))
	want(7, 0)
	f.arrived(at(10))
	want(10, time.Millisecond)
	want(12, 2*time.Second)
}

// TestAlive: a dispatcher lives while its loop turns.
func TestAlive(t *testing.T) {
	s := newSystem(t)
	stop := s.dispatch(Config{})
	long := time.Now().Add(-time.Minute).UnixNano()
	s.d.turned.Store(long)
	for end := time.Now().Add(patience); s.d.Alive() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("its loop turns, and it is said: %v", s.d.Alive())
		}
	}
	stop()
	s.d.turned.Store(long)
	if err := s.d.Alive(); err == nil || err.Error() != "it hangs, for 1m0s" {
		t.Errorf("a loop that does not turn: %v", err)
	}
}
