// Package containers holds the tests that need hosts of their own: a cluster of NATS
// servers, dispatchers, workers, model servers and a client, each in a container, which
// is killed, frozen, cut off from the others or restarted.
package containers
