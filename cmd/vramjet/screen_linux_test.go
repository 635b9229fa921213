package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pseudoTerminal returns both ends of a terminal: who types and looks has the first.
func pseudoTerminal(t *testing.T, width, height uint16) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo terminals here: ", err)
	}
	t.Cleanup(func() { user.Close() })
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo terminals here: ", err)
	}
	t.Cleanup(func() { program.Close() })
	if err := unix.IoctlSetWinsize(int(program.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		t.Fatal(err)
	}
	return user, program
}

// TestTopOnATerminal: it draws on the other screen, ends when q is typed, and leaves the
// terminal as it was.
func TestTopOnATerminal(t *testing.T) {
	s := newSite(t)
	user, program := pseudoTerminal(t, 40, 12)
	before, err := unix.IoctlGetTermios(int(program.Fd()), getTermios)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan int, 1)
	go func() {
		done <- run(s.ctx, []string{"top", "--wait", "20ms"}, func(k string) string { return s.env[k] }, streams{in: program, out: program, err: os.Stderr})
	}()
	var seen bytes.Buffer
	buf := make([]byte, 4096)
	for typed := false; !strings.Contains(seen.String(), toOwnScreen); {
		if err := user.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Log(err)
		}
		n, err := user.Read(buf)
		if err != nil {
			t.Fatalf("%v, after %q", err, seen.String())
		}
		seen.Write(buf[:n])
		if !typed && strings.Contains(seen.String(), clearRest) {
			typed = true
			if _, err := user.WriteString("q"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if code := <-done; code != exitOK {
		t.Errorf("the exit code is %d", code)
	}
	text := seen.String()
	if !strings.HasPrefix(text, toOtherScreen+toTop) || !strings.Contains(text, "NODE") {
		t.Errorf("it draws %q", text)
	}
	after, err := unix.IoctlGetTermios(int(program.Fd()), getTermios)
	if err != nil || *after != *before {
		t.Errorf("the terminal was %+v and is %+v, %v", before, after, err)
	}
}
