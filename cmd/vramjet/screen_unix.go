//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A screen is a terminal that is drawn on.
type screen struct {
	in  *os.File // nil: nobody can type
	out *os.File
	was *unix.Termios // of in, to be restored
}

// openScreen takes the terminal, if out is one. close gives it back.
func openScreen(in io.Reader, out io.Writer) (*screen, error) {
	s := &screen{}
	var ok bool
	if s.out, ok = out.(*os.File); !ok || !isTerminal(out) {
		return nil, errNoTerminal
	}
	if _, err := unix.IoctlGetWinsize(int(s.out.Fd()), unix.TIOCGWINSZ); err != nil {
		return nil, errNoTerminal // a device, but no screen, such as /dev/null
	}
	if file, is := in.(*os.File); is && isTerminal(in) {
		if err := s.listen(file); err != nil {
			return nil, err
		}
	}
	_, err := s.out.WriteString(toOtherScreen)
	return s, err
}

// listen has keys come one by one, and not be shown. ctrl-C stays what it is. A read ends
// after a tenth of a second.
func (s *screen) listen(in *os.File) error {
	was, err := unix.IoctlGetTermios(int(in.Fd()), getTermios)
	if err != nil {
		return nil //nolint:nilerr // nobody can type there
	}
	now := *was
	now.Lflag &^= unix.ICANON | unix.ECHO
	now.Cc[unix.VMIN], now.Cc[unix.VTIME] = 0, 1
	if err := unix.IoctlSetTermios(int(in.Fd()), setTermios, &now); err != nil {
		return fmt.Errorf("set up the terminal: %w", err)
	}
	s.in, s.was = in, was
	return nil
}

// close gives the terminal back as it was.
func (s *screen) close() {
	_, _ = s.out.WriteString(toOwnScreen) // nobody looks any more
	if s.was != nil {
		_ = unix.IoctlSetTermios(int(s.in.Fd()), setTermios, s.was) // likewise
	}
}

// size returns the width and the height of the terminal, now.
func (s *screen) size() (width, height int) {
	size, err := unix.IoctlGetWinsize(int(s.out.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(size.Col), int(size.Row)
}

// untilQuit returns when somebody types q, when ctx ends, and when the terminal is gone.
func (s *screen) untilQuit(ctx context.Context) {
	if s.in == nil {
		<-ctx.Done()
		return
	}
	key := make([]byte, 1)
	for ctx.Err() == nil {
		n, err := s.in.Read(key)
		switch {
		case n > 0 && (key[0] == 'q' || key[0] == 'Q'):
			return
		case err != nil && !errors.Is(err, io.EOF): // EOF: no key for a tenth of a second
			return
		}
	}
}
