package containers

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

const page = root + "/docs/reliability.md"

// publish writes a table into docs/reliability.md, between its markers.
func publish(tb testing.TB, name, text string) {
	tb.Helper()
	old, err := os.ReadFile(page)
	if err != nil {
		tb.Fatal(err)
	}
	begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->"
	before, rest, ok := strings.Cut(string(old), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		tb.Fatalf("%s has no markers %q", page, name)
	}
	if err := os.WriteFile(page, []byte(before+begin+text+end+after), 0o644); err != nil {
		tb.Fatal(err)
	}
}

// provenance says what was measured when, and on what.
func provenance() string {
	commit, _ := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	kernel, _ := exec.Command("uname", "-sr").Output()
	return fmt.Sprintf("Measured on %s at commit %s, with nats-server %s, %s, on %d cores of %s, all containers on one machine",
		time.Now().UTC().Format(time.DateOnly), strings.TrimSpace(string(commit)), natsserver.VERSION, runtime.Version(), runtime.NumCPU(), strings.TrimSpace(string(kernel)))
}
