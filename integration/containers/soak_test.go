package containers

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vramjet/vramjet/broker"
)

var soak = flag.Duration("soak", 0, "for how long faults happen, with -run TestSoak; 0: not at all")

// faultEvery is how often something fails while a soak runs, one at a time.
const faultEvery = 10 * time.Second

// A gauge is what was seen of a process over a soak.
type gauge struct {
	name       string
	rss, files []int // in KiB, and in numbers
}

// look takes a sample of a container that runs.
func (g *gauge) look(b *box) {
	s, err := b.State(b.Context())
	if err != nil || !s.Running || s.Pid == 0 {
		return // it's being killed
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Pid))
	if err != nil {
		return // Docker is on another machine
	}
	for line := range bytes.Lines(status) {
		var kib int
		if _, err := fmt.Sscanf(string(line), "VmRSS: %d kB", &kib); err == nil {
			g.rss = append(g.rss, kib)
		}
	}
	if files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Pid)); err == nil {
		g.files = append(g.files, len(files))
	}
}

// row is a line of the table.
func (g *gauge) row() string {
	col := func(values []int, unit int) string {
		if len(values) == 0 {
			return "- | - | -"
		}
		highest := 0
		for _, v := range values {
			highest = max(highest, v)
		}
		return fmt.Sprintf("%d | %d | %d", values[0]/unit, values[len(values)-1]/unit, highest/unit)
	}
	return fmt.Sprintf("| %s | %s | %s |", g.name, col(g.rss, 1<<10), col(g.files, 1))
}

const gaugeHead = `| process | MiB at first | at the end | at most | open files at first | at the end | at most |
|---|---|---|---|---|---|---|`

// TestSoak: every 10 s another part fails in another way, for as long as -soak says, and
// in the end every job has ended once and nothing is left.
func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("takes as long as -soak says")
	}
	s := newSite(t, *rate)
	canCut(s.nats[0])
	s.quiet()
	w := s.listen()
	from := s.position()
	s.client.start()
	var gauges []*gauge
	for _, b := range s.boxes() {
		gauges = append(gauges, &gauge{name: b.name})
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	happened := map[string]int{}
	tick := time.NewTicker(faultEvery)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < *soak; <-tick.C {
		for i, b := range s.boxes() {
			gauges[i].look(b)
		}
		happened[s.fail(rnd)]++
	}
	s.serves(workers)
	got := s.observe(from, w).count()
	t.Logf("%+v after %v", got, happened)
	if got.Lost+got.Twice+got.Failed+got.Reorder > 0 {
		t.Errorf("a promise is broken: %+v", got)
	}
	left := s.leftovers()
	if len(left) > 0 {
		t.Errorf("left over: %s", strings.Join(left, ", "))
	}
	var rows []string
	for _, g := range gauges {
		rows = append(rows, g.row())
	}
	var faults []string
	for _, what := range slices.Sorted(maps.Keys(happened)) {
		faults = append(faults, fmt.Sprintf("%s %d", what, happened[what]))
	}
	publish(t, "soak", fmt.Sprintf("%s; %s of %d jobs in a second, with these faults: %s.\n\n%s\n%s\n\n%s\n%s\n", provenance(), *soak, *rate, strings.Join(faults, ", "),
		"| jobs | lost | ended twice | ended with an error | run again | chunks missing | out of order | left over |\n|---|---|---|---|---|---|---|---|",
		fmt.Sprintf("| %d | %d | %d | %d | %d | %d | %d | %d |", got.Jobs, got.Lost, got.Twice, got.Failed, got.Again, got.Gaps, got.Reorder, len(left)),
		gaugeHead, strings.Join(rows, "\n")))
}

// fail has a part fail for some seconds, and returns what happened.
func (s *site) fail(rnd *rand.Rand) string {
	s.Helper()
	boxes := s.boxes()
	victim := boxes[rnd.IntN(len(boxes))]
	hold := time.Second + time.Duration(rnd.Int64N(int64(6*time.Second)))
	switch rnd.IntN(5) {
	case 0:
		victim.kill()
		time.Sleep(time.Second)
		victim.start()
		return "kill"
	case 1:
		victim.pause()
		time.Sleep(hold)
		victim.unpause()
		return "freeze"
	case 2:
		victim.cut()
		time.Sleep(hold)
		victim.heal()
		return "cut"
	case 3:
		if err := victim.slow(100*time.Millisecond, 2); err != nil {
			s.Logf("no slow link: %v", err)
			return "none, as this kernel slows no links down"
		}
		time.Sleep(hold)
		victim.fast()
		return "slow"
	default:
		victim.stop()
		victim.start()
		return "restart"
	}
}

// leftovers says what is pending though no job is.
func (s *site) leftovers() (left []string) {
	s.Helper()
	st, err := s.js.Stream(s.Context(), broker.StreamJobs)
	if err != nil {
		s.Fatal(err)
	}
	list := st.ListConsumers(s.Context())
	for c := range list.Info() {
		if c.NumAckPending > 0 || c.NumPending > 0 {
			left = append(left, fmt.Sprintf("consumer %s: %d to be acked, %d to be delivered", c.Name, c.NumAckPending, c.NumPending))
		}
	}
	if err := list.Err(); err != nil {
		s.Fatal(err)
	}
	nodes, err := s.api.Nodes(s.Context(), time.Second)
	if err != nil {
		s.Fatal(err)
	}
	for _, n := range nodes {
		if len(n.Running) > 0 {
			left = append(left, fmt.Sprintf("%s runs %d jobs", n.Node, len(n.Running)))
		}
	}
	return left
}
