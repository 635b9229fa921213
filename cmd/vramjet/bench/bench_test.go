package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/dispatcher"
	"github.com/vramjet/vramjet/schemas"
)

var update = flag.Bool("update", false, "write the golden files anew")

// asDispatcher is the environment variable that makes the test's binary the dispatcher
// of a measurement.
const asDispatcher = "VRAMJET_BENCH_TEST_DISPATCHER"

// TestMain ignores a goroutine of the NATS client that may stay behind where somebody
// published asynchronously and was done at once.
func TestMain(m *testing.M) {
	if url := os.Getenv(asDispatcher); url != "" {
		if err := PlayDispatcher(context.Background(), url, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// small is a run that takes little time.
func small(t *testing.T) Config {
	t.Helper()
	return Config{
		Time: 200 * time.Millisecond, SyncInterval: time.Minute, Fleet: Fleet{Nodes: 20, Devices: 2, Rate: 100}, Logger: brokertest.Log(t),
		Dispatcher: func(ctx context.Context, url string) *exec.Cmd {
			cmd := exec.CommandContext(ctx, os.Args[0])
			cmd.Env = append(os.Environ(), asDispatcher+"="+url)
			cmd.Stderr = os.Stderr
			return cmd
		},
	}
}

// numbers are what differs from run to run.
var numbers = regexp.MustCompile(`("(?:value|ratio)": )[-+.e0-9]+`)

// TestModes: each mode comes to the figures that it should, and they are numbers that
// can be.
func TestModes(t *testing.T) {
	for _, mode := range Modes {
		t.Run(mode, func(t *testing.T) {
			r, err := Run(t.Context(), []string{mode}, small(t))
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Results) != 1 || r.Server != "embedded" || r.Durability != (Durability{"interval", "file", 1}) || r.Machine.NATS == "" || r.Interrupted {
				t.Errorf("got %+v", r)
			}
			for _, f := range r.Results[0].Figures {
				sane(t, f.Name, f.Value)
				if f.Beside != nil {
					sane(t, f.Name+" beside "+f.Beside.Name, f.Beside.Value)
				}
			}
			text, err := json.MarshalIndent(r.Results, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, mode+".json", numbers.ReplaceAllString(string(text), "${1}0")+"\n")
		})
	}
}

// sane sees that a figure is a number, and only what may be 0 or less is that.
func sane(t *testing.T, name string, v float64) {
	t.Helper()
	least := strings.HasPrefix(name, "added") || strings.HasPrefix(name, "share") || strings.HasPrefix(name, "processor")
	if math.IsNaN(v) || math.IsInf(v, 0) || v <= 0 && !least {
		t.Errorf("%s is %v", name, v)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}

// TestFairShares: by their weights, tenants get more of what is theirs than one queue
// gives them, even in a short time.
func TestFairShares(t *testing.T) {
	cfg := small(t)
	cfg.Time = time.Second
	r, err := Run(t.Context(), []string{Fairness}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Results[0].Figures {
		if f.Unit == Plain && f.Value <= f.Beside.Value {
			t.Errorf("Jain's index is %.3f, and %.3f of one queue", f.Value, f.Beside.Value)
		}
	}
}

// TestInterrupted: what was measured until then is returned, and nothing is left.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for _, mode := range Modes {
		t.Run(mode, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cfg := small(t)
			cfg.Time = 30 * time.Second
			cfg.Progress = func(string) { time.AfterFunc(50*time.Millisecond, cancel) }
			r, err := Run(ctx, []string{mode}, cfg)
			if !errors.Is(err, context.Canceled) || !r.Interrupted || len(r.Results) != 1 || r.Results[0].Failed != "" {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestOwnServers: servers that vramjet runs on are measured beside the dispatcher there,
// and nothing of it is left.
func TestOwnServers(t *testing.T) {
	srv := brokertest.Start(t)
	nc := brokertest.Connect(t, srv)
	js := brokertest.Setup(t, nc)
	d, err := dispatcher.New(brokertest.Connect(t, srv), dispatcher.Config{Logger: brokertest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	cfg := small(t)
	cfg.Connect = func(ctx context.Context) (*nats.Conn, error) {
		return broker.Connect(ctx, broker.ConnectConfig{URL: srv.ClientURL()}, cfg.Logger)
	}
	r, err := Run(t.Context(), []string{Enqueue, Dispatch, Scale}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.Durability != (Durability{"unknown", "file", 1}) || r.Server != srv.ClientURL() || len(r.Results[1].Figures) != 2 || r.Results[2].Skipped == "" {
		t.Errorf("got %+v", r)
	}
	for name := range js.StreamNames(t.Context()).Name() {
		s, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.CachedInfo().State.Msgs; strings.HasPrefix(name, "VJBENCH") || n > 0 && !strings.HasPrefix(name, "KV_") {
			t.Errorf("left behind: the stream %s with %d messages", name, n)
		}
	}
}

// TestTenantInUse: where somebody is the tenant of the measurements, nothing is measured
// or removed.
func TestTenantInUse(t *testing.T) {
	srv := brokertest.Start(t)
	nc := brokertest.Connect(t, srv)
	cfg := small(t)
	cfg.Connect = func(ctx context.Context) (*nats.Conn, error) {
		return broker.Connect(ctx, broker.ConnectConfig{URL: srv.ClientURL()}, cfg.Logger)
	}
	if _, err := Run(t.Context(), []string{Enqueue}, cfg); err == nil || !strings.Contains(err.Error(), "no vramjet") {
		t.Errorf("without streams: %v", err)
	}
	js := brokertest.Setup(t, nc)
	if _, err := js.Publish(t.Context(), schemas.JobsPrefix+Tenant+".normal.m", []byte("hi")); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), []string{Enqueue}, cfg); err == nil || !strings.Contains(err.Error(), "nats stream purge VJ_JOBS") {
		t.Errorf("got %v", err)
	}
	s, err := js.Stream(t.Context(), broker.StreamJobs)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := s.GetLastMsgForSubject(t.Context(), schemas.JobsPrefix+Tenant+".normal.m"); err != nil || string(m.Data) != "hi" {
		t.Errorf("the job is gone: %v", err)
	}
}

// TestFailedMode: a mode that fails says why, and the others are measured.
func TestFailedMode(t *testing.T) {
	cfg := small(t)
	cfg.Dispatcher = nil
	r, err := Run(t.Context(), []string{Scale, Relay}, cfg)
	if err == nil || len(r.Results) != 2 || r.Results[0].Failed != "" || len(r.Results[0].Figures) != 2 || r.Results[1].Failed == "" {
		t.Errorf("got %+v, %v", r, err)
	}
}

// TestPlayedDispatcher: a dispatcher in a process of its own answers each line, and
// ends with them.
func TestPlayedDispatcher(t *testing.T) {
	srv := brokertest.Start(t)
	brokertest.Setup(t, brokertest.Connect(t, srv))
	var out bytes.Buffer
	if err := PlayDispatcher(t.Context(), srv.ClientURL(), strings.NewReader("\n\n"), &out); err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(&out)
	for range 2 {
		var u usage
		if err := dec.Decode(&u); err != nil || u.CPU <= 0 || u.Memory <= 0 {
			t.Errorf("got %+v, %v", u, err)
		}
	}
}

// TestPercentile: the smallest of the values that p percent are not above.
func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		of   []time.Duration
		p    float64
		want time.Duration
	}{
		{nil, 50, 0},
		{hundred[:1], 1, 1},
		{hundred[:1], 99, 1},
		{hundred[:2], 50, 1},
		{hundred[:2], 51, 2},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 99.5, 100},
		{hundred, 100, 100},
		{hundred, 0, 1},
	} {
		if got := percentile(c.of, c.p); got != c.want {
			t.Errorf("p%v of %d is %d, want %d", c.p, len(c.of), got, c.want)
		}
	}
}

// TestWindow: what ends in the warm-up does not count, and what ends late does.
func TestWindow(t *testing.T) {
	w := newWindow(10 * time.Second)
	at := func(s float64) ended {
		return ended{w.from.Add(time.Duration((s - 1) * float64(time.Second))), time.Duration(s * float64(time.Second))}
	}
	if s := w.sample([]ended{at(0.5), at(9), at(2), at(11)}); len(s.took) != 3 || s.took[0] != 2*time.Second || s.elapsed != 10*time.Second || s.rate() != 0.3 {
		t.Errorf("got %+v", s)
	}
	if s := w.sample(nil); s.at(50) != 0 || s.rate() != 0 {
		t.Errorf("of nothing: %+v", s)
	}
}

// TestRate: of calls that take a known time, so many at a time, the rate is known.
func TestRate(t *testing.T) {
	s, err := load{inFlight: 4, time: 400 * time.Millisecond, spread: 20 * time.Millisecond}.run(t.Context(), timed(func(ctx context.Context) error { return pause(ctx, 20*time.Millisecond) }))
	if err != nil || s.rate() > 201 || s.at(50) < 20*time.Millisecond {
		t.Errorf("%.0f calls a second, p50 %s, %v", s.rate(), s.at(50), err)
	}
	want := errors.New("no")
	if _, err := (load{inFlight: 4, time: time.Minute}).run(t.Context(), timed(func(context.Context) error { return want })); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
}

// TestMinimal: both paths bring as many events of a job as they say.
func TestMinimal(t *testing.T) {
	for _, path := range []Path{Answered, Stored} {
		srv := brokertest.Start(t)
		m, err := NewMinimal(t.Context(), brokertest.Connect(t, srv), path, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		for _, part := range []string{"dispatcher", "worker"} {
			if err := PlayMinimal(path, part, brokertest.Connect(t, srv), ""); err != nil {
				t.Fatal(err)
			}
		}
		const jobs = 20
		for range jobs {
			if err := m.Submit([]byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
		late := time.After(20 * time.Second)
		for range jobs * m.PerJob {
			select {
			case <-m.Events:
			case <-late:
				t.Fatalf("%s: jobs did not end", path)
			}
		}
		js, err := jetstream.New(brokertest.Connect(t, srv))
		if err != nil {
			t.Fatal(err)
		}
		for left, stop := uint64(1), time.Now().Add(20*time.Second); left > 0; {
			s, err := js.Stream(t.Context(), minimalJobs)
			if err != nil {
				t.Fatal(err)
			}
			if left = s.CachedInfo().State.Msgs; time.Now().After(stop) {
				t.Fatalf("%s: %d jobs were not acknowledged", path, left)
			}
		}
	}
}
