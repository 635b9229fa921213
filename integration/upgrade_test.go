package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// previousVersion is the commit of the version that this one must work beside. A
// version that is released stands here next.
const previousVersion = "88be53c2ec79104a1bce83c795a2e2a896958b22"

// previousBinary builds the previous version, from the history of the repository.
func previousBinary(t *testing.T) string {
	t.Helper()
	if out, err := exec.Command("git", "cat-file", "-e", previousVersion+"^{commit}").CombinedOutput(); err != nil {
		t.Skipf("the history of this repository is not here, so the previous version cannot be built: %s", out)
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(dir, "source.tar")
	for _, cmd := range []*exec.Cmd{
		exec.Command("git", "-C", "..", "archive", "-o", archive, previousVersion),
		exec.Command("tar", "-xf", archive, "-C", source),
		exec.Command("go", "build", "-C", source, "-o", filepath.Join(dir, "vramjet"), "./cmd/vramjet"),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	return filepath.Join(dir, "vramjet")
}

// An endCount counts the ends of jobs as they are published.
type endCount struct {
	mu sync.Mutex
	of map[string]int
}

func (u *user) countEnds() *endCount {
	u.Helper()
	c := &endCount{of: map[string]int{}}
	sub, err := u.nc.Subscribe(schemas.EndSubject(schemas.DefaultTenant, "*"), func(m *nats.Msg) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.of[m.Header.Get(schemas.HeaderJob)]++
	})
	if err != nil {
		u.Fatal(err)
	}
	u.Cleanup(func() { _ = sub.Unsubscribe() })
	return c
}

// jobs is how many jobs have ended.
func (c *endCount) jobs() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.of)
}

// TestRollingUpgrade replaces a system of the previous version by this one, a process
// after the other, while jobs come: each ends well, once. Which is replaced first
// does not matter, so each version's dispatcher runs the other's workers.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	old := previousBinary(t)
	for name, workersFirst := range map[string]bool{"dispatchers first": false, "workers first": true} {
		t.Run(name, func(t *testing.T) {
			url, _ := natsServer(t, "")
			before := func(name string, args ...string) *process {
				return launch(t, "previous "+name, exec.Command(old, append(args, "--server", url, "--http", "off")...))
			}
			now := func(name string, args ...string) *process {
				return start(t, name, "vramjet", append(args, "--server", url, "--http", "off")...)
			}
			dispatcher := before("dispatcher", "dispatcher")
			worker := func(run func(string, ...string) *process, node string) *process {
				return run("worker "+node, "worker", "--sim", "--node", node)
			}
			workers := []*process{worker(before, "n0"), worker(before, "n1")}
			u := connect(t, url)
			u.serves("sim-slow", 2)
			counted := u.countEnds()
			finish := u.steady(40)

			replaceDispatcher := func() {
				next := now("dispatcher", "dispatcher")
				dispatcher.signal(syscall.SIGTERM)
				<-dispatcher.done
				next.says("leading")
			}
			replaceWorkers := func() {
				for i, w := range workers {
					w.signal(syscall.SIGTERM)
					<-w.done
					worker(now, fmt.Sprint("n", i))
					u.serves("sim-slow", 2)
				}
			}
			steps := []func(){replaceDispatcher, replaceWorkers}
			if workersFirst {
				steps[0], steps[1] = steps[1], steps[0]
			}
			time.Sleep(time.Second)
			for _, step := range steps {
				step()
				time.Sleep(time.Second)
			}
			jobs, again := finish()
			within(t, patience, "all ends are heard", func() bool { return counted.jobs() == len(jobs) })
			counted.mu.Lock()
			defer counted.mu.Unlock()
			for _, id := range jobs {
				if counted.of[id] != 1 {
					t.Errorf("%s has %d ends", id, counted.of[id])
				}
			}
			t.Logf("%d jobs, %d of them with more than one attempt", len(jobs), again)
		})
	}
}

// steady submits so many jobs a second until it is told to finish, which waits for
// their answers. They must be ok; again is how many took more than one attempt.
func (u *user) steady(rate int) (finish func() (jobs []string, again int)) {
	u.Helper()
	stop, done := make(chan struct{}), make(chan []string)
	go func() {
		var jobs []string
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for {
			select {
			case <-stop:
				done <- jobs
				return
			case <-tick.C:
			}
			job := slow(10)
			job.ID = fmt.Sprint("steady-", len(jobs))
			if _, err := u.Submit(u.Context(), job); err != nil {
				u.Errorf("%s: %v", job.ID, err)
				continue
			}
			jobs = append(jobs, job.ID)
		}
	}()
	return func() (jobs []string, again int) {
		u.Helper()
		close(stop)
		jobs = <-done
		ctx, cancel := context.WithTimeout(u.Context(), 2*patience)
		defer cancel()
		for _, id := range jobs {
			r, err := u.Result(ctx, id)
			if err != nil || r.Status != schemas.StatusOK {
				u.Errorf("%s ended %+v, %v", id, r, err)
				continue
			}
			if r.Run.Attempt > 1 {
				again++
			}
		}
		return jobs, again
	}
}
