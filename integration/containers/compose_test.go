package containers

import (
	"bytes"
	"crypto/rand"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"

	vramjet "github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// A project is what compose.yaml describes, with images that were built here.
type project struct {
	testing.TB
	docker  *testcontainers.DockerProvider
	name    string
	command []string
	env     []string
	files   []string
	urls    []string // of NATS
}

// newProject starts a project, which over says more of, and ends it after the test.
func newProject(t *testing.T, over ...string) *project {
	t.Helper()
	p := &project{TB: t, docker: docker(t), name: "vramjet-test-" + strings.ToLower(rand.Text()[:6]), command: []string{"docker", "compose"}}
	if exec.Command("docker", "compose", "version").Run() != nil {
		p.command = []string{"docker-compose"}
		if _, err := exec.LookPath("docker-compose"); err != nil {
			t.Skip("Docker Compose is not installed")
		}
	}
	images(t)
	p.buildNATS()
	p.env = append(os.Environ(), "VRAMJET_IMAGE="+imageVramjet, "NATS_IMAGE="+imageNATS)
	for i := range 3 {
		port := freePort(t)
		p.env = append(p.env, fmt.Sprintf("NATS_PORT_%d=%d", i+1, port))
		p.urls = append(p.urls, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	for _, file := range append([]string{filepath.Join(root, "compose.yaml")}, over...) {
		p.files = append(p.files, "-f", file)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.run("logs", "--no-color", "--tail", "30"))
		}
		p.run("down", "-v", "-t", "10")
	})
	p.run("up", "-d")
	return p
}

// buildNATS builds the image of a NATS server with a shell.
func (p *project) buildNATS() {
	p.Helper()
	shell, err := exec.LookPath("busybox")
	if err == nil {
		if libraries, ok := libraries(shell); !ok || len(libraries) > 0 {
			err = exec.ErrNotFound
		}
	}
	if err != nil {
		p.Skip("busybox is not installed, or not static (Debian's busybox-static is)")
	}
	from := p.TempDir()
	p.must("copy busybox", copyFile(shell, filepath.Join(from, "busybox"), 0o755))
	p.must("build", buildImage(p.docker, imageNATS, "testdata/nats.Dockerfile", from))
}

// libraries returns what a program is linked with when it starts.
func libraries(path string) (names []string, ok bool) {
	file, err := elf.Open(path)
	if err != nil {
		return nil, false
	}
	defer file.Close()
	names, err = file.ImportedLibraries()
	return names, err == nil
}

func (p *project) must(doing string, err error) {
	p.Helper()
	if err != nil {
		p.Fatalf("%s: %v", doing, err)
	}
}

// run runs a command of Compose, and returns what it printed.
func (p *project) run(args ...string) string {
	p.Helper()
	cmd := exec.Command(p.command[0], slices.Concat(p.command[1:], []string{"-p", p.name}, p.files, args)...)
	cmd.Env = p.env
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		p.Errorf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, errs.String())
	}
	return string(out)
}

// services returns what Docker knows of the containers of compose.yaml, by their services.
func (p *project) services() map[string]container.InspectResponse {
	p.Helper()
	list, err := p.docker.Client().ContainerList(p.Context(), client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", "com.docker.compose.project="+p.name)})
	p.must("list containers", err)
	all := map[string]container.InspectResponse{}
	for _, c := range list.Items {
		full, err := p.docker.Client().ContainerInspect(p.Context(), c.ID, client.ContainerInspectOptions{})
		p.must("inspect "+c.ID, err)
		if service := c.Labels["com.docker.compose.service"]; !strings.HasPrefix(service, "disk-") {
			all[service] = full.Container
		}
	}
	return all
}

// healthy waits until all services are, and connects.
func (p *project) healthy() *site {
	p.Helper()
	var states []string
	defer func() { p.Log(strings.Join(states, ", ")) }()
	within(p, 2*patience, "all services are healthy", func() bool {
		states = nil
		healthy := 0
		for service, c := range p.services() {
			states = append(states, fmt.Sprintf("%s %s", service, c.State.Health.Status))
			if c.State.Health.Status == container.Healthy {
				healthy++
			}
		}
		slices.Sort(states)
		return healthy == 7
	})
	s := &site{TB: p.TB, url: strings.Join(p.urls, ",")}
	s.connect()
	s.serves(2)
	return s
}

// TestCompose: what compose.yaml describes stands up, is well, and runs jobs that come
// from this machine and from a container; nothing of it runs with rights.
func TestCompose(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	s := p.healthy()
	for service, c := range p.services() {
		if h := c.HostConfig; !h.ReadonlyRootfs || len(h.CapDrop) == 0 {
			t.Errorf("%s has rights that it does not need", service)
		}
		if user := c.Config.User; c.Config.Image == imageVramjet && (user == "" || strings.HasPrefix(user, "0")) {
			t.Errorf("%s runs as user %q", service, user)
		}
	}
	began := time.Now()
	ticket, err := s.api.Submit(t.Context(), vramjet.Chat("sim-fast", "Why is the sky blue?"))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.api.Result(t.Context(), ticket.ID); err != nil || r.Status != schemas.StatusOK {
		t.Errorf("the job ended %+v, %v", r, err)
	}
	t.Logf("a job took %s", short(time.Since(began)))
	if n := s.stream("VJ_JOBS").Config.Replicas; n != 3 {
		t.Errorf("%d replicas of VJ_JOBS", n)
	}
	if out := p.run("exec", "-T", "worker-1", "vramjet", "submit", "-m", "sim-fast", "Once upon a time"); strings.TrimSpace(out) == "" {
		t.Error("a job that was submitted in a container has no answer")
	}
}

// TestComposeDiskFull: the disks of all three NATS servers are full at once. Jobs are
// refused, and once there is room all goes on with nobody doing anything. Nothing that
// was acknowledged is lost.
func TestComposeDiskFull(t *testing.T) {
	t.Parallel()
	p := newProject(t, "testdata/small-disks.yaml")
	s := p.healthy()
	ids, err := s.submitted(60, "hi")
	if err != nil {
		t.Fatal(err)
	}
	restarts := func() (total int) {
		for service, c := range p.services() {
			if strings.HasPrefix(service, "nats-") {
				total += c.RestartCount
			}
		}
		return total
	}
	before := restarts()
	disks := []string{"disk-1", "disk-2", "disk-3"}
	for _, disk := range disks {
		p.run("exec", "-T", disk, "/actor", "fill", "/data/filler")
	}
	var refused error
	within(t, patience, "a job is refused", func() bool {
		more, err := s.submitted(1, largePrompt)
		ids, refused = append(ids, more...), err
		return err != nil
	})
	t.Logf("refused: %v", refused)
	time.Sleep(15 * time.Second) // the health check looks three times
	for service, c := range p.services() {
		if log := c.State.Health.Log; strings.HasPrefix(service, "nats-") && len(log) > 0 {
			t.Logf("%s: %s", service, log[len(log)-1].Output)
		}
	}
	if n := restarts() - before; n > 0 {
		t.Errorf("NATS servers were started again %d times while there was no room", n)
	}

	for _, disk := range disks {
		p.run("exec", "-T", disk, "/actor", "rm", "/data/filler")
	}
	began := time.Now()
	within(t, patience, "a job is taken", func() bool {
		more, err := s.submitted(1, "hi")
		ids = append(ids, more...)
		return err == nil
	})
	t.Logf("the first job was taken %s after there was room, and NATS servers were started again %d times", short(time.Since(began)), restarts()-before)
	s.ended(ids)
}
