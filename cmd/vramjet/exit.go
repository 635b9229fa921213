package main

import (
	"errors"

	"github.com/vramjet/vramjet/client"
)

// The exit codes.
const (
	exitOK           = 0
	exitFailed       = 1 // a job or a check failed, or anything that has no code of its own
	exitUsage        = 2
	exitNotFound     = 3
	exitFailedLines  = 4 // of a batch that is finished
	exitNoNATS       = 5
	exitNoDispatcher = 6
	exitTimeout      = 124
	exitInterrupted  = 130
)

// A codedError is an error with an exit code of its own.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func usage(err error) error { return &codedError{exitUsage, err} }

// exitCode returns the exit code for an error.
func exitCode(err error) int {
	var coded *codedError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &coded):
		return coded.code
	case errors.Is(err, client.ErrNotFound):
		return exitNotFound
	case errors.Is(err, client.ErrNoDispatcher), errors.Is(err, client.ErrNoVramjet), errors.Is(err, client.ErrNoNode):
		return exitNoDispatcher
	default:
		return exitFailed
	}
}
