//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package main

import "golang.org/x/sys/unix"

// How a terminal is asked how it is set up, and told.
const (
	getTermios = unix.TIOCGETA
	setTermios = unix.TIOCSETA
)
