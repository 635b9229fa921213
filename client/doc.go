// Package client submits jobs to vramjet and reads their answers: in order,
// resumed after a loss, and later from another machine. It lists and watches jobs,
// holds and empties the queue, and looks after dead letters.
//
// It needs a NATS connection and nothing else. What it does is no more than the
// wire protocol in package schemas says, so a program in another language can do
// the same.
package client
