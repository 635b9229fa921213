package dispatcher

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vramjet/vramjet/schemas"
)

// What the leader counts. A standby counts nothing, so that the sum over all dispatchers
// is what happened. docs/metrics.md has a line on each.

// metrics are the counters of a dispatcher. They may be used by any goroutine.
type metrics struct {
	tenants, models bounded

	submitted, finished, retries, losses, dead *prometheus.CounterVec
	placed, served, tokens, throttled          *prometheus.CounterVec
	takeovers                                  prometheus.Counter
	waited, lasted                             *prometheus.HistogramVec
	decision, handover, rescue                 prometheus.Histogram
	leading, queued, oldest, leases, weight    *prometheus.Desc
	nodeUp, nodeHeard, nodeSlots               *prometheus.Desc
	counters                                   []prometheus.Collector
}

// Bounds of the histograms, in seconds: of what takes a moment, and of what may take as
// long as a queue is.
var (
	quick = []float64{10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 1}
	long  = []float64{0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200}
)

// The most tenants and models that have series of their own.
const (
	mostTenants = 200
	mostModels  = 1000
)

func newMetrics() *metrics {
	m := &metrics{tenants: bounded{most: mostTenants}, models: bounded{most: mostModels}}
	count := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vramjet_" + name, Help: help}, labels)
		m.counters = append(m.counters, c)
		return c
	}
	times := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "vramjet_" + name, Help: help, Buckets: buckets}, labels)
		m.counters = append(m.counters, h)
		return h
	}
	gauge := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("vramjet_"+name, help, labels, nil)
	}
	m.submitted = count("jobs_submitted_total", "Jobs that came into the queue while a dispatcher led.", "class", "model", "tenant")
	m.finished = count("jobs_finished_total", "Jobs that ended.", "class", "model", "tenant", "outcome")
	m.retries = count("job_retries_total", "Attempts that failed and are followed by another.", "reason")
	m.losses = count("job_losses_total", "Jobs whose node was lost while it ran them.", "node")
	m.dead = count("dlq_added_total", "Dead letters, by why the last attempt failed.", "reason")
	m.placed = count("route_total", "Jobs that nodes were given, by what their model was: resident, loaded for the job, loading already, or remote.", "reason")
	m.served = count("tenant_service_seconds_total", "Time for which jobs of a tenant held a slot, without loads.", "tenant")
	m.tokens = count("tenant_tokens_total", "Tokens of prompts and answers.", "tenant")
	m.throttled = count("tenant_throttled_total", "How often a limit of a tenant began to hold its jobs back, or refused one.", "tenant", "reason")
	m.waited = times("queue_wait_seconds", "From submission until a node had the job, of first attempts.", long, "class", "model", "cause")
	m.lasted = times("job_duration_seconds", "From submission to the end.", long, "class", "model", "outcome")
	single := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "vramjet_" + name, Help: help, Buckets: buckets})
		m.counters = append(m.counters, h)
		return h
	}
	m.decision = single("decision_seconds", "Of one decision: which flow is served next, and where.", quick)
	m.handover = single("dispatch_seconds", "From the decision until the node had the job.", quick)
	m.rescue = single("rescue_seconds", "From the loss of a node until a job of it ran elsewhere.", long)
	m.takeovers = prometheus.NewCounter(prometheus.CounterOpts{Name: "vramjet_failovers_total", Help: "How often this dispatcher took over, its start included."})
	m.counters = append(m.counters, m.takeovers)

	m.leading = gauge("leader", "1 where this dispatcher leads, else 0.")
	m.queued = gauge("queue_jobs", "Jobs in the queue that no node has: waiting, held back, or delayed, which have no class and no model here.", "class", "model", "state")
	m.oldest = gauge("queue_oldest_seconds", "How long the job that is next has waited, about: it came after the one before it.", "class", "model")
	m.leases = gauge("leases", "Jobs that nodes have.")
	m.weight = gauge("tenant_weight", "The share of a tenant beside the others of its class.", "tenant")
	m.nodeUp = gauge("node_up", "1 for a node that reports, 0 for one that fell silent.", "node")
	m.nodeHeard = gauge("node_heartbeat_age_seconds", "Since a node's last report.", "node")
	m.nodeSlots = gauge("node_slots", "Slots of the models in memory, and of remote ones.", "node", "kind")
	return m
}

// A bounded gives names as values of a label, up to a number of different ones.
type bounded struct {
	most int
	mu   sync.Mutex
	seen map[string]bool
}

// others stands for all names beyond those.
const others = "_other"

func (b *bounded) label(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.seen[name]:
	case len(b.seen) >= b.most:
		return others
	case b.seen == nil:
		b.seen = map[string]bool{name: true}
	default:
		b.seen[name] = true
	}
	return name
}

// labels are what a job is counted under.
func (m *metrics) labels(f schemas.Flow) (class, model, tenant string) {
	return string(f.Class), m.models.label(f.Model), m.tenants.label(f.Tenant)
}

// came counts a job that came into the queue.
func (m *metrics) came(f schemas.Flow) {
	m.submitted.WithLabelValues(m.labels(f)).Inc()
}

// ended counts the end of a job, and how long after its submission that was; 0: unknown.
func (m *metrics) ended(f schemas.Flow, status schemas.Status, after time.Duration) {
	class, model, tenant := m.labels(f)
	m.finished.WithLabelValues(class, model, tenant, string(status)).Inc()
	if after > 0 {
		m.lasted.WithLabelValues(class, model, string(status)).Observe(after.Seconds())
	}
}

// given counts a job that a node has now.
func (t *term) given(j *job, now time.Time) {
	m := t.metrics
	t.traced(j, now)
	how := t.fleet.how(j.promise)
	m.placed.WithLabelValues(how).Inc()
	m.handover.Observe(now.Sub(j.promise.given).Seconds())
	if j.attempt == 1 {
		class, model, _ := m.labels(j.Flow)
		cause := "capacity"
		if how == placedLoaded || how == placedLoading {
			cause = "model_load"
		}
		m.waited.WithLabelValues(class, model, cause).Observe(now.Sub(j.at).Seconds())
	}
	if l, ok := t.losses[j.key()]; ok && !l.rescued {
		l.rescued = true
		t.losses[j.key()] = l
		m.rescue.Observe(now.Sub(l.at).Seconds())
	}
}

// Where a job goes, by what its model is there.
const (
	placedResident = "resident"
	placedLoaded   = "loaded"  // for the job
	placedLoading  = "loading" // for another job
	placedRemote   = "remote"
)

// how says which a promise is.
func (f *fleet) how(p *promise) string {
	switch {
	case p.choice.Load:
		return placedLoaded
	case p.waits:
		return placedLoading
	case f.nodes[p.choice.Node] != nil && f.nodes[p.choice.Node].stateOf(p.choice) == schemas.Remote:
		return placedRemote
	default:
		return placedResident
	}
}
