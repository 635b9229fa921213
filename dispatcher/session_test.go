package dispatcher

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// A pair is two nodes with two slots or so each for the model m, in memory. The dispatcher
// gives the less busy one the next job, and a where both are.
type pair struct {
	*system
	a, b *fakeNode
	at   map[string]*fakeNode // of the jobs that run
	runs map[string]run
}

func newPair(t *testing.T, cfg Config) *pair {
	t.Helper()
	return newPairOf(t, cfg, 2)
}

func newPairOf(t *testing.T, cfg Config, slots int) *pair {
	t.Helper()
	s := newSystem(t)
	backend := schemas.Backend{Name: "sim", Kind: "sim", Healthy: true, Models: []schemas.Model{
		{Name: "m", Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Resident, Slots: slots},
	}}
	p := &pair{system: s, a: s.nodeWith("a", nil, backend), b: s.nodeWith("b", nil, backend), at: map[string]*fakeNode{}, runs: map[string]run{}}
	s.dispatch(cfg)
	return p
}

// wants submits a job and expects it at a node.
func (p *pair) wants(n *fakeNode, subject, id, prompt string, header ...string) {
	p.Helper()
	m := nats.NewMsg(subject)
	m.Data = encode(map[string]any{"messages": []map[string]string{{"role": "user", "content": prompt}}})
	m.Header.Set(schemas.HeaderMsgID, id)
	for i := 0; i < len(header); i += 2 {
		m.Header.Set(header[i], header[i+1])
	}
	if _, err := p.js.PublishMsg(p.Context(), m); err != nil {
		p.Fatal(err)
	}
	var r run
	var got *fakeNode
	select {
	case r = <-p.a.jobs:
		got = p.a
	case r = <-p.b.jobs:
		got = p.b
	case <-time.After(patience):
		p.Fatalf("%s runs nowhere", id)
	}
	if r.job() != id || got != n {
		p.Errorf("%s runs at %s, want %s at %s", r.job(), got.state.Node, id, n.state.Node)
	}
	p.at[id], p.runs[id] = got, r
}

// end ends jobs, or all.
func (p *pair) end(ids ...string) {
	p.Helper()
	if len(ids) == 0 {
		for id := range p.runs {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		p.at[id].finish(p.runs[id])
		if err := p.at[id].nc.Flush(); err != nil {
			p.Fatal(err)
		}
		delete(p.runs, id)
	}
}

const anybody = "vj.v1.jobs.default.normal.m"

func TestSessions(t *testing.T) {
	p := newPair(t, Config{})
	p.wants(p.a, anybody, "s1", "hi", schemas.HeaderSession, "s")
	p.wants(p.a, anybody, "s2", "hi", schemas.HeaderSession, "s") // b has no job
	p.wants(p.b, anybody, "s3", "hi", schemas.HeaderSession, "s") // a is full
	p.end()
	p.wants(p.b, anybody, "s4", "hi", schemas.HeaderSession, "s") // it ran there last
	p.wants(p.a, anybody, "x1", "hi")
	p.wants(p.a, "vj.v1.jobs.other.normal.m", "o1", "hi", schemas.HeaderSession, "s") // of another tenant, first come: a and b have one job each
	p.end()
	p.b.kill()
	p.wants(p.a, anybody, "s5", "hi", schemas.HeaderSession, "s")
}

// What many prompts begin with decides between places that are as busy, and crowds
// none of them.
func TestPrompts(t *testing.T) {
	p := newPair(t, Config{})
	common := strings.Repeat("You are a helpful assistant. ", 100)
	p.wants(p.a, anybody, "x1", "hi")
	p.wants(p.b, anybody, "p1", common+"What is love?")
	p.end()
	p.wants(p.b, anybody, "p2", common+"Why?") // both are idle
	p.wants(p.a, anybody, "p3", common+"How?") // b is not
	p.wants(p.a, anybody, "p4", common+"Who?") // it ran there last
	p.end()
	p.wants(p.a, anybody, "x2", "hi")
	p.end()
	p.wants(p.a, anybody, "p5", common+"Where?")
}

// A slot that is kept for others is not taken for a session.
func TestSessionsKeepTheReserve(t *testing.T) {
	policy := placement.DefaultPolicy()
	policy.InteractiveReserve = 1
	p := newPairOf(t, Config{Policy: policy}, 4)
	const batch = "vj.v1.jobs.default.batch.m"
	p.wants(p.a, "vj.v1.jobs.default.interactive.m", "i1", "hi")
	p.end("i1")
	for _, id := range []string{"s1", "s2", "s3"} {
		p.wants(p.a, batch, id, "hi", schemas.HeaderSession, "s")
	}
	p.wants(p.b, batch, "s4", "hi", schemas.HeaderSession, "s")
}

// TestNoSlotIsTakenThatIsNone: a session moves to no place that could not take the
// job now.
func TestNoSlotIsTakenThatIsNone(t *testing.T) {
	model := func(slots int) schemas.Model {
		return schemas.Model{Name: "m", Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Resident, Slots: slots}
	}
	for name, c := range map[string]struct {
		change func(s *schemas.NodeState)
		then   func(f *fleet, now time.Time)
		avoid  []string
		load   bool // the job was to have its model loaded
		moves  bool
	}{
		"as it is":          {moves: true},
		"draining":          {change: func(s *schemas.NodeState) { s.Draining = true }},
		"ill":               {change: func(s *schemas.NodeState) { s.Backends[0].Healthy = false }},
		"not in memory":     {change: func(s *schemas.NodeState) { s.Backends[0].Models[0].State = schemas.Installed }},
		"loading":           {change: func(s *schemas.NodeState) { s.Backends[0].Models[0].State = schemas.Loading }},
		"busy with others":  {change: func(s *schemas.NodeState) { s.Backends[0].Models[0].Busy = 2 }},
		"with a slot left":  {change: func(s *schemas.NodeState) { s.Backends[0].Models[0].Busy = 1 }, moves: true},
		"dearer":            {change: func(s *schemas.NodeState) { s.Backends[0].Price.Input = 1 }},
		"another kind":      {change: func(s *schemas.NodeState) { s.Backends[0].Models[0].Kinds = []schemas.Kind{schemas.Completion} }},
		"another backend":   {change: func(s *schemas.NodeState) { s.Backends[0].Name = "y" }},
		"instead of a load": {load: true},
		"failed the job":    {avoid: []string{"b/x"}},
		"turned a job away": {then: func(f *fleet, now time.Time) { f.rest(placement.Choice{Node: "b", Backend: "x", Model: "m"}, now) }},
		"silent":            {then: func(f *fleet, now time.Time) { f.silent(now.Add(5*time.Second), silentAfter, time.Second) }},
		"gone":              {then: func(f *fleet, now time.Time) { f.forget("b", now) }},
		"promised":          {then: func(f *fleet, now time.Time) { promiseTwice(f, now) }},
		"to be unloaded": {then: func(f *fleet, now time.Time) {
			f.promise(placement.Choice{Node: "b", Backend: "x", Model: "n", Load: true, Evict: []schemas.Victim{{Backend: "x", Model: "m"}}}, now)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			now, f := time.Now(), newFleet()
			for _, id := range []string{"a", "b"} {
				s := &schemas.NodeState{Node: id, Boot: "1", Seq: 1, Backends: []schemas.Backend{{
					Name: "x", Healthy: true, Loads: true,
					Models: []schemas.Model{model(2), {Name: "n", State: schemas.Installed, Slots: 1}},
				}}}
				if id == "a" && c.load {
					s.Backends[0].Models[0].State = schemas.Installed
				}
				if id == "b" && c.change != nil {
					c.change(s)
				}
				f.observe(s, now)
			}
			j := &job{Job: readJob(t, `{"messages":[{"role":"user","content":"hi"}]}`, "s", "t"), avoid: c.avoid}
			j.flow = &flow{Flow: f.place.Flow(j.Flow, 1), fleet: f}
			j.prefixes = prefixKeys(j.Job)
			j.promise = f.promise(placement.Choice{Node: "a", Backend: "x", Model: "m", Load: c.load}, now)
			f.prefixes.ran("m", j.prefixes, "b/x")
			if c.then != nil {
				c.then(f, now)
			}
			term := &term{Dispatcher: &Dispatcher{fleet: f}}
			term.nearCache(j, now)
			if got, want := j.promise.choice.Place(), map[bool]string{true: "b/x", false: "a/x"}[c.moves]; got != want {
				t.Errorf("the job goes to %s, want %s", got, want)
			}
			if n := len(f.nodes["a"].promises); (n == 0) != c.moves {
				t.Errorf("a holds %d promises", n)
			}
		})
	}
}

func promiseTwice(f *fleet, now time.Time) {
	for range 2 {
		f.promise(placement.Choice{Node: "b", Backend: "x", Model: "m"}, now)
	}
}
