package worker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vramjet/vramjet/schemas"
)

// What a node counts. docs/metrics.md has a line on each.

// metrics are the counters of a worker. They may be used by any goroutine.
type metrics struct {
	tokens, loads, evictions, renewals *prometheus.CounterVec
	ttft, perToken, loading, estimate  *prometheus.HistogramVec
	counters                           []prometheus.Collector

	vram, resident, backendUp *prometheus.Desc
}

// Bounds of the histograms: in seconds of first tokens and loads, and of later tokens; as
// a part of what was expected of loads.
var (
	tillFirst = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200}
	perToken  = []float64{0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5}
	offBy     = []float64{-0.5, -0.25, -0.1, -0.05, -0.02, 0, 0.02, 0.05, 0.1, 0.25, 0.5, 1}
)

func newMetrics(node string) *metrics {
	m := &metrics{}
	of := prometheus.Labels{"node": node}
	count := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vramjet_" + name, Help: help, ConstLabels: of}, labels)
		m.counters = append(m.counters, c)
		return c
	}
	spread := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "vramjet_" + name, Help: help, Buckets: buckets, ConstLabels: of}, labels)
		m.counters = append(m.counters, h)
		return h
	}
	gauge := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("vramjet_"+name, help, labels, of)
	}
	m.tokens = count("tokens_total", "Tokens of prompts (input) and answers (output), as the model servers count them.", "model", "type")
	m.loads = count("model_loads_total", "Loads of models that were begun, by how they went.", "model", "outcome")
	m.evictions = count("model_evictions_total", "Models that were unloaded to make room.", "model")
	m.renewals = count("lease_renewals_total", "Extensions of the right to run a job.", "outcome")
	m.ttft = spread("ttft_seconds", "From submission to the first token.", tillFirst, "model")
	m.perToken = spread("time_per_output_token_seconds", "Between tokens, after the first: the mean of each answer.", perToken, "model")
	m.loading = spread("model_load_seconds", "Of loads that went well, evictions before them included.", tillFirst, "model")
	m.estimate = spread("vram_estimate_error_ratio", "By how much more memory a load took than was computed beforehand, as a part of that.", offBy, "model")

	m.vram = gauge("node_vram_bytes", "Memory of a device: total, and of that used (by anybody), free, and reserved for loads.", "gpu", "kind")
	m.resident = gauge("model_resident", "1 for each model in memory.", "backend", "model")
	m.backendUp = gauge("backend_up", "1 for a backend that answers, else 0.", "backend")
	return m
}

// Describe is for prometheus.Collector.
func (w *Worker) Describe(to chan<- *prometheus.Desc) {
	for _, c := range w.metrics.counters {
		c.Describe(to)
	}
	to <- w.metrics.vram
	to <- w.metrics.resident
	to <- w.metrics.backendUp
}

// Collect is for prometheus.Collector: what was counted, and what the node reported last.
// It may be called at any time.
func (w *Worker) Collect(to chan<- prometheus.Metric) {
	m := w.metrics
	for _, c := range m.counters {
		c.Collect(to)
	}
	s := w.shown.Load()
	if s == nil {
		return
	}
	level := func(of *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(of, prometheus.GaugeValue, value, labels...)
	}
	for _, d := range s.Devices {
		for kind, a := range map[string]schemas.Amount{"total": d.Total, "used": d.Used, "free": d.Free, "reserved": schemas.Known(d.Promised)} {
			if a.Known {
				level(m.vram, float64(a.Bytes), d.ID, kind)
			}
		}
	}
	for _, b := range s.Backends {
		up := 0.0
		if b.Healthy {
			up = 1
		}
		level(m.backendUp, up, b.Name)
		for _, model := range b.Models {
			if model.State == schemas.Resident {
				level(m.resident, 1, b.Name, model.Name)
			}
		}
	}
}

// count counts what an attempt has brought.
func (a *attempt) count(usage schemas.Usage, now time.Time) {
	m, model := a.w.metrics, a.offer.Model
	m.tokens.WithLabelValues(model, "input").Add(float64(max(0, usage.PromptTokens)))
	m.tokens.WithLabelValues(model, "output").Add(float64(max(0, usage.CompletionTokens)))
	if a.first.IsZero() {
		return
	}
	m.ttft.WithLabelValues(model).Observe(a.first.Sub(a.submitted()).Seconds())
	if n := usage.CompletionTokens; n > 1 {
		m.perToken.WithLabelValues(model).Observe(now.Sub(a.first).Seconds() / float64(n-1))
	}
}
