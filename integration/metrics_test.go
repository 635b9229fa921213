package integration

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/vramjet/vramjet/client"
)

// TestMetricsAreServed: what a job did can be read from /metrics, and each metric is of the
// type that docs/metrics.md says.
func TestMetricsAreServed(t *testing.T) {
	t.Parallel()
	addr, web := fmt.Sprintf("127.0.0.1:%d", freePort(t)), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	start(t, "vramjet up", "vramjet", "up", "--nats", addr, "--http", web, "--data", t.TempDir(), "--sim").says("leading")
	u := connect(t, "nats://"+addr)
	u.serves("sim-fast", 1)
	if r := u.tenantRuns(client.Chat("sim-fast", "hi")); r.Text() == "" {
		t.Fatal("no answer")
	}
	var got map[string]*dto.MetricFamily
	within(t, patience, "the job is counted", func() bool {
		resp, err := http.Get("http://" + web + "/metrics")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		parser := expfmt.NewTextParser(model.UTF8Validation)
		if got, err = parser.TextToMetricFamilies(resp.Body); err != nil {
			t.Fatal(err)
		}
		f := got["vramjet_jobs_finished_total"]
		return f != nil && f.GetMetric()[0].GetCounter().GetValue() == 1
	})
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(vramjet_\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(text), -1) {
		types[m[1]] = m[2]
	}
	for name, kind := range types {
		if f := got[name]; f != nil && f.GetType() != dto.MetricType(dto.MetricType_value[strings.ToUpper(kind)]) {
			t.Errorf("%s is a %s, and documented as a %s", name, f.GetType(), kind)
		}
	}
	for _, name := range []string{
		"vramjet_ttft_seconds", "vramjet_tokens_total", "vramjet_leader", "vramjet_queue_wait_seconds", "vramjet_node_up", "vramjet_backend_up",
		"vramjet_model_resident", "vramjet_stream_messages", "vramjet_nats_rtt_seconds", "vramjet_build_info", "go_goroutines", "process_resident_memory_bytes",
	} {
		if got[name] == nil {
			t.Errorf("%s is not served", name)
		}
	}
}
