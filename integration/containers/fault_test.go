package containers

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

// stopTimeout is how long a container has to end before it is killed.
const stopTimeout = 45 * time.Second

func (b *box) must(what string, err error) {
	b.Helper()
	if err != nil {
		b.Fatalf("%s %s: %v", what, b.name, err)
	}
}

// kill ends the process at once, without a word.
func (b *box) kill() {
	b.Helper()
	_, err := b.docker.Client().ContainerKill(b.Context(), b.GetContainerID(), client.ContainerKillOptions{Signal: "KILL"})
	b.must("kill", err)
}

// start starts what ended.
func (b *box) start() {
	b.Helper()
	_, err := b.docker.Client().ContainerStart(b.Context(), b.GetContainerID(), client.ContainerStartOptions{})
	b.must("start", err)
}

// stop asks the process to end, and waits until it has.
func (b *box) stop() {
	b.Helper()
	seconds := int(stopTimeout.Seconds())
	_, err := b.docker.Client().ContainerStop(b.Context(), b.GetContainerID(), client.ContainerStopOptions{Timeout: &seconds})
	b.must("stop", err)
}

// pause freezes the process: its connections stay, and nobody answers.
func (b *box) pause() {
	b.Helper()
	var err error
	for range freezeTries { // runc gives up on a busy container: "unable to freeze"
		if _, err = b.docker.Client().ContainerPause(b.Context(), b.GetContainerID(), client.ContainerPauseOptions{}); err == nil {
			return
		}
	}
	b.must("pause", err)
}

// freezeTries is how often a container is frozen that cannot be at first.
const freezeTries = 5

func (b *box) unpause() {
	b.Helper()
	_, err := b.docker.Client().ContainerUnpause(b.Context(), b.GetContainerID(), client.ContainerUnpauseOptions{})
	b.must("unpause", err)
}

// inside runs a command of this machine in the network of the container.
func (b *box) inside(args ...string) error {
	b.Helper()
	s, err := b.State(b.Context())
	b.must("look at", err)
	out, err := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(s.Pid), "-n"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s in the network of %s: %w: %s", strings.Join(args, " "), b.name, err, out)
	}
	return nil
}

// canCut skips the test where networks cannot be cut.
func canCut(b *box) {
	b.Helper()
	if _, err := exec.LookPath("nsenter"); err != nil || os.Getuid() != 0 {
		b.Skip("cutting off a container takes root, nsenter and iptables on the machine that runs Docker")
	}
	if err := b.inside("iptables", "-S"); err != nil {
		b.Skipf("cutting off a Docker container takes iptables: %v", err)
	}
}

// cut drops every packet from and to the container: nobody learns that established
// connections are dead.
func (b *box) cut() {
	b.Helper()
	b.must("cut off", b.inside("iptables", "-I", "INPUT", "!", "-i", "lo", "-j", "DROP"))
	b.must("cut off", b.inside("iptables", "-I", "OUTPUT", "!", "-o", "lo", "-j", "DROP"))
}

func (b *box) heal() {
	b.Helper()
	b.must("heal", b.inside("iptables", "-F", "INPUT"))
	b.must("heal", b.inside("iptables", "-F", "OUTPUT"))
}

// slow delays every packet that the container sends, and loses some. It says why where
// the kernel can't.
func (b *box) slow(delay time.Duration, lossPercent int) error {
	return b.inside("tc", "qdisc", "replace", "dev", "eth0", "root", "netem", "delay", delay.String(), "loss", fmt.Sprintf("%d%%", lossPercent))
}

func (b *box) fast() {
	b.Helper()
	b.must("make fast", b.inside("tc", "qdisc", "del", "dev", "eth0", "root"))
}

// logs returns what the process printed since a time, of this life and the ones before:
// the standard output and the error output.
func (b *box) logs(since time.Time) (out, errs string) {
	b.Helper()
	r, err := b.docker.Client().ContainerLogs(context.WithoutCancel(b.Context()), b.GetContainerID(), client.ContainerLogsOptions{
		ShowStdout: true, ShowStderr: true, Since: fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond()),
	})
	b.must("read what was printed by", err)
	defer r.Close()
	var o, e bytes.Buffer
	_, err = stdcopy.StdCopy(&o, &e, r)
	b.must("read what was printed by", err)
	return o.String(), e.String()
}

// tail returns the last lines of the error output, but for those on NATS's routes, to be shown when a test failed.
func (b *box) tail() string {
	_, errs := b.logs(time.Unix(0, 0))
	lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(errs), "\n"), func(l string) bool { return strings.Contains(l, "Route") })
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}

// crashed is how Go begins to say that a program is broken.
var crashed = regexp.MustCompile(`(?m)^(panic|fatal error): `)

// crash returns what the process printed when it crashed by itself, in any of its lives:
// the others may have made up for it, so that nothing else tells. "" means that it never
// did.
func (b *box) crash() string {
	_, errs := b.logs(time.Unix(0, 0))
	at := crashed.FindStringIndex(errs)
	if at == nil {
		return ""
	}
	return errs[at[0]:min(len(errs), at[0]+4000)]
}

// lines returns the rest of each line that begins with a word.
func lines(text, word string) (rest []string) {
	for line := range strings.Lines(text) {
		if r, ok := strings.CutPrefix(strings.TrimSpace(line), word+" "); ok {
			rest = append(rest, r)
		}
	}
	return rest
}
