package containers

import (
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	full   = flag.Bool("full", false, "run all cells of the crash matrix, and write docs/reliability.md")
	only   = flag.String("only", "", "run the cells that this expression matches, such as 'NATS follower cut off', and show what all processes said; write nothing")
	rate   = flag.Int("rate", 20, "jobs in a second")
	repeat = flag.Int("repeat", 1, "how often each cell is run")
)

// Limits of recovery.
const (
	workerLimit     = 5 * time.Second  // a node is killed: its jobs run elsewhere
	dispatcherLimit = 3 * time.Second  // the leading dispatcher is killed
	natsLimit       = 10 * time.Second // the server that leads is killed: a Raft election
	frozenLimit     = 35 * time.Second // whatever is frozen or cut off: AckWait and a little
	gracefulLimit   = time.Second      // a NATS server is stopped, as one does
)

// A part of a site may fail.
type part struct {
	name  string
	pick  func(s *site) (victim *box, node string) // node: the worker whose jobs have to move, if any
	limit time.Duration                            // where it is killed or restarted
}

var parts = []part{
	{"worker", func(s *site) (*box, string) { return s.workers[0], s.workers[0].name }, workerLimit},
	{"leading dispatcher", func(s *site) (*box, string) { b, _ := s.leader(); return b, "" }, dispatcherLimit},
	{"standby dispatcher", func(s *site) (*box, string) { _, b := s.leader(); return b, "" }, dispatcherLimit},
	{"NATS leader of VJ_JOBS", func(s *site) (*box, string) { b, _ := s.jobsLeader(); return b, "" }, natsLimit},
	{"NATS follower", func(s *site) (*box, string) { _, b := s.jobsLeader(); return b, "" }, natsLimit},
	{"model server", func(s *site) (*box, string) { return s.backends[1], s.workers[1].name }, workerLimit},
	{"client", func(s *site) (*box, string) { return s.client, "" }, 0},
}

// A fault is what may happen to a part. do returns when it is over.
type fault struct {
	name  string
	do    func(b *box)
	limit time.Duration // 0: the part's
}

// outage is how long something is frozen or cut off.
const outage = 30 * time.Second

var faults = []fault{
	{"killed, started again", func(b *box) { b.kill(); time.Sleep(time.Second); b.start() }, 0},
	{"frozen for 30 s", func(b *box) { b.pause(); time.Sleep(outage); b.unpause() }, frozenLimit},
	{"cut off for 30 s", func(b *box) { b.cut(); time.Sleep(outage); b.heal() }, frozenLimit},
	{"restarted", func(b *box) { b.stop(); b.start() }, 0},
}

// always are the cells that every run of the tests has: part and fault.
var always = [][2]int{{0, 0}, {1, 0}, {3, 0}, {5, 0}, {0, 2}}

// A cell is what came of a part and a fault.
type cell struct {
	part, fault string
	tally
	recovered []time.Duration // by job that moved, or of the site as a whole
	limit     time.Duration
}

// TestCrashMatrix: whatever fails under a steady load, every job that the queue
// accepted ends once, and the work goes on in time.
func TestCrashMatrix(t *testing.T) {
	s := newSite(t, *rate)
	canCut(s.nats[0])
	s.quiet()
	w := s.listen()
	cells := map[[2]int]*cell{}
	var order [][2]int
	for range *repeat {
		for p := range parts {
			for f := range faults {
				if at := [2]int{p, f}; wanted(at) {
					got := s.crash(parts[p], faults[f], w)
					t.Logf("%s", got)
					got.check(t)
					if c := cells[at]; c != nil {
						c.add(got)
					} else {
						cells[at], order = got, append(order, at)
					}
				}
			}
		}
	}
	if !*full || *only != "" {
		return
	}
	var rows []string
	for _, at := range order {
		rows = append(rows, cells[at].row())
	}
	publish(t, "crash matrix", fmt.Sprintf("%s; %d jobs in a second, runs of each cell: %d.\n\n%s\n%s\n", provenance(), *rate, *repeat, cellHead, strings.Join(rows, "\n")))
}

// wanted reports whether a cell is to be run.
func wanted(at [2]int) bool {
	if *only != "" {
		return regexp.MustCompile(*only).MatchString(parts[at[0]].name + " " + faults[at[1]].name)
	}
	return *full || slices.Contains(always, at)
}

// crash runs one cell.
func (s *site) crash(p part, f fault, w *wire) *cell {
	s.Helper()
	s.serves(workers)
	w.take()
	from := s.position()
	s.client.start()
	within(s, patience, "the load is steady", func() bool { return int(s.stream("VJ_JOBS").State.LastSeq-from.jobs) >= 5**rate })
	victim, node := p.pick(s)
	at := time.Now()
	f.do(victim)
	over := time.Now()
	time.Sleep(10 * time.Second)
	seen := s.observe(from, w)
	c := &cell{part: p.name, fault: f.name, tally: seen.count(), limit: p.limit}
	switch {
	case f.limit > 0:
		c.limit = f.limit
	case f.name == "restarted" && p.limit == natsLimit:
		c.limit = gracefulLimit
	}
	switch {
	case victim == s.client:
	case node != "":
		c.recovered = seen.moved(node, at)
	default:
		c.recovered = []time.Duration{seen.stall(at, over.Add(5*time.Second))}
	}
	return c
}

// check fails where a cell breaks a promise.
func (c *cell) check(tb testing.TB) {
	tb.Helper()
	if c.Lost+c.Twice+c.Failed+c.Misread > 0 {
		tb.Errorf("%s %s: %+v", c.part, c.fault, c.tally)
	}
	if p99 := quantile(c.recovered, 0.99); c.limit > 0 && p99 > c.limit {
		tb.Errorf("%s %s: recovered after %s at p99, want %s at most", c.part, c.fault, p99, c.limit)
	}
}

func (c *cell) add(more *cell) {
	c.recovered = append(c.recovered, more.recovered...)
	c.Jobs += more.Jobs
	c.Lost += more.Lost
	c.Twice += more.Twice
	c.Echoes += more.Echoes
	c.Failed += more.Failed
	c.Again += more.Again
	c.Gaps += more.Gaps
	c.Reorder += more.Reorder
	c.Misread += more.Misread
}

func (c *cell) String() string {
	return fmt.Sprintf("%s %s: %+v, %d recovered after %s and %s at p99", c.part, c.fault, c.tally, len(c.recovered), quantile(c.recovered, 0.5), quantile(c.recovered, 0.99))
}

const cellHead = `| what | and how | jobs | lost | ended twice | ended with an error | end repeated | run again | chunks missing | out of order | misread | recovered, p50 | p99 | limit |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|`

// row is the cell as a line of the table.
func (c *cell) row() string {
	p50, p99, limit := "-", "-", "-"
	if len(c.recovered) > 0 && c.part != "client" {
		p50, p99, limit = short(quantile(c.recovered, 0.5)), short(quantile(c.recovered, 0.99)), short(c.limit)
	}
	return fmt.Sprintf("| %s | %s | %d | %d | %d | %d | %d | %d | %d | %d | %d | %s | %s | %s |", c.part, c.fault, c.Jobs, c.Lost, c.Twice, c.Failed, c.Echoes, c.Again, c.Gaps, c.Reorder, c.Misread, p50, p99, limit)
}

// quantile returns a quantile of some durations, 0 of none.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
