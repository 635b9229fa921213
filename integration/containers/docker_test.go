package containers

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	dockernet "github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/network"
)

// The images that the tests build: vramjet's own around nothing at all, one of all that
// stands around it, and the same with a shell, which compose.yaml needs of NATS.
const (
	imageVramjet = "vramjet-test/vramjet"
	imageTools   = "vramjet-test/tools"
	imageNATS    = "vramjet-test/nats"
)

const root = "../.."

func TestMain(m *testing.M) {
	log.SetDefault(log.NewNoopLogger())
	os.Exit(m.Run())
}

// docker returns Docker, and skips the test where there's none.
func docker(tb testing.TB) *testcontainers.DockerProvider {
	tb.Helper()
	d, err := testcontainers.NewDockerProvider()
	if err == nil {
		err = d.Health(tb.Context())
	}
	if err != nil {
		tb.Skipf("Docker does not answer: %v", err)
	}
	tb.Cleanup(func() { d.Close() })
	return d
}

// buildOnce builds the images from this repository.
var buildOnce = sync.OnceValue(func() error {
	dir, err := os.MkdirTemp("", "vramjet-images-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d, err := testcontainers.NewDockerProvider()
	if err != nil {
		return err
	}
	defer d.Close()
	for _, image := range []struct {
		name, dockerfile string
		binaries         map[string]string // packages by the names of what is built of them
	}{
		{imageVramjet, root + "/Dockerfile", map[string]string{"vramjet": "github.com/vramjet/vramjet/cmd/vramjet"}},
		{imageTools, "testdata/tools.Dockerfile", map[string]string{
			"nats-server": "github.com/nats-io/nats-server/v2",
			"actor":       "github.com/vramjet/vramjet/integration/containers/actor",
			"vramjet":     "github.com/vramjet/vramjet/cmd/vramjet",
		}},
	} {
		from := filepath.Join(dir, filepath.Base(image.name))
		for name, pkg := range image.binaries {
			build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(from, name), pkg)
			build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
			if out, err := build.CombinedOutput(); err != nil {
				return fmt.Errorf("build %s: %w\n%s", name, err, out)
			}
		}
		if err := buildImage(d, image.name, image.dockerfile, from); err != nil {
			return err
		}
	}
	return nil
})

// buildImage builds an image of the files in a directory.
func buildImage(d *testcontainers.DockerProvider, name, dockerfile, from string) error {
	if err := copyFile(dockerfile, filepath.Join(from, "Dockerfile"), 0o644); err != nil {
		return err
	}
	base := "scratch"
	if _, err := d.BuildImage(context.Background(), &testcontainers.ContainerRequest{FromDockerfile: testcontainers.FromDockerfile{
		Context: from, Repo: name, Tag: "latest", BuildArgs: map[string]*string{"BASE": &base}, KeepImage: true,
	}}); err != nil {
		return fmt.Errorf("build the image %s: %w", name, err)
	}
	return nil
}

func copyFile(from, to string, mode os.FileMode) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, mode)
}

// images builds the images, once.
func images(tb testing.TB) {
	tb.Helper()
	if err := buildOnce(); err != nil {
		tb.Fatal(err)
	}
}

// A box is a container. Its methods fail the test where Docker fails.
type box struct {
	testing.TB
	docker *testcontainers.DockerProvider
	*testcontainers.DockerContainer
	name string
}

// A recipe is what a container is made of.
type recipe struct {
	image      string
	entrypoint []string // none: the image's
	args       []string
	env        map[string]string
	publish    map[int]int // ports of 127.0.0.1 by those of the container
	mounts     []mount.Mount
}

// start runs a container until the test ends. Others on the network reach it by its
// name. It may write to its mounts only, has no rights, and its ports stay when it is
// started again.
func (r recipe) start(tb testing.TB, d *testcontainers.DockerProvider, lan *testcontainers.DockerNetwork, name string) *box {
	tb.Helper()
	opts := []testcontainers.ContainerCustomizer{
		network.WithNetwork([]string{name}, lan), testcontainers.WithEnv(r.env), testcontainers.WithCmd(r.args...),
		testcontainers.WithHostConfigModifier(func(h *container.HostConfig) {
			h.ReadonlyRootfs = true
			h.CapDrop = []string{"ALL"}
			h.SecurityOpt = []string{"no-new-privileges:true"}
			h.Mounts = r.mounts
			h.PortBindings = dockernet.PortMap{}
			for inside, outside := range r.publish {
				h.PortBindings[dockernet.MustParsePort(strconv.Itoa(inside))] = []dockernet.PortBinding{{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: strconv.Itoa(outside)}}
			}
		}),
	}
	if r.entrypoint != nil {
		opts = append(opts, testcontainers.WithEntrypoint(r.entrypoint...))
	}
	for inside := range r.publish {
		opts = append(opts, testcontainers.WithExposedPorts(strconv.Itoa(inside)+"/tcp"))
	}
	c, err := testcontainers.Run(tb.Context(), r.image, opts...)
	b := &box{tb, d, c, name}
	if c != nil {
		tb.Cleanup(func() {
			if crash := b.crash(); crash != "" {
				tb.Errorf("%s crashed by itself:\n%s", name, crash)
			}
			if tb.Failed() || *only != "" {
				tb.Logf("--- %s\n%s", name, b.tail())
			}
			if err := testcontainers.TerminateContainer(c); err != nil {
				tb.Errorf("remove %s: %v", name, err)
			}
		})
	}
	if err != nil {
		tb.Fatalf("start %s: %v", name, err)
	}
	return b
}

// freePort returns a port of 127.0.0.1 that nothing listens on.
func freePort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
