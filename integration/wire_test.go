package integration

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// checkWire runs the black-box check of the wire protocol.
func checkWire(t *testing.T, url string) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed: the wire check needs it")
	}
	out, err := exec.Command(python, shared(t, "checks/wire.py"), "--nats", strings.TrimPrefix(url, "nats://"),
		"--model", "sim-fast", "--slow-model", "sim-slow", "--embed-model", "sim-embed").CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "26 passed, 0 failed, 0 skipped") {
		t.Errorf("the wire check: %v", err)
	}
}

// TestWireUp checks the wire of everything in one process.
func TestWireUp(t *testing.T) {
	t.Parallel()
	shared(t, "checks/wire.py")
	url, _ := up(t)
	connect(t, url).serves("sim-fast", 1)
	checkWire(t, url)
}

// TestWireProcesses checks the wire of two dispatchers and two workers on an
// external server.
func TestWireProcesses(t *testing.T) {
	t.Parallel()
	shared(t, "checks/wire.py")
	url, _ := natsServer(t, "")
	for i := range 2 {
		start(t, fmt.Sprint("dispatcher ", i), "vramjet", "dispatcher", "--server", url)
		start(t, fmt.Sprint("worker ", i), "vramjet", "worker", "--server", url, "--sim", "--node", fmt.Sprint("n", i))
	}
	connect(t, url).serves("sim-fast", 2)
	checkWire(t, url)
}

// up starts everything in one process, with the simulated backend.
func up(t *testing.T) (url string, p *process) {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p = start(t, "vramjet up", "vramjet", "up", "--nats", addr, "--http", "127.0.0.1:0", "--data", t.TempDir(), "--sim")
	return "nats://" + addr, p
}
