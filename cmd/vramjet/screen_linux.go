package main

import "golang.org/x/sys/unix"

// How a terminal is asked how it is set up, and told.
const (
	getTermios = unix.TCGETS
	setTermios = unix.TCSETS
)
