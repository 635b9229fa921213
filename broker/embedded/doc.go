// Package embedded runs a NATS server with JetStream in this process: one that
// syncs to disk before it acknowledges, that no slow reader can stall, and that
// owns its data directory alone.
package embedded
