package providers

import (
	"bytes"
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// metrics are a server's Prometheus metrics, in the text format: the gauges and
// counters by their names.
type metrics map[string][]sample

// A sample is the value of a metric for some labels.
type sample struct {
	labels string // as they stand, with their braces
	value  float64
}

// metrics asks a server for its metrics. One that has none is an error with the
// code schemas.Unsupported.
func (s *server) metrics(ctx context.Context, target string) (metrics, error) {
	raw, err := s.fetch(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	m := readMetrics(raw)
	if len(m) == 0 {
		return nil, schemas.Errorf(schemas.Unsupported, "%s: %s has no metrics", s.name, pathOf(target))
	}
	return m, nil
}

// readMetrics reads what it can: a line that is no metric is none.
func readMetrics(text []byte) metrics {
	m := metrics{}
	for line := range bytes.Lines(text) {
		var labels string
		name, rest, ok := strings.Cut(strings.TrimSpace(string(line)), " ")
		if at := strings.IndexByte(string(line), '{'); at >= 0 && line[0] != '#' {
			name = string(line[:at])
			labels, rest, ok = strings.Cut(string(line[at:]), "} ")
		}
		fields := strings.Fields(rest)
		if !ok || name == "#" || len(fields) == 0 {
			continue
		}
		if v, err := strconv.ParseFloat(fields[0], 64); err == nil && !math.IsNaN(v) {
			m[name] = append(m[name], sample{labels, v})
		}
	}
	return m
}

// label returns the value of a label, "" where the sample has none of that name.
func (s *sample) label(name string) string {
	for _, before := range []string{"{", ",", ", "} {
		if _, rest, ok := strings.Cut(s.labels, before+name+`="`); ok {
			value, _, _ := strings.Cut(rest, `"`)
			return value
		}
	}
	return ""
}

// sum returns the sum of a metric over its labels, or none where it isn't there.
func (m metrics) sum(name string, none float64) float64 {
	values, ok := m[name]
	if !ok {
		return none
	}
	total := 0.0
	for _, v := range values {
		total += v.value
	}
	return total
}

// max returns the largest value of a metric over its labels, or none where it isn't
// there. It is for what several processes tell of the same thing. Where a label
// tells different things apart, their largest values are added up; by is its name,
// "" means that there is none.
func (m metrics) max(name, by string, none float64) float64 {
	values, ok := m[name]
	if !ok {
		return none
	}
	largest := map[string]float64{}
	for i := range values {
		of := ""
		if by != "" {
			of = values[i].label(by)
		}
		if old, seen := largest[of]; !seen || values[i].value > old {
			largest[of] = values[i].value
		}
	}
	total := 0.0
	for _, v := range largest {
		total += v
	}
	return total
}
