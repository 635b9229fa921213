//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package main

import (
	"context"
	"io"
)

// A screen is a terminal that is drawn on: none that is known here.
type screen struct{ out io.Writer }

func openScreen(io.Reader, io.Writer) (*screen, error) { return nil, errNoTerminal }

func (*screen) close()                    {}
func (*screen) size() (width, height int) { return 0, 0 }
func (*screen) untilQuit(context.Context) {}
