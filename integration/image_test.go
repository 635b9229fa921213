package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// dockerfile is all that an image of vramjet takes.
const dockerfile = `FROM scratch
COPY vramjet /vramjet
ENTRYPOINT ["/vramjet"]
`

// TestImage: the static binary is all that an image needs, and runs in it without
// rights: as nobody, with nothing to write to but its data, and no network.
func TestImage(t *testing.T) {
	t.Parallel()
	if _, stderr, err := docker(t, "info"); err != nil {
		t.Skipf("Docker does not answer: %v %s", err, stderr)
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "vramjet"), "github.com/vramjet/vramjet/cmd/vramjet")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o600); err != nil {
		t.Fatal(err)
	}
	name := "vramjet-test-" + strings.ToLower(rand.Text())
	if _, stderr, err := docker(t, "build", "--tag", name, dir); err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	t.Cleanup(func() {
		_, _, _ = docker(t, "rm", "--force", name) // where a run took too long
		if _, stderr, err := docker(t, "image", "rm", name); err != nil {
			t.Errorf("%v\n%s", err, stderr)
		}
	})
	run := func(args ...string) (stdout, stderr string) {
		t.Helper()
		stdout, stderr, err := docker(t, append([]string{
			"run", "--rm", "--name", name, "--user", "65532:65532", "--read-only", "--tmpfs", "/data",
			"--cap-drop", "ALL", "--network", "none", name,
		}, args...)...)
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, stderr)
		}
		return stdout, stderr
	}
	if out, _ := run("version"); !strings.HasPrefix(out, "vramjet ") {
		t.Errorf("version says %q", out)
	}
	answer, said := run("up", "--try", "hi", "--data", "/data", "--nats", "127.0.0.1:0", "--http", "off")
	if len(strings.Fields(answer)) < 10 || !strings.Contains(said, "SIMULATED") || !strings.Contains(said, "attempt 1") {
		t.Errorf("up answers %q and says\n%s", answer, said)
	}
}

// docker runs a command of Docker, for a minute at most.
func docker(tb testing.TB, args ...string) (stdout, stderr string, err error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	var out, failed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failed
	err = cmd.Run()
	return out.String(), failed.String(), err
}
