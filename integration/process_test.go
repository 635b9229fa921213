package integration

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// patience is how long a test waits for what should take milliseconds.
const patience = 30 * time.Second

// binary is built once, before the first test that needs it.
var binaries = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "vramjet-it-"); err != nil {
		return "", err
	}
	for name, pkg := range map[string]string{
		"vramjet": "github.com/vramjet/vramjet/cmd/vramjet", "nats-server": "github.com/nats-io/nats-server/v2",
	} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg).CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	playMinimalRole()
	code := m.Run()
	if dir, err := binaries(); err == nil {
		os.RemoveAll(dir)
	}
	if slowDir != "" {
		os.RemoveAll(slowDir)
	}
	if code == 0 && ranAll() {
		if err := proofs.Check("../docs/providers.md", *update, providertest.Real); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

var update = flag.Bool("update", false, "write the table of proofs in docs/providers.md")

// proofs is what the tests of this package proved, with real servers.
var proofs providertest.Proofs

// ranAll reports whether all tests ran that prove something: nobody picked some,
// and what they need is here.
func ranAll() bool {
	for _, name := range []string{"run", "skip", "list"} {
		if flag.Lookup("test."+name).Value.String() != "" {
			return false
		}
	}
	command, _ := llamaCommand()
	_, err := sharedFile("models")
	return command != nil && err == nil
}

// A process is a real one, whose output is shown if its test fails.
type process struct {
	testing.TB
	name string
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

// start runs one of the binaries until the test ends.
func start(tb testing.TB, name, binary string, args ...string) *process {
	tb.Helper()
	dir, err := binaries()
	if err != nil {
		tb.Fatal(err)
	}
	return launch(tb, name, exec.Command(filepath.Join(dir, binary), args...))
}

// launch runs a command until the test ends.
func launch(tb testing.TB, name string, cmd *exec.Cmd) *process {
	tb.Helper()
	p := &process{TB: tb, name: name, cmd: cmd, done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "HOME="+tb.TempDir(), "XDG_CONFIG_HOME="+tb.TempDir())
	read, write := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = write, write
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		lines := bufio.NewScanner(read)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			p.mu.Lock()
			fmt.Fprintln(&p.out, lines.Text())
			p.mu.Unlock()
		}
	}()
	go func() {
		p.cmd.Wait() // how it ended is the test's to judge
		write.Close()
		close(p.done)
	}()
	tb.Cleanup(func() {
		p.signal(syscall.SIGCONT)
		p.signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			p.signal(syscall.SIGQUIT) // it says what its goroutines wait for
			<-p.done
			tb.Errorf("%s did not end on SIGTERM", name)
		}
		if tb.Failed() {
			tb.Logf("--- %s\n%s", name, p.output())
		}
	})
	return p
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// says waits until the process has printed a text.
func (p *process) says(text string) {
	p.Helper()
	within(p, patience, fmt.Sprintf("%s says %q", p.name, text), func() bool { return strings.Contains(p.output(), text) })
}

// rss is the memory of the process, in bytes; 0 once it has ended.
func (p *process) rss() int64 {
	p.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	var kb int64
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			break
		}
	}
	return kb << 10
}

// cpu is the processor time that the process has had; 0 where that can't be read.
func (p *process) cpu() time.Duration {
	p.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third on, see proc_pid_stat(5)
	user, _ := strconv.ParseInt(fields[14-3], 10, 64)
	system, _ := strconv.ParseInt(fields[15-3], 10, 64)
	return time.Duration(user+system) * time.Second / 100 // USER_HZ
}

// within waits until ok, and fails if that takes too long.
func within(tb testing.TB, limit time.Duration, what string, ok func() bool) time.Duration {
	tb.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			tb.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}

// freePort returns a port that nothing listens on.
func freePort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// natsServer starts an external server, as an operator would, and returns its
// URL. jetstream is what else its block of that name says.
func natsServer(tb testing.TB, jetstream string) (url string, p *process) {
	tb.Helper()
	dir, port := tb.TempDir(), freePort(tb)
	file := filepath.Join(dir, "nats.conf")
	config := fmt.Sprintf("port: %d\nhost: 127.0.0.1\nmax_payload: 8MB\njetstream {\n store_dir: %q\n %s\n}\n", port, dir, jetstream)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	p = start(tb, "nats-server", "nats-server", "-c", file)
	p.says("Server is ready")
	return fmt.Sprintf("nats://127.0.0.1:%d", port), p
}

// A user is a client of the system under test.
type user struct {
	testing.TB
	*client.Client
	nc *nats.Conn
}

func connect(tb testing.TB, url string) *user {
	tb.Helper()
	var nc *nats.Conn
	within(tb, patience, "a connection to "+url, func() (ok bool) {
		var err error
		nc, err = broker.Connect(context.Background(), broker.ConnectConfig{URL: url, Name: tb.Name()}, slog.New(slog.DiscardHandler))
		return err == nil
	})
	tb.Cleanup(nc.Close)
	c, err := client.New(nc, client.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return &user{tb, c, nc}
}

// serves waits until nodes serve a model, n of them.
func (u *user) serves(model string, n int) {
	u.Helper()
	within(u, patience, fmt.Sprintf("%d nodes serve %s", n, model), func() bool {
		nodes, err := u.Nodes(u.Context(), 200*time.Millisecond)
		if err != nil {
			return false
		}
		found := 0
		for _, node := range nodes {
			for _, b := range node.Backends {
				for _, m := range b.Models {
					if m.Name == model && b.Healthy {
						found++
					}
				}
			}
		}
		return found >= n
	})
}

// run submits a job.
func (u *user) run(job client.Job) *client.Stream {
	u.Helper()
	s, err := u.Run(u.Context(), job)
	if err != nil {
		u.Fatal(err)
	}
	u.Cleanup(s.Close)
	return s
}

// next reads events up to one of a kind.
func (u *user) next(s *client.Stream, kind schemas.EventKind) client.Event {
	u.Helper()
	ctx, cancel := context.WithTimeout(u.Context(), patience)
	defer cancel()
	for {
		ev, err := s.Next(ctx)
		if err != nil {
			u.Fatalf("job %s: no %s: %v", s.ID(), kind, err)
		}
		if ev.Kind == kind {
			return ev
		}
	}
}

// shared returns the path of a file that the project is checked with where it is
// at hand, and skips the test where it isn't.
func shared(tb testing.TB, path string) string {
	tb.Helper()
	file, err := sharedFile(path)
	if err != nil {
		tb.Skipf("%s is not at hand: set VRAMJET_SHARED to the folder that holds it", path)
	}
	return file
}

func sharedFile(path string) (string, error) {
	dir := os.Getenv("VRAMJET_SHARED")
	if dir == "" {
		dir = "../../shared"
	}
	file, err := filepath.Abs(filepath.Join(dir, path))
	if err == nil {
		_, err = os.Stat(file)
	}
	return file, err
}
