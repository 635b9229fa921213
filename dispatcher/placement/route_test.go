package placement

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/vramjet/vramjet/schemas"
)

// smart is a route that prefers a model of one's own.
var smart = Routes{"smart": {"phi", "gpt"}}

// A desk has jobs wait for smart.
type desk struct {
	*Scheduler
	flow *Flow
}

// newDesk has jobs wait that take a second each.
func newDesk(policy Policy, jobs int, nodes ...*Node) *desk {
	f := NewFleet()
	for _, n := range nodes {
		f.Set(n, 0)
	}
	d := &desk{Scheduler: NewScheduler(f, policy, smart)}
	d.flow = d.Flow(schemas.Flow{Tenant: "t", Class: schemas.Normal, Model: "smart"}, 1)
	d.Next(0) // it is known which model it waits for
	d.Done(d.flow, d.flow.pool.name, 1, 1)
	d.Arrive(d.flow, jobs, 0)
	return d
}

// serves lists which models jobs are given to until none can begin.
func (d *desk) serves(now int64) (models []string) {
	for {
		f, c, ok := d.Next(now)
		if !ok {
			return models
		}
		d.Serve(f, c, now)
		d.AddBusy(c, 1)
		models = append(models, c.Model)
	}
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func phiAt(node string, busy int) *Node {
	return gpu(node, 24*gib, 2*gib, model("phi", schemas.Resident, 20*gib, busy))
}

func gptAt(cost float64, busy int) *Node {
	return api("cloud", cost, with(model("gpt", schemas.Remote, 0, busy), func(m *Model) { m.Slots = 4 }))
}

// TestRouteOverflows: as much goes to the hosted API as would wait for more than 30 s.
func TestRouteOverflows(t *testing.T) {
	// Two slots: 60 jobs are done in 30 s. Two begin at once, and two leave.
	d := newDesk(DefaultPolicy(), 64, phiAt("a", 0), gptAt(1, 0))
	expect(t, d.serves(300), "phi", "phi", "gpt", "gpt")

	// What it costs is not charged to the tenant's share of the other model.
	tag := d.flow.tag
	d.SetWaiting(d.flow, 62, 1)
	expect(t, d.serves(1000), "gpt", "gpt")
	if d.flow.tag != tag {
		t.Errorf("its next turn was at %v, and is at %v", tag, d.flow.tag)
	}

	// Nor does it wait for anything.
	policy := DefaultPolicy()
	policy.OverflowMS = 0
	d = newDesk(policy, 1000, phiAt("a", 0), gptAt(1, 0))
	expect(t, d.serves(300), "phi", "phi")
}

// TestRouteOverflowsLast: jobs that ask for the model itself come before those that
// overflow to it, and those of more urgent classes before others.
func TestRouteOverflowsLast(t *testing.T) {
	d := newDesk(DefaultPolicy(), 100, phiAt("a", 2), gptAt(1, 2))
	gpt := d.Flow(schemas.Flow{Tenant: "t", Class: schemas.Batch, Model: "gpt"}, 1)
	d.Arrive(gpt, 1, 0)
	urgent := d.Flow(schemas.Flow{Tenant: "t", Class: schemas.Interactive, Model: "smart"}, 1)
	d.Arrive(urgent, 100, 0)
	d.serves(300)
	if gpt.Waiting() != 0 || urgent.Waiting() != 99 || d.flow.Waiting() != 100 {
		t.Errorf("%d, %d and %d wait", gpt.Waiting(), urgent.Waiting(), d.flow.Waiting())
	}
}

// TestRouteFallsBack: a flow waits for the first model that could serve it.
func TestRouteFallsBack(t *testing.T) {
	tooLarge := gpu("small", 8*gib, 7*gib, model("phi", schemas.Installed, 20*gib, 0))
	d := newDesk(DefaultPolicy(), 1, tooLarge, gptAt(1, 0))
	expect(t, d.serves(300), "gpt")

	drained := phiAt("a", 0)
	drained.Closed = "is draining"
	d = newDesk(DefaultPolicy(), 4, drained, gptAt(1, 3))
	expect(t, d.serves(300), "gpt")
	d.Set(phiAt("a", 0), 900)
	expect(t, d.serves(900), "phi", "phi") // it takes jobs again

	// Who was ahead of its share of one model is so of the other, and as long waiting.
	d = newDesk(DefaultPolicy(), 4, phiAt("a", 0), gptAt(1, 4))
	expect(t, d.serves(300), "phi", "phi")
	lead, since := d.Lead(d.flow), d.flow.since
	d.Remove("a")
	d.pools["gpt"].lanes[schemas.Normal.Rank()].clock = 1000
	expect(t, d.serves(900))
	if d.flow.pool.name != "gpt" || d.Lead(d.flow) != lead || lead <= 0 || d.flow.since != since {
		t.Errorf("it waits for %s, %v ahead since %d; was %v since %d", d.flow.pool.name, d.Lead(d.flow), d.flow.since, lead, since)
	}

	// What a node makes room for is waited for.
	full := gpu("a", 24*gib, 2*gib, model("qwen", schemas.Resident, 20*gib, 2), model("phi", schemas.Installed, 20*gib, 0))
	d = newDesk(DefaultPolicy(), 1, full, gptAt(1, 0))
	d.Arrive(d.Flow(schemas.Flow{Tenant: "u", Class: schemas.Normal, Model: "qwen"}, 1), 1, 0)
	expect(t, d.serves(300))
	expect(t, d.serves(28_000))
	expect(t, d.serves(30_000), "gpt") // which takes longer than it should

	// Nobody has either.
	d = newDesk(DefaultPolicy(), 1)
	expect(t, d.serves(300))
	if d.Serves(Ask{Model: "smart"}) || len(d.Models()) != 0 {
		t.Error("a route without nodes is served")
	}
	d.Set(gptAt(1, 0), 600)
	expect(t, d.serves(600), "gpt")
	expect(t, d.Models(), "gpt", "smart")
}

// TestRouteWithinBudget: a spent budget keeps routes from what costs, and nothing else.
func TestRouteWithinBudget(t *testing.T) {
	d := newDesk(DefaultPolicy(), 100, phiAt("a", 2), gptAt(1, 3))
	d.SetSpent("the budget is used up")
	expect(t, d.serves(300))
	direct := d.Flow(schemas.Flow{Tenant: "t", Class: schemas.Normal, Model: "gpt"}, 1)
	d.Arrive(direct, 1, 300)
	expect(t, d.serves(600), "gpt")
	d.SetSpent("")
	d.Set(gptAt(1, 3), 900)
	expect(t, d.serves(900), "gpt")

	d = newDesk(DefaultPolicy(), 100, phiAt("a", 2), gptAt(0, 3)) // costs nothing
	d.SetSpent("the budget is used up")
	expect(t, d.serves(300), "gpt")

	// A flow that only a hosted API could serve keeps nobody from it.
	d = newDesk(DefaultPolicy(), 100, gptAt(1, 3))
	d.SetSpent("the budget is used up")
	expect(t, d.serves(300))
	direct = d.Flow(schemas.Flow{Tenant: "u", Class: schemas.Batch, Model: "gpt"}, 1)
	d.Arrive(direct, 1, 600)
	expect(t, d.serves(600), "gpt")
}

// TestRouteOfParkedJobs: a job that was fetched and turned away goes where the route
// lets it.
func TestRouteOfParkedJobs(t *testing.T) {
	d := newDesk(DefaultPolicy(), 0, phiAt("a", 1), gptAt(1, 0))
	ask := Ask{Model: "smart", Kind: schemas.Chat, Flow: d.flow}
	for name, tt := range map[string]struct {
		ask     func(*Ask)
		waiting int
		want    string
	}{
		"to the first":                        {func(*Ask) {}, 0, "phi"},
		"away from what failed it, not yet":   {func(a *Ask) { a.Avoid = []string{"a/b"} }, 0, ""},
		"away from what failed it, overflows": {func(a *Ask) { a.Avoid = []string{"a/b"} }, 100, "gpt"},
		"not to a hosted API":                 {func(a *Ask) { a.Avoid, a.Local = []string{"a/b"}, true }, 100, ""},
		"nowhere for its kind":                {func(a *Ask) { a.Kind = schemas.Embedding }, 100, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := ask
			tt.ask(&a)
			d.SetWaiting(d.flow, tt.waiting, 0)
			c, ok := d.Choose(a, 1)
			if c.Model != tt.want || ok != (tt.want != "") {
				t.Errorf("%+v, %v", c, ok)
			}
			if cost := d.Charge(d.flow, c); (cost > 0) != (tt.want == "phi") {
				t.Errorf("charged %v", cost)
			}
		})
	}
	if d.Takes(Choice{Node: "cloud", Backend: "api", Model: "gpt"}, Ask{Local: true}) || !d.Takes(Choice{Node: "a", Backend: "b", Model: "phi"}, Ask{Local: true}) {
		t.Error("local jobs are kept from what is local, or not from what is hosted")
	}
}

// TestRouteIsConserving: whatever comes and goes, a job of a route does not wait while
// the model it waits for has a slot, and the counts stay right.
func TestRouteIsConserving(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		d := newDesk(DefaultPolicy(), 0, phiAt("a", 0), phiAt("b", 0), gptAt(1, 0))
		waiting, busy := 0, map[string]int{}
		for now := int64(1000); now < 60_000; now += rapid.Int64Range(1, 2000).Draw(r, "ms") {
			switch rapid.IntRange(0, 4).Draw(r, "what") {
			case 0:
				n := rapid.IntRange(1, 50).Draw(r, "jobs")
				d.Arrive(d.flow, n, now)
				waiting += n
			case 1:
				for place, n := range busy {
					if n > 0 {
						d.AddBusy(Choice{Node: place, Backend: "b", Model: "phi"}, -1)
						busy[place]--
					}
				}
			case 2:
				d.Remove("b")
				busy["b"] = 0
			case 3:
				n := phiAt("b", busy["b"])
				d.Set(n, now)
			case 4:
				d.SetSpent(rapid.SampledFrom([]string{"", "spent"}).Draw(r, "spent"))
			}
			for {
				f, c, ok := d.Next(now)
				if !ok {
					break
				}
				d.Serve(f, c, now)
				d.AddBusy(c, 1)
				waiting--
				if c.Model == "phi" {
					busy[c.Node]++
				}
			}
			if d.flow.Waiting() != waiting || d.flow.pool.waiting != waiting {
				r.Fatalf("%d wait, %d of the model; there are %d", d.flow.Waiting(), d.flow.pool.waiting, waiting)
			}
			if waiting > 0 && busy["a"] < 2 {
				r.Fatalf("%d wait, and %d of 2 slots are busy", waiting, busy["a"])
			}
		}
	})
}
