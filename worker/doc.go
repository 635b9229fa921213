// Package worker is a node: it stands in front of the model servers of one
// machine and runs the jobs that the dispatcher offers it.
//
// One goroutine, that of [Worker.Run], owns what the node knows: its backends,
// their models and devices, the memory it promised and the jobs it was given.
// Everything else (subscriptions, pollers, loads, jobs) runs beside it and sends
// it messages. A job runs on a goroutine of its own, which publishes the chunks
// and settles the job, for as long as the job's lease is surely ours.
package worker
