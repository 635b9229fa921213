// Package broker is what vramjet asks of NATS: a connection, the streams with
// their configuration, and the few JetStream idioms that the dispatcher and the
// worker share.
package broker
