package containers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/network"

	vramjet "github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// largePrompt fills a disk faster than others do, and still fits what the model takes.
var largePrompt = strings.Repeat("x", 1<<14)

// newSmallSite starts one NATS server that stores on a disk of 32 MiB, with a dispatcher
// and a worker. disk is a container that has the same disk.
func newSmallSite(t *testing.T, jetstreamConfig string) (s *site, disk *box) {
	t.Helper()
	d := docker(t)
	images(t)
	net, err := network.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { net.Remove(context.Background()) })
	disk, data := newDisk(t, d, net)
	disk.does("/actor", "write", "/data/nats.conf", "listen: 0.0.0.0:4222\nhttp: 0.0.0.0:8222\njetstream { store_dir: /data, sync_interval: always, "+jetstreamConfig+" }\n")
	port := freePort(t)
	s = &site{TB: t, url: fmt.Sprintf("nats://127.0.0.1:%d", port)}
	s.nats = []*box{recipe{image: imageTools, args: []string{"-c", "/data/nats.conf"}, publish: map[int]int{4222: port}, mounts: []mount.Mount{data}}.start(t, d, net, "nats")}
	env := map[string]string{"VRAMJET_SERVER": "nats://nats:4222", "VRAMJET_NODE": "worker"}
	s.dispatchers = []*box{recipe{image: imageVramjet, args: []string{"dispatcher"}, env: env}.start(t, d, net, "dispatcher")}
	s.workers = []*box{recipe{image: imageVramjet, args: []string{"worker", "--sim"}, env: env}.start(t, d, net, "worker")}
	s.connect()
	s.serves(1)
	return s, disk
}

// newDisk makes a disk of 32 MiB, and a container that has it so that it stays while
// others come and go.
func newDisk(t *testing.T, d *testcontainers.DockerProvider, lan *testcontainers.DockerNetwork) (disk *box, data mount.Mount) {
	t.Helper()
	name := "vramjet-test-" + strings.ToLower(rand.Text()[:8])
	if _, err := d.Client().VolumeCreate(t.Context(), client.VolumeCreateOptions{Name: name, DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=32m"}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Client().VolumeRemove(context.Background(), name, client.VolumeRemoveOptions{Force: true}) })
	data = mount.Mount{Type: mount.TypeVolume, Source: name, Target: "/data"}
	return recipe{image: imageTools, entrypoint: []string{"/actor"}, args: []string{"backend"}, mounts: []mount.Mount{data}}.start(t, d, lan, "disk"), data
}

// does runs a program in the container, and returns what it printed and how it ended.
func (b *box) does(args ...string) (code int, printed string) {
	b.Helper()
	code, out, err := b.Exec(b.Context(), args)
	b.must("run a program in", err)
	text, err := io.ReadAll(out)
	b.must("read what a program printed in", err)
	return code, string(text)
}

// submitted submits n jobs, and returns those that the queue has and the first error.
func (s *site) submitted(n int, prompt string) (ids []string, err error) {
	s.Helper()
	for i := range n {
		ctx, cancel := context.WithTimeout(s.Context(), 5*time.Second)
		ticket, err := s.api.Submit(ctx, vramjet.Job{ID: fmt.Sprintf("%s-%d", strings.ToLower(rand.Text()[:8]), i), Model: "sim-slow", Body: fmt.Appendf(nil, `{"prompt":%q,"stream":true,"max_tokens":20}`, prompt)})
		cancel()
		if err != nil {
			return ids, err
		}
		ids = append(ids, ticket.ID)
	}
	return ids, nil
}

// ended waits until all jobs have, each with one end that is stored.
func (s *site) ended(ids []string) {
	s.Helper()
	within(s, 2*patience, "nothing waits", func() bool { return s.stream("VJ_JOBS").State.Msgs == 0 })
	ends := map[string]int{}
	for _, e := range s.stored(0) {
		if e.kind == schemas.EventEnd {
			ends[e.job]++
			if e.status != schemas.StatusOK {
				s.Errorf("job %s ended %s in attempt %d: %s", e.job, e.status, e.attempt, e.why)
			}
		}
	}
	for _, id := range ids {
		if ends[id] != 1 {
			s.Errorf("job %s has %d ends", id, ends[id])
		}
	}
}

// TestDiskFull: somebody else fills the disk of NATS. Nothing that was acknowledged is
// lost, and once there is room and NATS was started again, everything goes on by itself.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	s, disk := newSmallSite(t, "max_file_store: 1GB")
	ids, err := s.submitted(60, "hi")
	if err != nil {
		t.Fatal(err)
	}
	if code, out := disk.does("/actor", "fill", "/data/filler"); code != 0 {
		t.Fatal(out)
	}
	var refused error
	within(t, patience, "a job is refused", func() bool {
		more, err := s.submitted(1, largePrompt)
		ids, refused = append(ids, more...), err
		return err != nil
	})
	t.Logf("refused: %v", refused)
	if !strings.Contains(refused.Error(), "cannot write to its disk") && !errors.Is(refused, vramjet.ErrFull) {
		t.Errorf("refused with %v, which does not tell why", refused)
	}
	if code, said := disk.does("/vramjet", "health", "http://nats:8222/healthz"); code != 1 || !strings.Contains(said, "no space left") {
		t.Errorf("NATS is said to be well: %d, %s", code, said)
	}

	disk.does("/actor", "rm", "/data/filler")
	if _, err := s.submitted(1, "hi"); err == nil {
		t.Error("NATS takes jobs again without a restart: that is better than what docs/reliability.md says")
	}
	s.nats[0].stop()
	s.nats[0].start()
	began := time.Now()
	within(t, patience, "a job is taken", func() bool {
		more, err := s.submitted(1, "hi")
		ids = append(ids, more...)
		return err == nil
	})
	t.Logf("the first job was taken %s after NATS started again", short(time.Since(began)))
	s.ended(ids)
}

// TestOneDiskFull: one of three NATS servers has no room any more. The others go on.
func TestOneDiskFull(t *testing.T) {
	t.Parallel()
	d := docker(t)
	images(t)
	lan, err := network.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lan.Remove(context.Background()) })
	disk, data := newDisk(t, d, lan)
	s := newSiteOn(t, d, 10, data)
	s.quiet()
	w, from := s.listen(), s.position()
	s.client.start()
	within(t, patience, "the load is steady", func() bool { return s.stream("VJ_JOBS").State.LastSeq-from.jobs >= 20 })
	if code, out := disk.does("/actor", "fill", "/data/filler"); code != 0 {
		t.Fatal(out)
	}
	filled := time.Now()
	time.Sleep(20 * time.Second)
	disk.does("/actor", "rm", "/data/filler")
	s.nats[0].stop()
	s.nats[0].start()
	over := time.Now()
	time.Sleep(5 * time.Second)
	seen := s.observe(from, w)
	got, stall := seen.count(), seen.stall(filled, over)
	t.Logf("%+v, and no job began for %s", got, short(stall))
	if got.Lost+got.Twice+got.Failed+got.Misread > 0 || stall > frozenLimit {
		t.Errorf("%+v, and no job began for %s", got, short(stall))
	}
}

// TestStoreFull: what NATS may store is used up, by something else than jobs. The disk
// is not. Jobs are refused with a word on that, and all goes on by itself when there is
// room.
func TestStoreFull(t *testing.T) {
	t.Parallel()
	s, _ := newSmallSite(t, "max_file_store: 16MB")
	ids, err := s.submitted(60, "hi")
	if err != nil {
		t.Fatal(err)
	}
	filler, err := s.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "FILLER", Subjects: []string{"filler"}})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = s.js.Publish(t.Context(), "filler", make([]byte, 64<<10))
	}
	t.Logf("the filler was refused with: %v", err)
	var refused error
	within(t, patience, "a job is refused", func() bool {
		more, err := s.submitted(1, largePrompt)
		ids, refused = append(ids, more...), err
		return err != nil
	})
	t.Logf("refused: %v", refused)
	if !errors.Is(refused, vramjet.ErrFull) {
		t.Errorf("refused with %v, want %v", refused, vramjet.ErrFull)
	}
	time.Sleep(5 * time.Second)
	if err := filler.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	within(t, patience, "a job is taken", func() bool {
		more, err := s.submitted(1, "hi")
		ids = append(ids, more...)
		return err == nil
	})
	t.Logf("the first job was taken %s after there was room", short(time.Since(began)))
	s.ended(ids)
}
