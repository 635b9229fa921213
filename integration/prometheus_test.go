package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// noData are the graphs that show nothing where all is well.
var noData = map[string]bool{"Held back by limits": true}

// TestPrometheus: a real Prometheus takes the alert rules of docs/prometheus and what
// vramjet serves; nothing is wrong where all is well; and each graph of the dashboard for
// Grafana has something to show.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("prometheus is not installed")
	}
	rules, err := filepath.Abs("../docs/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	addr, web, own := fmt.Sprintf("127.0.0.1:%d", freePort(t)), fmt.Sprintf("127.0.0.1:%d", freePort(t)), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	start(t, "vramjet up", "vramjet", "up", "--nats", addr, "--http", web, "--data", t.TempDir(), "--sim").says("leading")
	u := connect(t, "nats://"+addr)
	u.serves("sim-fast", 1)
	u.tenantRuns(client.Chat("sim-fast", "hi"))
	config := filepath.Join(t.TempDir(), "prometheus.yaml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs: [{job_name: vramjet, static_configs: [{targets: [%q]}]}]\n", rules, web)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	launch(t, "prometheus", exec.Command(program, "--config.file", config, "--storage.tsdb.path", t.TempDir(), "--web.listen-address", own)).says("ready to receive web requests")
	p := prometheus{t, "http://" + own}
	within(t, patience, "Prometheus has seen a job that began after it did", func() bool {
		u.tenantRuns(client.Chat("sim-slow", "hi"))
		urgent := client.Chat("sim-fast", "hi")
		urgent.Class = schemas.Interactive
		u.tenantRuns(urgent)
		return len(p.ask("rate(vramjet_jobs_finished_total[1m]) > 0")) > 0
	})
	p.rulesHold(rules)
	for _, expr := range queries(t) {
		within(t, patience, fmt.Sprintf("the query %s has an answer", expr), func() bool { return len(p.ask(expr)) > 0 })
	}
	for title, exprs := range graphs(t) {
		for _, expr := range exprs {
			if !noData[title] {
				within(t, patience, fmt.Sprintf("%q (%s) has data", title, expr), func() bool { return len(p.ask(expr)) > 0 })
			} else if len(p.ask(expr)) > 0 {
				t.Errorf("%q has data, and should not", title)
			}
		}
	}
}

// prometheus is a real one.
type prometheus struct {
	testing.TB
	url string
}

// get reads an answer of its API.
func (p prometheus) get(path string, data any) {
	p.Helper()
	resp, err := http.Get(p.url + path)
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Status != "success" {
		p.Fatalf("%s: %v, %s", path, err, answer.Error)
	}
}

// ask returns what an expression comes to now.
func (p prometheus) ask(expr string) []any {
	p.Helper()
	var data struct{ Result []any }
	p.get("/api/v1/query?query="+url.QueryEscape(expr), &data)
	return data.Result
}

// rulesHold sees that all alerts of a file can be evaluated, and that none fires.
func (p prometheus) rulesHold(file string) {
	p.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		p.Fatal(err)
	}
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError, State string }
		}
	}
	within(p, patience, "all rules were evaluated", func() bool {
		p.get("/api/v1/rules", &data)
		n := 0
		for _, g := range data.Groups {
			for _, r := range g.Rules {
				if r.LastError != "" || r.State == "firing" {
					p.Fatalf("%s is %s, %s", r.Name, r.State, r.LastError)
				}
				if r.Health == "ok" {
					n++
				}
			}
		}
		return n == strings.Count(string(text), "- alert:")
	})
}

// queries returns those of docs/metrics.md.
func queries(t *testing.T) (all []string) {
	t.Helper()
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| question | query |")
	for _, m := range regexp.MustCompile("(?m)^\\|[^`]*\\| `([^`]+)` \\|$").FindAllStringSubmatch(table, -1) {
		all = append(all, m[1])
	}
	if len(all) < 5 {
		t.Fatalf("of the queries %q were found", all)
	}
	return all
}

// graphs returns the expressions of the dashboard for Grafana, by the titles of their
// graphs.
func graphs(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../docs/prometheus/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			found[panel.Title] = append(found[panel.Title], target.Expr)
		}
	}
	if len(found) == 0 {
		t.Fatal("no graphs")
	}
	t.Logf("%d graphs: %s", len(found), strings.Join(slices.Sorted(maps.Keys(found)), ", "))
	return found
}
