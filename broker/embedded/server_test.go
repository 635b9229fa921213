package embedded_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/vramjet/vramjet/broker/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func start(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	srv, err := embedded.Start(cfg, quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Shutdown)
	return srv
}

func refused(t *testing.T, cfg embedded.Config, words ...string) {
	t.Helper()
	srv, err := embedded.Start(cfg, quiet(t))
	if err == nil {
		srv.Shutdown()
		t.Fatal("the server started")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
}

func js(t *testing.T, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	j, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestMessagesOutliveTheServer(t *testing.T) {
	cfg := embedded.Config{Dir: filepath.Join(t.TempDir(), "new", "dir"), Port: -1}
	srv := start(t, cfg)
	nc, err := nats.Connect(srv.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js(t, nc).CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte("x"), 7<<20) // more than the server's own default
	if _, err := js(t, nc).Publish(t.Context(), "s", large); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	srv.Shutdown()
	srv.Shutdown() // may be called again

	srv = start(t, cfg)
	nc, err = nats.Connect("", nats.InProcessServer(srv.InProcess()))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	s, err := js(t, nc).Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("%d messages are left of 1", n)
	}
}

func TestInProcessOnly(t *testing.T) {
	srv := start(t, embedded.Config{Dir: t.TempDir(), InProcessOnly: true})
	if srv.ClientURL() != "" {
		t.Errorf("it listens on %s", srv.ClientURL())
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv.InProcess()))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := js(t, nc).AccountInfo(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestADirectoryHasOneServer(t *testing.T) {
	dir := t.TempDir()
	srv := start(t, embedded.Config{Dir: dir, Port: -1})
	refused(t, embedded.Config{Dir: dir, Port: -1}, dir, "in use by process "+strconv.Itoa(os.Getpid()))
	srv.Shutdown()
	start(t, embedded.Config{Dir: dir, Port: -1})
}

func TestADirectoryOfAnotherLayoutIsLeftAlone(t *testing.T) {
	for _, version := range []string{"2\n", "", "x", strings.Repeat("9", 100)} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "VERSION"), []byte(version), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, embedded.Config{Dir: dir, Port: -1}, dir, "layout")
		if names := files(t, dir); len(names) != 1 {
			t.Errorf("version %q: the directory has %v", version, names)
		}
	}
}

func TestADirectoryOfAnotherServerIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "jetstream"), 0o700); err != nil {
		t.Fatal(err)
	}
	refused(t, embedded.Config{Dir: dir, Port: -1}, dir, "not ours")
	if names := files(t, dir); len(names) != 1 {
		t.Errorf("the directory has %v", names)
	}
}

func TestADirectoryThatCannotBeUsed(t *testing.T) {
	t.Run("none", func(t *testing.T) { refused(t, embedded.Config{Port: -1}, "no data directory") })
	t.Run("a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, embedded.Config{Dir: file, Port: -1}, file, "choose another")
	})
	t.Run("no rights", func(t *testing.T) {
		if os.Getuid() == 0 {
			t.Skip("root may write everywhere")
		}
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		refused(t, embedded.Config{Dir: dir, Port: -1}, dir, "permission denied", "check its owner")
	})
}

func TestAPortThatIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	dir := t.TempDir()
	taken := l.Addr().(*net.TCPAddr).Port
	refused(t, embedded.Config{Dir: dir, Port: taken}, strconv.Itoa(taken), "choose another port")
	if _, err := os.Stat(filepath.Join(dir, "jetstream")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the server was started")
	}
	start(t, embedded.Config{Dir: dir, Port: -1}) // the directory was given back
}

func TestWhatIsWrongWithTheOptionsIsSaid(t *testing.T) {
	base := &server.Options{Username: "a", Password: "b", Users: []*server.User{{Username: "c"}}, Cluster: server.ClusterOpts{Port: -1}, LeafNode: server.LeafNodeOpts{Remotes: []*server.RemoteLeafOpts{{LocalAccount: "nope"}}}}
	refused(t, embedded.Config{Dir: t.TempDir(), Port: -1, Base: base}, "start the embedded NATS server")
}

func TestAUserOfTheBaseIsAskedFor(t *testing.T) {
	base := &server.Options{Username: "alice", Password: "pw"}
	srv := start(t, embedded.Config{Dir: t.TempDir(), Port: -1, Base: base})
	if nc, err := nats.Connect(srv.ClientURL()); !errors.Is(err, nats.ErrAuthorization) {
		nc.Close()
		t.Errorf("nobody connected: %v", err)
	}
	nc, err := nats.Connect(srv.ClientURL(), nats.UserInfo("alice", "pw"))
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	if base.StoreDir != "" || base.JetStream {
		t.Error("the base was changed")
	}
}

// A reader that takes nothing is cut off, and stalls nobody who publishes.
func TestASlowReaderIsCutOff(t *testing.T) {
	srv := start(t, embedded.Config{Dir: t.TempDir(), Port: -1})
	u := strings.TrimPrefix(srv.ClientURL(), "nats://")
	slow, err := net.Dial("tcp", u)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	if _, err := slow.Write([]byte("CONNECT {}\r\nSUB flood 1\r\nPING\r\n")); err != nil {
		t.Fatal(err)
	}
	pub, err := nats.Connect(srv.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer pub.Close()
	var longest time.Duration
	flood := time.Now()
	piece := make([]byte, 64<<10)
	for range 800 {
		begun := time.Now()
		if err := pub.Publish("flood", piece); err != nil {
			t.Fatal(err)
		}
		if err := pub.FlushTimeout(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, time.Since(begun))
	}
	took := time.Since(flood)
	t.Logf("the longest publish took %s, all %s", longest, took)
	if longest > 2*time.Second || took > 5*time.Second {
		t.Errorf("the publisher was stalled: %s in all, %s at most", took, longest)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); ; <-tick.C {
		if _, err := slow.Write([]byte("PING\r\n")); err != nil {
			t.Logf("the slow reader was cut off after %s", time.Since(begun))
			return
		}
		if time.Since(begun) > 6*time.Second {
			t.Fatal("the slow reader was not cut off")
		}
	}
}

func BenchmarkStoredPublish(b *testing.B) {
	for name, interval := range map[string]time.Duration{"sync always": 0, "sync each second": time.Second} {
		b.Run(name, func(b *testing.B) {
			srv, err := embedded.Start(embedded.Config{Dir: b.TempDir(), Port: -1, SyncInterval: interval}, slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			defer srv.Shutdown()
			nc, err := nats.Connect(srv.ClientURL())
			if err != nil {
				b.Fatal(err)
			}
			defer nc.Close()
			j, err := jetstream.New(nc)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := j.CreateStream(b.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := j.Publish(b.Context(), "s", []byte("x")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
