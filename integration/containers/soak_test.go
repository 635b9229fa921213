package containers

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
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

// A sample is what a process has at a time.
type sample struct{ mib, files, goroutines int }

// A gauge is what was seen of a process over a soak.
type gauge struct {
	*box
	rest, after sample   // without jobs, before and after
	busy        []sample // while faults happened; none while it was down
}

// look takes a sample of a container that runs. Its memory and files are seen where
// Docker is on this machine.
func (g *gauge) look() (s sample, ok bool) {
	state, err := g.State(g.Context())
	if err != nil || !state.Running || state.Pid == 0 {
		return s, false // it's being killed
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", state.Pid))
	if err != nil {
		return s, false
	}
	for line := range bytes.Lines(status) {
		var kib int
		if _, err := fmt.Sscanf(string(line), "VmRSS: %d kB", &kib); err == nil {
			s.mib = kib >> 10
		}
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", state.Pid))
	if err != nil {
		return s, false
	}
	s.files = len(files)
	s.goroutines, err = g.goroutines()
	return s, err == nil
}

// goroutines asks the process how many it has: a NATS server for its profile, whatever
// else for its metrics.
func (g *gauge) goroutines() (int, error) {
	ip, err := g.ContainerIP(g.Context())
	if err != nil {
		return 0, err
	}
	url, form := "http://"+ip+":7433/metrics", "go_goroutines %d"
	if strings.HasPrefix(g.name, "nats") {
		url, form = "http://"+ip+":8223/debug/pprof/goroutine?debug=1", "goroutine profile: total %d"
	}
	resp, err := (&http.Client{Timeout: 2 * time.Second}).Get(url)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		var n int
		if _, err := fmt.Sscanf(lines.Text(), form, &n); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%s has no %q", url, form)
}

// slack is how many more files and goroutines a process may have afterwards: of
// connections that were made again meanwhile, to another server.
const slack = 15

// unsettled says which processes have more than before the jobs came. The NATS servers
// count as one: the lead of each stream and consumer has goroutines of its own, as have
// connections, and they are elsewhere after each fault.
func (s *site) unsettled(gauges []*gauge) (left []string) {
	var rest, after sample
	for _, g := range gauges {
		if g.box == s.client {
			continue
		}
		now, ok := g.look()
		if ok {
			g.after = now
		}
		if strings.HasPrefix(g.name, "nats") {
			rest, after = rest.plus(g.rest), after.plus(g.after)
		}
		if !ok || g.after.exceeds(g.rest) && !strings.HasPrefix(g.name, "nats") {
			left = append(left, fmt.Sprintf("%s: files and goroutines: %+v, before %+v", g.name, g.after, g.rest))
		}
	}
	if after.exceeds(rest) {
		left = append(left, fmt.Sprintf("the NATS servers: files and goroutines: %+v, before %+v", after, rest))
	}
	return left
}

func (s sample) plus(t sample) sample {
	return sample{s.mib + t.mib, s.files + t.files, s.goroutines + t.goroutines}
}

// exceeds reports whether a process has more than it had.
func (s sample) exceeds(before sample) bool {
	return s.files > before.files+slack || s.goroutines > before.goroutines+slack
}

// flat says whether its memory did not grow by half in the second half.
func (g *gauge) flat() bool {
	if len(g.busy) < 20 {
		return true // there's no second half to speak of
	}
	return most(g.busy[len(g.busy)/2:], memory) <= most(g.busy[:len(g.busy)/2], memory)*3/2+16
}

func memory(s sample) int     { return s.mib }
func files(s sample) int      { return s.files }
func goroutines(s sample) int { return s.goroutines }

// most returns the most that was seen of something.
func most(samples []sample, of func(sample) int) (highest int) {
	for _, s := range samples {
		highest = max(highest, of(s))
	}
	return highest
}

// row is a line of the table.
func (g *gauge) row() string {
	row := "| " + g.name
	half := len(g.busy) / 2
	for _, of := range []func(sample) int{memory, files, goroutines} {
		row += fmt.Sprintf(" | %d | %d | %d", of(g.rest), most(g.busy[:half], of), most(g.busy[half:], of))
		if g.after == (sample{}) {
			row += " | -" // it does not run without jobs
		} else {
			row += fmt.Sprintf(" | %d", of(g.after))
		}
	}
	return row + " |"
}

const gaugeHead = `| process | MiB before | first half, at most | second half | after | open files before | first half | second half | after | goroutines before | first half | second half | after |
|---|---|---|---|---|---|---|---|---|---|---|---|---|`

// consumers are how many each stream has.
type consumers map[string]int

func (s *site) consumers() (n consumers) {
	s.Helper()
	within(s, patience, "an answer of JetStream", func() bool {
		n = consumers{}
		list := s.js.ListStreams(s.Context())
		for st := range list.Info() {
			n[st.Config.Name] = st.State.Consumers
		}
		return list.Err() == nil
	})
	return n
}

func (c consumers) String() string {
	var parts []string
	for _, stream := range slices.Sorted(maps.Keys(c)) {
		parts = append(parts, fmt.Sprintf("%s %d", stream, c[stream]))
	}
	return strings.Join(parts, ", ")
}

// warmUp has jobs run for a while, so that all is there that stays, and returns how many
// consumers there are without any.
func (s *site) warmUp() (n consumers) {
	s.Helper()
	s.client.start()
	time.Sleep(10 * time.Second)
	s.quiet()
	for last := time.Now(); time.Since(last) < 15*time.Second; time.Sleep(time.Second) {
		if now := s.consumers(); !maps.Equal(now, n) {
			n, last = now, time.Now()
		}
	}
	return n
}

// TestSoak: every 10 s another part fails in another way, for as long as -soak says, and
// in the end every job has ended once and nothing is left.
func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("takes as long as -soak says")
	}
	s := newSite(t, *rate)
	canCut(s.nats[0])
	before := s.warmUp()
	var gauges []*gauge
	for _, b := range s.boxes() {
		g := &gauge{box: b}
		g.rest, _ = g.look()
		gauges = append(gauges, g)
	}
	w := s.listen()
	from := s.position()
	s.client.start()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	happened := map[string]int{}
	tick := time.NewTicker(faultEvery)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < *soak; <-tick.C {
		for _, g := range gauges {
			if seen, ok := g.look(); ok {
				g.busy = append(g.busy, seen)
			}
		}
		happened[s.fail(rnd)]++
	}
	s.serves(workers)
	s.quiet()
	after := s.settle(gauges, before)
	seen := s.observe(from, w)
	got := seen.count()
	t.Logf("%+v after %v", got, happened)
	if got.Lost+got.Twice+got.Misread > 0 {
		t.Errorf("a promise is broken: %+v", got)
	}
	for _, f := range seen.failures() { // a job that took three nodes with it may
		t.Log(f)
	}
	left := append(s.leftovers(), s.unsettled(gauges)...)
	for _, g := range gauges {
		if !strings.HasPrefix(g.name, "nats") && !g.flat() { // a NATS server keeps an index of what is stored
			t.Errorf("the memory of %s grows: %+v", g.name, g.busy)
		}
	}
	if !maps.Equal(after, before) {
		left = append(left, fmt.Sprintf("consumers: %s; before: %s", after, before))
		for stream, n := range after {
			if n != before[stream] {
				s.describe(stream)
			}
		}
	}
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
	publish(t, "soak", fmt.Sprintf("%s; %s of %d jobs in a second, with these faults: %s. Consumers of each stream before: %s; after: %s.\n\n%s\n%s\n\n%s\n%s\n", provenance(),
		*soak, *rate, strings.Join(faults, ", "), before, after,
		"| jobs | chunks | lost | ended twice | ended with an error | run again | chunks missing | out of order | misread | left over |\n|---|---|---|---|---|---|---|---|---|---|",
		fmt.Sprintf("| %d | %d | %d | %d | %d | %d | %d | %d | %d | %d |", got.Jobs, got.Chunks, got.Lost, got.Twice, got.Failed, got.Again, got.Gaps, got.Reorder, got.Misread, len(left)),
		gaugeHead, strings.Join(rows, "\n")))
}

// describe says which consumers a stream has.
func (s *site) describe(stream string) {
	s.Helper()
	st, err := s.js.Stream(s.Context(), stream)
	if err != nil {
		s.Error(err)
		return
	}
	list := st.ListConsumers(s.Context())
	for c := range list.Info() {
		s.Logf("%s has %+v", stream, *c)
	}
	if err := list.Err(); err != nil {
		s.Error(err)
	}
}

// settle waits until what the jobs took is given back, connections that idle as well,
// and returns how many consumers there are then. A cluster that could not agree to remove
// one that nobody reads tries again after 30 s, and then at ever longer intervals.
func (s *site) settle(gauges []*gauge, before consumers) (now consumers) {
	for end := time.Now().Add(6 * patience); time.Now().Before(end); time.Sleep(time.Second) {
		now = s.consumers()
		if maps.Equal(now, before) && len(s.unsettled(gauges)) == 0 {
			break
		}
	}
	return now
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
