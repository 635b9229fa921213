package providers

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// metrics are a server's Prometheus metrics, in the text format: the gauges and
// counters by their names, of all labels together.
type metrics map[string][]float64

// metrics asks a server for its metrics.
func (s *server) metrics(ctx context.Context, target string) (metrics, error) {
	raw, err := s.fetch(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	m := readMetrics(raw)
	if len(m) == 0 {
		return nil, schemas.Errorf(schemas.UpstreamError, "%s: %s has no metrics", s.name, target)
	}
	return m, nil
}

// readMetrics reads what it can: a line that is no metric is none.
func readMetrics(text []byte) metrics {
	m := metrics{}
	for line := range bytes.Lines(text) {
		name, rest, ok := strings.Cut(strings.TrimSpace(string(line)), " ")
		if at := strings.IndexByte(string(line), '{'); at >= 0 && line[0] != '#' {
			name = string(line[:at])
			_, rest, ok = strings.Cut(string(line[at:]), "} ")
		}
		fields := strings.Fields(rest)
		if !ok || name == "#" || len(fields) == 0 {
			continue
		}
		if v, err := strconv.ParseFloat(fields[0], 64); err == nil {
			m[name] = append(m[name], v)
		}
	}
	return m
}

// sum returns the sum of a metric over its labels, or none where it isn't there.
func (m metrics) sum(name string, none float64) float64 {
	values, ok := m[name]
	if !ok {
		return none
	}
	total := 0.0
	for _, v := range values {
		total += v
	}
	return total
}
