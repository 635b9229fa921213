package placement

import (
	"testing"

	"github.com/vramjet/vramjet/schemas"
)

// A stage is a device that holds one of two models: qwen is on it since the beginning
// and has two slots, phi is not. Both load in 10 s.
type stage struct {
	*Scheduler
	t *testing.T
}

func newStage(t *testing.T, policy Policy, busy int, others ...*Node) *stage {
	t.Helper()
	slow := func(m *Model) { m.LoadMS = 10_000 }
	f := NewFleet()
	f.Set(gpu("a", 24*gib, 4*gib, with(model("qwen", schemas.Resident, 20*gib, busy), slow), with(model("phi", schemas.Installed, 9*gib, 0), slow)), 0)
	for _, n := range others {
		f.Set(n, 0)
	}
	return &stage{NewScheduler(f, policy, nil), t}
}

// waits has jobs of a class wait for a model since a time.
func (s *stage) waits(model string, class schemas.Class, weight float64, at int64) *Flow {
	f := s.Flow(schemas.Flow{Tenant: model, Class: class, Model: model}, weight)
	s.SetWaiting(f, 5, at)
	return f
}

// gives expects that qwen gives way from a time on, and not before.
func (s *stage) gives(from int64) {
	s.t.Helper()
	qwen := Choice{Node: "a", Backend: "b", Model: "qwen"}
	s.Next(from - 1)
	if s.GivesWay(qwen) {
		s.t.Errorf("it gives way before %d ms", from)
	}
	s.Next(from + 1000) // it is looked at every now and then
	if !s.GivesWay(qwen) {
		s.t.Errorf("it does not give way a second after %d ms", from)
	}
}

// TestResidency is the rules of keepsUntil, one by one.
func TestResidency(t *testing.T) {
	p := DefaultPolicy()
	for name, tt := range map[string]struct {
		qwen, phi schemas.Class
		weight    float64 // of phi's tenant
		since     int64   // phi waits
		from      int64   // qwen gives way
	}{
		"to a more urgent class once it stayed for as long as its load took": {schemas.Batch, schemas.Interactive, 1, 1000, 10_000},
		"inside a class after six loads":                                     {schemas.Normal, schemas.Normal, 1, 20_000, 80_000},
		"after three for a tenant of weight 2":                               {schemas.Normal, schemas.Normal, 2, 20_000, 50_000},
		"to a less urgent class by the longest wait":                         {schemas.Interactive, schemas.Batch, 1, 20_000, 20_000 + 1_800_000 - 10_000},
		"and that is before the lag where it is the shorter":                 {schemas.Interactive, schemas.Interactive, 0.1, 20_000, 20_000 + 120_000 - 10_000},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, p, 2)
			s.waits("qwen", tt.qwen, 1, 0)
			s.waits("phi", tt.phi, tt.weight, tt.since)
			s.gives(tt.from)
		})
	}
}

// TestRecentlyUsed: a model that nobody waits for goes at once, but not for a class
// below one that it served a minute ago.
func TestRecentlyUsed(t *testing.T) {
	for class, want := range map[schemas.Class]bool{schemas.Interactive: true, schemas.Batch: false} {
		s := newStage(t, DefaultPolicy(), 0)
		chat := s.waits("qwen", schemas.Interactive, 1, 20_000)
		s.Serve(chat, Choice{Model: "qwen"}, 20_000)
		s.SetWaiting(chat, 0, 20_000)
		s.waits("phi", class, 1, 30_000)
		if _, c, ok := s.Next(30_000); ok != want || ok && len(c.Evict) != 1 {
			t.Errorf("%s: %+v, %v", class, c, ok)
		}
		if _, c, ok := s.Next(81_000); !ok || len(c.Evict) != 1 {
			t.Errorf("%s, after a minute: %+v, %v", class, c, ok)
		}
	}
}

// TestClaimsEnd: a model stays after all when the job that it gave way for needs it no
// more.
func TestClaimsEnd(t *testing.T) {
	qwen := Choice{Node: "a", Backend: "b", Model: "qwen"}
	for name, end := range map[string]func(*stage, *Flow){
		"nothing waits any more": func(s *stage, f *Flow) { s.SetWaiting(f, 0, 21_000) },
		"a hosted API takes it": func(s *stage, _ *Flow) {
			s.Set(api("h", 1, model("phi", schemas.Remote, 0, 0)), 21_000)
			if _, c, ok := s.Next(21_000); !ok || c.Node != "h" {
				s.t.Errorf("Next = %+v, %v", c, ok)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, DefaultPolicy(), 2)
			s.waits("qwen", schemas.Batch, 1, 0)
			f := s.waits("phi", schemas.Interactive, 1, 20_000)
			s.Next(20_000)
			if !s.GivesWay(qwen) {
				t.Fatal("it does not give way")
			}
			end(s, f)
			if s.GivesWay(qwen) {
				t.Error("it still gives way")
			}
		})
	}
}

// TestClaimsEndWithTheNode: a model of a node that is lost while it gives way is nowhere
// any more, whatever comes of the job that it gave way for.
func TestClaimsEndWithTheNode(t *testing.T) {
	for name, lose := range map[string]func(*stage){
		"the node is gone":       func(s *stage) { s.Remove("a") },
		"it lost all its models": func(s *stage) { s.Set(gpu("a", 24*gib, 24*gib), 21_000) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, DefaultPolicy(), 1)
			s.waits("qwen", schemas.Batch, 1, 0)
			f := s.waits("phi", schemas.Interactive, 1, 20_000)
			s.Next(20_000)
			if !s.GivesWay(Choice{Node: "a", Backend: "b", Model: "qwen"}) {
				t.Fatal("it does not give way")
			}
			lose(s)
			s.SetWaiting(f, 0, 21_000)
			if f, c, ok := s.Next(22_000); ok {
				t.Errorf("a job of %s goes to %+v, which is gone", f.Model, c)
			}
		})
	}
}

// TestInteractiveReserve: jobs of the class batch leave slots free for a minute after an
// interactive job, unless their class has aged.
func TestInteractiveReserve(t *testing.T) {
	p := DefaultPolicy()
	p.InteractiveReserve = 1
	for class, want := range map[schemas.Class]bool{schemas.Interactive: true, schemas.Normal: true, schemas.Batch: false} {
		s := newStage(t, p, 3)
		s.Set(gpu("a", 24*gib, 4*gib, with(model("qwen", schemas.Resident, 20*gib, 3), func(m *Model) { m.Slots = 4 })), 0)
		chat := s.Flow(schemas.Flow{Tenant: "chat", Class: schemas.Interactive, Model: "qwen"}, 1)
		s.SetWaiting(chat, 1, 0)
		_, c, _ := s.Next(0)
		s.Serve(chat, c, 0) // the slot is free again at once
		s.waits("qwen", class, 1, 0)
		if _, _, ok := s.Next(recentMS - 1); ok != want {
			t.Errorf("%s: a slot of four is free: %v", class, ok)
		}
		if _, _, ok := s.Next(recentMS + retryMS(s.pools["qwen"])); !ok {
			t.Errorf("%s: a slot of four is free, and no interactive job came for a minute", class)
		}
	}
	s := newStage(t, p, 1)
	chat := s.Flow(schemas.Flow{Tenant: "chat", Class: schemas.Interactive, Model: "qwen"}, 1)
	s.SetWaiting(chat, 1, 0)
	_, c, _ := s.Next(0)
	s.Serve(chat, c, 0)
	s.waits("qwen", schemas.Batch, 1, 0)
	if _, _, ok := s.Next(0); !ok {
		t.Error("of two slots none is kept")
	}
}
