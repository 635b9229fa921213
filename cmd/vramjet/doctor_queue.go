package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// staleAfter is when a consumer that nobody uses should be gone: the server removes it
// after 10 minutes.
const staleAfter = 15 * time.Minute

func judgeConsumers(f *facts) (all []remark) {
	if f.consumers.err != nil {
		return checkConsumers.notMade(f.consumers.err)
	}
	var stale, foreign []string
	queue := f.stream(broker.StreamJobs)
	for _, c := range f.consumers.got {
		switch subject := consumerFlow(c); {
		case subject == "":
			foreign = append(foreign, c.Name)
		case queue.there() && queue.info.got.State.Subjects[subject] == 0 && idleSince(c, f.now) > staleAfter:
			stale = append(stale, c.Name)
		}
	}
	if len(foreign) > 0 {
		all = append(all, checkConsumers.warn("nats consumer rm "+broker.StreamJobs+" "+foreign[0],
			"not the dispatcher's, and may take jobs away from it: %s", few(foreign)))
	}
	if len(stale) > 0 {
		all = append(all, checkConsumers.warn("nats consumer rm "+broker.StreamJobs+" "+stale[0],
			"%s without a live flow, each of which costs at every acknowledgement: %s", count(len(stale), "consumer"), few(stale)))
	}
	most := manyConsumers
	if f.copies() > 1 {
		most = 100 // each is a Raft group then
	}
	if have := len(f.consumers.got); have > most {
		all = append(all, checkConsumers.warn("", "%d consumers of %s, and %d should be enough: acknowledgements are slow", have, broker.StreamJobs, most))
	}
	if len(all) == 0 {
		all = append(all, checkConsumers.ok("%s of %s", count(len(f.consumers.got), "consumer"), broker.StreamJobs))
	}
	return all
}

// idleSince is for how long a consumer has done nothing, and owes nothing.
func idleSince(c *jetstream.ConsumerInfo, now time.Time) time.Duration {
	if c.NumAckPending > 0 || c.NumWaiting > 0 {
		return 0
	}
	last := c.Created
	if at := c.Delivered.Last; at != nil && at.After(last) {
		last = *at
	}
	return now.Sub(last)
}

// judgeLeases compares what is delivered and not settled with what the nodes run. What
// is in motion differs at one look and not at each.
func judgeLeases(f *facts) (all []remark) {
	last := f.leases[len(f.leases)-1]
	if last.unacked.err != nil {
		return checkLeases.notMade(last.unacked.err)
	}
	if last.running.err != nil {
		return checkLeases.notMade(last.running.err)
	}
	for _, tenant := range slices.Sorted(maps.Keys(everyTenant(f.leases))) {
		unacked, running := last.unacked.got[tenant], last.running.got[tenant]
		switch more := lasting(f.leases, tenant); {
		case more > motion(unacked):
			all = append(all, checkLeases.warn("look again in 30s, when a lost node's leases have run out; vramjet jobs ls --tenant "+tenant+" --state queued",
				"%s: %s delivered and not settled, and %d run on nodes: %d wait for another attempt, or their node is lost", tenant, count(unacked, "job"), running, more))
		case -more > motion(running):
			all = append(all, checkLeases.warn("vramjet jobs ls --tenant "+tenant+" --state running",
				"%s: %s on nodes, and %d leases: %d run without one, and are stopped when the node notices", tenant, count(running, "job"), unacked, -more))
		}
	}
	if len(all) == 0 {
		leading := fmt.Sprintf("%d leases = ", sum(last.leading))
		if sum(last.leading) != sum(last.unacked.got) {
			leading = "" // in motion, or the dispatcher could not be asked
		}
		all = append(all, checkLeases.ok("%s%d unacked = %d running on nodes", leading, sum(last.unacked.got), sum(last.running.got)))
	}
	return all
}

func everyTenant(looks []leaseCount) map[string]int {
	all := map[string]int{}
	for _, t := range looks {
		maps.Copy(all, t.unacked.got)
		maps.Copy(all, t.running.got)
	}
	return all
}

// lasting is by how many more jobs are unacked than run, at each look: the least of it.
// Less than 0: more run.
func lasting(looks []leaseCount, tenant string) int {
	least := 0
	for i, t := range looks {
		more := t.unacked.got[tenant] - t.running.got[tenant]
		switch {
		case i == 0:
			least = more
		case least > 0:
			least = max(0, min(least, more))
		default:
			least = min(0, max(least, more))
		}
	}
	return least
}

// motion is by how many jobs two counts may differ that were not taken at once.
func motion(jobs int) int { return jobs / 50 }

func sum(by map[string]int) (n int) {
	for _, k := range by {
		n += k
	}
	return n
}

func judgeLimits(f *facts) []remark {
	queue := f.stream(broker.StreamJobs)
	if !queue.there() {
		return checkLimits.notMade(queue.info.err)
	}
	all, text := fullFlows(queue)
	all = append(all, fullStreams(f)...)
	for i := range f.monitors {
		if js := &f.monitors[i].vars.JetStream; js.Config.MaxStore > 0 {
			all = append(all, filling(checkLimits, "the store of "+f.monitors[i].vars.Name+", in bytes,", uint64(max(0, js.Stats.Store)), uint64(js.Config.MaxStore),
				"max_file_store   # in the server's configuration, below what is free on the disk")...)
		}
	}
	if len(all) == 0 {
		all = append(all, checkLimits.ok("%s", text))
	}
	return all
}

// fullFlows remarks on flows that hold as many jobs as they may, or nearly so, and says how
// many jobs there are.
func fullFlows(queue *streamFacts) (all []remark, text string) {
	flows := flowsOf(queue, schemas.JobsPrefix)
	most := queue.info.got.Config.MaxMsgsPerSubject
	jobs, fullest := 0, schemas.Flow{}
	for _, flow := range slices.SortedFunc(maps.Keys(flows), func(a, b schemas.Flow) int { return strings.Compare(describe(a), describe(b)) }) {
		jobs += int(flows[flow])
		if flows[flow] > flows[fullest] {
			fullest = flow
		}
		if most > 0 {
			all = append(all, filling(checkLimits, "the queue of "+describe(flow), flows[flow], uint64(most), "add nodes; vramjet queue ls --tenant "+flow.Tenant)...)
		}
	}
	text = count(jobs, "job") + " in the queue"
	if jobs > 0 {
		text += fmt.Sprintf(", the most of %s: %d of %d", describe(fullest), flows[fullest], most)
	}
	return all, text
}

// fullStreams remarks on streams that hold as much as they may, or nearly so.
func fullStreams(f *facts) (all []remark) {
	for i := range f.streams {
		s := &f.streams[i]
		if !s.there() {
			continue
		}
		c, state := &s.info.got.Config, &s.info.got.State
		if c.MaxBytes > 0 {
			all = append(all, filling(checkLimits, s.name+", in bytes,", state.Bytes, uint64(c.MaxBytes), "")...)
		}
		if c.MaxMsgs > 0 {
			all = append(all, filling(checkLimits, s.name+", in messages,", state.Msgs, uint64(c.MaxMsgs), "")...)
		}
	}
	return all
}

// deadLately is for how long a dead letter is news.
const deadLately = time.Hour

func judgeDead(f *facts) []remark {
	s := f.stream(broker.StreamDead)
	if !s.there() {
		return checkDead.notMade(s.info.err)
	}
	state := &s.info.got.State
	if state.Msgs == 0 {
		return []remark{checkDead.ok("no dead letters")}
	}
	text := fmt.Sprintf("%s, the newest %s", count(int(state.Msgs), "dead letter"), ago(f.now.Sub(state.LastTime)))
	if !within(state.LastTime, f.now, deadLately) {
		return []remark{checkDead.ok("%s", text)}
	}
	var tenants []string
	for flow := range flowsOf(s, schemas.DeadPrefix) {
		tenants = append(tenants, flow.Tenant)
	}
	slices.Sort(tenants)
	tenants = slices.Compact(tenants)
	fix := "vramjet dead ls --by code --since 1h"
	if len(tenants) > 0 && !slices.Equal(tenants, []string{f.tenant}) {
		fix = "vramjet dead ls --by code --since 1h --tenant " + tenants[0]
		text += "; of " + few(tenants)
	}
	return []remark{checkDead.warn(fix, "%s", text)}
}
