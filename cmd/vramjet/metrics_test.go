package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/dispatcher"
	"github.com/vramjet/vramjet/worker"
)

// described is what a metric's description prints.
var described = regexp.MustCompile(`fqName: "([^"]+)", help: "([^"]+)", unit: "", constLabels: \{(.*?)\}, variableLabels: \{(.*?)\}`)

// metricsOf returns the metrics of a dispatcher and of a worker, with their labels and
// what they mean.
func metricsOf(t *testing.T) map[string][2]string {
	t.Helper()
	s := newSite(t)
	d, err := dispatcher.New(s.nc, dispatcher.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := worker.New(s.nc, worker.Config{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(s.nc)
	if err != nil {
		t.Fatal(err)
	}
	descs := make(chan *prometheus.Desc, 1000)
	for _, c := range []prometheus.Collector{d, w, broker.ConnectionCollector(s.nc), broker.StreamCollector(js), newBuildInfo()} {
		c.Describe(descs)
	}
	close(descs)
	all := map[string][2]string{}
	for desc := range descs {
		m := described.FindStringSubmatch(desc.String())
		if m == nil {
			t.Fatalf("%s is not understood", desc)
		}
		var labels []string
		for l := range strings.SplitSeq(m[3]+","+m[4], ",") {
			if name, _, _ := strings.Cut(l, "="); name != "" {
				labels = append(labels, "`"+name+"`")
			}
		}
		slices.Sort(labels)
		all[m[1]] = [2]string{strings.Join(labels, " "), m[2]}
	}
	return all
}

// TestDocsMetrics: the documentation has all metrics, and no others.
func TestDocsMetrics(t *testing.T) {
	documented, text := map[string][2]string{}, page(t, "docs/metrics.md")
	for _, heading := range []string{"## Jobs", "## Nodes and models", "## Tenants", "## Dispatchers and NATS"} {
		for _, row := range tableUnder(t, text, heading) {
			documented[strings.Trim(row[0], "`")] = [2]string{row[2], row[3]}
		}
	}
	metrics := metricsOf(t) // works elsewhere: after the pages were read
	sameSet(t, "metrics", slices.Collect(maps.Keys(documented)), slices.Collect(maps.Keys(metrics)))
	for name, m := range metrics {
		if got := documented[name]; got != m {
			t.Errorf("%s is documented as %q, want %q", name, got, m)
		}
	}
}

// TestAlertsKnowTheirMetrics: what alerts, the dashboard and the other pages name is there,
// and each alert has a runbook.
func TestAlertsKnowTheirMetrics(t *testing.T) {
	name := regexp.MustCompile(`\b(vramjet_[a-z_]+)(?:[^-\w]|$)`)
	suffix := regexp.MustCompile(`_(bucket|sum|count)$`)
	texts := pages(t)
	for _, file := range []string{"docs/prometheus/alerts.yaml", "docs/prometheus/grafana.json"} {
		texts[file] = page(t, file)
	}
	metrics := metricsOf(t) // works elsewhere: after the pages were read
	for file, text := range texts {
		for _, m := range name.FindAllStringSubmatch(text, -1) {
			_, whole := metrics[m[1]]
			if _, part := metrics[suffix.ReplaceAllString(m[1], "")]; !whole && !part {
				t.Errorf("%s names the metric %s, and there is none", file, m[1])
			}
		}
	}
	runbooks := texts["docs/runbooks.md"]
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(texts["docs/prometheus/alerts.yaml"], -1) {
		if !strings.Contains(runbooks, fmt.Sprintf("\n## %s\n", m[1])) {
			t.Errorf("the alert %s has no runbook", m[1])
		}
	}
}
