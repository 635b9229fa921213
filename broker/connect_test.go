package broker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/broker/embedded"
)

const secret = "s3cret"

func connect(t *testing.T, cfg broker.ConnectConfig) (*nats.Conn, error) {
	t.Helper()
	nc, err := broker.Connect(within(t, patience), cfg, brokertest.Log(t))
	if err == nil {
		t.Cleanup(nc.Close)
	}
	return nc, err
}

// users starts a server that knows alice by password and somebody by nkey.
func users(t *testing.T) (srv *embedded.Server, seedFile string) {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := key.Seed()
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seedFile = filepath.Join(t.TempDir(), "user.nk")
	if err := os.WriteFile(seedFile, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	may := &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{"open.>"}}}
	return brokertest.StartServer(t, embedded.Config{Base: &server.Options{
		Users: []*server.User{{Username: "alice", Password: secret, Permissions: may}},
		Nkeys: []*server.NkeyUser{{Nkey: public}},
	}}), seedFile
}

// contextFile writes a context of the nats command line, where it looks for them.
func contextFile(t *testing.T, name string, settings map[string]string) (path string) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	dir := filepath.Join(home, "nats", "context")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, name+".json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConnectAs(t *testing.T) {
	srv, seed := users(t)
	host := strings.TrimPrefix(srv.ClientURL(), "nats://")
	good := contextFile(t, "good", map[string]string{"url": srv.ClientURL(), "user": "alice", "password": secret})
	nowhere := fmt.Sprintf("nats://127.0.0.1:%d", freePort(t))
	_ = contextFile(t, "bad", map[string]string{"url": nowhere, "user": "mallory", "password": "x"})
	for _, tt := range []struct {
		name string
		cfg  broker.ConnectConfig
	}{
		{"user", broker.ConnectConfig{URL: srv.ClientURL(), User: "alice", Password: secret}},
		{"user of the URL", broker.ConnectConfig{URL: "nats://alice:" + secret + "@" + host}},
		{"nkey", broker.ConnectConfig{URL: srv.ClientURL(), NKey: seed}},
		{"without a scheme", broker.ConnectConfig{URL: host, User: "alice", Password: secret}},
		{"the second of two", broker.ConnectConfig{URL: nowhere + ", " + host, User: "alice", Password: secret}},
		{"context by its file", broker.ConnectConfig{Context: good}},
		{"context, but for its user and URL", broker.ConnectConfig{Context: "bad", URL: srv.ClientURL(), User: "alice", Password: secret}},
		{"context, but for its user, by nkey", broker.ConnectConfig{Context: "bad", URL: srv.ClientURL(), NKey: seed}},
		{"in process", broker.ConnectConfig{InProcess: srv.InProcess(), User: "alice", Password: secret, URL: nowhere}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nc, err := connect(t, tt.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := nc.FlushTimeout(patience); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestConnectByName(t *testing.T) {
	srv, _ := users(t)
	contextFile(t, "good", map[string]string{"url": srv.ClientURL(), "user": "alice", "password": secret})
	if _, err := connect(t, broker.ConnectConfig{Context: "good"}); err != nil {
		t.Error(err)
	}
}

func TestConnectSaysWhatIsWrong(t *testing.T) {
	srv, seed := users(t)
	host := strings.TrimPrefix(srv.ClientURL(), "nats://")
	nowhere := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	contextFile(t, "odd", map[string]string{"url": "nats://alice:" + secret + "/x@[" + host})
	for _, tt := range []struct {
		name string
		cfg  broker.ConnectConfig
		want []string
	}{
		{"nobody there", broker.ConnectConfig{URL: "nats://alice:" + secret + "@" + nowhere}, []string{"***@" + nowhere, "check that a server runs there"}},
		{"token of a URL", broker.ConnectConfig{URL: "nats://" + secret + "@" + nowhere}, []string{"***@" + nowhere}},
		{"wrong password", broker.ConnectConfig{URL: srv.ClientURL(), User: "alice", Password: secret + "x"}, []string{host, "check the credentials"}},
		{"not a URL", broker.ConnectConfig{URL: "nats://alice:" + secret + "/x@[" + host}, []string{"is not a URL"}},
		{"a password with a comma", broker.ConnectConfig{URL: "nats://alice:" + secret + ",x@" + host}, []string{"is not a URL"}},
		{"no such context", broker.ConnectConfig{Context: "nope"}, []string{`context "nope"`, "unknown context"}},
		{"a context without a URL", broker.ConnectConfig{Context: "odd"}, []string{`context "odd"`}},
		{"no nkey file", broker.ConnectConfig{NKey: seed + "x"}, []string{seed + "x", "nkey"}},
		{"two identities", broker.ConnectConfig{User: "alice", Token: secret}, []string{"one of creds, nkey, user and token"}},
		{"half a certificate", broker.ConnectConfig{Cert: "x.pem"}, []string{"key"}},
		{"no CA file", broker.ConnectConfig{URL: srv.ClientURL(), CA: "/nonexistent.pem"}, []string{"/nonexistent.pem"}},
		{"no creds file", broker.ConnectConfig{URL: srv.ClientURL(), Creds: "/nonexistent.creds"}, []string{"/nonexistent.creds"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := connect(t, tt.cfg)
			if err == nil {
				t.Fatal("it connected")
			}
			for _, word := range tt.want {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %q: %v", word, err)
				}
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

// A server that takes the connection and says nothing doesn't hold up its caller.
func TestConnectStopsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = broker.Connect(ctx, broker.ConnectConfig{URL: "nats://" + l.Addr().String()}, brokertest.Log(t))
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
}

func TestWhatIsNotPermittedIsLogged(t *testing.T) {
	srv, _ := users(t)
	var logged lines
	log := slog.New(slog.NewTextHandler(&logged, nil))
	nc, err := broker.Connect(within(t, patience), broker.ConnectConfig{URL: srv.ClientURL(), User: "alice", Password: secret}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.Publish("closed.door", nil); err != nil {
		t.Fatal(err)
	}
	logged.await(t, "level=ERROR", "not permitted", "closed.door")
}

// A busy connection to a server that takes nothing any more is given up as well: what
// is written waits for room then, and pings wait for what is written.
func TestBusyConnectionToDeadServerIsGivenUp(t *testing.T) {
	srv := brokertest.StartServer(t, embedded.Config{})
	proxy := brokertest.StartProxy(t, srv.ClientURL())
	nc, err := connect(t, broker.ConnectConfig{URL: proxy.URL()})
	if err != nil {
		t.Fatal(err)
	}
	lost := nc.StatusChanged(nats.RECONNECTING)
	proxy.Freeze()
	frozen := time.Now()
	busy := make(chan struct{})
	go func() {
		defer close(busy)
		for nc.IsConnected() && nc.Publish("subject", make([]byte, 4<<10)) == nil {
			time.Sleep(100 * time.Microsecond)
		}
	}()
	select {
	case <-lost:
		t.Logf("given up after %s", time.Since(frozen).Round(time.Millisecond))
	case <-time.After(20 * time.Second):
		t.Error("not given up after 20 s")
	}
	nc.Close()
	<-busy
}

func TestLossAndReturnAreLogged(t *testing.T) {
	dir := t.TempDir()
	srv := brokertest.StartServer(t, embedded.Config{Dir: dir, Base: &server.Options{Username: "alice", Password: secret}})
	var logged lines
	log := slog.New(slog.NewTextHandler(&logged, nil))
	withUser := strings.Replace(srv.ClientURL(), "://", "://alice:"+secret+"@", 1)
	nc, err := broker.Connect(within(t, patience), broker.ConnectConfig{URL: withUser}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	srv.Shutdown()
	logged.await(t, "level=WARN", "disconnected")
	brokertest.StartServer(t, embedded.Config{Dir: dir, Port: port(t, srv), Base: &server.Options{Username: "alice", Password: secret}})
	logged.await(t, "level=INFO", "reconnected")
	if strings.Contains(logged.String(), secret) {
		t.Errorf("the log tells a secret: %s", logged.String())
	}
}

func FuzzRedact(f *testing.F) {
	for _, s := range []string{"", "nats://a:b@c:1", "tok@c", "nats://a,nats://u:p@b", "@", "://@", "nats://a:b@c@d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if strings.ContainsAny(host, ",@") {
			return
		}
		for _, list := range []string{
			"nats://user:" + secret + "@" + host,
			"nats://" + secret + "@" + host + ",tls://u:" + secret + "@" + host,
			secret + "@" + host,
		} {
			if got := broker.Redact(list); strings.Contains(strings.Replace(got, host, "", 2), secret) {
				t.Errorf("%q is shown as %q", list, got)
			}
		}
	})
}

// lines is what was logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// await waits for a line with all of words.
func (l *lines) await(t *testing.T, words ...string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); waitFor(t, 5*time.Millisecond) {
		for line := range strings.Lines(l.String()) {
			if containsAll(line, words) {
				return
			}
		}
	}
	t.Fatalf("no line has all of %q:\n%s", words, l)
}

func containsAll(s string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}

// An address of the page, which is HTTP's, is told from one of NATS.
func TestConnectToHTTP(t *testing.T) {
	cfg := broker.ConnectConfig{URL: "nats://127.0.0.1:4222, http://ana:secret@127.0.0.1:7433"}
	_, err := broker.Connect(t.Context(), cfg, brokertest.Log(t))
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:7433: that is an address of HTTP") || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}
