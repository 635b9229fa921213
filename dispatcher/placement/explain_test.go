package placement

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/schemas"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestExplain shows what a user is told in the situations that are usual.
func TestExplain(t *testing.T) {
	const now = 300_000
	phi := func(state schemas.ModelState, busy int) Model {
		return with(model("phi", state, 9*gib, busy), func(m *Model) { m.LoadMS = 12_000 })
	}
	qwen := func(busy int) Model {
		return with(model("qwen", schemas.Resident, 20*gib, busy), func(m *Model) { m.LoadMS = 20_000 })
	}
	key := func(tenant string, class schemas.Class, model string) schemas.Flow {
		return schemas.Flow{Tenant: tenant, Class: class, Model: model}
	}
	// asks has a job of a flow be the last of so many that wait for 8 s already.
	asks := func(s *Scheduler, tenant string, class schemas.Class, jobs int) (*Scheduler, Ask) {
		f := s.Flow(key(tenant, class, "phi"), 1)
		s.Done(f, "phi", 4, 4)
		s.Arrive(f, jobs, now-8000)
		return s, Ask{Model: "phi", Flow: f}
	}
	// uses has jobs of a class wait for qwen since it was loaded.
	uses := func(s *Scheduler, class schemas.Class, jobs int) *Scheduler {
		f := s.Flow(key("others", class, "qwen"), 1)
		s.Arrive(f, jobs, now-8000)
		return s
	}
	full := func() *Node { return gpu("gpu-1", 24*gib, 2*gib, qwen(2), phi(schemas.Installed, 0)) }

	var out strings.Builder
	var ran []int64
	show := func(what string, s *Scheduler, ask Ask, before int) {
		x := s.Explain(ask, before, func(string) []int64 { return ran }, now)
		fmt.Fprintf(&out, "# %s\n%s\n", what, x.Reason)
		for _, p := range x.Places {
			fmt.Fprintf(&out, "  %s\n", p)
		}
		eta := "?"
		if x.ETAMS >= 0 {
			eta = duration(x.ETAMS)
		}
		fmt.Fprintf(&out, "next: %s\neta: %s\n", x.Next, eta)
		for _, f := range x.Fix {
			fmt.Fprintf(&out, "fix: %s\n", f)
		}
		fmt.Fprintln(&out)
	}

	s, ask := asks(fleetOf(gpu("gpu-1", 24*gib, 2*gib, phi(schemas.Resident, 2)), gpu("gpu-2", 24*gib, 2*gib, phi(schemas.Resident, 2))), "acme", schemas.Normal, 37)
	show("all slots are busy, and its own jobs are before it", s, ask, 36)

	ran = []int64{60_000, 60_000, 60_000, 60_000}
	show("the same, and those that run have taken fifteen times as long as others", s, ask, 0)
	ran = []int64{60_000, 60_000, 60_000, 3000}
	show("the same, and one of them is nearly done", s, ask, 0)
	ran = nil

	s, ask = asks(s, "beta", schemas.Normal, 5)
	show("another tenant waits as well", s, ask, 4)

	s, ask = asks(s, "acme", schemas.Batch, 100)
	show("more urgent classes wait", s, ask, 10)

	s, ask = asks(fleetOf(gpu("gpu-1", 24*gib, 2*gib, phi(schemas.Resident, 2))), "acme", schemas.Normal, 5)
	ask.Flow.pool.seconds = 0
	show("nobody knows yet how long its jobs take", s, ask, 4)

	s, ask = asks(fleetOf(gpu("gpu-1", 24*gib, 2*gib, with(phi(schemas.Resident, 3), func(m *Model) { m.Slots = 4 }))), "acme", schemas.Batch, 100)
	chat := s.Flow(key("acme", schemas.Interactive, "phi"), 1)
	s.Arrive(chat, 1, now-9000)
	s.Serve(chat, Choice{Node: "gpu-1", Backend: "b", Model: "phi"}, now-8000)
	show("a slot is kept for interactive jobs, one of which came a minute ago", s, ask, 10)

	s, ask = asks(fleetOf(full()), "acme", schemas.Normal, 1)
	show("its model has no place, and the one that has it is busy", uses(s, schemas.Normal, 6), ask, 0)

	s, ask = asks(fleetOf(full()), "acme", schemas.Batch, 1)
	show("the model that has the place serves a more urgent class", uses(s, schemas.Interactive, 6), ask, 0)

	s, ask = asks(fleetOf(full()), "acme", schemas.Interactive, 1)
	s = uses(s, schemas.Batch, 6)
	s.Next(now)
	show("a model gives way to it", s, ask, 0)

	s, ask = asks(fleetOf(gpu("gpu-1", 24*gib, 2*gib, phi(schemas.Loading, 2))), "acme", schemas.Normal, 2)
	show("its model is being loaded, and all that it will have is taken", s, ask, 1)

	s, ask = asks(fleetOf(gpu("gpu-1", 8*gib, 7*gib, phi(schemas.Installed, 0))), "acme", schemas.Normal, 1)
	show("it fits nowhere", s, ask, 0)

	s, ask = asks(fleetOf(gpu("gpu-1", 24*gib, 2*gib, with(qwen(0), func(m *Model) { m.Pinned = true }), phi(schemas.Installed, 0))), "acme", schemas.Normal, 1)
	show("a pinned model has the memory", s, ask, 0)

	drained, down := gpu("gpu-1", 24*gib, 20*gib, phi(schemas.Installed, 0)), gpu("gpu-2", 24*gib, 2*gib, phi(schemas.Resident, 0))
	drained.Closed, down.Backends[0].Closed = "is draining", "the backend takes no jobs: connection refused"
	s, ask = asks(fleetOf(drained, down), "acme", schemas.Normal, 1)
	show("one node is drained, and the backend of the other is down", s, ask, 0)

	s, ask = asks(fleetOf(), "acme", schemas.Normal, 1)
	show("nobody has the model", s, ask, 0)

	s, ask = asks(fleetOf(gpu("gpu-1", 24*gib, 2*gib, phi(schemas.Resident, 0))), "acme", schemas.Normal, 1)
	s.Pause(ask.Flow, "too many flows are served at once: it has its turn soon", now)
	show("its flow is paused", s, ask, 0)

	hosted := func(busy int) *Node { return api("cloud", 1, model("gpt", schemas.Remote, 0, busy)) }
	routed := func(nodes ...*Node) (*Scheduler, Ask) {
		d := newDesk(DefaultPolicy(), 0, nodes...)
		d.Arrive(d.flow, 10, now-8000)
		return d.Scheduler, Ask{Model: "smart", Flow: d.flow}
	}
	s, ask = routed(gpu("gpu-1", 24*gib, 2*gib, phi(schemas.Resident, 2)), hosted(2))
	show("it asks for a route, whose hosted API is full as well", s, ask, 9)

	s, ask = routed(gpu("gpu-1", 24*gib, 2*gib, phi(schemas.Resident, 2)), hosted(0))
	show("it asks for a route, and does not wait long enough to overflow", s, ask, 9)

	s, ask = routed(hosted(0))
	s.SetSpent("is a hosted API, and the budget of the day is used up")
	s.Next(now)
	show("it asks for a route, and only the hosted API is left, whose budget is used up", s, ask, 9)

	file := filepath.Join("testdata", "explain.txt")
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if s := slices.Compact(strings.Split(out.String(), "# ")); len(s) < 11 {
		t.Errorf("%d situations, want ten at least", len(s)-1)
	}
}

// TestTurnIn: a turn comes when it does where each slot takes the next job as it is free,
// give or take what a job takes.
func TestTurnIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		each := float64(rapid.IntRange(1, 1000).Draw(t, "each"))
		n := rapid.IntRange(1, 50).Draw(t, "n")
		ran := rapid.SliceOfN(rapid.Int64Range(0, 5000), 0, 8).Draw(t, "ran")
		left := remaining(ran, each, rapid.IntRange(1, 8).Draw(t, "slots"))
		got := turnIn(left, each, float64(n))
		free, want := slices.Clone(left), 0.0
		for range n {
			slices.Sort(free)
			want = free[0]
			free[0] += each
		}
		if got < want-each || got > want+each {
			t.Errorf("turn %d in %g ms, want %g: slots are free after %v, jobs take %g", n, got, want, left, each)
		}
	})
}
