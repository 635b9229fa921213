package dispatcher

import (
	"strings"
	"testing"
	"time"

	"github.com/vramjet/vramjet/dispatcher/placement"
	"github.com/vramjet/vramjet/schemas"
)

// hosted starts a node with a hosted API, whose jobs cost 1 each.
func (s *system) hosted(model string, slots int) *fakeNode {
	s.Helper()
	n := s.nodeWith("cloud", nil, schemas.Backend{
		Name: "api", Kind: "openai", Healthy: true, Price: schemas.Price{Input: 1, Output: 1},
		Models: []schemas.Model{{Name: model, Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Remote, Slots: slots}},
	})
	n.cost = 1
	return n
}

// eager has jobs overflow that wait at all.
func eager() Config {
	p := placement.DefaultPolicy()
	p.OverflowMS = 1
	return Config{Policy: p, Routes: placement.Routes{"smart": {"m", "gpt"}}}
}

// reason waits until a job waits for a reason that has a text in it.
func (s *system) reason(id, text string) {
	s.Helper()
	var why schemas.Why
	for stop := time.Now().Add(patience); time.Now().Before(stop); time.Sleep(20 * time.Millisecond) {
		why = schemas.Why{}
		s.ask("why", id, &why)
		if strings.Contains(why.Reason+"\n"+strings.Join(why.Why, "\n"), text) {
			return
		}
	}
	s.Fatalf("job %s: %+v, want %q", id, why, text)
}

// TestRoute: jobs of a route go to the first of its models, overflow to a hosted API
// until the budget is used up, which outlives the leader, and names the models that
// they got.
func TestRoute(t *testing.T) {
	s := newSystem(t)
	cfg := eager()
	cfg.Budget = 2
	stop := s.dispatch(cfg)
	own, cloud := s.node("a", nil, "m"), s.hosted("gpt", 2)
	for _, id := range []string{"j0", "j1"} {
		s.submit("smart", id)
		if got := own.next().offer.Header; got.Get(schemas.HeaderModel) != "m" || got.Get(schemas.HeaderFlow) != "vj.v1.jobs.default.normal.smart" {
			t.Errorf("offered %v", got)
		}
	}
	for _, id := range []string{"j2", "j3"} {
		s.submit("smart", id)
		r := cloud.next()
		if got := r.offer.Header.Get(schemas.HeaderModel); r.job() != id || got != "gpt" {
			t.Errorf("job %s got %s", r.job(), got)
		}
		cloud.finish(r)
	}
	s.submit("smart", "j4")
	s.reason("j4", "gpt on cloud/api: is a hosted API, and the budget of the day is used up: 2.00 of 2.00")
	s.reason("j4", "smart stands for m, gpt, and is m now: all 2 slots of m are busy")

	s.submit("gpt", "direct") // who asks for it by its name has no budget
	cloud.finish(cloud.next())

	stop()
	own.kill()
	cfg.UnknownModelWait = time.Millisecond
	s.dispatch(cfg)
	s.reason("j4", "used up: 2.00 of 2.00")
	s.reason("j4", "none of these can serve it now")

	s.submit("smar", "typo")
	if _, err := s.end("typo"); err.Code != schemas.ModelNotFound || !strings.Contains(err.Message, "smart") {
		t.Errorf("a route is not suggested: %v", err)
	}
}

// TestLocalJobsStay: a job that is to stay local waits for a slot of its own fleet, and
// those behind it go on after it.
func TestLocalJobsStay(t *testing.T) {
	s := newSystem(t)
	s.dispatch(eager())
	own, cloud := s.node("a", nil, "m"), s.hosted("gpt", 1)
	own.busyMS = 1000
	s.submit("smart", "j0")
	s.submit("smart", "j1")
	first := own.next()
	own.next()
	s.submit("smart", "secret", schemas.HeaderLocal, "true")
	s.submit("smart", "j3")
	s.reason("secret", "gpt on cloud/api: is a hosted API, and the job is to stay local")
	s.reason("j3", "a job before it must not leave for a hosted API")
	own.finish(first)
	if r := own.next(); r.job() != "secret" {
		t.Errorf("job %s went first", r.job())
	}
	r := cloud.next()
	if r.job() != "j3" {
		t.Errorf("job %s went to the hosted API", r.job())
	}
	cloud.finish(r)

	s.submit("gpt", "only", schemas.HeaderLocal, "true")
	if _, err := s.end("only"); err.Code != schemas.Refused || !strings.Contains(err.Message, "only hosted APIs serve the model gpt") {
		t.Errorf("a local job of a hosted model ended with %v", err)
	}
	s.submit("gpt", "odd", schemas.HeaderLocal, "yes")
	if _, err := s.end("odd"); err.Code != schemas.InvalidRequest || !strings.Contains(err.Message, schemas.HeaderLocal) {
		t.Errorf("a wrong header ended with %v", err)
	}
}

func TestBudgetIsOfTheDay(t *testing.T) {
	d := &Dispatcher{cfg: Config{Budget: 1}, fleet: newFleet()}
	m := &term{Dispatcher: d}
	evening := time.Date(2026, 3, 1, 23, 59, 0, 0, time.UTC)
	m.restoreSpent(spent{"2026-03-01", 0.75}, evening)
	m.restoreSpent(spent{"2026-02-28", 5}, evening) // yesterday's
	if m.spend(0.125, evening); m.spent != (spent{"2026-03-01", 0.875}) {
		t.Errorf("spent %+v", m.spent)
	}
	if m.spend(0.5, evening.Add(time.Minute)); m.spent != (spent{"2026-03-02", 0.5}) {
		t.Errorf("spent %+v on the next day", m.spent)
	}
}
