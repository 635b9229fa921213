// Package integration holds the tests of the whole system: real processes of the
// real binary, a real NATS server, simulated and real model servers.
package integration
