package dispatcher

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vramjet/vramjet/schemas"
)

// collectWithin bounds how long a scrape waits for the goroutine of Run.
const collectWithin = 2 * time.Second

// Describe is for prometheus.Collector.
func (d *Dispatcher) Describe(to chan<- *prometheus.Desc) {
	m := d.metrics
	for _, c := range m.counters {
		c.Describe(to)
	}
	for _, g := range []*prometheus.Desc{m.leading, m.queued, m.oldest, m.leases, m.weight, m.nodeUp, m.nodeHeard, m.nodeSlots} {
		to <- g
	}
}

// Collect is for prometheus.Collector: what was counted, and while Run runs what there is
// now. It may be called at any time.
func (d *Dispatcher) Collect(to chan<- prometheus.Metric) {
	for _, c := range d.metrics.counters {
		c.Collect(to)
	}
	now := make(chan []level, 1)
	select {
	case d.events <- func() { now <- d.levels(time.Now()) }:
	case <-d.done:
		return
	case <-time.After(collectWithin):
		return
	}
	select {
	case levels := <-now:
		for _, l := range levels {
			to <- prometheus.MustNewConstMetric(l.of, prometheus.GaugeValue, l.value, l.labels...)
		}
	case <-d.done:
	case <-time.After(collectWithin):
	}
}

// A level is the value of a gauge.
type level struct {
	of     *prometheus.Desc
	value  float64
	labels []string
}

// levels says what there is now. Nodes are the leader's to tell, as all else is.
func (d *Dispatcher) levels(now time.Time) []level {
	m := d.metrics
	if d.term == nil {
		return []level{{m.leading, 0, nil}}
	}
	all := append(d.term.queueLevels(now), level{m.leading, 1, nil})
	for _, x := range d.term.tenants {
		if m.tenants.label(x.name) == x.name {
			all = append(all, level{m.weight, max(x.Weight, 0), []string{x.name}})
		}
	}
	for id, n := range d.fleet.nodes {
		heard := now.Sub(n.heard)
		up := 0.0
		if heard < silentAfter {
			up = 1
		}
		slots, busy := n.slots()
		all = append(all, level{m.nodeUp, up, []string{id}}, level{m.nodeHeard, heard.Seconds(), []string{id}},
			level{m.nodeSlots, float64(slots), []string{id, "total"}}, level{m.nodeSlots, float64(busy), []string{id, "busy"}})
	}
	return all
}

// slots counts the slots of a node's models that need no load, and those that are taken.
func (n *node) slots() (total, busy int) {
	for _, b := range n.state.Backends {
		if !b.Healthy {
			continue
		}
		for _, m := range b.Models {
			if m.State == schemas.Resident || m.State == schemas.Remote {
				total, busy = total+m.Slots, busy+m.Busy
			}
		}
	}
	return total, busy
}

// queueLevels says what waits and runs, by class and model.
func (t *term) queueLevels(now time.Time) (all []level) {
	type key struct{ class, model string }
	type sum struct {
		waiting, held int
		oldest        time.Duration
	}
	sums, leases := map[key]sum{}, 0
	for _, f := range t.flows {
		class, model, _ := t.metrics.labels(f.Flow.Flow)
		k := key{class, model}
		s := sums[k]
		if waiting := f.Waiting() + len(f.awaiting); f.why() != "" {
			s.held += waiting
		} else {
			s.waiting += waiting
		}
		s.oldest = max(s.oldest, f.oldest(now))
		sums[k] = s
	}
	for _, jobs := range t.running {
		leases += len(jobs)
	}
	m := t.metrics
	for k, s := range sums {
		all = append(all, level{m.queued, float64(s.waiting), []string{k.class, k.model, "waiting"}},
			level{m.queued, float64(s.held), []string{k.class, k.model, "blocked"}}, level{m.oldest, s.oldest.Seconds(), []string{k.class, k.model}})
	}
	return append(all, level{m.queued, float64(len(t.later.waiting) + len(t.later.moving)), []string{"", "", "delayed"}}, level{m.leases, float64(leases), nil})
}
