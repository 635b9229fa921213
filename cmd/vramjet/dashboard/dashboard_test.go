package dashboard

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vramjet/vramjet/dispatcher"
	"github.com/vramjet/vramjet/schemas"
)

// simple is a node with a device and a model of two slots in its memory.
func simple(name string) schemas.NodeState {
	return schemas.NodeState{
		Node: name, Devices: []schemas.Device{device("GPU-0", "A10", 24*gib, gib, 6*gib)},
		Backends: []schemas.Backend{{Name: "ollama", Kind: "ollama", Healthy: true, Loads: true, Devices: []string{"GPU-0"}, Models: []schemas.Model{
			model("small", schemas.Resident, 6*gib, 2, "GPU-0"),
		}}},
	}
}

// TestState: what happens is shown, and no request.
func TestState(t *testing.T) {
	s := newSite(t, Options{Weights: map[string]float64{"acme": 3}})
	s.look("that nobody is there", func(v *shown) bool {
		return v.Header.Connected && v.Header.Leader != nil && *v.Header.Leader == "" && v.Header.Nodes == 0 && len(v.Alerts) > 0
	})
	s.dispatch(dispatcher.Config{})
	n := s.node(simple("gpu-1"))
	sick := simple("gpu-2")
	sick.Backends[0].Healthy, sick.Backends[0].Error = false, "connection refused"
	s.node(sick)
	s.look("the leader", func(v *shown) bool { return *v.Header.Leader == "dispatcher-1" })
	for i, tenant := range []string{"default", "acme", "acme", "acme"} {
		s.submit(tenant, schemas.Normal, "small", fmt.Sprint("job-", i))
	}
	v := s.look("what waits and runs", func(v *shown) bool {
		return v.Header.Waiting != nil && len(v.Jobs.Rows) == 4 && v.Jobs.Rows[1].State == schemas.JobRunning && v.Jobs.Rows[2].State == schemas.JobQueued &&
			v.Flows.Rows[0].Reason != "" && v.Header.Busy >= 2 && len(v.Tenants) == 2
	})
	f := v.Flows.Rows[0]
	if f.Model != "small" || f.Oldest.IsZero() || time.Since(f.Oldest) > patience {
		t.Errorf("the flow is shown as %+v", f)
	}
	for _, row := range v.Tenants {
		if want := map[string]float64{"acme": 0.75, "default": 0.25}[row.Tenant]; row.Entitled != want {
			t.Errorf("the tenant is shown as %+v, want %.2f", row, want)
		}
	}
	if want := []string{"gpu-2", "gpu-1"}; fmt.Sprint(v.NodeNames) != fmt.Sprint(want) || v.Nodes[0].State != stateDown {
		t.Errorf("the nodes are %v, want the one in trouble first", v.NodeNames)
	}
	memory := v.Nodes[1].Devices[0].Memory
	if got := fmt.Sprint(memory); got != "[{model small 6.0 GiB} {others  1.0 GiB} {driver  512.0 MiB} {free  16.5 GiB}]" {
		t.Errorf("the memory is shown as %s", got)
	}
	if !strings.Contains(fmt.Sprint(v.Alerts), "Backend ollama on node gpu-2 is not healthy: connection refused") {
		t.Errorf("the alerts are %v", v.Alerts)
	}
	for range 2 {
		if !n.finish(321) {
			t.Fatal("no job to finish")
		}
	}
	v = s.look("jobs that ended", func(v *shown) bool {
		return len(v.Jobs.Rows) == 4 && v.Jobs.Rows[3].State == "ok" && v.Jobs.Rows[2].State == "ok"
	})
	if j := v.Jobs.Rows[3]; j.Tokens != 321 || j.Node != "gpu-1" || j.Started.IsZero() || j.Ended.Before(j.Started) || j.Queued.After(j.Started) {
		t.Errorf("the job is shown as %+v", j)
	}
	n.kill()
	s.look("that the node is lost", func(v *shown) bool {
		return v.Nodes[0].Name == "gpu-1" && v.Nodes[0].State == stateLost && strings.Contains(fmt.Sprint(v.Alerts, v.Events), "Node gpu-1 is lost")
	})
}

// TestActions: with the token, and only then, something can be done.
func TestActions(t *testing.T) {
	const token = "a token of sixteen or more"
	s := newSite(t, Options{Token: token})
	s.dispatch(dispatcher.Config{})
	s.node(simple("gpu-1"))
	as := func(token string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Content-Type", "application/json; charset=utf-8")
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Sec-Fetch-Site", "same-origin")
		}
	}
	act := func(want int, body string) string {
		t.Helper()
		resp, text := s.ask(http.MethodPost, "/api/v1/actions", body, as(token))
		if resp.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", body, resp.StatusCode, text, want)
		}
		return text
	}
	s.look("the node", func(v *shown) bool { return v.Header.Actions && len(v.Nodes) == 1 })
	act(http.StatusOK, `{"do":"check"}`)
	act(http.StatusOK, `{"do":"drain","node":"gpu-1"}`)
	s.look("the drain", func(v *shown) bool {
		return v.Nodes[0].State == stateDraining && strings.Contains(fmt.Sprint(v.Events), "drain node gpu-1")
	})
	s.submit("acme", schemas.Batch, "small", "j1")
	s.bury("acme", "small", "old", schemas.OutOfMemory, "no room")
	v := s.look("the dead letter", func(v *shown) bool {
		return len(v.Flows.Rows) == 1 && v.Flows.Rows[0].Tenant == "acme" && *v.Header.Dead == 1 && v.Dead.Groups[0].Code == schemas.OutOfMemory
	})
	if l := v.Dead.Groups[0].Letters[0]; l.Job != "old" || l.Message != "no room" || l.Tenant != "acme" || l.Model != "small" {
		t.Errorf("the letter is shown as %+v", l)
	}
	act(http.StatusOK, `{"do":"pause","tenant":"acme","class":"batch","model":"small"}`)
	s.look("the pause", func(v *shown) bool {
		return v.Flows.Rows[0].Paused && strings.Contains(fmt.Sprint(v.Alerts), "Paused: class batch")
	})
	act(http.StatusOK, `{"do":"resume","tenant":"acme","class":"batch","model":"small"}`)
	act(http.StatusOK, `{"do":"undrain","node":"gpu-1"}`)
	text := act(http.StatusOK, fmt.Sprintf(`{"do":"retry","letters":[{"tenant":"acme","seq":%d}]}`, v.Dead.Groups[0].Letters[0].Seq))
	if !strings.Contains(text, "retried as job old-r1") {
		t.Errorf("the retry says %s", text)
	}
	s.look("both jobs running", func(v *shown) bool {
		return len(v.Jobs.Rows) == 2 && v.Jobs.Rows[1].State == schemas.JobRunning && *v.Header.Dead == 0 && len(v.Dead.Groups) == 0
	})

	act(http.StatusNotFound, `{"do":"drain","node":"gpu-9"}`)
	act(http.StatusNotFound, `{"do":"retry","letters":[{"tenant":"acme","seq":1}]}`)
	act(http.StatusBadRequest, `{"do":"explode"}`)
	act(http.StatusBadRequest, `{"do":"retry"}`)
	act(http.StatusBadRequest, `{"do":"pause"}`)
	act(http.StatusBadRequest, `{"do":"pause","tenant":"a b","class":"batch","model":"small"}`)
	act(http.StatusBadRequest, `{"what":1}`)
	for name, c := range map[string]struct {
		method string
		want   int
		change func(*http.Request)
	}{
		"no token":       {"POST", http.StatusUnauthorized, func(r *http.Request) { as("")(r) }},
		"a wrong token":  {"POST", http.StatusUnauthorized, func(r *http.Request) { as(token + "x")(r) }},
		"another scheme": {"POST", http.StatusUnauthorized, func(r *http.Request) { as(token)(r); r.SetBasicAuth("x", token) }},
		"GET":            {"GET", http.StatusMethodNotAllowed, as(token)},
		"a form":         {"POST", http.StatusUnsupportedMediaType, func(r *http.Request) { as(token)(r); r.Header.Set("Content-Type", "text/plain") }},
		"another site":   {"POST", http.StatusForbidden, func(r *http.Request) { as(token)(r); r.Header.Set("Sec-Fetch-Site", "cross-site") }},
		"another port":   {"POST", http.StatusForbidden, func(r *http.Request) { as(token)(r); r.Header.Set("Sec-Fetch-Site", "same-site") }},
		"another origin": {"POST", http.StatusForbidden, func(r *http.Request) {
			as(token)(r)
			r.Header.Del("Sec-Fetch-Site")
			r.Header.Set("Origin", "http://evil.example")
		}},
		"another host": {"POST", http.StatusMisdirectedRequest, func(r *http.Request) { as(token)(r); r.Host = "evil.example" }},
	} {
		if resp, text := s.ask(c.method, "/api/v1/actions", `{"do":"drain","node":"gpu-1"}`, c.change); resp.StatusCode != c.want {
			t.Errorf("%s: %d %s, want %d", name, resp.StatusCode, text, c.want)
		}
	}
	s.look("that nothing was drained", func(v *shown) bool { return v.Nodes[0].State == stateReady })
}

// TestReadOnly: without a token there are no actions, whoever asks.
func TestReadOnly(t *testing.T) {
	s := newSite(t, Options{})
	for _, header := range []string{"Bearer", "Bearer ", ""} {
		resp, text := s.ask(http.MethodPost, "/api/v1/actions", `{"do":"check"}`, func(r *http.Request) {
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", header)
		})
		if resp.StatusCode != http.StatusForbidden || !strings.Contains(text, "http_token") {
			t.Errorf("%q: %d %s", header, resp.StatusCode, text)
		}
	}
}

// TestPage: the page and what belongs to it come with what keeps browsers in check.
func TestPage(t *testing.T) {
	s := newSite(t, Options{})
	for path, kind := range map[string]string{"/": "text/html", "/app.js": "text/javascript", "/style.css": "text/css", "/api/v1/state": "application/json"} {
		resp, text := s.get(path, nil)
		h := resp.Header
		if resp.StatusCode != http.StatusOK || !strings.HasPrefix(h.Get("Content-Type"), kind) || text == "" {
			t.Errorf("%s: %d %s, %d bytes", path, resp.StatusCode, h.Get("Content-Type"), len(text))
		}
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self' data:", "frame-ancestors 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy %q lacks %s", path, csp, want)
			}
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: the headers are %v", path, h)
		}
	}
	script, _ := page.ReadFile("page/app.js")
	for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("} {
		if strings.Contains(string(script), bad) {
			t.Errorf("the page uses %s", bad)
		}
	}
	for host, want := range map[string]int{
		"localhost": 200, "localhost:7433": 200, "127.0.0.1:1": 200, "[::1]:7433": 200, "evil.example": 421, "evil.example:7433": 421, "127.0.0.1.evil.example": 421,
	} {
		if resp, _ := s.get("/api/v1/state", func(r *http.Request) { r.Host = host }); resp.StatusCode != want {
			t.Errorf("the host %s: %d, want %d", host, resp.StatusCode, want)
		}
	}
	if resp, _ := s.get("/api/v1/state", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }); resp.StatusCode != http.StatusForbidden {
		t.Errorf("another site: %d", resp.StatusCode)
	}
	for _, path := range []string{"/index.html", "/page/app.js", "/../go.mod", "/api"} {
		if resp, _ := s.get(path, nil); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}

// A reader reads the events of a dashboard.
type reader struct {
	*testing.T
	lines *bufio.Reader
}

// watch looks at the events until the test ends.
func (s *site) watch() *reader {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	s.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.web.URL+"/api/v1/events", http.NoBody)
	if err != nil {
		s.Fatal(err)
	}
	resp, err := s.web.Client().Do(req)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { resp.Body.Close() })
	if kind := resp.Header.Get("Content-Type"); kind != "text/event-stream" {
		s.Fatalf("%s %s", resp.Status, kind)
	}
	return &reader{s.T, bufio.NewReader(resp.Body)}
}

func (r *reader) next() *shown {
	r.Helper()
	for {
		line, err := r.lines.ReadString('\n')
		if err != nil {
			r.Fatal(err)
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			var v shown
			if err := json.Unmarshal([]byte(data), &v); err != nil {
				r.Fatal(err)
			}
			return &v
		}
	}
}

// TestEvents: a viewer gets all at once, and then what changed and nothing else.
func TestEvents(t *testing.T) {
	s := newSite(t, Options{})
	s.dispatch(dispatcher.Config{})
	n := s.node(simple("gpu-1"))
	s.node(simple("gpu-2"))
	s.look("the nodes", func(v *shown) bool { return len(v.Nodes) == 2 && *v.Header.Leader != "" })
	r := s.watch()
	v := r.next()
	if v.Since != 0 || len(v.Nodes) != 2 || v.Jobs == nil || v.Dead == nil {
		t.Errorf("the first snapshot is %+v", v)
	}
	for v.Header == nil || v.Header.JobsPerS == nil { // known after some seconds: the last that changes
		v = r.next()
	}
	n.change(func(st *schemas.NodeState) { st.Draining = true })
	last := v.Version
	for began := time.Now(); len(v.Nodes) != 1 || v.Nodes[0].State != stateDraining; {
		last, v = v.Version, r.next()
		if took := time.Since(began); took > patience {
			t.Fatalf("it came after %s", took)
		}
	}
	if v.Since != last || v.Jobs != nil || v.Flows != nil || v.NodeNames != nil {
		t.Errorf("the update is %+v, want the node alone", v)
	}
}

// TestSlowViewers: viewers who do not read keep nobody from seeing what happens, and
// nothing is asked for once nobody looks.
func TestSlowViewers(t *testing.T) {
	s := newSite(t, Options{})
	n := s.node(simple("gpu-1"))
	for range 100 {
		conn, err := net.Dial("tcp", s.web.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	r := s.watch()
	long := strings.Repeat("long-", 20_000) // so that buffers of the system are full soon
	seen, began := 0, time.Now()
	for i := range 4 {
		n.change(func(st *schemas.NodeState) { st.Backends[0].Name = fmt.Sprint(i, "-", long) })
		for want := fmt.Sprint(i, "-"); ; seen++ {
			v := r.next()
			if len(v.Nodes) == 1 && strings.HasPrefix(v.Nodes[0].Backends[0].Name, want) {
				break
			}
		}
	}
	if took := time.Since(began); took > patience {
		t.Errorf("four changes took %s", took)
	}
	t.Logf("%d snapshots in %s beside 100 viewers who do not read", seen, time.Since(began))
}

// TestNobodyLooks: then nodes are left alone.
func TestNobodyLooks(t *testing.T) {
	s := newSite(t, Options{})
	s.node(simple("gpu-1"))
	if _, err := s.d.nc.Request("nobody", nil, time.Second); err == nil { // from now on it listens for answers
		t.Fatal("somebody answers")
	}
	before := s.d.nc.NumSubscriptions()
	s.look("the node", func(v *shown) bool { return len(v.Nodes) == 1 })
	if s.d.nc.NumSubscriptions() < before+2 {
		t.Error("it does not listen while somebody looks")
	}
	for stop := time.Now().Add(patience); s.d.nc.NumSubscriptions() > before; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(stop) {
			t.Fatal("it still listens though nobody looks")
		}
	}
	s.look("the node again", func(v *shown) bool { return len(v.Nodes) == 1 && v.Nodes[0].SilentS == 0 })
}

// TestSince: what did not change is not told again.
func TestSince(t *testing.T) {
	s := &snapshot{version: 7, parts: []part{{"a", 3, []byte("1")}, {"b", 7, []byte("2")}}, nodes: []part{{"x", 2, []byte("3")}, {"y", 7, []byte("4")}}}
	for version, want := range map[uint64]string{
		0: `{"version":7,"since":0,"complete":false,"at":"0001-01-01T00:00:00Z","a":1,"b":2,"nodes":[3,4]}`,
		6: `{"version":7,"since":6,"complete":false,"at":"0001-01-01T00:00:00Z","b":2,"nodes":[4]}`,
		7: `{"version":7,"since":7,"complete":false,"at":"0001-01-01T00:00:00Z","nodes":[]}`,
	} {
		if got := string(s.since(version)); got != want {
			t.Errorf("since %d: %s, want %s", version, got, want)
		}
	}
}
