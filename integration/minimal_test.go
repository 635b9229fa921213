package integration

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	measure "github.com/vramjet/vramjet/cmd/vramjet/bench"
)

// minimal is the minimal path of a job, whose parts are processes as vramjet's are.
type minimal struct {
	testing.TB
	*measure.Minimal
	stop []func()
}

// newMinimal returns the path of jobs whose token and end go to the client.
func newMinimal(b *testing.B, url string) *minimal {
	b.Helper()
	return newPath(b, url, measure.Answered, "")
}

// newMinimalBatch returns the path of jobs whose end is stored, as those of a batch
// are, and read from the stream. backend is the URL that the worker asks for an
// embedding for each; "": it asks nobody.
func newMinimalBatch(b *testing.B, url, backend string) *minimal {
	b.Helper()
	return newPath(b, url, measure.Stored, backend)
}

func newPath(b *testing.B, url string, path measure.Path, backend string) *minimal {
	b.Helper()
	m := &minimal{TB: b}
	b.Cleanup(m.close)
	var err error
	if m.Minimal, err = measure.NewMinimal(b.Context(), dial(b, url), path, 1); err != nil {
		b.Fatal(err)
	}
	m.stop = append(m.stop, m.Close)
	m.spawn(path, "dispatcher", url, "")
	m.spawn(path, "worker", url, backend)
	return m
}

// minimalRole is the environment variable that makes the test's binary a part of
// the minimal path, as "stored worker", and minimalBackend who is asked on it.
const (
	minimalRole    = "VRAMJET_MINIMAL_ROLE"
	minimalBackend = "VRAMJET_MINIMAL_BACKEND"
)

// spawn runs a part of the path in a process of its own, until the path is stopped.
func (m *minimal) spawn(path measure.Path, part, url, backend string) {
	m.Helper()
	self, err := os.Executable()
	if err != nil {
		m.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), minimalRole+"="+string(path)+" "+part, minimalBackend+"="+backend, "NATS_URL="+url)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe() // its end ends the process
	if err != nil {
		m.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		m.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	m.stop = append(m.stop, func() { stdin.Close(); cmd.Wait() })
	if _, err := stdout.Read(make([]byte, 1)); err != nil { // it listens now
		m.Fatal(err)
	}
}

// playMinimalRole runs a part of the path, where this process is to be one.
func playMinimalRole() {
	path, part, ok := strings.Cut(os.Getenv(minimalRole), " ")
	if !ok {
		return
	}
	nc, err := nats.Connect(os.Getenv("NATS_URL"))
	if err == nil {
		err = measure.PlayMinimal(measure.Path(path), part, nc, os.Getenv(minimalBackend))
	}
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// close stops the parts.
func (m *minimal) close() {
	for _, stop := range m.stop {
		stop()
	}
	m.stop = nil
}

// latencies runs jobs one after the other, with pauses, and returns the times to
// their token. A machine that idles in between takes longer to wake.
func (m *minimal) latencies(n int, pause time.Duration) []time.Duration {
	var out []time.Duration
	for range n {
		began := time.Now()
		if err := m.Submit([]byte("{}")); err != nil {
			m.Fatal(err)
		}
		<-m.Events
		out = append(out, time.Since(began))
		<-m.Events
		time.Sleep(pause)
	}
	return out
}

// rate runs n jobs, 512 at a time, and returns jobs per second.
func (m *minimal) rate(n int) float64 {
	window := make(chan struct{}, 512)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range n {
			for range m.PerJob {
				<-m.Events
			}
			<-window
		}
	}()
	began := time.Now()
	for range n {
		window <- struct{}{}
		if err := m.Submit([]byte("{}")); err != nil {
			m.Fatal(err)
		}
	}
	<-done
	return float64(n) / time.Since(began).Seconds()
}
