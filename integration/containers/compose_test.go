package containers

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	vramjet "github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// A project is what compose.yaml describes, with images that were built here.
type project struct {
	testing.TB
	name    string
	command []string
	env     []string
}

func newProject(t *testing.T) *project {
	t.Helper()
	p := &project{TB: t, name: "vramjet-test-" + strings.ToLower(rand.Text()[:6]), command: []string{"docker", "compose"}}
	if exec.Command("docker", "compose", "version").Run() != nil {
		p.command = []string{"docker-compose"}
		if _, err := exec.LookPath("docker-compose"); err != nil {
			t.Skip("Docker Compose is not installed")
		}
	}
	p.env = append(os.Environ(), "VRAMJET_IMAGE="+imageVramjet, "NATS_IMAGE="+imageTools)
	for i := range 3 {
		p.env = append(p.env, fmt.Sprintf("NATS_PORT_%d=%d", i+1, freePort(t)))
	}
	return p
}

// run runs a command of Compose, and returns what it printed.
func (p *project) run(args ...string) string {
	p.Helper()
	files := []string{"-p", p.name, "-f", filepath.Join(root, "compose.yaml"), "-f", filepath.Join(root, "docker/local.yaml")}
	cmd := exec.Command(p.command[0], append(append(p.command[1:len(p.command):len(p.command)], files...), args...)...)
	cmd.Env = p.env
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		p.Errorf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, errs.String())
	}
	return string(out)
}

// TestCompose: what compose.yaml describes stands up, is well, and runs jobs that come
// from this machine and from a container; nothing of it runs with rights.
func TestCompose(t *testing.T) {
	t.Parallel()
	d := docker(t)
	images(t)
	p := newProject(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.run("logs", "--no-color", "--tail", "30"))
		}
		p.run("down", "-v", "-t", "10")
	})
	p.run("up", "-d")
	mine := client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", "com.docker.compose.project="+p.name)}
	var states []string
	defer func() { t.Log(strings.Join(states, ", ")) }()
	within(t, 2*patience, "all services are healthy", func() bool {
		list, err := d.Client().ContainerList(t.Context(), mine)
		if err != nil {
			t.Fatal(err)
		}
		states = nil
		healthy := 0
		for _, c := range list.Items {
			full, err := d.Client().ContainerInspect(t.Context(), c.ID, client.ContainerInspectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			state, config := full.Container.State, full.Container
			states = append(states, fmt.Sprintf("%s %s", config.Name, state.Health.Status))
			if state.Health.Status == container.Healthy {
				healthy++
			}
			if h := config.HostConfig; !h.ReadonlyRootfs || len(h.CapDrop) == 0 {
				t.Errorf("%s has rights that it does not need", config.Name)
			}
			if user := config.Config.User; config.Config.Image == imageVramjet && (user == "" || strings.HasPrefix(user, "0")) {
				t.Errorf("%s runs as user %q", config.Name, user)
			}
		}
		return healthy == 7
	})
	var urls []string
	for _, e := range p.env {
		if port, ok := strings.CutPrefix(e, "NATS_PORT_"); ok {
			urls = append(urls, "nats://127.0.0.1:"+port[2:])
		}
	}
	s := &site{TB: t, url: strings.Join(urls, ",")}
	s.connect()
	s.serves(2)
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
